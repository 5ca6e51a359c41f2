"""The bound in bits/dim by part and step, and what pixels cost."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.likelihood import fitted_scale, level_nats
from diffcodec.diffusion.process import (
    HALF_RANGE,
    levels_to_signal,
    prior_kl_nats,
    reverse_kl_nats,
)
from diffcodec.diffusion.schedule import Schedule
from diffcodec.model.denoiser import Denoiser, alpha_sigma
from diffcodec.model.pixel_order import group_starts, pixel_ranks
from diffcodec.training.objective import PixelVlb, draw_latent
from diffcodec.units import bits_per_dimension, nats_to_bits

PIXEL_GROUPS = (1, 2, 4, 8, 16)
HANDOVER_POINTS = 8

Float64 = NDArray[np.float64]
Progress = Callable[[int], None]


@dataclass(frozen=True)
class Estimate:
    """A mean over images and its standard error, in bits/dim unless said otherwise."""

    mean: float
    standard_error: float

    @staticmethod
    def of(values: Float64) -> "Estimate":
        """Mean and standard error of one value per image."""
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        return Estimate(float(values.mean()), spread / math.sqrt(len(values)))

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference from an estimate over other images, independent of these."""
        error = math.hypot(self.standard_error, other.standard_error)
        return Estimate(self.mean - other.mean, error)


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
        draws: draws of t per image.
    """

    prior: Estimate
    diffusion: Estimate
    reconstruction: Estimate
    total: Estimate
    final_step: int
    images: int
    draws: int


@dataclass(frozen=True)
class StepCost:
    """L_t and the error of x̂_0 at one step of the grid, or on average over a stratum of them.

    Attributes:
        first_step, last_step: the steps t whose hops t → t − 1 are meant, both included.
        gamma: γ in their middle.
        rate: L_t of one of these hops, bits/dim.
        rmse: root mean square error of x̂_0(z_t) over images and dimensions, 0–255 scale.
    """

    first_step: int
    last_step: int
    gamma: float
    rate: Estimate
    rmse: Estimate


@dataclass(frozen=True, eq=False)
class BoundSamples:
    """What the bound of a set of images is made of, image by image.

    The draws of t are stratified: draw k of n is uniform on the k-th n-th of the hops.

    Attributes:
        schedule: the table of γ.
        final_step: the grid step at which pixels are coded.
        dimensions: values of an image.
        prior_nats: L_T, float64 [N].
        reconstruction_nats: L_0, float64 [N].
        step: t of each draw, int64 [draws, N].
        hop_nats: KL of its hop t → t − 1, float64 [draws, N].
        squared_error: ‖x − x̂_0(z_t)‖² there, signal scaled to [−1, 1], float64 [draws, N].
    """

    schedule: Schedule
    final_step: int
    dimensions: int
    prior_nats: Float64
    reconstruction_nats: Float64
    step: NDArray[np.int64]
    hop_nats: Float64
    squared_error: Float64

    def bound(self) -> Bound:
        """The bound by part."""
        parts = (
            self._bpd(self.prior_nats),
            self.hops_bpd(self.final_step),
            self._bpd(self.reconstruction_nats),
        )
        return Bound(
            prior=Estimate.of(parts[0]),
            diffusion=Estimate.of(parts[1]),
            reconstruction=Estimate.of(parts[2]),
            total=Estimate.of(np.sum(parts, axis=0)),
            final_step=self.final_step,
            images=len(self.prior_nats),
            draws=len(self.step),
        )

    def hops_bpd(self, final_step: int) -> Float64:
        """Hops from T down to ``final_step``, which is the own one or above; bits/dim [N]."""
        hops = self.schedule.steps - self.final_step
        wanted = np.where(self.step > final_step, self.hop_nats, 0.0)
        return self._bpd(hops * wanted.sum(axis=0) / len(self.step))

    def prior_bpd(self) -> Float64:
        """L_T in bits/dim, float64 [N]."""
        return self._bpd(self.prior_nats)

    def steps(self) -> list[StepCost]:
        """Every stratum's L_t and error, from the data's end to noise."""
        draws, hops = len(self.step), self.schedule.steps - self.final_step
        costs = []
        for draw in range(draws):
            first = self.final_step + 1 + draw * hops // draws
            last = self.final_step - (-(draw + 1) * hops // draws)
            error = Estimate.of(self.squared_error[draw] / self.dimensions)
            root = math.sqrt(error.mean)
            costs.append(
                StepCost(
                    first_step=first,
                    last_step=last,
                    gamma=float(self.schedule.gamma[[first, last]].mean()),
                    rate=Estimate.of(self._bpd(self.hop_nats[draw])),
                    rmse=Estimate(
                        HALF_RANGE * root,
                        # A root's error is that of its argument over twice the root.
                        HALF_RANGE * error.standard_error / (2.0 * root) if root else 0.0,
                    ),
                )
            )
        return costs

    def _bpd(self, nats: Float64) -> Float64:
        return bits_per_dimension(nats_to_bits(nats), self.dimensions)


@dataclass(frozen=True)
class CodecCost:
    """What a lossless file costs in theory: hops down to a hand-over, then pixels in groups.

    Attributes:
        groups: groups of pixels, each with an evaluation of the network of its own.
        step: the hand-over's step of the grid.
        gamma: γ there.
        hops: L_T and the KL of all hops down to it, bits/dim.
        pixels: the pixels there, bits/dim.
        total: their sum.
    """

    groups: int
    step: int
    gamma: float
    hops: Estimate
    pixels: Estimate
    total: Estimate


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
    """Monte Carlo estimate of the T-step bound; arguments as of `sample_bound`."""
    samples = sample_bound(
        denoiser,
        images,
        final_step=final_step,
        draws=draws,
        batch_size=batch_size,
        seed=seed,
        progress=progress,
    )
    return samples.bound()


def sample_bound(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    *,
    final_step: int = 0,
    draws: int | None = 16,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> BoundSamples:
    """The parts of the T-step bound; every image gets ``draws`` stratified times t.

    Args:
        images: uint8 [N, H, W, C].
        final_step: where the reverse process hands over to the pixel decoder.
        draws: None for every t exactly once, so that z_t alone is random.
        progress: called with the number of images done since the last call.
    """
    schedule = denoiser.schedule
    device = next(denoiser.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    hops = schedule.steps - final_step
    shape = (hops if draws is None else draws, len(images))
    steps, errors, nats = np.empty(shape, np.int64), np.empty(shape), np.empty(shape)
    prior, reconstruction = [], []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        place = slice(start, start + len(batch))
        signal = levels_to_signal(batch)
        prior += [prior_kl_nats(schedule, x) for x in signal]
        for draw in range(shape[0]):
            if draws is None:
                step = np.full(len(batch), final_step + 1 + draw)
            else:
                offsets = torch.rand(len(batch), generator=generator, device=device).cpu().numpy()
                step = final_step + 1 + np.floor((draw + offsets) / draws * hops).astype(np.int64)
                step = np.minimum(step, schedule.steps)
            estimate, interpolation = predict(denoiser, schedule, signal, step, generator)
            squared_error, t = (signal - estimate) ** 2, step[:, None, None, None]
            kl_nats = reverse_kl_nats(schedule, t - 1, t, squared_error, interpolation)
            steps[draw, place] = step
            errors[draw, place] = squared_error.sum(axis=(1, 2, 3))
            nats[draw, place] = kl_nats.sum(axis=(1, 2, 3))
        final = np.full(len(batch), final_step)
        estimate, _ = predict(denoiser, schedule, signal, final, generator)
        mean = (estimate + 1.0) * HALF_RANGE
        reconstruction += [
            float(level_nats(levels, center, fitted_scale(levels, center)).sum())
            for levels, center in zip(batch, mean, strict=True)
        ]
        if progress is not None:
            progress(len(batch))
    return BoundSamples(
        schedule=schedule,
        final_step=final_step,
        dimensions=images[0].size,
        prior_nats=np.asarray(prior),
        reconstruction_nats=np.asarray(reconstruction),
        step=steps,
        hop_nats=nats,
        squared_error=errors,
    )


def pixel_bpd(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    gamma: float,
    groups: int,
    *,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> Float64:
    """−log2 P(x | z_γ) per dimension of each image, float64 [N], of a model with a pixel model.

    Groups are coded in the order of their ranks (`diffcodec.model.pixel_order`), each under the
    network's distribution given z_γ and, exactly, all groups before it. A level's probability is
    the Gaussian's mass over its unit bin, the outermost bins reaching to infinity; channels follow
    each other as in `PixelPosterior`.

    Args:
        images: uint8 [N, S, S, C].
        gamma: γ of the hand-over, within the schedule's ends.
        groups: 1 to 16 groups of pixels, as many evaluations of the network.
        progress: called with the number of images done since the last call.

    Raises:
        ValueError: the model has no pixel model, or there are not 1 to 16 groups.
    """
    if not denoiser.config.pixel_model:
        raise ValueError(f"{denoiser.config.name} has no pixel model")
    starts = group_starts(groups)
    device = next(denoiser.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    ranks = pixel_ranks(images.shape[1])
    totals = []
    for start in range(0, len(images), batch_size):
        batch = images[start : start + batch_size]
        x = torch.as_tensor(levels_to_signal(batch).transpose(0, 3, 1, 2), dtype=torch.float32)
        x = x.to(device)
        at = torch.full((len(batch),), gamma, dtype=torch.float32, device=device)
        z, _ = draw_latent(x, at, generator)
        nats = np.zeros(len(batch))
        for first, end in pairwise(starts):
            means, scales = _pixel_distributions(denoiser, x, z, at, ranks < first)
            now = (ranks >= first) & (ranks < end)
            nats += level_nats(batch[:, now], means[:, now], scales[:, now]).sum(axis=(1, 2))
        totals.append(bits_per_dimension(nats_to_bits(nats), batch[0].size))
        if progress is not None:
            progress(len(batch))
    return np.concatenate(totals)


def evaluate_codec(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    samples: BoundSamples,
    *,
    groups: Sequence[int] = PIXEL_GROUPS,
    batch_size: int = 64,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[CodecCost]:
    """What a lossless file costs in theory for each number of groups, hand-over by hand-over.

    The hand-overs are `HANDOVER_POINTS` steps evenly spaced in γ over the range that pixel models
    are trained on; the least total of them is the codec's best.

    Args:
        images: uint8 [N, S, S, C].
        samples: of the same images, with ``final_step`` 0.
        progress: called with the number of images done since the last call.

    Raises:
        ValueError: the model has no pixel model, or the samples do not go down to step 0.
    """
    if samples.final_step or len(samples.prior_nats) != len(images):
        raise ValueError("expected samples of the same images with final_step 0")
    schedule = samples.schedule
    lowest = max(PixelVlb.LOWEST_HANDOVER, float(schedule.gamma[0]))
    handovers = np.linspace(lowest, PixelVlb.HIGHEST_HANDOVER, HANDOVER_POINTS)
    steps = sorted({schedule.step_at_gamma(gamma) for gamma in handovers})
    costs = []
    for count in groups:
        for step in steps:
            gamma = float(schedule.gamma[step])
            hops = samples.prior_bpd() + samples.hops_bpd(step)
            pixels = pixel_bpd(
                denoiser,
                images,
                gamma,
                count,
                batch_size=batch_size,
                seed=seed,
                progress=progress,
            )
            parts = (Estimate.of(hops), Estimate.of(pixels), Estimate.of(hops + pixels))
            costs.append(CodecCost(count, step, gamma, *parts))
    return costs


@torch.no_grad()
def predict(
    denoiser: Denoiser,
    schedule: Schedule,
    signal: Float64,
    step: NDArray[np.int64],
    generator: torch.Generator,
) -> tuple[Float64, float | Float64]:
    """x̂_0(z_t) clipped to [−1, 1] and Σ's interpolation v, z_t ~ q(z_t | x); [B, H, W, C]."""
    prediction = denoiser.predict(*latent(schedule, signal, step, generator))
    interpolation = prediction.interpolation
    return (
        _channels_last(prediction.x_hat.clamp(-1.0, 1.0)),
        interpolation if isinstance(interpolation, float) else _channels_last(interpolation),
    )


