"""What the codec has to know of a denoiser's errors, measured when it is exported."""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.diffusion.cosine import BANDS, cosine_transform, frequency_bands
from diffcodec.diffusion.process import levels_to_signal
from diffcodec.diffusion.schedule import Schedule
from diffcodec.diffusion.wiener import GAINS, WienerEstimate
from diffcodec.model.checkpoint import POWER_RANGE, SPREAD_RANGE, ErrorCurve, ErrorSpectrum
from diffcodec.model.denoiser import Denoiser
from diffcodec.training.evaluation import latent, predict

CURVE_POINTS = 69
SPECTRUM_POINTS = 18
POWER_EXPONENT = 0.65
"""Of the measured spectrum: errors are less alike in each image than on average over images."""
DIGITS = 4

Float64 = NDArray[np.float64]


def measure_error_curve(
    denoiser: Denoiser,
    images: NDArray[np.uint8],
    *,
    points: int = CURVE_POINTS,
    spectrum_points: int = SPECTRUM_POINTS,
    batch_size: int = 64,
    seed: int = 0,
) -> ErrorCurve:
    """The errors of x̂_0(z_γ) on images that the denoiser was not trained on.

    Args:
        images: uint8 [N, S, S, C].
        points: levels of γ of the curve, evenly spaced in t.
        spectrum_points: levels of γ of its spectrum, spaced in the same way.
    """
    schedule = denoiser.schedule
    device = next(denoiser.parameters()).device
    generator = torch.Generator(device=device).manual_seed(seed)
    signal = levels_to_signal(images)
    errors = []
    steps = _steps(schedule, points)
    for step in steps:
        total = 0.0
        for start in range(0, len(signal), batch_size):
            x = signal[start : start + batch_size]
            estimate, _ = predict(denoiser, schedule, x, np.full(len(x), step), generator)
            total += float(((x - estimate) ** 2).sum())
        errors.append(total / signal.size)
    at = _steps(schedule, spectrum_points)
    parts = [_spectrum(denoiser, schedule, signal, step, generator, batch_size) for step in at]
    spectrum = ErrorSpectrum(
        tuple(float(g) for g in schedule.gamma[at]),
        tuple(power for power, _ in parts),
        tuple(spread for _, spread in parts),
    )
    return ErrorCurve(tuple(float(g) for g in schedule.gamma[steps]), tuple(errors), spectrum)


def _steps(schedule: Schedule, points: int) -> NDArray[np.int64]:
    return np.unique(np.rint(np.linspace(0, schedule.steps, points)).astype(np.int64))


def _spectrum(
    denoiser: Denoiser,
    schedule: Schedule,
    signal: Float64,
    step: int,
    generator: torch.Generator,
    batch_size: int,
) -> tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]:
    """``power`` and ``spread`` of an `ErrorSpectrum` at one step."""
    said = [
        _said(denoiser, schedule, signal[start : start + batch_size], step, generator)
        for start in range(0, len(signal), batch_size)
    ]
    mean, variance, mixing = (np.concatenate(parts) for parts in zip(*said, strict=True))
    x = signal.transpose(0, 3, 1, 2)
    bands = frequency_bands(x.shape[-1])
    by_band = _band_powers(_whitened(x - mean, variance, mixing), bands)
    power = np.array(by_band)[:, bands]
    random = np.random.Generator(np.random.Philox(step))
    left = np.zeros((len(x), len(GAINS)))
    for image in range(len(x)):
        own = slice(image, image + 1)
        error = max(float(np.mean((x[own] - mean[own]) ** 2)), np.finfo(np.float64).tiny)
        wiener = WienerEstimate.of(mean[own], variance[own], mixing[own], power, error)
        for column, relative_gain in enumerate(GAINS):
            gain = relative_gain / error
            noise = random.standard_normal(x[own].shape) / math.sqrt(gain)
            updated = wiener.updated(gain, gain * (x[own] + noise))
            left[image, column] = np.mean((x[own] - updated) ** 2) / error
    # The ratios of images of any difficulty weigh the same.
    ratio = np.exp(np.log(left).mean(axis=0))
    spread = np.clip((1.0 / ratio - 1.0) / GAINS, *SPREAD_RANGE)
    return by_band, _rounded(spread)


@torch.no_grad()
def _said(
    denoiser: Denoiser,
    schedule: Schedule,
    signal: Float64,
    step: int,
    generator: torch.Generator,
) -> tuple[Float64, Float64, Float64]:
    """Mean, variance up to a scale, and mixing of p(x | z_t), float64 [B, …, S, S]."""
    z, gamma = latent(schedule, signal, np.full(len(signal), step), generator)
    if denoiser.config.pixel_model:
        posterior = denoiser.posterior(z, gamma)
        mean, variance = posterior.mean, torch.exp(posterior.log_variance)
        mixing = posterior.mixing
    else:
        mean = denoiser(z, gamma)
        channels = mean.shape[1]
        variance = torch.ones_like(mean)
        mixing = mean.new_zeros((len(mean), channels * (channels - 1) // 2, *mean.shape[2:]))
    clipped = mean.clamp(-1.0, 1.0)
    first, second, third = (part.cpu().double().numpy() for part in (clipped, variance, mixing))
    return first, second, third


def _whitened(error: Float64, variance: Float64, mixing: Float64) -> Float64:
    """What the channels before do not tell of each error, in its own deviation and its image's."""
    innovations = error.copy()
    for channel in range(error.shape[1]):
        first = channel * (channel - 1) // 2
        for earlier in range(channel):
            innovations[:, channel] -= mixing[:, first + earlier] * error[:, earlier]
    innovations /= np.sqrt(variance)
    scale = np.sqrt(np.mean(innovations**2, axis=(1, 2, 3), keepdims=True))
    return np.asarray(innovations / np.maximum(scale, np.finfo(np.float64).tiny))


def _band_powers(whitened: Float64, bands: NDArray[np.int64]) -> tuple[tuple[float, ...], ...]:
    """Power of each channel's bands to `POWER_EXPONENT`, of mean one over all coefficients."""
    squares = np.mean(cosine_transform(whitened) ** 2, axis=0)
    counts = np.bincount(bands.ravel(), minlength=BANDS)
    rows = []
    for channel in squares:
        sums = np.bincount(bands.ravel(), weights=channel.ravel(), minlength=BANDS)
        # A band that images of this size have nothing in takes the mean; nothing asks for it.
        powers = np.where(counts > 0, sums / np.maximum(counts, 1), channel.mean())
        powers = np.maximum(powers, np.finfo(np.float64).tiny) ** POWER_EXPONENT
        powers /= (powers * counts).sum() / counts.sum()
        rows.append(_rounded(np.clip(powers, *POWER_RANGE)))
    return tuple(rows)


def _rounded(values: Float64) -> tuple[float, ...]:
    return tuple(float(f"{value:.{DIGITS}g}") for value in values)
