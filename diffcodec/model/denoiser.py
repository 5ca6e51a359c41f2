"""The network as a denoiser: four scalings around it turn its output into x̂_0.

x̂_0 = c_skip · z + c_out · F(c_in · z, c_noise), EDM's form (arXiv:2206.00364, eq. 7), of which ε-,
x̂_0- and v-prediction are three choices of c_skip and c_out.
"""

from dataclasses import dataclass, field
from enum import StrEnum

import torch
from torch import Tensor, nn

from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.unet import UNet, UNetConfig

TIME_SCALE = 1000.0


class Parameterization(StrEnum):
    """What the network's output stands for."""

    EPS = "eps"
    X = "x"
    V = "v"


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what the denoiser computes, besides its weights.

    Attributes:
        name: what the model is called in listings.
        parameterization: meaning of the network's output.
        schedule: the γ table; its ends also scale the network's time input.
        unet: shape of the network.
    """

    name: str = "default"
    parameterization: Parameterization = Parameterization.V
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)


class Denoiser(nn.Module):
    """z_t float32 [B, C, S, S] and γ_t float32 [B] to x̂_0 of the shape of z_t."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = UNet(config.unet)
        gamma = make_schedule(config.schedule).gamma
        self._gamma_min, self._gamma_max = float(gamma[0]), float(gamma[-1])

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """x̂_0(z_t) in [−1, 1] nominally, not clipped."""
        alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
        output: Tensor = self.network(z, self._time(gamma)).float()
        match self.config.parameterization:
            case Parameterization.EPS:
                return (z - sigma * output) / alpha
            case Parameterization.V:
                return alpha * z - sigma * output
            case Parameterization.X:
                return output

    def _time(self, gamma: Tensor) -> Tensor:
        """c_noise: γ mapped linearly so that the schedule's ends are 0 and 1000.

        A function of γ, not of t: the same network serves every grid between the same ends.
        """
        return TIME_SCALE * (gamma - self._gamma_min) / (self._gamma_max - self._gamma_min)


def alpha_sigma(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """α = √sigmoid(−γ), σ = √sigmoid(γ), of the shape of ``gamma``."""
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
