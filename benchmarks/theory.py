"""What a perfect coder would pay: the rate-distortion of DDPM's §4.3 on the grid of T steps.

Ho, Jain and Abbeel 2020, arXiv:2006.11239, Figure 5 and Table 4: rate(t) = Σ_{u>t} L_u against the
error of x̂_0(z_t) with z_t ~ q(z_t | x), and the codelength that the whole bound is.
"""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.metrics import bootstrap_mean, bootstrap_rmse
from benchmarks.real_files import standard_error
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import SMALLEST_ERROR
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.likelihood import fitted_scale, level_nats
from diffcodec.diffusion.process import (
    HALF_RANGE,
    levels_to_signal,
    prior_kl_nats,
    q_marginal,
    reverse_kl_nats,
)
from diffcodec.diffusion.schedule import Schedule
from diffcodec.units import bits_per_dimension, nats_to_bits

Float64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]

THEORY_DRAWS = 24
BATCH = 25
SIGNIFICANT_DIGITS = 6


@dataclass(frozen=True)
class Theory:
    """One image's draws.

    Attributes:
        dimensions: H·W·C.
        steps: noise levels that were drawn, rising, 0 and T among them.
        squared_error: ‖x − x̂_0(z_t)‖² there, over all tiles, signal scaled to [−1, 1].
        mse: error of the image there, x̂_0 clipped to the valid range, levels squared.
        prior_bpd: L_T.
        pixels_bpd: DDPM's L_0, the discretized Gaussian at step 0 with one fitted scale.
    """

    dimensions: int
    steps: tuple[int, ...]
    squared_error: tuple[float, ...]
    mse: tuple[float, ...]
    prior_bpd: float
    pixels_bpd: float

    def to_json(self) -> dict[str, Any]:
        """For the journal of a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        drawn = {name: tuple(record[name]) for name in ("steps", "squared_error", "mse")}
        return cls(**{**record, **drawn})


@dataclass(frozen=True, eq=False)
class Curve:
    """One image's curve on the grid 0…T.

    Attributes:
        hop_bpd: L_u of the unit hop u → u − 1, float64 [T], the hop to step 0 first.
        rate_bpd: Σ_{u>t} L_u, float64 [T + 1]; 0 at T.
        mse: levels squared, float64 [T + 1].
    """

    hop_bpd: Float64
    rate_bpd: Float64
    mse: Float64


def measure_theory(pixels: Pixels, model: CodecModel, draws: int, seed: Sequence[int]) -> Theory:
    """Draw z_t once in each of ``draws`` equal strata of the grid, and at its ends.

    ``pixels`` are uint8 [H, W, C]. Where tiles reach beyond the image, its edges are replicated;
    L_u pays for the image alone, as files do.
    """
    schedule = model.schedule
    height, width, channels = pixels.shape
    layout = TileLayout(height, width, channels, model.tile_side)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
    strata = np.floor((np.arange(draws) + generator.random(draws)) / draws * schedule.steps)
    steps = np.unique(np.concatenate([[0, schedule.steps], strata.astype(np.int64)]))
    signal = layout.split(pixels)
    latents = np.empty((len(steps), *signal.shape), dtype=np.float32)
    for place, t in enumerate(steps):
        mean, variance = q_marginal(schedule, signal, int(t))
        latents[place] = mean + math.sqrt(variance) * generator.standard_normal(signal.shape)
    gamma = np.repeat(schedule.gamma[steps], layout.count)
    estimates = _estimates(model, latents.reshape(-1, *signal.shape[1:]), gamma)
    estimates = estimates.reshape(latents.shape)
    inside = layout.inside()[:, None]
    shown = levels_to_signal(pixels)
    images = [layout.join(tiles) for tiles in estimates]
    means = (images[0] + 1.0) * HALF_RANGE

    def bpd(nats: float) -> float:
        return float(bits_per_dimension(nats_to_bits(nats), pixels.size))

    return Theory(
        dimensions=pixels.size,
        steps=tuple(steps.tolist()),
        squared_error=tuple((inside * (estimates - signal) ** 2).sum(axis=(1, 2, 3, 4)).tolist()),
        mse=tuple(float(np.mean((image - shown) ** 2)) * HALF_RANGE**2 for image in images),
        prior_bpd=bpd(prior_kl_nats(schedule, shown)),
        pixels_bpd=bpd(float(level_nats(pixels, means, fitted_scale(pixels, means)).sum())),
    )


def curve(theory: Theory, schedule: Schedule) -> Curve:
    """Errors between the drawn steps interpolated in their logarithm, and the rates they give.

    Within a stratum the logarithm of the error is nearly straight, and the draws' places in their
    strata differ from image to image: what is left of the interpolation's error is below a
    thousandth (tests/benchmarks/test_theory.py holds it against drawing every step).
    """
    squared_error = _at_every_step(schedule.steps, theory.steps, theory.squared_error)
    mse = _at_every_step(schedule.steps, theory.steps, theory.mse)
    steps = np.arange(1, schedule.steps + 1)
    hop_nats = reverse_kl_nats(schedule, steps - 1, steps, squared_error[1:])
    hop_bpd = bits_per_dimension(nats_to_bits(hop_nats), theory.dimensions)
    rate_bpd = np.concatenate([np.cumsum(hop_bpd[::-1])[::-1], [0.0]])
    return Curve(hop_bpd, rate_bpd, mse)


def summarize_theory(theories: Sequence[Theory], schedule: Schedule) -> dict[str, Any]:
    """Means over the images at every step from T down to 0, ready for JSON.

    Mean rate and RMSE are paired at equal steps, as in DDPM. ``hop_bpd`` is L_u of the hop that
    ends at the step, None at T. Intervals are at ``rows``, the steps of DDPM's Table 4.
    """
    curves = [curve(theory, schedule) for theory in theories]
    rate_bpd = np.array([c.rate_bpd for c in curves])
    mse = np.array([c.mse for c in curves])
    hops = np.mean([c.hop_bpd for c in curves], axis=0)
    down = range(schedule.steps, -1, -1)
    decoded = range(schedule.steps // 10, schedule.steps + 1, schedule.steps // 10)
    steps = [schedule.steps - count for count in decoded]
    rate_low, rate_high = bootstrap_mean(rate_bpd[:, steps])
    rmse_low, rmse_high = bootstrap_rmse(mse[:, steps])
    return {
        "images": len(theories),
        "draws": len(theories[0].steps),
        "gamma": _rounded(schedule.gamma[::-1]),
        "step": list(down),
        "rate_bpd": _rounded(rate_bpd.mean(axis=0)[::-1]),
        "rmse": _rounded(np.sqrt(mse.mean(axis=0))[::-1]),
        "hop_bpd": [None, *_rounded(hops[::-1])],
        "rows": [
            {
                "steps_decoded": count,
                "rate_bpd": float(rate_bpd[:, step].mean()),
                "rate_low_bpd": float(rate_low[place]),
                "rate_high_bpd": float(rate_high[place]),
                "rmse": math.sqrt(float(mse[:, step].mean())),
                "rmse_low": float(rmse_low[place]),
                "rmse_high": float(rmse_high[place]),
            }
            for place, (count, step) in enumerate(zip(decoded, steps, strict=True))
        ],
        "codelength": summarize_codelength(theories, schedule),
    }


def summarize_codelength(theories: Sequence[Theory], schedule: Schedule) -> dict[str, Any]:
    """The bound by part, each a mean with its standard error and 95 % interval, bits/dim."""
    hops = np.array([curve(theory, schedule).rate_bpd[0] for theory in theories])
    prior = np.array([theory.prior_bpd for theory in theories])
    pixels = np.array([theory.pixels_bpd for theory in theories])
    parts = {"prior": prior, "diffusion": hops, "pixels": pixels, "total": prior + hops + pixels}
    summary: dict[str, Any] = {"images": len(theories)}
    for name, values in parts.items():
        low, high = bootstrap_mean(values)
        summary[name] = {
            "mean_bpd": float(values.mean()),
            "standard_error_bpd": standard_error(values),
            "low_bpd": float(low),
            "high_bpd": float(high),
        }
    return summary


@torch.inference_mode()
def _estimates(model: CodecModel, latents: NDArray[np.float32], gamma: Float64) -> Float64:
    """x̂_0 clipped to [−1, 1], float64 of the shape of ``latents`` [N, 3, S, S], one γ each."""
    denoiser = model.checkpoint.denoiser
    device = next(denoiser.parameters()).device
    estimates = np.empty(latents.shape)
    for start in range(0, len(latents), BATCH):
        part = slice(start, start + BATCH)
        z = torch.from_numpy(latents[part]).to(device, memory_format=torch.channels_last)
        noise_level = torch.from_numpy(gamma[part].astype(np.float32)).to(device)
        estimates[part] = denoiser(z, noise_level).clamp(-1.0, 1.0).double().cpu().numpy()
    return estimates


def _at_every_step(steps: int, drawn: Sequence[int], errors: Sequence[float]) -> Float64:
    """``errors`` at the steps ``drawn``, interpolated in their logarithm to 0…``steps``."""
    # A network can be exact to float32 on a flat image; the logarithm must stay finite.
    logarithms = np.log(np.maximum(errors, SMALLEST_ERROR))
    return np.exp(np.interp(np.arange(steps + 1), drawn, logarithms))


def _rounded(values: Float64) -> list[float]:
    """As many digits as a figure can show: a thousand steps are most of a results file."""
    return [float(f"{value:.{SIGNIFICANT_DIGITS}g}") for value in values]
