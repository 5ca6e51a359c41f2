"""The model as the codec sees it: a denoiser evaluated the same way at both ends."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.header import FINEST_STEPS, MODEL_ID_BYTES
from diffcodec.codec.tiles import TILE_CHANNELS
from diffcodec.diffusion.schedule import Schedule, make_schedule
from diffcodec.errors import CheckpointError
from diffcodec.model.checkpoint import Checkpoint, load_checkpoint

Float64 = NDArray[np.float64]

LARGEST_BATCH = 4


@dataclass(frozen=True, eq=False)
class CodecModel:
    """A checkpoint that the codec can use.

    Raises:
        CheckpointError: the model's grid or tiles are not those of the file format.
    """

    checkpoint: Checkpoint

    def __post_init__(self) -> None:
        config = self.checkpoint.config
        if config.schedule.steps != FINEST_STEPS or config.unet.image_channels != TILE_CHANNELS:
            raise CheckpointError(
                f"model {config.name!r}: the codec expects {FINEST_STEPS} steps and "
                f"{TILE_CHANNELS} channels, found {config.schedule.steps} and "
                f"{config.unet.image_channels}"
            )
        # Whatever layout the weights were given in; torch's stubs do not know this form of `to`.
        self.checkpoint.denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @property
    def model_id(self) -> bytes:
        """What a file's header calls this model."""
        return self.checkpoint.digest[:MODEL_ID_BYTES]

    @property
    def tile_side(self) -> int:
        """Side of the tiles that the network sees."""
        return self.checkpoint.config.unet.image_size

    @cached_property
    def schedule(self) -> Schedule:
        """The table of γ."""
        return make_schedule(self.checkpoint.config.schedule)

    @cached_property
    def error_curve(self) -> Float64:
        """Mean squared error per dimension at every step, float64 [T + 1]."""
        curve = self.checkpoint.error_curve
        return np.interp(self.schedule.gamma, curve.gamma, curve.error)

    def estimate(self, z: Float64, t: int) -> Float64:
        """x̂_0(z_t) clipped to [−1, 1], float64 [G, C, S, S] in and out.

        The numeric contract (docs/format.md): float32, channels last, batches of min(G, 4) tiles,
        the last filled up with zeros, each evaluated by one thread, denormals not flushed. So the
        shape of every evaluation follows from the header and no sum is split among threads;
        several batches are evaluated side by side.
        """
        size = min(len(z), LARGEST_BATCH)
        gamma = torch.full((size,), float(self.schedule.gamma[t]), dtype=torch.float32)
        batches = [z[start : start + size] for start in range(0, len(z), size)]
        with full_precision():
            estimates = _evaluators().map(lambda batch: self._evaluate(batch, gamma), batches)
            return np.concatenate(list(estimates))

    @torch.inference_mode()
    def _evaluate(self, batch: Float64, gamma: torch.Tensor) -> Float64:
        tiles = torch.zeros((len(gamma), *batch.shape[1:]), dtype=torch.float32)
        tiles[: len(batch)] = torch.from_numpy(batch.astype(np.float32))
        tiles = tiles.contiguous(memory_format=torch.channels_last)
        output = self.checkpoint.denoiser(tiles, gamma).clamp(-1.0, 1.0)
        estimate: Float64 = output[: len(batch)].double().numpy()
        return estimate


@contextmanager
def full_precision() -> Iterator[None]:
    """Float32 products in float32, though the program at large may ask for fewer bits."""
    precision = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)


@lru_cache(maxsize=1)
def _evaluators() -> ThreadPoolExecutor:
    """As many workers as torch has threads, each of which evaluates with one thread."""
    return ThreadPoolExecutor(torch.get_num_threads(), "evaluator", initializer=_be_one_thread)


def _be_one_thread() -> None:
    """Both settings are the calling thread's own: torch's elsewhere stay as they are."""
    torch.set_num_threads(1)
    torch.set_flush_denormal(False)


def load_codec_model(folder: Path) -> CodecModel:
    """The model in ``folder``.

    Raises:
        CheckpointError: it cannot be read, or the codec cannot use it.
    """
    return CodecModel(load_checkpoint(folder))
