"""The last stage: exact pixels in groups, each under the model's word on all that came before.

DDPM's discretized Gaussian decoder (arXiv:2006.11239, eq. 13) with a scale for every pixel and
channels that lean on earlier ones (`PixelPosterior`), and pixels coded coarse to fine in G groups
(`diffcodec.model.pixel_order`): before each the network sees z_t with the groups so far in place of
their noise.

Payload: one byte, G − 1 in its upper half and the scale offset in its lower; two bytes a tile, how
the grid of its latent is shifted and how those of its means and scales are; then the ANS coder's
bytes, of which any beginning tells the first pixels. z_t is rounded to a grid before the network
sees it, means to one of 1/16 level and scales to one of 256, each shifted to where nothing lies
near its edges (`diffcodec.coding.agreement`): so the probabilities are a function of integers on
which machines agree (docs/format.md, Numeric contract).
"""

import itertools
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import EllipsisType

import numpy as np
from numpy.typing import NDArray

from diffcodec.bitstream.container import LAST_STAGE_SEGMENT
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.tiles import TILE_CHANNELS, TileLayout
from diffcodec.coding.agreement import SHIFTS, rounded, safest_shifts
from diffcodec.coding.ans import LevelDecoder, LevelRun, encode_levels
from diffcodec.coding.tables import (
    MIN_SCALE_OFFSET,
    best_scale_offset,
    ideal_bits,
    mean_positions,
    round_means,
    scale_indices,
    scale_positions,
    shifted,
)
from diffcodec.diffusion.process import HALF_RANGE, levels_to_signal, signal_to_levels
from diffcodec.errors import BitstreamError, NumericMismatchError, TruncatedStreamError
from diffcodec.model.pixel_order import group_starts, pixel_ranks

Float64 = NDArray[np.float64]
Place = NDArray[np.bool_]
"""Which pixels, bool [G, S, S]."""
Shifts = NDArray[np.intp]
"""Numbers of `SHIFTS`, one for each tile, int [G]."""

LATENT_STEPS_BITS = 4
"""σ_t is between 8 and 16 steps of the grid of z_t's coordinates, so that rounding adds little more
than a thousandth to the noise's variance."""


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


@dataclass(frozen=True, eq=False)
class Gaussians:
    """Of the levels of a run, as the network gives them.

    Attributes:
        means: in levels, float64 [N].
        variances: in squared levels, float64 [N].
        tiles: whose each level is, int [N].
    """

    means: Float64
    variances: Float64
    tiles: NDArray[np.intp]

    def rounded(self, shifts: Shifts) -> LevelRun:
        """On the tables' grids."""
        shift = SHIFTS[shifts[self.tiles]]
        return LevelRun(round_means(self.means, shift), scale_indices(self.variances, shift))


@dataclass(frozen=True, eq=False)
class PixelSettings:
    """What a payload begins with.

    Attributes:
        groups: G.
        offset: of the scales.
        latent_shifts: of the grid of each tile's z_t.
        level_shifts: of the grids of each tile's means and scales.
    """

    groups: int
    offset: int
    latent_shifts: Shifts
    level_shifts: Shifts

    def packed(self) -> bytes:
        """As a payload's first bytes."""
        first = (self.groups - 1) << 4 | self.offset - MIN_SCALE_OFFSET
        shifts = np.stack([self.latent_shifts, self.level_shifts], axis=1)
        return bytes([first]) + shifts.astype(np.uint8).tobytes()

    @staticmethod
    def unpacked(payload: bytes, tiles: int) -> "PixelSettings":
        """Of a payload that has these bytes."""
        shifts = np.frombuffer(payload, dtype=np.uint8, count=2 * tiles, offset=1).astype(np.intp)
        offset = (payload[0] & 0xF) + MIN_SCALE_OFFSET
        return PixelSettings((payload[0] >> 4) + 1, offset, shifts[::2], shifts[1::2])


