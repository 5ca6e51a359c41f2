import dataclasses
from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.process import (
    HALF_RANGE,
    hop_kl_nats,
    levels_to_signal,
    prior_kl_nats,
    reverse_kl_nats,
)
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.denoiser import (
    Denoiser,
    ModelConfig,
    PixelPosterior,
    Variance,
    alpha_sigma,
)
from diffcodec.model.pixel_order import group_starts, pixel_ranks
from diffcodec.training.evaluation import (
    HANDOVER_POINTS,
    Estimate,
    evaluate_bound,
    evaluate_codec,
    pixel_bpd,
    sample_bound,
)
from diffcodec.training.objective import PixelVlb

Pixels = NDArray[np.uint8]


def test_parts_add_up(denoiser: Denoiser, images: Pixels) -> None:
    bound = evaluate_bound(denoiser, images, draws=3, batch_size=5)
    parts = (bound.prior, bound.diffusion, bound.reconstruction)
    assert bound.total.mean == pytest.approx(sum(part.mean for part in parts))
    assert all(part.mean > 0 for part in parts)
    assert 0 < bound.total.standard_error < sum(part.standard_error for part in parts) + 1e-12
    assert (bound.images, bound.draws, bound.final_step) == (12, 3, 0)


def test_prior_is_that_of_the_process(
    denoiser: Denoiser, images: Pixels, config: ModelConfig
) -> None:
    schedule = make_schedule(config.schedule)
    nats = [prior_kl_nats(schedule, x) for x in levels_to_signal(images)]
    expected = np.mean(nats) / np.log(2) / images[0].size
    assert evaluate_bound(denoiser, images, draws=1).prior.mean == pytest.approx(expected)


