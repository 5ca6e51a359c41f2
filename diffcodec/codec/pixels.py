"""The last stage: exact pixels in groups, each under the model's word on all that came before.

DDPM's discretized Gaussian decoder (arXiv:2006.11239, eq. 13) with a scale for every pixel and
channels that lean on earlier ones (`PixelPosterior`), and pixels coded coarse to fine in G groups
(`diffcodec.model.pixel_order`): before each the network sees z_t with the groups so far in place of
their noise.

Payload: one byte, G − 1 in its upper half and the scale offset in its lower, then the ANS coder's
bytes, of which any beginning tells the first pixels. Means are rounded to a grid of 1/16 level and
scales to one of 256, so the probabilities are a function of integers (docs/format.md, Numeric
contract).
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from diffcodec.bitstream.container import LAST_STAGE_SEGMENT
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.tiles import TILE_CHANNELS, TileLayout
from diffcodec.coding.ans import LevelDecoder, LevelRun, encode_levels
from diffcodec.coding.tables import (
    MIN_SCALE_OFFSET,
    best_scale_offset,
    ideal_bits,
    round_means,
    scale_indices,
    shifted,
)
from diffcodec.diffusion.process import HALF_RANGE, levels_to_signal, signal_to_levels
from diffcodec.errors import BitstreamError, NumericMismatchError, TruncatedStreamError
from diffcodec.model.pixel_order import group_starts, pixel_ranks

Float64 = NDArray[np.float64]
Place = NDArray[np.bool_]
"""Which pixels, bool [G, S, S]."""


@dataclass(frozen=True, eq=False)
class PixelsSoFar:
    """An image on the way through the last stage.

    Attributes:
        payload_bytes: length of the shortest beginning of the payload that gives it.
        pixels: uint8 [H, W, C].
        exact_values: how many of its values are known to be the original's.
    """

    payload_bytes: int
    pixels: NDArray[np.uint8]
    exact_values: int


@dataclass(frozen=True, eq=False)
class _Known:
    """What both ends know somewhere in the last stage.

    Attributes:
        tiles: levels, uint8 [G, 3, S, S], where they are told.
        told: bool [G, 3, S, S].
        estimate: by the network, of all that was told before the group of pixels under way.
    """

    tiles: NDArray[np.uint8]
    told: Place
    estimate: PixelEstimate


@dataclass(frozen=True)
class PixelStage:
    """What both ends have when the pixels begin.

    Attributes:
        model: the model.
        layout: how the image is cut into tiles.
        z: the latent at the final step, float64 [G, 3, S, S].
        step: the final step.
        first: p(x | z) at that step, which the caller has already.
    """

    model: CodecModel
    layout: TileLayout
    z: Float64
    step: int
    first: PixelEstimate

    def encode(self, pixels: NDArray[np.uint8], groups: int) -> tuple[bytes, float]:
        """The payload for ``pixels`` uint8 [H, W, C], and its ideal length in bits.

        Args:
            groups: G, at most ``model.most_groups``.
        """
        told = self._runs(pixels, groups)
        levels, means, scales = _joined(told)
        offset = best_scale_offset(levels, means, scales)
        runs = [(levels, run.with_offset(offset)) for levels, run in told]
        told_first = bytes([(groups - 1) << 4 | offset - MIN_SCALE_OFFSET])
        payload = told_first + encode_levels(runs)
        return payload, ideal_bits(levels, means, shifted(scales, offset))

    def ideal_bits(self, payload: bytes, pixels: NDArray[np.uint8]) -> float:
        """Σ −log2 p of ``pixels``, which ``payload`` tells, under the tables that it uses."""
        groups, offset = _settings(payload)
        levels, means, scales = _joined(self._runs(pixels, groups))
        return ideal_bits(levels, means, shifted(scales, offset))

    def decode(
        self, payload: bytes, length: int, name: str, *, every: bool
    ) -> Iterator[PixelsSoFar]:
        """Finer and finer images, the last one the best that ``payload`` gives.

        There is none where not even the first run of levels is told. The best of a whole payload
        has every value exact, and then the payload is known to have been made for these means.

        Args:
            payload: the whole payload, or its beginning.
            length: bytes of the whole payload.
            every: False gives the best alone.

        Raises:
            BitstreamError: the payload is empty, or its groups are more than the model can do.
            NumericMismatchError: what the network says here is not what it said to the encoder.
        """
        if not payload:
            raise BitstreamError(f"{name}: expected coded pixels, found an empty last stage")
        groups, offset = _settings(payload)
        if groups > self.model.most_groups:
            raise BitstreamError(
                f"{name}: expected at most {self.model.most_groups} groups of pixels with this "
                f"model, found {groups}"
            )
        try:
            yield from self._finer(LevelDecoder(payload[1:], length - 1), groups, offset, every)
        except NumericMismatchError as error:
            raise NumericMismatchError(
                f"{name}: numeric mismatch at segment {LAST_STAGE_SEGMENT}, the last stage: {error}"
            ) from error

    def _finer(
        self, decoder: LevelDecoder, groups: int, offset: int, every: bool
    ) -> Iterator[PixelsSoFar]:
        walk = self._walk(groups, lambda run, channel, place: decoder.pop(run.with_offset(offset)))
        known, told_bytes = next(walk), 0
        shown: PixelsSoFar | None = None
        try:
            for known in walk:
                told_bytes = 1 + decoder.consumed_bytes
                if not every:
                    continue
                # A run that comes with the one behind it has no beginning of its own.
                if shown is not None and shown.payload_bytes < told_bytes:
                    yield shown
                shown = self._shown(known, told_bytes)
        except TruncatedStreamError:
            if not told_bytes:
                return
        else:
            decoder.finish()
        yield self._shown(known, told_bytes)

    def _runs(
        self, pixels: NDArray[np.uint8], groups: int
    ) -> list[tuple[NDArray[np.uint8], LevelRun]]:
        """The levels of ``pixels`` in the file's order, and their means and scales."""
        truth = signal_to_levels(self.layout.split(pixels))
        told: list[tuple[NDArray[np.uint8], LevelRun]] = []

        def tell(run: LevelRun, channel: int, place: Place) -> NDArray[np.uint8]:
            levels = truth[:, channel][place]
            told.append((levels, run))
            return levels

        deque(self._walk(groups, tell), maxlen=0)
        return told

    def _walk(
        self, groups: int, code: Callable[[LevelRun, int, Place], NDArray[np.uint8]]
    ) -> Iterator[_Known]:
        """Visit every run of levels in the file's order; ``code`` gives what the levels are.

        A run is one channel of one group of pixels, of all tiles. Padding is not coded and stays
        unknown to the network.

        Yields:
            What is known before each run, and at the end, in the same arrays every time.
        """
        tiles = np.zeros(self.z.shape, dtype=np.uint8)
        told = np.zeros(self.z.shape, dtype=np.bool_)
        inside = self.layout.inside()
        ranks = pixel_ranks(self.layout.side)
        alpha = self.model.schedule.alpha[self.step]
        estimate = self.first
        for first, end in itertools.pairwise(group_starts(groups)):
            if first:
                known: Place = np.logical_and.reduce(told, axis=1)
                signal = alpha * levels_to_signal(tiles)
                z = np.where(known[:, None], signal, self.z)
                estimate = self.model.estimate(z, self.step, known)
            place = inside & (first <= ranks) & (ranks < end)
            if self.layout.channels == 1:
                yield _Known(tiles, told, estimate)
                means, variance = _gray(estimate)
                gray = code(_run(means[place], variance[place]), 0, place)
                for channel in range(TILE_CHANNELS):
                    tiles[:, channel][place] = gray
                told |= place[:, None]
                continue
            for channel in range(TILE_CHANNELS):
                yield _Known(tiles, told, estimate)
                before = [tiles[:, earlier][place] for earlier in range(channel)]
                mean = _mean_given(before, estimate, place)
                levels = code(_run(mean, estimate.variance[:, channel][place]), channel, place)
                tiles[:, channel][place] = levels
                told[:, channel] |= place
        yield _Known(tiles, told, estimate)

    def _shown(self, known: _Known, payload_bytes: int) -> PixelsSoFar:
        """The image of what is known: levels where they are told, elsewhere their means."""
        channels: list[Float64] = []
        for channel in range(TILE_CHANNELS):
            if self.layout.channels == 1:
                mean, _ = _gray(known.estimate)
            else:
                mean = _mean_given(channels, known.estimate, ...)
            channels.append(np.where(known.told[:, channel], known.tiles[:, channel], mean))
        signal = np.stack(channels, axis=1) / HALF_RANGE - 1.0
        pixels = signal_to_levels(self.layout.join(signal))
        exact_values = int(known.told[:, : self.layout.channels].sum())
        return PixelsSoFar(payload_bytes, pixels, exact_values)


