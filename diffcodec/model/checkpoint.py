"""A model on disk: ``config.json`` and ``model.safetensors`` in one folder, tied by a digest."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from diffcodec.diffusion.cosine import BANDS
from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.diffusion.wiener import GAINS
from diffcodec.errors import CheckpointError
from diffcodec.model.catalog import CONFIG_NAME
from diffcodec.model.denoiser import Denoiser, ModelConfig, Parameterization, Variance
from diffcodec.model.unet import UNetConfig

WEIGHTS_NAME = "model.safetensors"
CHECKPOINT_FORMAT = 2
POWER_RANGE = (1e-6, 1e6)
SPREAD_RANGE = (0.0, 1e6)


@dataclass(frozen=True)
class ErrorSpectrum:
    """How errors of neighbouring pixels are alike, and what an update leaves of them.

    Attributes:
        gamma: increasing noise levels, K ≥ 1 of them.
        power: of each channel's whitened error in each band of `frequency_bands`, over the mean of
            all its coefficients; [K][C][BANDS].
        spread: s of a Wiener update (`diffcodec.diffusion.wiener`), which leaves e/(1 + s Δ e) of
            the mean squared error e where Δ e is each of `GAINS`; [K][GAINS]. For Δ → 0 it is
            E[λ²]/E[λ]² over the eigenvalues λ of the error's covariance.
    """

    gamma: tuple[float, ...]
    power: tuple[tuple[tuple[float, ...], ...], ...]
    spread: tuple[tuple[float, ...], ...]

    def __post_init__(self) -> None:
        if not _increase(self.gamma) or not len(self.gamma) == len(self.power) == len(self.spread):
            raise ValueError("an error spectrum needs increasing noise levels, powers for each")
        bands = [band for channels in self.power for band in channels]
        if any(len(band) != BANDS or not _within(band, POWER_RANGE) for band in bands):
            raise ValueError(f"an error spectrum needs {BANDS} powers of {POWER_RANGE} a channel")
        if len({len(channels) for channels in self.power}) != 1:
            raise ValueError("an error spectrum needs the same channels for each noise level")
        if any(len(row) != len(GAINS) or not _within(row, SPREAD_RANGE) for row in self.spread):
            raise ValueError(f"an error spectrum needs {len(GAINS)} spreads of {SPREAD_RANGE}")

    @staticmethod
    def flat(channels: int = 3) -> "ErrorSpectrum":
        """Of errors that are independent from pixel to pixel, and as large everywhere."""
        return ErrorSpectrum((0.0,), (((1.0,) * BANDS,) * channels,), ((1.0,) * len(GAINS),))


@dataclass(frozen=True)
class ErrorCurve:
    """The denoiser's mean squared error by noise level, measured on images it was not trained on.

    The codec plans its hops with it: both ends know it, so it is part of the model's digest.

    Attributes:
        gamma: increasing noise levels.
        error: E‖x − x̂_0(z_γ)‖² / dimensions at each of them, signal scaled to [−1, 1].
        spectrum: how those errors are alike.
    """

    gamma: tuple[float, ...]
    error: tuple[float, ...]
    spectrum: ErrorSpectrum = field(default_factory=ErrorSpectrum.flat)

    def __post_init__(self) -> None:
        enough = len(self.gamma) == len(self.error) and len(self.gamma) >= 2
        if not enough or not _increase(self.gamma):
            raise ValueError("an error curve needs increasing noise levels, one error each")
        if not all(0.0 < error < math.inf for error in self.error):
            raise ValueError("errors must be positive")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """A denoiser ready to evaluate, and what the codec has to know of it.

    Attributes:
        denoiser: float32 weights, in evaluation mode.
        error_curve: its measured error by noise level.
        digest: SHA-256 over configuration, error curve and stored weights.
    """

    denoiser: Denoiser
    error_curve: ErrorCurve
    digest: bytes

    @property
    def config(self) -> ModelConfig:
        """The denoiser's configuration."""
        return self.denoiser.config


