import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from diffcodec.coding import tables
from diffcodec.diffusion.likelihood import LEVELS, level_probabilities
from diffcodec.diffusion.process import HALF_RANGE, levels_to_signal, q_posterior
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import (
    HALF_LEVEL,
    LEVEL_VARIANCE,
    LOG_VARIANCE_LIMIT,
    RAREST_LEVEL,
    SIGNAL_VARIANCE,
    SMALLEST_DEVIATION,
    Denoiser,
    Parameterization,
    PixelPosterior,
    Variance,
    alpha_sigma,
)

TINY = MODEL_CONFIGS["tiny"]
LEARNED = dataclasses.replace(TINY, schedule=ScheduleConfig(kind="learned", steps=50))


class Fixed(nn.Module):
    """A network that gives one output and keeps what it was told of time."""

    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output
        self.time = torch.empty(0)

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        self.time = time
        return self.output


@pytest.mark.parametrize("parameterization", list(Parameterization))
def test_a_perfect_network_gives_back_the_image(parameterization: Parameterization) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand((5, 3, 32, 32), generator=generator) * 2 - 1
    eps = torch.randn(x.shape, generator=generator)
    schedule = make_schedule(TINY.schedule)
    steps = [1, 300, 500, 750, 1000]
    gamma = torch.as_tensor(schedule.gamma[steps], dtype=torch.float32)
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    z = alpha * x + sigma * eps
    means = [
        q_posterior(schedule, t - 1, t).mean(z[row].double().numpy(), x[row].double().numpy())
        for row, t in enumerate(steps)
    ]
    perfect = {
        Parameterization.MU: torch.as_tensor(np.stack(means), dtype=torch.float32),
        Parameterization.EPS: eps,
        Parameterization.X: x,
        Parameterization.V: alpha * eps - sigma * x,
    }
    denoiser = Denoiser(dataclasses.replace(TINY, parameterization=parameterization))
    denoiser.network = Fixed(perfect[parameterization])
    # A small hop's mean is nearly all z: x is told with the digits that are left of it.
    lost = 100 if parameterization is Parameterization.MU else 1
    torch.testing.assert_close(denoiser(z, gamma), x, rtol=0, atol=1e-5 * lost)


def test_a_network_that_gives_nothing_is_the_wiener_estimate_of_unit_variance() -> None:
    denoiser = Denoiser(TINY)
    z, gamma = torch.randn((2, 3, 32, 32)), torch.tensor([-3.0, 3.0])
    alpha, _ = alpha_sigma(gamma)
    torch.testing.assert_close(denoiser(z, gamma), alpha[:, None, None, None] * z)


def test_time_spans_the_schedule() -> None:
    denoiser = Denoiser(TINY)
    denoiser.network = Fixed(torch.zeros((3, 3, 32, 32)))
    denoiser(torch.zeros((3, 3, 32, 32)), torch.tensor([-12.0, -3.5, 5.0]))
    torch.testing.assert_close(denoiser.network.time, torch.tensor([0.0, 500.0, 1000.0]))


def test_alpha_and_sigma_preserve_variance() -> None:
    gamma = torch.linspace(-13, 5, 19)
    alpha, sigma = alpha_sigma(gamma)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(19))
    torch.testing.assert_close(2 * torch.log(sigma / alpha), gamma, rtol=1e-3, atol=1e-3)


def test_the_posterior_s_weights_are_those_of_the_step_below() -> None:
    schedule = make_schedule(ScheduleConfig(kind="linear_beta"))
    config = dataclasses.replace(
        TINY, parameterization=Parameterization.MU, schedule=ScheduleConfig(kind="linear_beta")
    )
    steps = np.arange(1, 1001)
    gamma = torch.as_tensor(schedule.gamma[steps], dtype=torch.float32)
    weights = torch.stack(Denoiser(config).posterior_weights(gamma), dim=1)
    hops = [q_posterior(schedule, int(t) - 1, int(t)) for t in steps]
    expected = [(hop.z_coefficient, hop.x_coefficient) for hop in hops]
    # γ in float32 decides how far a small hop reaches.
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-4)


def test_mu_prediction_reaches_the_grid_s_first_level_and_between_levels() -> None:
    denoiser = Denoiser(dataclasses.replace(TINY, parameterization=Parameterization.MU))
    # γ of this grid is linear: every hop has the same ratio of SNRs, wherever it begins.
    gamma = torch.linspace(-12.0, 5.0, 977, dtype=torch.float64)
    z_weight, x_weight = (weight.double() for weight in denoiser.posterior_weights(gamma))
    below = gamma - 17.0 / 1000
    alpha_s, alpha_t = torch.sigmoid(-below).sqrt(), torch.sigmoid(-gamma).sqrt()
    ratio = torch.exp(below - gamma)
    torch.testing.assert_close(z_weight, ratio * alpha_s / alpha_t, rtol=1e-5, atol=0)
    torch.testing.assert_close(x_weight, alpha_s * (1 - ratio), rtol=2e-4, atol=0)


