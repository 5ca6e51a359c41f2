"""The bound in bits/dim by part, and the error curve that hop plans start from."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.likelihood import fitted_scale, level_nats
from diffcodec.diffusion.process import levels_to_signal, prior_kl_nats
from diffcodec.diffusion.schedule import Schedule, make_schedule
from diffcodec.model.checkpoint import ErrorCurve
from diffcodec.model.denoiser import Denoiser
from diffcodec.training.objective import draw_latent
from diffcodec.units import bits_per_dimension, nats_to_bits

CURVE_POINTS = 69

Progress = Callable[[int], None]


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its standard error, both in bits/dim."""

    mean: float
    standard_error: float

    @staticmethod
    def of(values: NDArray[np.float64]) -> "Estimate":
        """Mean and standard error of one value per image."""
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return Estimate(float(values.mean()), spread / math.sqrt(len(values)))


@dataclass(frozen=True)
class Bound:
    """The variational bound of DDPM (arXiv:2006.11239, eq. 5), bits/dim.

    Attributes:
        prior: L_T, what z_T says about the image.
        diffusion: the unit hops from T down to ``final_step``.
        reconstruction: L_0, the discretized Gaussian at ``final_step``, one fitted scale an image.
        total: their sum.
        final_step: the grid step at which pixels are coded.
        images: how many images were measured.
        draws: Monte Carlo draws of t per image.
    """

    prior: Estimate
    diffusion: Estimate
    reconstruction: Estimate
    total: Estimate
    final_step: int
    images: int
    draws: int


def evaluate_bound(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    *,
    final_step: int = 0,
    draws: int = 16,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Bound:
    """Monte Carlo estimate of the T-step bound; every image gets ``draws`` stratified times.

    Args:
        images: uint8 [N, H, W, C].
        final_step: where the reverse process hands over to the pixel decoder.
        progress: called with the number of images done since the last call.
    """
    schedule = make_schedule(denoiser.config.schedule)
    device = next(denoiser.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    hops = schedule.steps - final_step
    # Hop t → t − 1 costs ½ (SNR(t − 1) − SNR(t)) ‖x − x̂_0(z_t)‖².
    hop_rate = 0.5 * (schedule.snr[:-1] - schedule.snr[1:])
    dimensions = images[0].size
    prior, diffusion, reconstruction = [], [], []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        signal = levels_to_signal(batch)
        prior += [prior_kl_nats(schedule, x) for x in signal]
        total = np.zeros(len(batch))
        for draw in range(draws):
            offsets = torch.rand(len(batch), generator=generator, device=device).cpu().numpy()
            step = final_step + 1 + np.floor((draw + offsets) / draws * hops).astype(np.int64)
            step = np.minimum(step, schedule.steps)
            estimate = _estimate(denoiser, schedule, signal, step, generator)
            squared_error = ((signal - estimate) ** 2).sum(axis=(1, 2, 3))
            total += hops * hop_rate[step - 1] * squared_error / draws
        diffusion += list(total)
        final = np.full(len(batch), final_step)
        mean = (_estimate(denoiser, schedule, signal, final, generator) + 1.0) * 127.5
        reconstruction += [
            float(level_nats(levels, center, fitted_scale(levels, center)).sum())
            for levels, center in zip(batch, mean, strict=True)
        ]
        if progress is not None:
            progress(len(batch))

    def bpd(nats: NDArray[np.float64]) -> NDArray[np.float64]:
        return bits_per_dimension(nats_to_bits(nats), dimensions)

    parts = [bpd(np.asarray(part)) for part in (prior, diffusion, reconstruction)]
    return Bound(
        prior=Estimate.of(parts[0]),
        diffusion=Estimate.of(parts[1]),
        reconstruction=Estimate.of(parts[2]),
        total=Estimate.of(np.sum(parts, axis=0)),
        final_step=final_step,
        images=len(images),
        draws=draws,
    )


def measure_error_curve(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    *,
    points: int = CURVE_POINTS,
    batch_size: int = 64,
    seed: int = 0,
) -> ErrorCurve:
    """E‖x − x̂_0(z_γ)‖² / dimensions at ``points`` levels of γ, evenly spaced in t."""
    schedule = make_schedule(denoiser.config.schedule)
    device = next(denoiser.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    steps = np.unique(np.rint(np.linspace(0, schedule.steps, points)).astype(np.int64))
    signal = levels_to_signal(images)
    errors, spreads = [], []
    for step in steps:
        total, spread = 0.0, 0.0
        for start in range(0, len(signal), batch_size):
            x = signal[start : start + batch_size]
            at = np.full(len(x), step)
            total += float(((x - _estimate(denoiser, schedule, x, at, generator)) ** 2).sum())
            spread += float(_spreads(denoiser, schedule, x, at, generator).sum())
        errors.append(total / signal.size)
        spreads.append(max(1.0, spread / len(signal)))
    gamma = tuple(float(g) for g in schedule.gamma[steps])
    return ErrorCurve(gamma, tuple(errors), tuple(spreads))


@torch.no_grad()
def _spreads(
    denoiser: Denoiser,
    schedule: Schedule,
    signal: NDArray[np.float64],
    step: NDArray[np.int64],
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """E[λ²]/E[λ]² over the eigenvalues λ of the covariances that the model names, float64 [B]."""
    if not denoiser.config.pixel_model:
        return np.ones(len(signal))
    z, gamma = _latent(schedule, signal, step, generator)
    covariance = denoiser.posterior(z, gamma).covariance().double()
    mean = covariance.diagonal(dim1=1, dim2=2).mean(dim=(1, 2, 3))
    # The squared eigenvalues of a symmetric matrix sum to its squared entries.
    mean_square = covariance.square().sum(dim=2).mean(dim=(1, 2, 3))
    spreads: NDArray[np.float64] = (mean_square / mean.square()).cpu().numpy()
    return spreads


@torch.no_grad()
def _estimate(
    denoiser: Denoiser,
    schedule: Schedule,
    signal: NDArray[np.float64],
    step: NDArray[np.int64],
    generator: torch.Generator,
) -> NDArray[np.float64]:
    """x̂_0(z_t) clipped to [−1, 1], z_t ~ q(z_t | x); float64 [B, H, W, C] in and out."""
    estimate = denoiser(*_latent(schedule, signal, step, generator)).clamp(-1.0, 1.0)
    channels_last: NDArray[np.float64] = estimate.cpu().double().numpy().transpose(0, 2, 3, 1)
    return channels_last


def _latent(
    schedule: Schedule,
    signal: NDArray[np.float64],
    step: NDArray[np.int64],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """z_t ~ q(z_t | x), float32 [B, C, H, W] channels last, and γ_t, float32 [B]."""
    device = generator.device
    x = torch.as_tensor(signal.transpose(0, 3, 1, 2), dtype=torch.float32, device=device)
    gamma = torch.as_tensor(schedule.gamma[step], dtype=torch.float32, device=device)
    z, _ = draw_latent(x, gamma, generator)
    return z.contiguous(memory_format=torch.channels_last), gamma
