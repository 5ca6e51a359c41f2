import math

import numpy as np
import pytest

from diffcodec.training.stability import FIRST_STEPS, WINDOW_STEPS, SpikeDetector


def detector(losses: list[float], deviations: float = 10.0) -> SpikeDetector:
    made = SpikeDetector(deviations)
    for loss in losses:
        made.accept(loss)
    return made


def noisy(count: int, mean: float = 5.0, spread: float = 1.0) -> list[float]:
    return list(mean + spread * np.random.default_rng(0).standard_normal(count))


def test_limit_is_deviations_above_the_median() -> None:
    # Of normal losses the robust deviation is their standard deviation.
    losses = np.random.default_rng(1).standard_normal(WINDOW_STEPS) + 5.0
    assert detector(list(losses)).limit() == pytest.approx(15.0, abs=2.0)
    # A few wild ones among them do not move it far.
    losses[:5] = 1e6
    assert detector(list(losses)).limit() == pytest.approx(15.0, abs=2.5)


def test_even_losses_are_given_room() -> None:
    # 5 % of the median is the smallest deviation: ten of them are half of it.
    assert detector([4.0] * FIRST_STEPS).limit() == pytest.approx(6.0)
    assert detector([-4.0] * FIRST_STEPS).limit() == pytest.approx(-2.0)


def test_objections() -> None:
    judge = detector(noisy(100))
    assert judge.objection(6.0, 1.0) is None
    assert judge.objection(6.0, 1e9) is None
    assert judge.objection(-1e9, 1.0) is None
    objection = judge.objection(60.0, 1.0)
    assert objection is not None
    assert objection.startswith("the loss is 60, a spike above ")
    for loss, norm in ((math.nan, 1.0), (1.0, math.inf), (-math.inf, 1.0)):
        objection = judge.objection(loss, norm)
        assert objection == f"the loss is {loss} and the norm of its gradient {norm}"


def test_nothing_is_a_spike_at_first_or_without_the_rule() -> None:
    assert detector(noisy(FIRST_STEPS - 1)).limit() == math.inf
    assert detector(noisy(FIRST_STEPS)).limit() < math.inf
    off = detector(noisy(100), deviations=0.0)
    assert off.objection(1e9, 1e9) is None
    assert off.recent == []
    assert off.objection(math.nan, 0.0) is not None


def test_old_losses_are_forgotten_and_recent_ones_handed_on() -> None:
    judge = detector([100.0] * WINDOW_STEPS + [4.0] * WINDOW_STEPS)
    assert judge.limit() == pytest.approx(6.0)
    again = SpikeDetector(10.0, judge.recent)
    assert again.recent == judge.recent
    assert again.limit() == judge.limit()