@pytest.mark.parametrize(
    ("variance", "interpolation"), [(Variance.POSTERIOR, 0.0), (Variance.FORWARD, 1.0)]
)
def test_a_fixed_variance_is_one_number(variance: Variance, interpolation: float) -> None:
    denoiser = Denoiser(dataclasses.replace(TINY, variance=variance))
    z, gamma = torch.randn((2, 3, 32, 32)), torch.tensor([-3.0, 3.0])
    prediction = denoiser.predict(z, gamma)
    assert prediction.interpolation == interpolation
    assert torch.equal(prediction.x_hat, denoiser(z, gamma))


def test_a_learned_variance_is_the_network_s_second_half() -> None:
    denoiser = Denoiser(dataclasses.replace(TINY, variance=Variance.LEARNED))
    z, gamma = torch.randn((2, 3, 32, 32)), torch.tensor([-3.0, 3.0])
    prediction = denoiser.predict(z, gamma)
    assert isinstance(prediction.interpolation, Tensor)
    assert bool((prediction.interpolation == 0.5).all())
    output = torch.randn((2, 6, 32, 32))
    denoiser.network = Fixed(output)
    prediction = denoiser.predict(z, gamma)
    assert torch.equal(prediction.interpolation, 0.5 * (1 + output[:, 3:]))
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    torch.testing.assert_close(prediction.x_hat, alpha * z - sigma * output[:, :3])


def test_a_learned_schedule_moves_and_freezes() -> None:
    denoiser = Denoiser(LEARNED)
    assert denoiser.learned_gamma is not None
    with torch.no_grad():
        denoiser.learned_gamma.ends += torch.tensor([-1.0, 0.5])
        denoiser.learned_gamma.second_bias += torch.randn(1024)
        for parameter in denoiser.network.parameters():
            nn.init.normal_(parameter, std=0.1)
    learned = denoiser.schedule
    assert (learned.gamma[0], learned.gamma[-1], learned.steps) == (-13.0, 5.5, 50)
    frozen = denoiser.eval().frozen()
    assert frozen.learned_gamma is None
    assert not frozen.training
    np.testing.assert_array_equal(frozen.schedule.gamma, learned.gamma)
    np.testing.assert_array_equal(make_schedule(frozen.config.schedule).gamma, learned.gamma)
    # The network is told time as in its training, though the ends have moved.
    z, gamma = torch.randn((3, 3, 32, 32)), torch.tensor([-13.0, 0.0, 5.5])
    with torch.no_grad():
        assert torch.equal(frozen(z, gamma), denoiser(z, gamma))
    assert frozen.frozen() is frozen


@pytest.mark.parametrize(
    "change",
    [
        {"pixel_model": True, "variance": Variance.LEARNED},
        {"parameterization": Parameterization.MU, "schedule": LEARNED.schedule},
    ],
)
def test_models_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"spread of pixels|a learned schedule"):
        dataclasses.replace(TINY, **change)


def posterior(batch: int = 2, side: int = 4, seed: int = 0) -> PixelPosterior:
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, 3, side, side)
    mean, log_variance, mixing = (torch.randn(shape, generator=generator) for _ in range(3))
    return PixelPosterior(mean, log_variance, mixing)


def chain(said: PixelPosterior) -> Tensor:
    """1 − A of every pixel, [B, S, S, 3, 3]: it turns residuals into innovations."""
    a10, a20, a21 = said.mixing.unbind(dim=1)
    matrix = torch.eye(3).expand(*a10.shape, 3, 3).clone()
    matrix[..., 1, 0], matrix[..., 2, 0], matrix[..., 2, 1] = -a10, -a20, -a21
    return matrix


def test_the_covariance_is_the_chain_s() -> None:
    said = posterior()
    factor = torch.linalg.inv(chain(said).double())
    variance = said.log_variance.double().exp().permute(0, 2, 3, 1)
    expected = factor @ torch.diag_embed(variance) @ factor.mT
    found = said.covariance().permute(0, 3, 4, 1, 2).double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_the_covariance_is_that_of_samples() -> None:
    said = posterior(batch=1, side=1, seed=3)
    generator = torch.Generator().manual_seed(1)
    deviation = said.log_variance.exp().sqrt().flatten()
    innovation = deviation * torch.randn((200_000, 3), generator=generator)
    a10, a20, a21 = said.mixing.flatten().tolist()
    first = innovation[:, 0]
    second = a10 * first + innovation[:, 1]
    third = a20 * first + a21 * second + innovation[:, 2]
    sampled = torch.cov(torch.stack([first, second, third]))
    scale = said.covariance()[0, :, :, 0, 0].diagonal().sqrt()
    error = (sampled - said.covariance()[0, :, :, 0, 0]) / (scale[:, None] * scale)
    assert float(error.abs().max()) < 0.02