def latent(
    schedule: Schedule,
    signal: Float64,
    step: NDArray[np.int64],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """z_t ~ q(z_t | x), float32 [B, C, H, W] channels last, and γ_t, float32 [B]."""
    device = generator.device
    x = torch.as_tensor(signal.transpose(0, 3, 1, 2), dtype=torch.float32, device=device)
    gamma = torch.as_tensor(schedule.gamma[step], dtype=torch.float32, device=device)
    z, _ = draw_latent(x, gamma, generator)
    return z.contiguous(memory_format=torch.channels_last), gamma


@torch.no_grad()
def _pixel_distributions(
    denoiser: Denoiser,
    x: torch.Tensor,
    z: torch.Tensor,
    gamma: torch.Tensor,
    known: NDArray[np.bool_],
) -> tuple[Float64, Float64]:
    """Mean and scale of every level, given the pixels that are ``known`` [S, S] and, of its own
    pixel, the channels before it; in levels, float64 [B, S, S, C].
    """
    mask = torch.as_tensor(known, device=x.device).expand(len(x), 1, -1, -1)
    alpha, _ = alpha_sigma(gamma)
    z = torch.where(mask, alpha[:, None, None, None] * x, z)
    z = z.contiguous(memory_format=torch.channels_last)
    posterior = denoiser.posterior(z, gamma, mask.to(x.dtype))
    means = _channels_last(posterior.conditional_mean(x))
    deviations = _channels_last(posterior.deviation())
    return (means + 1.0) * HALF_RANGE, deviations * HALF_RANGE


def _channels_last(images: torch.Tensor) -> Float64:
    """[B, C, H, W] on any device to float64 [B, H, W, C]."""
    array: Float64 = images.cpu().double().numpy().transpose(0, 2, 3, 1)
    return array
