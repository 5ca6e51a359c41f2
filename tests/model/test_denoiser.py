import dataclasses

import pytest
import torch
from torch import Tensor, nn

from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser, Parameterization, alpha_sigma

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
