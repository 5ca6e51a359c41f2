import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.diffusion.process import levels_to_signal, prior_kl_nats, reverse_kl_nats
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.denoiser import Denoiser, ModelConfig, Variance
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


@pytest.mark.parametrize("variance", [Variance.FORWARD, Variance.LEARNED])
def test_hops_of_another_variance_pay_its_kl(
    denoiser: Denoiser, images: Pixels, variance: Variance
) -> None:
    # Few steps, where variances differ; both networks are zero, so that x̂_0 is the same.
    schedule = ScheduleConfig(steps=20)
    posterior, other = (
        Denoiser(dataclasses.replace(MODEL, schedule=schedule, variance=v)).eval()
        for v in (Variance.POSTERIOR, variance)
    )
    interpolation = 1.0 if variance is Variance.FORWARD else 0.5
    equal = evaluate_bound(posterior, images, draws=20)
    unequal = evaluate_bound(other, images, draws=20)
    table, t = other.schedule, np.arange(1, 21)
    # The same noise and errors: what differs is ½ (e^{−u} − 1 + u) and a factor e^{−u}.
    fixed = reverse_kl_nats(table, t - 1, t, np.zeros(20), interpolation).sum() / np.log(2)
    factor = np.exp(-interpolation * np.log(table.sigma_squared[1:] / table.sigma_squared[:-1]))
    ends = sorted([equal.diffusion.mean * factor.min(), equal.diffusion.mean * factor.max()])
    assert ends[0] < unequal.diffusion.mean - fixed < ends[1]
    assert unequal.reconstruction == equal.reconstruction
    assert unequal.prior == equal.prior


def test_a_learned_schedule_is_evaluated_as_learned(images: Pixels) -> None:
    model = dataclasses.replace(MODEL, schedule=ScheduleConfig(kind="learned", steps=200))
    moved = Denoiser(model).eval()
    assert moved.learned_gamma is not None
    with torch.no_grad():
        moved.learned_gamma.ends += torch.tensor([0.0, -3.0])
        moved.learned_gamma.second_bias += torch.randn(1024)
    bound = evaluate_bound(moved, images, draws=4)
    assert evaluate_bound(moved.frozen(), images, draws=4) == bound
    assert bound.prior.mean > evaluate_bound(Denoiser(model), images, draws=4).prior.mean
    assert measure_error_curve(moved, images, points=9).gamma[-1] == 2.0


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