def test_diffusion_is_the_sum_over_all_steps(
    denoiser: Denoiser, images: Pixels, config: ModelConfig
) -> None:
    # One draw for every step visits each of them once, so that only the noise in z is left.
    bound = evaluate_bound(denoiser, images, draws=200)
    schedule = make_schedule(config.schedule)
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
    denoiser: Denoiser, images: Pixels, variance: Variance, config: ModelConfig
) -> None:
    # Few steps, where variances differ; both networks are zero, so that x̂_0 is the same.
    schedule = ScheduleConfig(steps=20)
    posterior, other = (
        Denoiser(dataclasses.replace(config, schedule=schedule, variance=v)).eval()
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


def test_a_learned_schedule_is_evaluated_as_learned(images: Pixels, config: ModelConfig) -> None:
    model = dataclasses.replace(config, schedule=ScheduleConfig(kind="learned", steps=200))
    moved = Denoiser(model).eval()
    assert moved.learned_gamma is not None
    with torch.no_grad():
        moved.learned_gamma.ends += torch.tensor([0.0, -3.0])
        moved.learned_gamma.second_bias += torch.randn(1024)
    bound = evaluate_bound(moved, images, draws=4)
    assert evaluate_bound(moved.frozen(), images, draws=4) == bound
    assert bound.prior.mean > evaluate_bound(Denoiser(model), images, draws=4).prior.mean


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


def test_exact_visits_every_step_once(
    denoiser: Denoiser, images: Pixels, config: ModelConfig
) -> None:
    samples = sample_bound(denoiser, images[:3], final_step=150, draws=None, batch_size=2)
    assert samples.step.tolist() == [[step] * 3 for step in range(151, 201)]
    costs = samples.steps()
    assert [(cost.first_step, cost.last_step) for cost in costs] == [
        (step, step) for step in range(151, 201)
    ]
    bound = samples.bound()
    assert bound.draws == 50
    assert sum(cost.rate.mean for cost in costs) == pytest.approx(bound.diffusion.mean)
    # The hop's KL by the process's own formula, from the error that the same samples tell.
    schedule = make_schedule(config.schedule)
    for cost in costs:
        mean_square = (cost.rmse.mean / HALF_RANGE) ** 2
        nats = hop_kl_nats(schedule, cost.first_step - 1, cost.first_step, mean_square)
        assert cost.rate.mean == pytest.approx(nats / np.log(2))
        assert cost.gamma == schedule.gamma[cost.first_step]


def test_exact_and_few_draws_agree(denoiser: Denoiser, images: Pixels) -> None:
    exact = sample_bound(denoiser, images[:6], draws=None).bound()
    few = evaluate_bound(denoiser, images[:6], draws=10)
    error = few.diffusion.standard_error + exact.diffusion.standard_error
    assert few.diffusion.mean == pytest.approx(exact.diffusion.mean, abs=3 * error)


@pytest.mark.parametrize("draws", [1, 7, 16, 180])
def test_strata_cover_the_steps(denoiser: Denoiser, images: Pixels, draws: int) -> None:
    samples = sample_bound(denoiser, images[:3], final_step=20, draws=draws)
    costs = samples.steps()
    assert len(costs) == draws
    assert (costs[0].first_step, costs[-1].last_step) == (21, 200)
    for cost, drawn in zip(costs, samples.step, strict=True):
        assert cost.first_step <= drawn.min() <= drawn.max() <= cost.last_step
    rates = [cost.rate.mean for cost in costs]
    assert sum(rates) * 180 / draws == pytest.approx(samples.bound().diffusion.mean)


def test_hops_down_to_a_step(denoiser: Denoiser, images: Pixels) -> None:
    samples = sample_bound(denoiser, images[:4], draws=None)
    hops = samples.hops_bpd(50)
    assert hops.mean() == pytest.approx(sum(cost.rate.mean for cost in samples.steps()[50:]))
    assert np.all(hops < samples.hops_bpd(0))


LOWER = ((1, 0), (2, 0), (2, 1))
COVARIANCE = 0.01 * np.array([[1.0, 0.8, 0.5], [0.8, 1.0, 0.7], [0.5, 0.7, 1.0]])


class GaussianModel(Denoiser):
    """A pixel model that is right about images of independent normal pixels."""

    def __init__(self, config: ModelConfig, covariance: NDArray[np.float64]) -> None:
        super().__init__(dataclasses.replace(config, pixel_model=True))
        self.covariance = covariance
        self.calls: list[tuple[Tensor, Tensor]] = []

    def posterior(self, z: Tensor, gamma: Tensor, known: Tensor | None = None) -> PixelPosterior:
        """p(x | z) of a pixel's channels in LDLᵀ form."""
        assert known is not None
        self.calls.append((z, known))
        alpha, sigma = (float(part[0]) for part in alpha_sigma(gamma))
        prior = np.linalg.inv(self.covariance)
        posterior = np.linalg.inv(prior + np.eye(3) * (alpha / sigma) ** 2)
        mean = np.einsum("ij,bjhw->bihw", posterior, alpha / sigma**2 * z.double().numpy())
        triangle = np.linalg.cholesky(posterior)
        deviations = np.diag(triangle)
        # x − mean = L e with L of unit diagonal, so e_c = (x − mean)_c less the row of 1 − L⁻¹.
        mixing = np.eye(3) - np.linalg.inv(triangle / deviations)

        def planes(values: list[float]) -> Tensor:
            column = torch.tensor(values, dtype=torch.float32)[:, None, None]
            return column.expand(len(z), len(values), *z.shape[2:])

        return PixelPosterior(
            torch.as_tensor(mean, dtype=torch.float32),
            planes([2.0 * float(np.log(deviation)) for deviation in deviations]),
            planes([float(mixing[pair]) for pair in LOWER]),
        )


def normal_images(count: int) -> Pixels:
    """Images of independent pixels whose channels have COVARIANCE around 0."""
    noise = np.random.default_rng(0).standard_normal((count, 16, 16, 3))
    signal = noise @ np.linalg.cholesky(COVARIANCE).T
    levels: Pixels = np.clip(np.rint((signal + 1) * HALF_RANGE), 0, 255).astype(np.uint8)
    return levels


@pytest.mark.parametrize("gamma", [-6.0, -8.0])
def test_right_pixel_models_pay_the_conditional_entropy(gamma: float, config: ModelConfig) -> None:
    images = normal_images(40)
    model = GaussianModel(config, COVARIANCE)
    estimate = Estimate.of(pixel_bpd(model, images, gamma, 1))
    posterior = np.linalg.inv(np.linalg.inv(COVARIANCE) + np.eye(3) * np.exp(-gamma))
    # ½ log2 det(2πe Σ) of a pixel in levels, while bins are fine enough to be an integral.
    bits = 0.5 * np.log2(np.linalg.det(2 * np.pi * np.e * HALF_RANGE**2 * posterior)) / 3
    room = 4 * estimate.standard_error + 0.01
    assert estimate.mean == pytest.approx(bits, abs=room)
    # Pixels tell nothing of each other here, so groups are free of charge and of gain.
    for groups in (2, 16):
        grouped = pixel_bpd(model, images, gamma, groups, batch_size=7)
        assert grouped.mean() == pytest.approx(bits, abs=room)
    # A model that takes the channels for independent pays for it.
    apart = GaussianModel(config, np.diag(np.diag(COVARIANCE)))
    assert pixel_bpd(apart, images, gamma, 1).mean() > estimate.mean + room


def test_known_pixels_are_given_exactly_and_every_pixel_is_coded_once(
    images: Pixels, config: ModelConfig
) -> None:
    model = GaussianModel(config, COVARIANCE)
    done: list[int] = []
    costs = pixel_bpd(model, images, -8.0, 4, batch_size=12, progress=done.append)
    assert (costs.shape, done) == ((12,), [12])
    x = torch.as_tensor(levels_to_signal(images).transpose(0, 3, 1, 2)).float()
    alpha, _ = alpha_sigma(torch.tensor(-8.0))
    assert len(model.calls) == 4
    for start, (z, known) in zip(group_starts(4), model.calls, strict=False):
        expected = torch.as_tensor(pixel_ranks(16) < start)
        assert torch.equal(known[0, 0].bool(), expected)
        torch.testing.assert_close(z[:, :, expected], alpha * x[:, :, expected])
        # The rest is one and the same z_γ.
        assert torch.equal(z[:, :, ~expected], model.calls[0][0][:, :, ~expected])
        assert not torch.allclose(z[:, :, ~expected], alpha * x[:, :, ~expected], atol=1e-4)


def test_codec_costs_by_groups_and_handover(images: Pixels, config: ModelConfig) -> None:
    torch.manual_seed(0)
    denoiser = Denoiser(dataclasses.replace(config, pixel_model=True)).eval()
    samples = sample_bound(denoiser, images, draws=20)
    costs = evaluate_codec(denoiser, images, samples, groups=(1, 2))
    assert [cost.groups for cost in costs] == [1] * HANDOVER_POINTS + [2] * HANDOVER_POINTS
    for cost in costs:
        # On the grid, so within a step of the ends.
        assert PixelVlb.LOWEST_HANDOVER - 0.1 < cost.gamma < PixelVlb.HIGHEST_HANDOVER + 0.1
        assert cost.total.mean == pytest.approx(cost.hops.mean + cost.pixels.mean)
    # More hops, fewer bits in pixels.
    for many, few in pairwise(costs[:HANDOVER_POINTS]):
        assert many.step < few.step
        assert many.hops.mean > few.hops.mean
        assert many.pixels.mean < few.pixels.mean
    assert costs[0].pixels == Estimate.of(pixel_bpd(denoiser, images, costs[0].gamma, 1))


def test_what_cannot_be_evaluated(denoiser: Denoiser, images: Pixels, config: ModelConfig) -> None:
    with pytest.raises(ValueError, match="has no pixel model"):
        pixel_bpd(denoiser, images, -8.0, 1)
    with pytest.raises(ValueError, match="final_step 0"):
        evaluate_codec(denoiser, images, sample_bound(denoiser, images, final_step=5, draws=1))
    with pytest.raises(ValueError, match="1 to 16 groups"):
        pixel_bpd(GaussianModel(config, COVARIANCE), images, -8.0, 17)


def test_differences() -> None:
    gap = Estimate(4.0, 0.3).minus(Estimate(3.0, 0.4))
    assert (gap.mean, gap.standard_error) == (1.0, pytest.approx(0.5))


def test_estimates() -> None:
    estimate = Estimate.of(np.array([1.0, 2.0, 3.0, 6.0]))
    assert estimate.mean == 3.0
    assert estimate.standard_error == pytest.approx(np.sqrt(14 / 3) / 2)
    assert Estimate.of(np.array([2.0])) == Estimate(2.0, 0.0)


def test_weights_are_left_as_they_are(denoiser: Denoiser, images: Pixels) -> None:
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    evaluate_bound(denoiser, images[:2], draws=1)
    assert all(torch.equal(before[name], t) for name, t in denoiser.state_dict().items())
    assert all(parameter.grad is None for parameter in denoiser.parameters())
