import dataclasses

import pytest
import torch
from torch import Tensor, nn

from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import (
    LOG_VARIANCE_LIMIT,
    SIGNAL_VARIANCE,
    Denoiser,
    Parameterization,
    PixelPosterior,
    alpha_sigma,
)

TINY = MODEL_CONFIGS["tiny"]


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
    gamma = torch.tensor([-12.0, -6.0, 0.0, 2.0, 5.0])
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    perfect = {
        Parameterization.EPS: eps,
        Parameterization.X: x,
        Parameterization.V: alpha * eps - sigma * x,
    }
    denoiser = Denoiser(dataclasses.replace(TINY, parameterization=parameterization))
    denoiser.network = Fixed(perfect[parameterization])
    estimate = denoiser(alpha * x + sigma * eps, gamma)
    torch.testing.assert_close(estimate, x, rtol=0, atol=1e-5)


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


def test_nats_are_the_gaussian_s_density() -> None:
    said = posterior(seed=4)
    x = torch.randn(said.mean.shape, generator=torch.Generator().manual_seed(5))
    covariance = said.covariance().permute(0, 3, 4, 1, 2).double()
    normal = torch.distributions.MultivariateNormal(
        said.mean.permute(0, 2, 3, 1).double(), covariance
    )
    expected = -normal.log_prob(x.permute(0, 2, 3, 1).double())
    torch.testing.assert_close(said.nats(x).sum(dim=1).double(), expected, rtol=1e-4, atol=1e-4)


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