def save_checkpoint(
    folder: Path, denoiser: Denoiser, error_curve: ErrorCurve, dtype: torch.dtype = torch.float16
) -> bytes:
    """Write both files into ``folder``, weights rounded to ``dtype``; returns the digest.

    A learned γ is written as the table that it has become (`Denoiser.frozen`). Both files are
    written in full under temporary names and then renamed, the weights first: whatever interrupts
    that, the folder holds whole files, and a pair that does not belong together is told by its
    digest.

    Raises:
        OSError: a file cannot be written; what the folder held before is still there.
    """
    denoiser = denoiser.frozen()
    tensors = {
        name: tensor.detach().to("cpu", dtype).clone(memory_format=torch.contiguous_format)
        for name, tensor in denoiser.state_dict().items()
    }
    description: dict[str, Any] = {
        "format": CHECKPOINT_FORMAT,
        "model": dataclasses.asdict(denoiser.config),
        "error_curve": dataclasses.asdict(error_curve),
    }
    digest = _digest(description, tensors)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps({**description, "digest": digest.hex()}, indent=1) + "\n"
    _replace_files(folder, {WEIGHTS_NAME: save(tensors), CONFIG_NAME: text.encode()})
    return digest


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read a model folder.

    Raises:
        CheckpointError: a file is missing or unreadable, a field is unknown, a tensor does not fit,
            or the digest does not agree with what was read.
    """
    config_path, weights_path = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    try:
        text = config_path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{config_path}: expected a configuration: {error}") from error
    try:
        stored: dict[str, Any] = json.loads(text)
        recorded = bytes.fromhex(stored.pop("digest"))
        if stored["format"] != CHECKPOINT_FORMAT:
            raise ValueError(f"format {stored['format']}, expected {CHECKPOINT_FORMAT}")
        config = model_config_from_dict(stored["model"])
        error_curve = error_curve_from_dict(stored["error_curve"])
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{config_path}: not a model's configuration: {error!r}") from error
    try:
        tensors = load(weights_path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{weights_path}: expected safetensors weights: {error}") from error
    if _digest(stored, tensors) != recorded:
        raise CheckpointError(
            f"{folder}: damaged, the digest of {CONFIG_NAME} and {WEIGHTS_NAME} "
            f"is not {recorded.hex()[:16]}…"
        )
    try:
        denoiser = Denoiser(config)
        denoiser.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise CheckpointError(
            f"{weights_path}: weights do not fit {CONFIG_NAME}: {reason}"
        ) from error
    denoiser.eval().requires_grad_(False)
    # torch's type stubs do not know this form of `to`.
    denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Checkpoint(denoiser, error_curve, recorded)


def model_config_from_dict(fields: Mapping[str, Any]) -> ModelConfig:
    """The inverse of ``dataclasses.asdict`` on a `ModelConfig`, through JSON.

    Raises:
        TypeError, ValueError, KeyError: fields unknown, missing or out of range.
    """
    return ModelConfig(
        name=fields["name"],
        parameterization=Parameterization(fields["parameterization"]),
        schedule=ScheduleConfig(**_with_tuples(fields["schedule"])),
        unet=UNetConfig(**_with_tuples(fields["unet"])),
        pixel_model=fields.get("pixel_model", False),
        variance=Variance(fields.get("variance", Variance.POSTERIOR)),
    )


def error_curve_from_dict(fields: Mapping[str, Any]) -> ErrorCurve:
    """The inverse of ``dataclasses.asdict`` on an `ErrorCurve`, through JSON.

    Raises:
        TypeError, ValueError, KeyError: fields unknown, missing or out of range.
    """
    curve = {key: value for key, value in fields.items() if key != "spectrum"}
    spectrum = ErrorSpectrum(**_with_tuples(fields["spectrum"]))
    return ErrorCurve(spectrum=spectrum, **_with_tuples(curve))


def _increase(values: Sequence[float]) -> bool:
    return bool(values) and all(a < b for a, b in pairwise(values))


def _within(values: Sequence[float], limits: tuple[float, float]) -> bool:
    return all(limits[0] <= value <= limits[1] for value in values)


def _with_tuples(fields: Mapping[str, Any]) -> dict[str, Any]:
    """JSON knows lists alone where configurations hold tuples."""
    return {key: _as_tuple(value) for key, value in fields.items()}


def _as_tuple(value: Any) -> Any:
    return tuple(_as_tuple(item) for item in value) if isinstance(value, list) else value


def _replace_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write all files under temporary names, then rename them in their order."""
    temporary = {name: folder / f".{name}.{os.getpid()}.tmp" for name in contents}
    try:
        for name, data in contents.items():
            with temporary[name].open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for name, path in temporary.items():
            path.replace(folder / name)
    finally:
        for path in temporary.values():
            path.unlink(missing_ok=True)


def _digest(description: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> bytes:
    """SHA-256 of the canonical JSON and of every tensor's name, type, shape and bytes, by name."""
    canonical = json.dumps(description, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode())
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.digest()
