from typing import Any

import numpy as np
import pytest

from diffcodec.diffusion.schedule import (
    SCHEDULES,
    Schedule,
    ScheduleConfig,
    make_schedule,
    time_ends,
)

TABLE = tuple(float(gamma) for gamma in -13.0 + 18.5 * np.linspace(0, 1, 1001) ** 1.3)


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    table = TABLE if request.param == "table" else ()
    return make_schedule(ScheduleConfig(kind=request.param, table=table))


def test_coefficients_are_those_of_gamma(schedule: Schedule) -> None:
    gamma = schedule.gamma
    np.testing.assert_allclose(schedule.alpha_squared, 1 / (1 + np.exp(gamma)), rtol=1e-11)
    np.testing.assert_allclose(schedule.sigma_squared, 1 / (1 + np.exp(-gamma)), rtol=1e-11)
    np.testing.assert_allclose(schedule.alpha_squared + schedule.sigma_squared, 1, rtol=1e-11)
    np.testing.assert_allclose(schedule.alpha**2, schedule.alpha_squared, rtol=1e-15)
    np.testing.assert_allclose(schedule.sigma**2, schedule.sigma_squared, rtol=1e-15)
    np.testing.assert_allclose(
        schedule.snr, schedule.alpha_squared / schedule.sigma_squared, rtol=1e-11
    )


def test_noise_grows(schedule: Schedule) -> None:
    assert schedule.steps == 1000
    assert len(schedule.gamma) == 1001
    assert np.all(np.diff(schedule.gamma) > 0)
    assert np.all(np.diff(schedule.snr) < 0)


def test_every_step_is_found_at_its_gamma(schedule: Schedule) -> None:
    assert [schedule.step_at_gamma(g) for g in schedule.gamma[::97]] == list(range(0, 1001, 97))


def test_linear_gamma_hits_its_ends() -> None:
    schedule = make_schedule(ScheduleConfig(kind="linear_gamma", gamma_min=-12, gamma_max=5))
    assert (schedule.gamma[0], schedule.gamma[-1]) == (-12, 5)
    np.testing.assert_allclose(np.diff(schedule.gamma), 17 / 1000, atol=2e-6)


def test_ddpm_s_beta() -> None:
    # 999 hops have the 1000 noise levels x_1 … x_1000 of DDPM.
    schedule = make_schedule(ScheduleConfig(kind="linear_beta", steps=999))
    alpha_bar = schedule.alpha_squared
    assert alpha_bar[0] == pytest.approx(1 - 1e-4, rel=1e-9)
    # β_2 = 1e-4 + 0.0199/999 = 1.1992e-4.
    assert alpha_bar[1] == pytest.approx((1 - 1e-4) * (1 - 1.1991992e-4), rel=1e-9)
    # β grows by 0.0199/999 a step; Σ ln(1 − β) over all of them is −10.1177.
    assert alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert 1 - alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.02, rel=1e-4)


def test_improved_ddpm_s_cosine() -> None:
    schedule = make_schedule(ScheduleConfig(kind="cosine", steps=999))
    alpha_bar = schedule.alpha_squared
    # β_1 = 1 − cos²(π/2 · 0.009/1.008) / cos²(π/2 · 0.008/1.008).
    assert 1 - alpha_bar[0] == pytest.approx(4.12842e-5, rel=1e-4)
    # cos²(π/2 · 0.508/1.008) / cos²(π/2 · 0.008/1.008) = 0.493844.
    assert alpha_bar[499] == pytest.approx(0.493844, abs=2e-6)
    # The last β would be 1; it is limited.
    assert 1 - alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.999, rel=1e-6)


@pytest.mark.parametrize(
    "gamma", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, np.nan], [0.0, np.inf], [[0.0, 1.0]]]
)
def test_tables_that_are_none(gamma: list[float]) -> None:
    with pytest.raises(ValueError, match="gamma"):
        Schedule(np.array(gamma))


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'sigmoid', expected one of"):
        make_schedule(ScheduleConfig(kind="sigmoid"))


def test_a_stored_table_comes_back() -> None:
    table = make_schedule(ScheduleConfig(kind="table", table=TABLE)).gamma
    np.testing.assert_allclose(table, TABLE, rtol=0, atol=2**-21)
    # What was rounded once is stored and read without change.
    stored = ScheduleConfig(kind="table", table=tuple(float(gamma) for gamma in table))
    np.testing.assert_array_equal(make_schedule(stored).gamma, table)


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "table", "table": TABLE[:-1]},
        {"kind": "table"},
        {"kind": "linear_gamma", "table": TABLE},
        {"kind": "learned", "table": (0.0, 1.0)},
    ],
)
def test_tables_of_another_length(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"has (0|1001) values in its table, found"):
        ScheduleConfig(**fields)


def test_time_ends_stay_while_a_learned_schedule_moves() -> None:
    ends = {"gamma_min": -11.0, "gamma_max": 4.0}
    assert time_ends(ScheduleConfig(kind="learned", **ends)) == (-11.0, 4.0)
    assert time_ends(ScheduleConfig(kind="table", table=TABLE, **ends)) == (-11.0, 4.0)
    assert time_ends(ScheduleConfig(kind="linear_gamma", **ends)) == (-11.0, 4.0)
    gamma = make_schedule(ScheduleConfig(kind="cosine")).gamma
    assert time_ends(ScheduleConfig(kind="cosine")) == (gamma[0], gamma[-1])
