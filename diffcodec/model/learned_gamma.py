"""VDM's learned noise schedule: γ(t) as a monotone network (arXiv:2107.00630, appendix H)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

INNER_WIDTH = 1024


@dataclass(frozen=True)
class GammaAt:
    """γ at given times, differentiable in the schedule's parameters.

    Attributes:
        gamma: γ(t), float64 [B].
        slope: dγ/dt, float64 [B], positive.
        shape: where γ(t) lies between its ends, 0 … 1, float64 [B]; what `gamma` was made of.
        shape_slope: its derivative, float64 [B]; what `slope` was made of.
    """

    gamma: Tensor
    slope: Tensor
    shape: Tensor
    shape_slope: Tensor


class LearnedGamma(nn.Module):
    """γ(t) = γ_min + (γ_max − γ_min) s(t), t in [0, 1], with s increasing from 0 to 1.

    s is l_1(t) + l_3(φ(l_2(l_1(t)))), brought to [0, 1] by its values at the ends; l_1 and l_3 have
    one output, l_2 has `INNER_WIDTH`, φ is the sigmoid and all weights are positive. It begins
    close to the straight line. Computed in float64: the bound multiplies by SNRs of e¹³.

    Attributes:
        ends: γ_min and γ_max, float32 [2]; parameters of their own.
    """

    def __init__(self, gamma_min: float, gamma_max: float) -> None:
        super().__init__()
        self.ends = nn.Parameter(torch.tensor([gamma_min, gamma_max]))
        # Weights are stored before the softplus that makes them positive. l_1 begins as t − ½.
        self.first_weight = nn.Parameter(torch.tensor(math.log(math.expm1(1.0))))
        self.first_bias = nn.Parameter(torch.tensor(-0.5))
        # Sigmoids centred all over l_1's range and a bit beyond, a tenth of it wide, that together
        # rise by a third of it: nearly another straight line.
        centres = torch.linspace(-0.6, 0.6, INNER_WIDTH)
        self.second_weight = nn.Parameter(torch.full((INNER_WIDTH,), 8.0))
        self.second_bias = nn.Parameter(-8.0 * centres)
        self.third_weight = nn.Parameter(torch.full((INNER_WIDTH,), -8.0))

    def forward(self, time: Tensor) -> GammaAt:
        """γ and its slope at ``time`` [B] in [0, 1]."""
        points = torch.cat([time.double(), time.new_tensor([0.0, 1.0], dtype=torch.float64)])
        value, slope = self._unscaled(points)
        start, range_ = value[-2], value[-1] - value[-2]
        shape, shape_slope = (value[:-2] - start) / range_, slope[:-2] / range_
        gamma_min, gamma_max = self.ends.double()
        span = gamma_max - gamma_min
        return GammaAt(gamma_min + span * shape, span * shape_slope, shape, shape_slope)

    def shape_parameters(self) -> list[nn.Parameter]:
        """All parameters but the ends."""
        return [parameter for parameter in self.parameters() if parameter is not self.ends]

    def _unscaled(self, time: Tensor) -> tuple[Tensor, Tensor]:
        """l_1 + l_3 ∘ φ ∘ l_2 ∘ l_1 and its derivative, both [B]."""
        first, second, third = (
            functional.softplus(weight.double())
            for weight in (self.first_weight, self.second_weight, self.third_weight)
        )
        line = first * time + self.first_bias.double()
        inner = torch.sigmoid(second * line[:, None] + self.second_bias.double())
        value = line + inner @ third
        slope = first * (1.0 + (inner * (1.0 - inner)) @ (second * third))
        return value, slope
