import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.codec import model as codec_model
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS, effort_for_evaluations, effort_level
from diffcodec.codec.encoder import HANDOVER_GAMMA
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.plan import count_evaluations
from diffcodec.codec.reverse import plan_of
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import CheckpointError
from diffcodec.model.checkpoint import ErrorSpectrum
from diffcodec.model.denoiser import Denoiser

Float64 = NDArray[np.float64]

RANDOM = np.random.default_rng(0)
BESIDE = TileLayout(16, 2 * 16, 3, side=16)
"""Two tiles in one window."""


def assert_equal(found: PixelEstimate, expected: PixelEstimate) -> None:
    np.testing.assert_array_equal(found.mean, expected.mean)
    np.testing.assert_array_equal(found.variance, expected.variance)
    np.testing.assert_array_equal(found.mixing, expected.mixing)


def test_an_estimate_does_not_depend_on_threads_layout_or_flushing(chosen: CodecModel) -> None:
    layout = TileLayout(16, 4 * 16, 3, side=16)
    z = RANDOM.standard_normal((4, 3, 16, 16))
    first = chosen.estimate(z, 500, layout)
    assert first.mean.dtype == first.variance.dtype == first.mixing.dtype == np.float64
    assert np.abs(first.mean).max() <= 1.0
    assert first.variance.min() > 0.0
    columns = np.asfortranarray(z)
    torch.set_flush_denormal(True)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        assert_equal(chosen.estimate(columns, 500, layout), first)
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


def test_windows_are_evaluated_each_by_itself_and_laid_where_they_were(chosen: CodecModel) -> None:
    layout = TileLayout(2 * 16, 5 * 16, 3, side=16)
    z = RANDOM.standard_normal((layout.count, 3, 16, 16))
    known = RANDOM.random((layout.count, 16, 16)) < 0.3
    together = chosen.estimate(z, 300, layout, known)
    for columns in (slice(0, 2), slice(2, 5)):
        part = TileLayout(2 * 16, (columns.stop - columns.start) * 16, 3, side=16)
        place = np.arange(layout.count).reshape(2, 5)[:, columns].ravel()
        alone = chosen.estimate(z[place], 300, part, known[place])
        found = PixelEstimate(
            together.mean[place], together.variance[place], together.mixing[place]
        )
        assert_equal(found, alone)


def test_a_pixel_model_says_what_its_posterior_says(pixel_model: CodecModel) -> None:
    z, known = RANDOM.standard_normal((2, 3, 16, 16)), RANDOM.random((2, 16, 16)) < 0.5
    said = pixel_model.estimate(z, 200, BESIDE, known)
    window, mask = (np.concatenate(list(tiles), axis=-1) for tiles in (z, known))
    gamma = torch.full((1,), float(pixel_model.schedule.gamma[200]))
    with torch.no_grad():
        posterior = pixel_model.checkpoint.denoiser.posterior(
            torch.from_numpy(window)[None].float(),
            gamma,
            torch.from_numpy(mask)[None, None].float(),
        )
    parts = (posterior.mean.clamp(-1, 1), posterior.log_variance.double().exp(), posterior.mixing)
    mean, variance, mixing = (np.stack(np.split(part[0].numpy(), 2, axis=-1)) for part in parts)
    np.testing.assert_allclose(said.mean, mean, atol=1e-5)
    np.testing.assert_allclose(said.variance, variance, rtol=1e-4)
    np.testing.assert_allclose(said.mixing, mixing, atol=1e-5)
    assert np.abs(said.mixing).max() > 0.0
    # No mask is a mask of nothing, and the mask has a say.
    unmasked = pixel_model.estimate(z, 200, BESIDE)
    assert_equal(unmasked, pixel_model.estimate(z, 200, BESIDE, known & False))
    assert not np.array_equal(said.variance, unmasked.variance)


def test_a_model_without_a_pixel_model_says_its_mean_error(model: CodecModel) -> None:
    said = model.estimate(RANDOM.standard_normal((2, 3, 16, 16)), 200, BESIDE)
    np.testing.assert_array_equal(said.variance, np.full((2, 3, 16, 16), model.error_curve[200]))
    np.testing.assert_array_equal(said.mixing, np.zeros((2, 3, 16, 16)))


def test_only_a_pixel_model_takes_pixels_in_groups(
    model: CodecModel, pixel_model: CodecModel
) -> None:
    assert (model.most_groups, pixel_model.most_groups) == (1, 16)


def test_a_model_on_another_grid_is_refused(model: CodecModel) -> None:
    config = dataclasses.replace(model.checkpoint.config, schedule=ScheduleConfig(steps=500))
    checkpoint = dataclasses.replace(model.checkpoint, denoiser=Denoiser(config))
    with pytest.raises(CheckpointError, match="1000 steps"):
        CodecModel(checkpoint)


def test_the_curves_go_through_the_checkpoint_s_points(pixel_model: CodecModel) -> None:
    curve = pixel_model.checkpoint.error_curve
    at = [pixel_model.schedule.step_at_gamma(gamma) for gamma in curve.gamma]
    np.testing.assert_allclose(pixel_model.error_curve[at], curve.error, rtol=1e-9)
    spectrum = curve.spectrum
    at = [pixel_model.schedule.step_at_gamma(gamma) for gamma in spectrum.gamma]
    np.testing.assert_allclose(pixel_model.spread_curve[at], spectrum.spread, rtol=1e-9)
    for step, power in zip(at, spectrum.power, strict=True):
        found = pixel_model.error_power(step)
        assert found.shape == (3, 16, 16)
        np.testing.assert_allclose(found.mean(axis=(1, 2)), 1.0, rtol=1e-3)
        np.testing.assert_allclose(found[:, 0, 0], np.array(power)[:, 0], rtol=1e-9)


