import dataclasses

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.diffusion.cosine import frequency_bands
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.diffusion.wiener import GAINS
from diffcodec.model.checkpoint import ErrorCurve
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training import error_curve

Pixels = NDArray[np.uint8]

SMALL_GAINS = [column for column, gain in enumerate(GAINS) if gain < 0.1]


def measure_error_curve(denoiser: Denoiser, images: Pixels, **options: int) -> ErrorCurve:
    return error_curve.measure_error_curve(denoiser, images, **{"spectrum_points": 2, **options})


def test_error_grows_with_noise(denoiser: Denoiser, images: Pixels, config: ModelConfig) -> None:
    curve = measure_error_curve(denoiser, images, points=21, batch_size=5)
    schedule = make_schedule(config.schedule)
    assert curve.gamma == tuple(schedule.gamma[::10])
    error = np.array(curve.error)
    # α z is a poor estimate of a picture where noise prevails; up to there it is a fair one.
    below = np.array(curve.gamma) < -1
    assert np.all(np.diff(error[below]) > 0)
    expected = schedule.sigma_squared[::10][below]
    assert np.all((0.4 * expected < error[below]) & (error[below] < 1.05 * expected))
    assert error[-1] > 100 * error[0]


def test_the_curve_does_not_depend_on_batches_much(denoiser: Denoiser, images: Pixels) -> None:
    a = measure_error_curve(denoiser, images, points=5, batch_size=12)
    b = measure_error_curve(denoiser, images, points=5, batch_size=5)
    np.testing.assert_allclose(a.error, b.error, rtol=0.1)


def test_a_learned_schedule_is_measured_as_learned(images: Pixels, config: ModelConfig) -> None:
    model = dataclasses.replace(config, schedule=ScheduleConfig(kind="learned", steps=200))
    moved = Denoiser(model).eval()
    assert moved.learned_gamma is not None
    with torch.no_grad():
        moved.learned_gamma.ends += torch.tensor([0.0, -3.0])
    curve = measure_error_curve(moved, images, points=9)
    assert curve.gamma[-1] == 2.0
    assert curve.spectrum.gamma == (curve.gamma[0], 2.0)


def test_measuring_leaves_the_weights_and_repeats(denoiser: Denoiser, images: Pixels) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    curve = measure_error_curve(denoiser, images[:2], points=3)
    assert all(torch.equal(before[name], t) for name, t in denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
    assert measure_error_curve(denoiser, images[:2], points=3) == curve
    assert measure_error_curve(denoiser, images[:2], points=3, seed=1) != curve


def test_white_errors_have_a_flat_spectrum_and_shrink_as_a_scalar(
    denoiser: Denoiser, images: Pixels, config: ModelConfig
) -> None:
    # Near the data α z errs by α σ ε, but for a part of σ² x.
    spectrum = measure_error_curve(denoiser, images, points=3).spectrum
    assert spectrum.gamma[0] == config.schedule.gamma_min
    count = np.bincount(frequency_bands(16).ravel())
    for power in np.array(spectrum.power[0]):
        assert power[: len(count)][count > 10] == pytest.approx(1.0, abs=0.15)
        assert (power[: len(count)] * count).sum() / 256 == pytest.approx(1.0, rel=1e-3)
    assert list(spectrum.spread[0]) == pytest.approx([1.0] * len(GAINS), abs=0.25)


def test_smooth_errors_have_low_frequencies_and_shrink_faster(
    denoiser: Denoiser, images: Pixels
) -> None:
    # In noise α z errs by σ² x: by the picture itself.
    spectrum = measure_error_curve(denoiser, images, points=3).spectrum
    highest = int(frequency_bands(16).max())
    for power in np.array(spectrum.power[-1]):
        assert power[0] > 5 * power[highest]
    assert min(np.array(spectrum.spread[-1])[SMALL_GAINS]) > 3.0


def test_variances_that_are_named_make_updates_better(config: ModelConfig) -> None:
    # Noise in the left half, nothing in the right: in noise x̂_0 errs in the left one.
    half = np.random.default_rng(0).integers(0, 256, (12, 16, 16, 3), dtype=np.uint8)
    half[:, :, 8:] = 127
    spreads = {}
    for named in (0.0, -4.0):
        denoiser = Denoiser(dataclasses.replace(config, pixel_model=True)).eval()
        output = torch.zeros((1, 9, 16, 16))
        output[:, 3:6, :, 8:] = named
        denoiser.network = Fixed(output)
        spectrum = measure_error_curve(denoiser, half, points=2).spectrum
        spreads[named] = float(np.mean(np.array(spectrum.spread[-1])[SMALL_GAINS]))
    assert spreads[-4.0] > 1.2 * spreads[0.0]


class Fixed(torch.nn.Module):
    """A network that gives one output for every image."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(output, requires_grad=False)

    def forward(self, z: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(z), -1, -1, -1)
