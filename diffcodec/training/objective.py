"""Training objectives: from images to one loss per image, in bits/dim where it is a bound."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor

from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.diffusion.schedule import Schedule
from diffcodec.model.denoiser import Denoiser, alpha_sigma
from diffcodec.model.pixel_order import RANKS, pixel_ranks
from diffcodec.units import nats_to_bits


class Objective(Protocol):
    """Loss per image, float32 [B]; randomness comes from ``generator`` alone."""

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor: ...


class ContinuousVlb:
    """L_∞: VDM's continuous-time diffusion loss (arXiv:2107.00630, eq. 17), in bits/dim.

    ½ E_t[γ'(t) ‖ε − ε̂‖²] with t uniform and γ interpolated linearly in the schedule's table; the
    prior and reconstruction terms do not depend on the weights and are left to the evaluation.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma, dtype=torch.float64)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        position = low_discrepancy_times(len(x), generator, x.device) * (len(self._gamma) - 1)
        table = self._gamma.to(x.device)
        lower = position.floor().long().clamp_(0, len(table) - 2)
        slope = table[lower + 1] - table[lower]
        gamma = (table[lower] + slope * (position - lower)).float()
        rate = 0.5 * slope * (len(table) - 1)
        return _bits_per_dimension(rate.float() * _eps_error(denoiser, x, gamma, generator), x)


class DiscreteVlb:
    """L_1..T of the T-step bound (VDM, eq. 14), one hop t → t − 1 drawn per image, in bits/dim."""

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma, dtype=torch.float64)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        steps = len(self._gamma) - 1
        time = low_discrepancy_times(len(x), generator, x.device)
        step = (time * steps).long().clamp_(0, steps - 1) + 1
        table = self._gamma.to(x.device)
        # SNR(s) − SNR(t) = SNR(t) · expm1(γ_t − γ_s); SNR(t) turns x's error into ε's.
        rate = 0.5 * steps * torch.expm1(table[step] - table[step - 1])
        error = _eps_error(denoiser, x, table[step].float(), generator)
        return _bits_per_dimension(rate.float() * error, x)


class Simple:
    """L_simple: ‖ε − ε̂‖² at a uniform step, per dimension (DDPM, arXiv:2006.11239, eq. 14)."""

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma[1:], dtype=torch.float32)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        table = self._gamma.to(x.device)
        time = low_discrepancy_times(len(x), generator, x.device)
        step = (time * len(table)).long().clamp_(0, len(table) - 1)
        return _eps_error(denoiser, x, table[step], generator) / x[0].numel()


class PixelVlb:
    """What a file costs: the bound down to the noise where pixels take over, and the pixels.

    Most of a batch is the continuous-time bound (`ContinuousVlb`) at γ uniform down to
    ``LOWEST_HANDOVER``, whose errors also teach the pixel model their spread, without a say on the
    mean. The rest learns the last stage: −log p(x | z_γ, known pixels) per unknown coordinate, in
    bits, at γ uniform over the handovers' range and with the first k ranks of pixels known.
    """

    PIXEL_FRACTION = 0.25
    SPREAD_WEIGHT = 0.1
    LOWEST_HANDOVER, HIGHEST_HANDOVER = -11.2, -7.5

    def __init__(self, schedule: Schedule) -> None:
        self._lowest = max(self.LOWEST_HANDOVER, float(schedule.gamma[0]))
        self._highest = float(schedule.gamma[-1])

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        hops = len(x) - int(self.PIXEL_FRACTION * len(x))
        span = self._highest - self._lowest
        hop_gamma = self._lowest + span * low_discrepancy_times(hops, generator, x.device)
        pixel_span = self.HIGHEST_HANDOVER - self._lowest
        pixel_times = low_discrepancy_times(len(x) - hops, generator, x.device)
        gamma = torch.cat([hop_gamma, self._lowest + pixel_span * pixel_times]).float()

        z, _ = draw_latent(x, gamma, generator)
        ranks = torch.as_tensor(pixel_ranks(x.shape[-1]), device=x.device)
        known_ranks = torch.randint(
            RANKS, (len(x),), generator=generator, device=generator.device
        ).to(x.device)
        known_ranks[:hops] = 0
        known = (ranks < known_ranks[:, None, None])[:, None].to(x.dtype)
        alpha, _ = alpha_sigma(gamma)
        z = torch.where(known > 0, alpha[:, None, None, None] * x, z)
        z = z.contiguous(memory_format=torch.channels_last)

        posterior = denoiser.posterior(z, gamma, known)
        squared_error = (posterior.mean - x).square().sum(dim=(1, 2, 3))
        bound = _bits_per_dimension(0.5 * span * torch.exp(-gamma) * squared_error, x)
        spread = _level_bits(posterior.with_fixed_mean().nats(x)).mean(dim=(1, 2, 3))
        unknown = 1.0 - known
        pixels = (_level_bits(posterior.nats(x)) * unknown).mean(dim=(1, 2, 3))
        pixels = pixels / unknown.mean(dim=(1, 2, 3))
        is_hop = torch.arange(len(x), device=x.device) < hops
        return torch.where(is_hop, bound + self.SPREAD_WEIGHT * spread, pixels)


OBJECTIVES: Mapping[str, Callable[[Schedule], Objective]] = {
    "vlb": ContinuousVlb,
    "vlb_discrete": DiscreteVlb,
    "simple": Simple,
    "vlb_pixels": PixelVlb,
}


def low_discrepancy_times(
    count: int, generator: torch.Generator, device: torch.device | str = "cpu"
) -> Tensor:
    """Times uniform on [0, 1) that form an even comb (VDM, appendix I.1), float64 [count]."""
    offset = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    comb = torch.arange(count, device=device, dtype=torch.float64) / count
    return (offset.to(device) + comb) % 1.0


def draw_latent(x: Tensor, gamma: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z_γ ~ q(z_γ | x) and the ε it was made with; x float32 [B, C, H, W], gamma float32 [B]."""
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
    return alpha * x + sigma * eps, eps


def _eps_error(
    denoiser: Denoiser,
    x: Tensor,
    gamma: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """‖ε − ε̂‖² = SNR ‖x − x̂_0‖², float32 [B]."""
    z, _ = draw_latent(x, gamma, generator)
    estimate: Tensor = denoiser(z, gamma)
    squared_error = (estimate - x).float().square().sum(dim=(1, 2, 3))
    return torch.exp(-gamma) * squared_error


def _level_bits(nats: Tensor) -> Tensor:
    """Nats of a density over [−1, 1] as bits of a level of 8 bits."""
    return nats_to_bits(1.0) * (nats + math.log(HALF_RANGE))


def _bits_per_dimension(nats: Tensor, x: Tensor) -> Tensor:
    return nats * (nats_to_bits(1.0) / x[0].numel())
