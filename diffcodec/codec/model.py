"""The model as the codec sees it: a denoiser evaluated the same way at both ends."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from pathlib import Path
from threading import Barrier, Lock

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.header import FINEST_STEPS, MODEL_ID_BYTES
from diffcodec.codec.tiles import TILE_CHANNELS, TileLayout
from diffcodec.coding.gaussian import exponential
from diffcodec.diffusion.cosine import frequency_bands
from diffcodec.diffusion.interpolation import interpolate
from diffcodec.diffusion.schedule import Schedule, make_schedule
from diffcodec.errors import CheckpointError
from diffcodec.model.checkpoint import Checkpoint, load_checkpoint
from diffcodec.model.pixel_order import RANKS

Float64 = NDArray[np.float64]

# Two callers whose tasks waited for each other's workers would wait for ever.
_WARMING_UP = Lock()


@dataclass(frozen=True, eq=False)
class PixelEstimate:
    """p(x | z_t) as the codec uses it (`diffcodec.model.denoiser.PixelPosterior`).

    Attributes:
        mean: x̂_0 clipped to [−1, 1], float64 [G, C, S, S].
        variance: of each channel given the ones before it, float64 [G, C, S, S].
        mixing: how channels lean on earlier ones: a_10, a_20, a_21, float64 [G, 3, S, S].
    """

    mean: Float64
    variance: Float64
    mixing: Float64


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
        channels = len(self.checkpoint.error_curve.spectrum.power[0])
        if channels != TILE_CHANNELS:
            raise CheckpointError(
                f"model {config.name!r}: the codec expects an error spectrum of {TILE_CHANNELS} "
                f"channels, found {channels}"
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
        return interpolate(self.schedule.gamma, curve.gamma, curve.error)

    @cached_property
    def spread_curve(self) -> Float64:
        """What updates of x̂_0 leave (`ErrorSpectrum.spread`) at every step, [T + 1, GAINS]."""
        spectrum = self.checkpoint.error_curve.spectrum
        return interpolate(self.schedule.gamma, spectrum.gamma, spectrum.spread)

    def error_power(self, t: int) -> Float64:
        """The spectrum of x̂_0's whitened error at step ``t``, float64 [C, S, S]."""
        spectrum = self.checkpoint.error_curve.spectrum
        power = interpolate(self.schedule.gamma[t], spectrum.gamma, spectrum.power)
        return power[:, frequency_bands(self.tile_side)]

    @property
    def most_groups(self) -> int:
        """Into how many groups the last stage's pixels may be divided."""
        return RANKS if self.checkpoint.config.pixel_model else 1

    def estimate(
        self, z: Float64, t: int, layout: TileLayout, known: NDArray[np.bool_] | None = None
    ) -> PixelEstimate:
        """p(x | z_t) of an image's tiles, z float64 [G, C, S, S], seen in its windows.

        A model without a pixel model says no more than its mean error at ``t``.

        Args:
            known: pixels [G, S, S] at which z is α_t x itself, for a model with a pixel model.
        """
        if known is None:
            known = np.zeros((len(z), *z.shape[2:]), dtype=bool)
        plane, mask = layout.lay(z), layout.lay(known[:, None])[0]
        said = self.evaluate(
            [plane[:, *window] for window in layout.windows],
            t,
            [mask[window] for window in layout.windows],
        )
        tiles = np.empty((len(z), 3 * z.shape[1], *z.shape[2:]))
        for window, part in zip(layout.windows, said, strict=True):
            layout.place(part, window, tiles)
        mean, log_variance, mixing = np.split(tiles, 3, axis=1)
        if self.checkpoint.config.pixel_model:
            variance = exponential(log_variance)
        else:
            variance = np.full_like(mean, self.error_curve[t])
        return PixelEstimate(mean, variance, mixing)

    def evaluate(
        self,
        windows: Sequence[Float64],
        t: int,
        known: Sequence[NDArray[np.bool_]] | None = None,
    ) -> Iterator[Float64]:
        """What the network says of windows of z_t [C, H, W] each, at step ``t``, one by one.

        The numeric contract (docs/format.md): float32, channels last, each window by itself by one
        thread, denormals not flushed. So the shape of every evaluation follows from the header and
        no sum is split among threads; several windows are evaluated side by side.

        Args:
            known: pixels [H, W] of each window at which z is α_t x itself; none are if None.

        Yields:
            Of each window x̂_0 clipped to [−1, 1], the logarithms of the variances and the mixing,
            float64 [3 C, H, W]; the latter two zero without a pixel model.
        """
        gamma = torch.full((1,), float(self.schedule.gamma[t]), dtype=torch.float32)
        masks = known or [np.zeros(window.shape[1:], dtype=bool) for window in windows]
        evaluate = partial(self._evaluate, gamma=gamma)
        with full_precision():
            self._warm_up(windows, masks, evaluate)
            yield from _evaluators().map(evaluate, windows, masks)

    def _warm_up(
        self,
        windows: Sequence[Float64],
        masks: Sequence[NDArray[np.bool_]],
        evaluate: Callable[[Float64, NDArray[np.bool_]], Float64],
    ) -> None:
        """See a tile by every worker, and a window of each new shape, one at a time, for nothing.

        What libraries do at their first call is no business of several threads: where the first
        windows of a process were evaluated side by side, one process in a few hundred had other
        last digits, once (docs/performance.md, Threads).
        """
        if len(windows) == 1:
            return
        side = self.tile_side
        with _WARMING_UP:
            if not self._seen:
                tile, known = windows[0][:, :side, :side], masks[0][:side, :side]
                _by_every_worker(partial(evaluate, tile, known))
            for window, mask in zip(windows, masks, strict=True):
                if window.shape not in self._seen:
                    _evaluators().submit(evaluate, window, mask).result()
                    self._seen.add(window.shape)

    @cached_property
    def _seen(self) -> set[tuple[int, ...]]:
        """Shapes of windows that this process has evaluated."""
        return set()

    @torch.inference_mode()
    def _evaluate(self, window: Float64, known: NDArray[np.bool_], gamma: torch.Tensor) -> Float64:
        denoiser = self.checkpoint.denoiser
        z = torch.from_numpy(window.astype(np.float32))[None]
        z = z.contiguous(memory_format=torch.channels_last)
        if denoiser.config.pixel_model:
            mask = torch.from_numpy(known.astype(np.float32))[None, None]
            posterior = denoiser.posterior(z, gamma, mask)
            parts = (posterior.mean.clamp(-1.0, 1.0), posterior.log_variance, posterior.mixing)
        else:
            mean = denoiser(z, gamma).clamp(-1.0, 1.0)
            parts = (mean, torch.zeros_like(mean), torch.zeros_like(mean))
        said: Float64 = torch.cat(parts, dim=1)[0].double().numpy()
        return said


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
    """The process's workers, each of which evaluates with one thread."""
    return ThreadPoolExecutor(_worker_count(), "evaluator", initializer=_be_one_thread)


@lru_cache(maxsize=1)
def _worker_count() -> int:
    """How many windows are evaluated side by side: torch's threads when the first one was."""
    return torch.get_num_threads()


def _by_every_worker(work: Callable[[], object]) -> None:
    """Each worker in turn, all others waiting."""
    together, alone = Barrier(_worker_count()), Lock()

    def in_turn() -> None:
        # None goes on before each of them has a task: so no worker has two.
        together.wait()
        with alone:
            work()

    for done in [_evaluators().submit(in_turn) for _ in range(_worker_count())]:
        done.result()


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