@dataclass(frozen=True)
class PixelStage:
    """What both ends have when the pixels begin.

    Attributes:
        model: the model.
        layout: how the image is cut into tiles.
        z: the latent at the final step, float64 [G, 3, S, S].
        step: the final step.
    """

    model: CodecModel
    layout: TileLayout
    z: Float64
    step: int

    @property
    def settings_bytes(self) -> int:
        """How many bytes of a payload stand before the coder's."""
        return 1 + 2 * self.layout.count

    def encode(self, pixels: NDArray[np.uint8], groups: int) -> tuple[bytes, float]:
        """The payload for ``pixels`` uint8 [H, W, C], and its ideal length in bits.

        Args:
            groups: G, at most ``model.most_groups``.
        """
        count = self.layout.count
        coordinates = (self.z / self.latent_grid).ravel()
        owners = np.repeat(np.arange(count), self.layout.tile_dimensions)
        latent_shifts = safest_shifts(coordinates, owners, count)
        said = self.gaussians(pixels, groups, latent_shifts)
        level_shifts = safest_shifts(
            np.concatenate(
                [mean_positions(run.means) for _, run in said]
                + [scale_positions(run.variances) for _, run in said]
            ),
            np.concatenate(2 * [run.tiles for _, run in said]),
            count,
        )
        told = [(levels, run.rounded(level_shifts)) for levels, run in said]
        levels, means, scales = _joined(told)
        offset = best_scale_offset(levels, means, scales)
        settings = PixelSettings(groups, offset, latent_shifts, level_shifts)
        runs = [(levels, run.with_offset(offset)) for levels, run in told]
        payload = settings.packed() + encode_levels(runs)
        return payload, ideal_bits(levels, means, shifted(scales, offset))

    def ideal_bits(self, payload: bytes, pixels: NDArray[np.uint8]) -> float:
        """Σ −log2 p of ``pixels``, which ``payload`` tells, under the tables that it uses."""
        settings = PixelSettings.unpacked(payload, self.layout.count)
        said = self.gaussians(pixels, settings.groups, settings.latent_shifts)
        told = [(levels, run.rounded(settings.level_shifts)) for levels, run in said]
        levels, means, scales = _joined(told)
        return ideal_bits(levels, means, shifted(scales, settings.offset))

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
            BitstreamError: the payload is too short to be one, or its groups are more than the
                model can do.
            NumericMismatchError: what the network says here is not what it said to the encoder.
        """
        if length <= self.settings_bytes:
            raise BitstreamError(
                f"{name}: expected coded pixels after {self.settings_bytes} bytes, found a last "
                f"stage of {length}"
            )
        if len(payload) <= self.settings_bytes:
            return
        settings = PixelSettings.unpacked(payload, self.layout.count)
        if settings.groups > self.model.most_groups:
            raise BitstreamError(
                f"{name}: expected at most {self.model.most_groups} groups of pixels with this "
                f"model, found {settings.groups}"
            )
        coded = payload[self.settings_bytes :]
        try:
            decoder = LevelDecoder(coded, length - self.settings_bytes)
            yield from self._finer(decoder, settings, every)
        except NumericMismatchError as error:
            raise NumericMismatchError(
                f"{name}: numeric mismatch at segment {LAST_STAGE_SEGMENT}, the last stage: {error}"
            ) from error

    def _finer(
        self, decoder: LevelDecoder, settings: PixelSettings, every: bool
    ) -> Iterator[PixelsSoFar]:
        def pop(said: Gaussians, channel: int, place: Place) -> NDArray[np.uint8]:
            return decoder.pop(said.rounded(settings.level_shifts).with_offset(settings.offset))

        walk = self._walk(settings.groups, settings.latent_shifts, pop)
        known, told_bytes = next(walk), 0
        shown: PixelsSoFar | None = None
        try:
            for known in walk:
                told_bytes = self.settings_bytes + decoder.consumed_bytes
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

    def gaussians(
        self, pixels: NDArray[np.uint8], groups: int, latent_shifts: Shifts
    ) -> list[tuple[NDArray[np.uint8], Gaussians]]:
        """The levels of ``pixels`` in the file's order, and what the network says of them."""
        truth = signal_to_levels(self.layout.split(pixels))
        told: list[tuple[NDArray[np.uint8], Gaussians]] = []

        def tell(said: Gaussians, channel: int, place: Place) -> NDArray[np.uint8]:
            levels = truth[:, channel][place]
            told.append((levels, said))
            return levels

        deque(self._walk(groups, latent_shifts, tell), maxlen=0)
        return told

    def _walk(
        self,
        groups: int,
        latent_shifts: Shifts,
        code: Callable[[Gaussians, int, Place], NDArray[np.uint8]],
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
        latent = self._latent_on_grid(latent_shifts)
        for first, end in itertools.pairwise(group_starts(groups)):
            known: Place = np.logical_and.reduce(told, axis=1)
            signal = alpha * levels_to_signal(tiles)
            z = np.where(known[:, None], signal, latent)
            estimate = self.model.estimate(z, self.step, self.layout, known)
            place = inside & (first <= ranks) & (ranks < end)
            owners, _, _ = np.nonzero(place)
            if self.layout.channels == 1:
                yield _Known(tiles, told, estimate)
                means, variance = _gray(estimate)
                gray = code(_said(means[place], variance[place], owners), 0, place)
                for channel in range(TILE_CHANNELS):
                    tiles[:, channel][place] = gray
                told |= place[:, None]
                continue
            for channel in range(TILE_CHANNELS):
                yield _Known(tiles, told, estimate)
                before = [tiles[:, earlier][place] for earlier in range(channel)]
                mean = _mean_given(before, estimate, place)
                said = _said(mean, estimate.variance[:, channel][place], owners)
                levels = code(said, channel, place)
                tiles[:, channel][place] = levels
                told[:, channel] |= place
        yield _Known(tiles, told, estimate)

    @property
    def latent_grid(self) -> float:
        """Step of the grid of z_t's coordinates."""
        _, exponent = np.frexp(self.model.schedule.sigma[self.step])
        return math.ldexp(1.0, int(exponent) - LATENT_STEPS_BITS)

    def _latent_on_grid(self, shifts: Shifts) -> Float64:
        """z_t as the network sees it, float64 [G, C, S, S]."""
        shift = SHIFTS[shifts][:, None, None, None]
        return (rounded(self.z / self.latent_grid, shift) - shift) * self.latent_grid

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


def _said(means: Float64, variance: Float64, tiles: NDArray[np.intp]) -> Gaussians:
    """Of means in levels and variances of the signal."""
    return Gaussians(means, variance * (HALF_RANGE * HALF_RANGE), tiles)


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
