import json
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.theory import (
    Curve,
    Theory,
    curve,
    measure_theory,
    summarize_codelength,
    summarize_theory,
)
from diffcodec.codec.model import CodecModel
from diffcodec.diffusion.process import hop_kl_nats, levels_to_signal
from diffcodec.training.evaluation import evaluate_bound
from diffcodec.units import bits_per_dimension, nats_to_bits

Pixels = NDArray[np.uint8]


@pytest.fixture(scope="module")
def theory(images: Pixels, model: CodecModel, one_thread: None) -> Theory:
    return measure_theory(images[0], model, 20, (0, 0))


@pytest.fixture(scope="module")
def measured(theory: Theory, model: CodecModel) -> Curve:
    return curve(theory, model.schedule)


def test_the_curve_is_the_sum_of_unit_hops(
    images: Pixels, model: CodecModel, measured: Curve
) -> None:
    schedule = model.schedule
    assert measured.rate_bpd.shape == measured.mse.shape == (schedule.steps + 1,)
    assert measured.rate_bpd[-1] == 0.0
    assert np.all(np.diff(measured.rate_bpd) < 0.0)
    for u in (1, 250, schedule.steps):
        squared_error = measured.mse[u] / 127.5**2 * images[0].size
        hop_bits = nats_to_bits(hop_kl_nats(schedule, u - 1, u, squared_error))
        expected = bits_per_dimension(hop_bits, images[0].size)
        assert measured.hop_bpd[u - 1] == pytest.approx(expected)
        step = measured.rate_bpd[u - 1] - measured.rate_bpd[u]
        assert step == pytest.approx(expected)


def test_nothing_is_known_at_pure_noise_and_nearly_all_at_the_end(
    images: Pixels, measured: Curve
) -> None:
    spread = float(np.mean(levels_to_signal(images[0]) ** 2)) * 127.5**2
    assert measured.mse[-1] > 0.2 * spread
    assert measured.mse[0] < 0.05 * measured.mse[-1]


def test_few_draws_agree_with_drawing_every_step(images: Pixels, model: CodecModel) -> None:
    every = curve(measure_theory(images[0], model, 1000, (0, 1)), model.schedule)
    few = [
        curve(measure_theory(images[0], model, 24, (seed, 0)), model.schedule) for seed in range(8)
    ]
    rates = np.array([c.rate_bpd[0] for c in few])
    assert rates.mean() == pytest.approx(every.rate_bpd[0], rel=0.02)


def test_the_bound_is_the_trainer_s(images: Pixels, model: CodecModel) -> None:
    theories = [measure_theory(image, model, 50, (0, n)) for n, image in enumerate(images)]
    ours = summarize_codelength(theories, model.schedule)
    bound = evaluate_bound(model.checkpoint.denoiser, images, draws=200)
    for name, part in (
        ("prior", bound.prior),
        ("diffusion", bound.diffusion),
        ("pixels", bound.reconstruction),
        ("total", bound.total),
    ):
        assert ours[name]["mean_bpd"] == pytest.approx(part.mean, rel=0.05, abs=1e-3), name
    parts = sum(ours[name]["mean_bpd"] for name in ("prior", "diffusion", "pixels"))
    assert ours["total"]["mean_bpd"] == pytest.approx(parts)
    assert ours["total"]["low_bpd"] <= ours["total"]["mean_bpd"] <= ours["total"]["high_bpd"]


def test_an_image_of_several_tiles(drawn_image: Callable[..., Pixels], model: CodecModel) -> None:
    theory = measure_theory(drawn_image(20, 17, 1, seed=6), model, 10, (0, 0))
    measured = curve(theory, model.schedule)
    assert np.all(np.isfinite(measured.rate_bpd))
    assert measured.mse[0] < measured.mse[-1]


def test_draws_depend_on_the_seed_alone(images: Pixels, model: CodecModel, theory: Theory) -> None:
    assert measure_theory(images[0], model, 20, (0, 0)) == theory
    assert measure_theory(images[0], model, 20, (0, 1)).steps != theory.steps


def test_a_journal_keeps_it(theory: Theory) -> None:
    assert Theory.from_json(json.loads(json.dumps(theory.to_json()))) == theory


def test_the_summary_has_ddpm_s_rows(theory: Theory, model: CodecModel) -> None:
    summary = json.loads(json.dumps(summarize_theory([theory, theory], model.schedule)))
    steps = model.schedule.steps
    assert summary["step"] == list(range(steps, -1, -1))
    assert [row["steps_decoded"] for row in summary["rows"]] == list(range(100, 1001, 100))
    assert summary["hop_bpd"][0] is None
    last = summary["rows"][-1]
    assert last["rate_bpd"] == pytest.approx(summary["rate_bpd"][-1], rel=1e-4)
    assert sum(summary["hop_bpd"][1:]) == pytest.approx(last["rate_bpd"], rel=1e-3)
    for row in summary["rows"]:
        assert row["rate_low_bpd"] <= row["rate_bpd"] <= row["rate_high_bpd"]
        assert summary["rmse"][row["steps_decoded"]] == pytest.approx(row["rmse"], rel=1e-4)