def test_a_spectrum_of_other_channels_is_refused(model: CodecModel) -> None:
    curve = dataclasses.replace(model.checkpoint.error_curve, spectrum=ErrorSpectrum.flat(1))
    checkpoint = dataclasses.replace(model.checkpoint, error_curve=curve)
    with pytest.raises(CheckpointError, match="an error spectrum of 3 channels, found 1"):
        CodecModel(checkpoint)


@pytest.fixture
def three_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """New ones, however many the process has."""
    start = codec_model._be_one_thread
    with ThreadPoolExecutor(3, "evaluator", initializer=start) as executor:
        monkeypatch.setattr(codec_model, "_worker_count", lambda: 3)
        monkeypatch.setattr(codec_model, "_evaluators", lambda: executor)
        yield


def test_first_evaluations_are_one_at_a_time(
    model: CodecModel, three_workers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever libraries do at their first call, no two threads do it at once."""
    fresh = CodecModel(model.checkpoint)
    busy: list[str] = []
    seen: list[tuple[str, tuple[int, ...], int]] = []
    evaluate = CodecModel._evaluate

    def watched(
        self: CodecModel, window: Float64, known: NDArray[np.bool_], gamma: torch.Tensor
    ) -> Float64:
        worker = threading.current_thread().name
        busy.append(worker)
        seen.append((worker, window.shape, len(busy)))
        said = evaluate(self, window, known, gamma)
        busy.remove(worker)
        return said

    monkeypatch.setattr(CodecModel, "_evaluate", watched)
    layout = TileLayout(16, 5 * 16, 3, side=16)
    z = RANDOM.standard_normal((5, 3, 16, 16))
    first = fresh.estimate(z, 500, layout)
    tiles, shapes = seen[:3], seen[3:5]
    assert len({worker for worker, _, _ in tiles}) == 3
    assert {shape for _, shape, _ in tiles} == {(3, 16, 16)}
    assert [shape for _, shape, _ in shapes] == [(3, 16, 32), (3, 16, 48)]
    assert {together for _, _, together in tiles + shapes} == {1}
    assert len(seen) == 3 + 2 + 2
    # Once is enough, and an image of one window needs none of it.
    assert_equal(fresh.estimate(z, 500, layout), first)
    assert len(seen) == 3 + 2 + 2 + 2
    alone = CodecModel(model.checkpoint)
    alone.estimate(z[:1], 500, TileLayout(16, 16, 3, side=16))
    assert len(seen) == 3 + 2 + 2 + 2 + 1


def test_more_effort_is_more_evaluations_groups_or_a_stronger_code(model: CodecModel) -> None:
    final_step = model.schedule.step_at_gamma(HANDOVER_GAMMA)
    levels = [effort_level(effort) for effort in EFFORTS]
    counts = [count_evaluations(plan_of(model, BESIDE, level.plan, final_step)) for level in levels]
    registers = [level.plan.code.register_bits for level in levels]
    for before, after in pairwise(range(len(levels))):
        assert (
            counts[before] < counts[after]
            or registers[before] < registers[after]
            or levels[before].groups < levels[after].groups
        )
    assert counts[-1] > 3 * counts[0]
    assert registers == sorted(registers)
    groups = [level.groups for level in levels]
    assert groups == sorted(groups)


@pytest.mark.parametrize("effort", [0, 10, -1])
def test_there_is_no_other_effort(effort: int) -> None:
    with pytest.raises(ValueError, match="effort of 1 to 9"):
        effort_level(effort)


@pytest.mark.parametrize("size", [(16, 16), (15, 16), (48, 40)])
@pytest.mark.parametrize("wanted", [20, 40, 80])
def test_an_effort_for_a_number_of_evaluations_comes_close_from_below(
    wanted: int, size: tuple[int, int], chosen: CodecModel
) -> None:
    layout = TileLayout(*size, 3, side=16)
    effort, needed = effort_for_evaluations(chosen, wanted, layout)
    final_step = chosen.schedule.step_at_gamma(HANDOVER_GAMMA)
    of_pixels = effort.groups - 1
    hops = plan_of(chosen, layout, effort.plan, final_step)
    assert needed == count_evaluations(hops) + of_pixels
    assert 0.7 * wanted <= needed <= wanted
    if effort.plan.growth_index:
        finer = dataclasses.replace(effort.plan, growth_index=effort.plan.growth_index - 1)
        hops = plan_of(chosen, layout, finer, final_step)
        assert count_evaluations(hops) + of_pixels > wanted


def test_evaluations_are_shared_with_the_groups_that_the_model_can_do(
    model: CodecModel, pixel_model: CodecModel
) -> None:
    assert effort_for_evaluations(model, 80, BESIDE)[0].groups == 1
    groups = [
        effort_for_evaluations(pixel_model, wanted, BESIDE)[0].groups for wanted in (20, 40, 80)
    ]
    assert groups == sorted(groups)
    assert 1 < groups[0] < groups[-1] <= effort_level(DEFAULT_EFFORT).groups


def test_too_few_evaluations_give_the_fewest_there_are(chosen: CodecModel) -> None:
    effort, needed = effort_for_evaluations(chosen, 1, BESIDE)
    assert effort.plan.growth_index == 63
    assert effort.groups == 1
    assert needed > 1