def _settings(payload: bytes) -> tuple[int, int]:
    """Groups and scale offset, as the payload's first byte tells them."""
    return (payload[0] >> 4) + 1, (payload[0] & 0xF) + MIN_SCALE_OFFSET


def _joined(
    told: list[tuple[NDArray[np.uint8], LevelRun]],
) -> tuple[NDArray[np.uint8], NDArray[np.integer], NDArray[np.integer]]:
    """Levels, means and scale indices of all runs, [N] each."""
    return (
        np.concatenate([levels for levels, _ in told]),
        np.concatenate([run.mean_grid for _, run in told]),
        np.concatenate([run.scale_index for _, run in told]),
    )


def _mixing_index(channel: int, earlier: int) -> int:
    return channel * (channel - 1) // 2 + earlier


def _mean_given(
    before: Sequence[NDArray[np.uint8] | Float64],
    estimate: PixelEstimate,
    place: Place | EllipsisType,
) -> Float64:
    """Mean in levels of the channel after those of ``before``, whose levels at ``place`` it has."""
    channel = len(before)
    mean = _levels(estimate.mean[:, channel][place])
    for earlier, levels in enumerate(before):
        weight = estimate.mixing[:, _mixing_index(channel, earlier)][place]
        mean = mean + weight * (levels - _levels(estimate.mean[:, earlier][place]))
    return mean


def _levels(signal: Float64) -> Float64:
    return (signal + 1.0) * HALF_RANGE


def _run(means: Float64, variance: Float64) -> LevelRun:
    """Means in levels and variances of the signal, on the tables' grids."""
    return LevelRun(round_means(means), scale_indices(variance * (HALF_RANGE * HALF_RANGE)))


def _gray(estimate: PixelEstimate) -> tuple[Float64, Float64]:
    """Mean, in levels, and variance of a pixel whose channels are known to be equal.

    Channel c says (1 − Σ a_cj) v = mean_c − Σ a_cj mean_j within its variance: three measurements
    of one v, weighted by their precisions. float64 [G, S, S] each.
    """
    precision = np.zeros_like(estimate.mean[:, 0])
    weighted = np.zeros_like(precision)
    for channel in range(TILE_CHANNELS):
        slope = np.ones_like(precision)
        target = estimate.mean[:, channel]
        for earlier in range(channel):
            weight = estimate.mixing[:, _mixing_index(channel, earlier)]
            slope = slope - weight
            target = target - weight * estimate.mean[:, earlier]
        scaled = slope / estimate.variance[:, channel]
        precision = precision + scaled * slope
        weighted = weighted + scaled * target
    return _levels(weighted / precision), 1.0 / precision
