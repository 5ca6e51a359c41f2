import dataclasses
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import measure
from benchmarks.rate_distortion import (
    ImageMeasurement,
    Prefix,
    ThreadCheck,
    Work,
    bootstrap_rmse,
    check_threads,
    format_table,
    measure_image,
    mse_at_rates,
    summarize,
    theoretical_curve,
)
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.stored import pack_pixels
from diffcodec.codec import encoder
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.effort import plan_for_effort
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.diffusion.process import hop_kl_nats, levels_to_signal
from diffcodec.errors import DiffcodecError
from diffcodec.units import bits_per_dimension, nats_to_bits

Pixels = NDArray[np.uint8]

WORK = Work(effort=1, theory_steps=20, budgets_bpd=(0.5, 2.0))


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model(tiny_folder: Path) -> CodecModel:
    return load_codec_model(tiny_folder)


@pytest.fixture(scope="module")
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(16, 16, 3, seed=seed) for seed in (3, 4, 5)])


@pytest.fixture(scope="module")
def _hops_always() -> Iterator[None]:
    """Files hold hops although the tiny model is worse than deflate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "pack_pixels", lambda pixels: 3 * pixels.tobytes())
        yield


@pytest.fixture
def lossless_data(_hops_always: None, images: Pixels, model: CodecModel) -> bytes:
    """The lossless file of the first image."""
    return encode_image(images[0], model, EncoderSettings(plan_for_effort(WORK.effort))).data


@pytest.fixture(scope="module")
def measurements(_hops_always: None, images: Pixels, model: CodecModel) -> list[ImageMeasurement]:
    return [measure_image(index, pixels, model, WORK) for index, pixels in enumerate(images)]


def fake(index: int, prefixes: list[tuple[int, float]]) -> ImageMeasurement:
    """A measurement of 80 dimensions, so that a byte is 0.1 bits/dim."""
    return ImageMeasurement(
        index=index,
        dimensions=80,
        lossless_bytes=prefixes[-1][0],
        exact=True,
        stored=False,
        prefixes=tuple(Prefix(length, mse) for length, mse in prefixes),
        kl_bits=100.0,
        paid_bits=110,
        header_bytes=prefixes[0][0],
        evaluations=3,
        encode_seconds=1.0,
        decode_seconds=1.0,
        budgets=(),
        theory=None,
    )


def decoded(data: bytes, model: CodecModel) -> Pixels:
    *_, frame = decode_frames(Container.open(data, "cut"), model, every=False)
    return frame.pixels


def test_the_error_at_a_cut_is_that_of_the_file_cut_there(
    images: Pixels,
    model: CodecModel,
    lossless_data: bytes,
    measurements: list[ImageMeasurement],
) -> None:
    prefixes = measurements[0].prefixes
    assert not measurements[0].stored
    assert len(prefixes) > 4
    assert prefixes[-1] == Prefix(len(lossless_data), 0.0)
    for prefix in (prefixes[0], *prefixes[1::3], prefixes[-2], prefixes[-1]):
        difference = decoded(lossless_data[: prefix.stream_bytes], model).astype(float) - images[0]
        assert prefix.mse == pytest.approx(float(np.mean(difference**2)))


def test_lengths_rise_and_the_last_cut_is_exact(measurements: list[ImageMeasurement]) -> None:
    for measurement in measurements:
        lengths = [prefix.stream_bytes for prefix in measurement.prefixes]
        assert lengths == sorted(set(lengths))
        assert measurement.exact
        assert measurement.prefixes[-1].mse == 0.0


def test_stored_pixels_are_cut_too(model: CodecModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "pack_pixels", pack_pixels)
    work = dataclasses.replace(WORK, theory_steps=0, budgets_bpd=())
    measurement = measure_image(0, np.zeros((16, 16, 3), np.uint8), model, work)
    assert measurement.stored
    assert measurement.theory is None
    assert measurement.prefixes[0].mse == 128.0**2
    assert measurement.prefixes[-1] == Prefix(measurement.lossless_bytes, 0.0)
    assert summarize([measurement])["price"]["paid_over_kl"] is None


def test_budgets_are_kept(measurements: list[ImageMeasurement]) -> None:
    for measurement in measurements:
        for budget in measurement.budgets:
            assert budget.actual_bpd <= budget.asked_bpd


def test_a_rate_takes_the_longest_prefix_that_it_holds() -> None:
    files = [fake(0, [(2, 64.0), (5, 16.0), (9, 0.0)]), fake(1, [(3, 36.0), (20, 0.0)])]
    mse = mse_at_rates(files, np.array([0.25, 0.31, 0.49, 0.51, 0.91, 2.0]))
    np.testing.assert_array_equal(mse[0], [64.0, 64.0, 64.0, 16.0, 0.0, 0.0])
    np.testing.assert_array_equal(mse[1], [np.nan, 36.0, 36.0, 36.0, 36.0, 0.0])
    table = summarize(files)["table"]
    assert [row["rate_bpd"] for row in table] == [0.3, 0.5, 1.0, 1.5]
    assert table[1]["rmse"] == pytest.approx(math.sqrt((16.0 + 36.0) / 2))
    assert table[2]["rmse"] == pytest.approx(math.sqrt(36.0 / 2))


def test_the_theoretical_curve_is_the_sum_of_unit_hops(images: Pixels, model: CodecModel) -> None:
    theory = theoretical_curve(images[0], model, 20, (0, 0))
    schedule = model.schedule
    assert theory.rate_bpd.shape == theory.mse.shape == (schedule.steps + 1,)
    assert theory.rate_bpd[-1] == 0.0
    assert np.all(np.diff(theory.rate_bpd) < 0.0)
    for u in (1, 250, schedule.steps):
        squared_error = theory.mse[u] / 127.5**2 * images[0].size
        hop_bits = nats_to_bits(hop_kl_nats(schedule, u - 1, u, squared_error))
        step = theory.rate_bpd[u - 1] - theory.rate_bpd[u]
        assert step == pytest.approx(bits_per_dimension(hop_bits, images[0].size))


def test_theory_knows_nothing_at_pure_noise_and_nearly_all_at_the_end(
    images: Pixels, model: CodecModel
) -> None:
    theory = theoretical_curve(images[0], model, 20, (0, 0))
    spread = float(np.mean(levels_to_signal(images[0]) ** 2)) * 127.5**2
    assert theory.mse[-1] > 0.2 * spread
    assert theory.mse[0] < 0.05 * theory.mse[-1]


def test_more_strata_agree_with_fewer(images: Pixels, model: CodecModel) -> None:
    coarse = theoretical_curve(images[0], model, 50, (0, 0)).rate_bpd[0]
    fine = theoretical_curve(images[0], model, 400, (0, 1)).rate_bpd[0]
    assert coarse == pytest.approx(fine, rel=0.1)


def test_an_image_of_several_tiles_has_a_theoretical_curve(
    drawn_image: Callable[..., Pixels], model: CodecModel
) -> None:
    theory = theoretical_curve(drawn_image(20, 17, 1, seed=6), model, 10, (0, 0))
    assert np.all(np.isfinite(theory.rate_bpd))
    assert theory.mse[0] < theory.mse[-1]


def test_the_interval_covers_the_mean_and_is_reproducible() -> None:
    mse = np.random.Generator(np.random.Philox(1)).exponential(25.0, size=(200, 1))
    low, high = bootstrap_rmse(mse)
    assert low[0] < math.sqrt(mse.mean()) < high[0]
    # The mean of 200 exponential values has a relative deviation of 1/√200, its root half of it.
    assert high[0] - low[0] == pytest.approx(2 * 1.96 * 5.0 / 2 / math.sqrt(200), rel=0.2)
    np.testing.assert_array_equal(bootstrap_rmse(mse)[0], low)


def test_the_summary_is_json_and_its_curve_falls(measurements: list[ImageMeasurement]) -> None:
    summary = json.loads(json.dumps(summarize(measurements), allow_nan=False))
    assert summary["lossless"]["exact_round_trips"] == summary["images"] == len(measurements)
    curve = summary["curve"]
    assert curve[-1]["rmse"] == 0.0
    assert curve[0]["rmse"] > curve[len(curve) // 2]["rmse"]
    assert all(point["rmse_low"] <= point["rmse"] <= point["rmse_high"] for point in curve)
    assert summary["price"]["paid_over_kl"] == pytest.approx(
        sum(m.paid_bits for m in measurements) / sum(m.kl_bits for m in measurements)
    )
    for row, asked in zip(summary["budgets"], WORK.budgets_bpd, strict=True):
        assert row["asked_bpd"] == asked
        assert row["max_bpd"] <= asked
    assert "3 of 3 images exact" in format_table(summary)


def test_thread_counts_do_not_matter(
    smooth_image: Callable[..., Pixels], tiny_folder: Path
) -> None:
    passes: list[None] = []
    images = smooth_image(32, 32)[None]
    checks = check_threads(images, tiny_folder, WORK, lambda: passes.append(None))
    assert checks == [ThreadCheck(one_to_two=True, two_to_one=True, same_file=True)]
    assert len(passes) == 4


def test_one_run_writes_every_figure(
    measurements: list[ImageMeasurement],
    images: Pixels,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(measure, "first_test_images", lambda data, count: images)
    monkeypatch.setattr(measure, "measure_images", lambda *arguments: measurements)
    arguments = ["--model", str(tiny_folder), "--effort", "1", "--out", str(tmp_path)]
    assert measure.main([*arguments, "--no-threads-check"]) == 0
    output = capsys.readouterr().out
    assert "| PNG, optimize |" in output
    assert "| lossless files that came back exactly | 3 of 3 |" in output
    table = json.loads((tmp_path / "cifar10.json").read_text())
    curve = json.loads((tmp_path / "rd-curve.json").read_text())
    assert table["model"] == curve["model"]
    assert [row["asked_bpd"] for row in table["budgets"]] == list(WORK.budgets_bpd)
    assert curve["table"]


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert measure.main(["--model", "no-such-model"]) == 1
    assert capsys.readouterr().err.startswith("error: no-such-model: expected")


def test_too_small_a_budget_is_an_error(images: Pixels, model: CodecModel) -> None:
    with pytest.raises(DiffcodecError, match="expected at least"):
        measure_image(0, images[0], model, dataclasses.replace(WORK, budgets_bpd=(0.01,)))
