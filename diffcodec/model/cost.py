"""What a model costs: weights, and arithmetic of one evaluation."""

from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from diffcodec.model.denoiser import Denoiser, ModelConfig


@dataclass(frozen=True)
class ModelCost:
    """Size of a model.

    Attributes:
        parameters: trained numbers, those of a learned γ included.
        flop: floating-point operations of x̂_0 for one image of the model's size, a multiplication
            and an addition counted as two; convolutions, linear maps and attention alone.
    """

    parameters: int
    flop: int


def measure_cost(config: ModelConfig) -> ModelCost:
    """Counted on tensors without data, so that no size takes memory or time."""
    unet = config.unet
    with torch.device("meta"):
        denoiser = Denoiser(config).eval()
        z = torch.empty((1, unet.image_channels, unet.image_size, unet.image_size))
        gamma = torch.empty(1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        denoiser(z, gamma)
    parameters = sum(parameter.numel() for parameter in denoiser.parameters())
    return ModelCost(parameters, counter.get_total_flops())
