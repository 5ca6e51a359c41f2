import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.diffusion.process import levels_to_signal, prior_kl_nats
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import UNetConfig
from diffcodec.training.evaluation import Estimate, evaluate_bound, measure_error_curve

Pixels = NDArray[np.uint8]

MODEL = ModelConfig(
    schedule=ScheduleConfig(steps=200),
    unet=UNetConfig(image_size=16, channels=(8,), attention_resolutions=(), groups=4),
)


@pytest.fixture
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(16, 16, 3, seed) for seed in range(12)])


@pytest.fixture
def denoiser() -> Denoiser:
    # Its network begins as zero, so that x̂_0 = α z: the best estimate of unit-variance noise.
    return Denoiser(MODEL).eval()


def test_parts_add_up(denoiser: Denoiser, images: Pixels) -> None:
    bound = evaluate_bound(denoiser, images, draws=3, batch_size=5)
    parts = (bound.prior, bound.diffusion, bound.reconstruction)
    assert bound.total.mean == pytest.approx(sum(part.mean for part in parts))
    assert all(part.mean > 0 for part in parts)
    assert 0 < bound.total.standard_error < sum(part.standard_error for part in parts) + 1e-12
    assert (bound.images, bound.draws, bound.final_step) == (12, 3, 0)


def test_prior_is_that_of_the_process(denoiser: Denoiser, images: Pixels) -> None:
    schedule = make_schedule(MODEL.schedule)
    nats = [prior_kl_nats(schedule, x) for x in levels_to_signal(images)]
    expected = np.mean(nats) / np.log(2) / images[0].size
    assert evaluate_bound(denoiser, images, draws=1).prior.mean == pytest.approx(expected)


def test_diffusion_is_the_sum_over_all_steps(denoiser: Denoiser, images: Pixels) -> None:
    # One draw for every step visits each of them once, so that only the noise in z is left.
    bound = evaluate_bound(denoiser, images, draws=200)
    schedule = make_schedule(MODEL.schedule)
    x = levels_to_signal(images)
    # x − α z = σ² x − α σ ε, before it is clipped: clipping only comes nearer.
    error = schedule.sigma_squared**2 * (x**2).mean() + schedule.alpha_squared * (
        schedule.sigma_squared
    )
    hops = 0.5 * (schedule.snr[:-1] - schedule.snr[1:]) * error[1:]
    bits = hops.sum() / np.log(2)
    assert 0.8 * bits < bound.diffusion.mean < 1.01 * bits
    # Any number of draws estimates the same.
    few = evaluate_bound(denoiser, images, draws=8, seed=1)
    assert few.diffusion.mean == pytest.approx(bound.diffusion.mean, rel=0.03)


def test_an_earlier_handover_moves_bits_to_the_pixels(denoiser: Denoiser, images: Pixels) -> None:
    bounds = [evaluate_bound(denoiser, images, final_step=step) for step in (0, 40, 80, 120)]
    diffusion = [bound.diffusion.mean for bound in bounds]
    reconstruction = [bound.reconstruction.mean for bound in bounds]
    assert diffusion == sorted(diffusion, reverse=True)
    assert reconstruction == sorted(reconstruction)
    # What is paid twice at the data's end is saved, until the pixel decoder is too coarse.
    assert len({round(bound.prior.mean, 12) for bound in bounds}) == 1


def test_progress_and_seed(denoiser: Denoiser, images: Pixels) -> None:
    done: list[int] = []
    first = evaluate_bound(denoiser, images, draws=2, batch_size=5, progress=done.append)
    assert done == [5, 5, 2]
    assert evaluate_bound(denoiser, images, draws=2, batch_size=5) == first
    assert evaluate_bound(denoiser, images, draws=2, batch_size=5, seed=1) != first


def test_error_grows_with_noise(denoiser: Denoiser, images: Pixels) -> None:
    curve = measure_error_curve(denoiser, images, points=21, batch_size=5)
    schedule = make_schedule(MODEL.schedule)
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


def test_estimates() -> None:
    estimate = Estimate.of(np.array([1.0, 2.0, 3.0, 6.0]))
    assert estimate.mean == 3.0
    assert estimate.standard_error == pytest.approx(np.sqrt(14 / 3) / 2)
    assert Estimate.of(np.array([2.0])) == Estimate(2.0, 0.0)


def test_weights_are_left_as_they_are(denoiser: Denoiser, images: Pixels) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    evaluate_bound(denoiser, images[:2], draws=1)
    measure_error_curve(denoiser, images[:2], points=3)
    assert all(torch.equal(before[name], t) for name, t in denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())


def test_spread_is_one_where_the_model_does_not_say(denoiser: Denoiser, images: Pixels) -> None:
    assert set(measure_error_curve(denoiser, images, points=3).spread) == {1.0}


def test_spread_is_that_of_the_model_s_covariances(images: Pixels) -> None:
    torch.manual_seed(3)
    denoiser = Denoiser(dataclasses.replace(MODEL, pixel_model=True)).eval()
    # As it begins its covariances are all the same: no spread.
    assert measure_error_curve(denoiser, images, points=2).spread == pytest.approx((1.0, 1.0))
    # Variances that do not depend on z: in half of the columns e² times those in the rest.
    uneven = torch.zeros((1, 9, 16, 16))
    uneven[:, 3:6, :, 8:] = 2.0
    denoiser.network = _Fixed(uneven)
    ratio = float(np.exp(2.0))
    expected = (1 + ratio**2) / 2 / ((1 + ratio) / 2) ** 2
    curve = measure_error_curve(denoiser, images, points=2, batch_size=5)
    assert curve.spread == pytest.approx((expected, expected), rel=1e-5)
    # Channels that are all but the first's copies have one large eigenvalue in three.
    copies = torch.zeros((1, 9, 16, 16))
    copies[:, 4:6] = -12.0
    copies[:, 6:8] = 1.0
    denoiser.network = _Fixed(copies)
    curve = measure_error_curve(denoiser, images, points=2)
    assert curve.spread == pytest.approx((3.0, 3.0), rel=1e-3)


class _Fixed(torch.nn.Module):
    """A network that gives one output for every image."""

    def __init__(self, output: torch.Tensor) -> None:
        super().__init__()
        self.output = torch.nn.Parameter(output, requires_grad=False)

    def forward(self, z: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.output.expand(len(z), -1, -1, -1)
