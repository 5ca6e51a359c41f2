"""Files against the finest grid: of a model whose error falls as γ does, by hand."""

from typing import Any

import numpy as np
import pytest

from benchmarks.excess import summarize_excess
from benchmarks.real_files import Cut, FileMeasurement
from benchmarks.theory import Theory, curve
from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule

DIMENSIONS = 300
HANDOVER = 400


@pytest.fixture
def schedule() -> Schedule:
    return make_schedule(ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0))


@pytest.fixture
def theory() -> Theory:
    steps = tuple(range(0, 1001, 10))
    mse = tuple(np.geomspace(1.0, 4000.0, len(steps)).tolist())
    signal = tuple(DIMENSIONS * error / 127.5**2 for error in mse)
    return Theory(DIMENSIONS, steps, signal, mse, prior_bpd=0.001, pixels_bpd=0.5)


def file(theory: Theory, schedule: Schedule, *, plan: float, price: float) -> FileMeasurement:
    """Hops of 50 steps at the finest grid's error, of ``plan`` times its KL at a price."""
    fine = curve(theory, schedule)
    cuts = []
    for step in range(1000, HANDOVER - 1, -50):
        kl_bits = plan * fine.rate_bpd[step] * DIMENSIONS
        cuts.append(
            Cut(
                stream_bytes=13 + round(price * kl_bits / 8),
                step=step,
                mse=float(fine.mse[step]),
                ssim=None,
                kl_bits=float(kl_bits),
                paid_bits=round(price * kl_bits),
                exact_values=0,
            )
        )
    whole = cuts[-1].stream_bytes + 60
    cuts.append(Cut(whole, 0, 0.0, None, cuts[-1].kl_bits, cuts[-1].paid_bits, DIMENSIONS))
    return FileMeasurement(DIMENSIONS, whole, True, False, tuple(cuts), 13, 400.0, 14)


def test_plan_and_price_are_told_apart(theory: Theory, schedule: Schedule) -> None:
    files = [file(theory, schedule, plan=1.25, price=1.1)] * 2
    found = summarize_excess(files, [theory, theory], schedule)
    assert found is not None
    assert found["images"] == 2
    last = found["rows"][-1]
    assert last["step"] == HANDOVER
    assert last["kl_bpd"] / last["fine_kl_bpd"] == pytest.approx(1.25)
    assert last["paid_bpd"] / last["kl_bpd"] == pytest.approx(1.1, rel=0.01)
    # At the finest grid's own error, what it pays there is what it pays at that error.
    assert last["rmse"] == pytest.approx(last["fine_rmse"])
    assert last["fine_kl_at_rmse_bpd"] == pytest.approx(last["fine_kl_bpd"], rel=1e-3)
    bound = 0.001 + curve(theory, schedule).rate_bpd[HANDOVER] + 400.0 / DIMENSIONS
    assert found["bound_bpd"] == pytest.approx(bound)
    assert found["lossless_bpd"] == pytest.approx(8 * files[0].lossless_bytes / DIMENSIONS)
    steps = [row["step"] for row in found["rows"]]
    assert steps == sorted(steps, reverse=True)


def test_a_larger_error_is_held_against_a_cheaper_grid(theory: Theory, schedule: Schedule) -> None:
    exact = file(theory, schedule, plan=1.0, price=1.0)
    worse = tuple(cut._replace(mse=1.2 * cut.mse) for cut in exact.cuts)
    blurred = FileMeasurement(**{**exact.__dict__, "cuts": worse})
    found = summarize_excess([blurred], [theory], schedule)
    assert found is not None
    for row in found["rows"]:
        assert row["rmse"] == pytest.approx(np.sqrt(1.2) * row["fine_rmse"])
        at_rmse = row["fine_kl_at_rmse_bpd"]
        assert at_rmse is None or at_rmse < row["fine_kl_bpd"]
    assert found["rows"][-1]["fine_kl_at_rmse_bpd"] is not None


def test_stored_pixels_have_no_hops(theory: Theory, schedule: Schedule) -> None:
    stored = FileMeasurement(
        **{**file(theory, schedule, plan=1.0, price=1.0).__dict__, "stored": True}
    )
    assert stored.handover_step == 1000
    assert summarize_excess([stored], [theory], schedule) is None


def test_a_measured_record_has_it(record: dict[str, Any]) -> None:
    found = record["excess"]
    assert found["images"] == 3
    assert found["rows"][-1]["paid_bpd"] > found["rows"][-1]["kl_bpd"] > 0.0
    assert found["lossless_bpd"] > found["bound_bpd"] > 0.0
    trips = record["round_trips"]
    assert [(row["effort"], row["images"]) for row in trips] == [(1, 2), (3, 2)]
    assert all(row["exact_round_trips"] == 2 for row in trips)