def test_the_divergence_is_that_of_pixels_blurred_by_a_level() -> None:
    said, truth = posterior(), posterior(seed=7)

    def blurred(of: PixelPosterior) -> torch.distributions.MultivariateNormal:
        factor = torch.linalg.inv(chain(of).double())
        variance = of.log_variance.double().exp().permute(0, 2, 3, 1) + LEVEL_VARIANCE
        covariance = factor @ torch.diag_embed(variance) @ factor.mT
        mean = of.mean.double().permute(0, 2, 3, 1)
        return torch.distributions.MultivariateNormal(mean, covariance)

    expected = torch.distributions.kl_divergence(blurred(truth), blurred(said))
    found = said.kl_nats(truth)
    assert found.shape == said.mean.shape
    torch.testing.assert_close(found.sum(dim=1).double(), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(said.kl_nats(said), torch.zeros_like(found), rtol=0, atol=1e-5)


def test_certainty_below_a_level_hardly_counts() -> None:
    said = posterior()
    sure = PixelPosterior(said.mean, torch.full_like(said.mean, -20.0), said.mixing)
    surer = PixelPosterior(said.mean, torch.full_like(said.mean, -30.0), said.mixing)
    assert float(surer.kl_nats(sure).abs().max()) < 1e-3


def test_level_nats_of_narrow_levels_are_the_gaussian_s_density() -> None:
    said = posterior(seed=4)
    x = 0.3 * torch.randn(said.mean.shape, generator=torch.Generator().manual_seed(5))
    covariance = said.covariance().permute(0, 3, 4, 1, 2).double()
    normal = torch.distributions.MultivariateNormal(
        said.mean.permute(0, 2, 3, 1).double(), covariance
    )
    density = -normal.log_prob(x.permute(0, 2, 3, 1).double())
    expected = density - 3 * math.log(2 * HALF_LEVEL)
    nats = said.level_nats(x)
    # Where no channel is so unlikely that the least probability counts.
    likely = (nats < 12.0).all(dim=1)
    assert likely.float().mean() > 0.5
    torch.testing.assert_close(
        nats.sum(dim=1).double()[likely], expected[likely], rtol=2e-3, atol=2e-3
    )


@pytest.mark.parametrize("deviation", [1e-6, 1e-3, 4e-3, 0.03, 0.4])
def test_level_nats_are_the_discretized_gaussian_s(deviation: float) -> None:
    levels = np.arange(LEVELS)
    x = torch.from_numpy(levels_to_signal(levels)).float().reshape(1, 1, 16, 16)
    x = x.repeat(1, 3, 1, 1)
    mean = torch.full_like(x, 0.37)
    said = PixelPosterior(mean, torch.full_like(x, 2 * math.log(deviation)), torch.zeros_like(x))
    scale = math.hypot(deviation, SMALLEST_DEVIATION) * HALF_RANGE
    probability = level_probabilities(levels, np.float64((0.37 + 1) * HALF_RANGE), scale)
    expected = -np.log(probability + RAREST_LEVEL)
    for nats in said.level_nats(x)[0].double().numpy():
        np.testing.assert_allclose(nats.ravel(), expected, rtol=2e-4, atol=2e-4)


def test_training_and_tables_mean_the_same_levels() -> None:
    smallest = SMALLEST_DEVIATION * HALF_RANGE
    assert smallest == pytest.approx(tables.SMALLEST_SIGMA)
    assert RAREST_LEVEL == 1 / tables.TOTAL_FREQUENCY


def test_level_nats_have_finite_gradients_everywhere() -> None:
    """At the edges, far out, and where a level is as good as certain."""
    x = torch.tensor([-1.0, 1.0, 0.0, 1 / 255]).reshape(1, 1, 2, 2).repeat(1, 3, 1, 1)
    for mean in (-1.0, 0.0, 1.0):
        for log_variance in (-40.0, -12.0, -5.0, 2.0):
            said = PixelPosterior(
                *(torch.full_like(x, value).requires_grad_() for value in (mean, log_variance, 0.1))
            )
            nats = said.level_nats(x)
            assert nats.isfinite().all()
            nats.sum().backward()
            for part in (said.mean, said.log_variance, said.mixing):
                assert part.grad is not None
                assert part.grad.isfinite().all()


def test_a_pixel_model_that_gives_nothing_says_a_prior_s_variance() -> None:
    denoiser = Denoiser(dataclasses.replace(TINY, pixel_model=True))
    z, gamma = torch.randn((2, 3, 32, 32)), torch.tensor([-3.0, 3.0])
    said = denoiser.posterior(z, gamma)
    torch.testing.assert_close(said.mean, denoiser(z, gamma))
    assert not said.mixing.any()
    variance = 1.0 / (torch.exp(-gamma) + 1.0 / SIGNAL_VARIANCE)
    expected = variance.log()[:, None, None, None].expand(2, 3, 32, 32)
    torch.testing.assert_close(said.log_variance, expected)


def test_variances_stay_in_a_range_of_their_prior_s() -> None:
    denoiser = Denoiser(dataclasses.replace(TINY, pixel_model=True))
    denoiser.network = Fixed(torch.full((1, 9, 32, 32), 1e6))
    said = denoiser.posterior(torch.zeros((1, 3, 32, 32)), torch.tensor([0.0]))
    assert said.log_variance.max() < LOG_VARIANCE_LIMIT
    assert said.log_variance.isfinite().all()
