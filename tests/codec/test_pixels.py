from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec import pixels as pixels_module
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.pixels import PixelStage
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.tables import best_scale_offset, ideal_bits, round_means, scale_indices
from diffcodec.diffusion.process import HALF_RANGE, levels_to_signal
from diffcodec.errors import BitstreamError, NumericMismatchError
from diffcodec.model.pixel_order import group_starts, pixel_ranks

Pixels = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SIDE = 16
STEP = 100


@dataclass
class Oracle:
    """A model that says something random but reproducible, and remembers what it was shown."""

    pixel_model: CodecModel
    shown: list[tuple[Float64, NDArray[np.bool_]]] = field(default_factory=list)
    most_groups: int = 16

    @property
    def schedule(self) -> object:
        return self.pixel_model.schedule

    def estimate(self, z: Float64, t: int, known: NDArray[np.bool_]) -> PixelEstimate:
        self.shown.append((z.copy(), known.copy()))
        return random_estimate(z.shape, len(self.shown))


def random_estimate(shape: tuple[int, ...], seed: int) -> PixelEstimate:
    random = np.random.default_rng(seed)
    return PixelEstimate(
        random.uniform(-0.8, 0.8, shape),
        np.exp(random.normal(-6.0, 1.0, shape)),
        random.normal(0.0, 0.5, shape),
    )


def latent(layout: TileLayout, signal: Float64, model: CodecModel) -> Float64:
    noise = np.random.default_rng(7).standard_normal(signal.shape)
    return model.schedule.alpha[STEP] * signal + model.schedule.sigma[STEP] * noise


def stage_of(pixels: Pixels, model: CodecModel) -> PixelStage:
    """As both ends have it where the hops have brought z_t to STEP."""
    layout = TileLayout(*pixels.shape, SIDE)
    z = latent(layout, layout.split(pixels), model)
    return PixelStage(model, layout, z, STEP, model.estimate(z, STEP))


def decode(stage: PixelStage, payload: bytes) -> Pixels:
    """What a whole payload decodes to, with every value exact."""
    (found,) = stage.decode(payload, len(payload), "a.dfc", every=False)
    assert found.payload_bytes == len(payload)
    assert found.exact_values == found.pixels.size
    return found.pixels


@pytest.fixture(scope="module")
def picture(smooth_image: Callable[..., Pixels]) -> Pixels:
    """Six tiles, five of them padded, uint8 [33, 20, 3]."""
    return smooth_image(33, 20, 3, seed=2)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 3, 8, 16])
def test_pixels_come_back_at_nearly_the_ideal_length(
    groups: int, channels: int, picture: Pixels, pixel_model: CodecModel
) -> None:
    pixels = picture[:, :, :channels]
    stage = stage_of(pixels, pixel_model)
    payload, bits = stage.encode(pixels, groups)
    np.testing.assert_array_equal(decode(stage, payload), pixels)
    # A byte for groups and offset, and less than a word of the coder's.
    assert 0 <= 8 * len(payload) - bits <= 8 + 32
    assert payload[0] >> 4 == groups - 1


def test_one_group_without_a_pixel_model(picture: Pixels, model: CodecModel) -> None:
    stage = stage_of(picture, model)
    payload, bits = stage.encode(picture, 1)
    np.testing.assert_array_equal(decode(stage, payload), picture)
    # What the model says is its average error, so that one scale, moved, serves all levels.
    variance = model.error_curve[STEP] * HALF_RANGE**2
    tiles, inside = stage.layout.split(picture), stage.layout.inside()
    levels = np.rint((tiles.transpose(1, 0, 2, 3)[:, inside] + 1) * HALF_RANGE).astype(np.uint8)
    means = round_means((stage.first.mean.transpose(1, 0, 2, 3)[:, inside] + 1) * HALF_RANGE)
    scales = np.full(levels.size, scale_indices(np.array(variance)))
    offset = best_scale_offset(levels.ravel(), means.ravel(), scales)
    assert payload[0] == offset + 8
    assert bits == pytest.approx(ideal_bits(levels, means, int(scales[0]) + 4 * offset))


def test_known_pixels_are_shown_to_the_model_and_padding_never_is(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    oracle, layout = Oracle(pixel_model), TileLayout(*picture.shape, SIDE)
    signal = layout.split(picture)
    z = latent(layout, signal, pixel_model)
    stage = PixelStage(oracle, layout, z, STEP, random_estimate(z.shape, 0))
    payload, _ = stage.encode(picture, 5)
    told, oracle.shown = oracle.shown, []
    np.testing.assert_array_equal(decode(stage, payload), picture)
    assert len(told) == len(oracle.shown) == 4
    ranks, inside = pixel_ranks(SIDE), layout.inside()
    alpha = pixel_model.schedule.alpha[STEP]
    for first, encoder, decoder in zip(group_starts(5)[1:-1], told, oracle.shown, strict=True):
        known = inside & (ranks < first)
        expected = np.where(known[:, None], alpha * signal, z)
        for shown, mask in (encoder, decoder):
            np.testing.assert_array_equal(mask, known)
            # The levels are whole ones: their signal is the image's own but for its rounding.
            np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(shown, decoder[0])
    assert not known.all()


def coded_runs(
    stage: PixelStage, pixels: Pixels, groups: int, monkeypatch: pytest.MonkeyPatch
) -> list[tuple[Pixels, Float64, Float64]]:
    """Levels, exact means in levels and variances of the signal of each run, in order."""
    runs, levels = [], []
    make, walk = pixels_module._run, PixelStage._walk

    def noted(means: Float64, variance: Float64) -> object:
        runs.append((means, variance))
        return make(means, variance)

    def watched(self: PixelStage, groups: int, code: Callable[..., Pixels]) -> Iterator[object]:
        def kept(*arguments: object) -> Pixels:
            levels.append(code(*arguments))
            return levels[-1]

        return walk(self, groups, kept)

    monkeypatch.setattr(pixels_module, "_run", noted)
    monkeypatch.setattr(PixelStage, "_walk", watched)
    stage.encode(pixels, groups)
    return [(level, *run) for level, run in zip(levels, runs, strict=True)]


def test_colours_are_coded_in_a_chain(
    picture: Pixels, pixel_model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = TileLayout(*picture.shape, SIDE)
    said = random_estimate((layout.count, 3, SIDE, SIDE), 1)
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP, said)
    runs = coded_runs(stage, picture, 2, monkeypatch)
    assert len(runs) == 2 * 3
    place = layout.inside() & (pixel_ranks(SIDE) < 8)
    x, mean = (tiles.transpose(0, 2, 3, 1)[place] for tiles in (layout.split(picture), said.mean))
    variance = said.variance.transpose(0, 2, 3, 1)[place]
    a10, a20, a21 = said.mixing.transpose(0, 2, 3, 1)[place].T
    residual = x - mean
    chained = mean.copy()
    chained[:, 1] += a10 * residual[:, 0]
    chained[:, 2] += a20 * residual[:, 0] + a21 * residual[:, 1]
    for channel, (levels, means, spread) in enumerate(runs[:3]):
        np.testing.assert_array_equal(levels, np.rint((x[:, channel] + 1) * HALF_RANGE))
        np.testing.assert_allclose(means, (chained[:, channel] + 1) * HALF_RANGE, atol=1e-9)
        np.testing.assert_array_equal(spread, variance[:, channel])


def test_gray_is_the_chain_s_word_on_three_equal_channels(
    picture: Pixels, pixel_model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = picture[:, :, :1]
    layout = TileLayout(*gray.shape, SIDE)
    said = random_estimate((layout.count, 3, SIDE, SIDE), 1)
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP, said)
    ((levels, means, variance),) = coded_runs(stage, gray, 1, monkeypatch)
    inside = layout.inside()
    np.testing.assert_array_equal(levels, layout.split(gray)[:, 0][inside] * 127.5 + 127.5)
    # N(x; x̂_0, Σ) along x = (v, v, v), by dense algebra.
    mixing = said.mixing.transpose(0, 2, 3, 1)[inside]
    chain = np.tile(np.eye(3), (len(mixing), 1, 1))
    chain[:, [1, 2, 2], [0, 0, 1]] = -mixing
    inverse = 1.0 / said.variance.transpose(0, 2, 3, 1)[inside]
    precision = chain.transpose(0, 2, 1) @ (inverse[:, :, None] * chain)
    ones, mean = np.ones(3), said.mean.transpose(0, 2, 3, 1)[inside]
    total = np.einsum("i,pij,j->p", ones, precision, ones)
    best = np.einsum("i,pij,pj->p", ones, precision, mean) / total
    np.testing.assert_allclose(means, (best + 1) * HALF_RANGE, rtol=1e-9)
    np.testing.assert_allclose(variance, 1.0 / total, rtol=1e-9)


def test_means_agree_although_the_estimate_differs_within_their_grid(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    stage = stage_of(picture, pixel_model)
    grid = levels_to_signal(np.rint((stage.first.mean + 1) * HALF_RANGE))
    rounded = PixelEstimate(grid, stage.first.variance, 0 * stage.first.mixing)
    payload, _ = replace(stage, first=rounded).encode(picture, 1)
    nudged = PixelEstimate(grid + 1e-9, rounded.variance, rounded.mixing)
    np.testing.assert_array_equal(decode(replace(stage, first=nudged), payload), picture)


@pytest.mark.parametrize("part", ["mean", "variance", "mixing"])
def test_another_estimate_is_a_numeric_mismatch_that_names_the_file(
    part: str, picture: Pixels, pixel_model: CodecModel
) -> None:
    stage = stage_of(picture, pixel_model)
    payload, _ = stage.encode(picture, 2)
    other = getattr(stage.first, part).copy()
    # The mixing of a pixel whose first channel is as expected would not show: change them all.
    other += 0.02 if part == "mixing" else 0.01 * other
    changed = replace(stage, first=replace(stage.first, **{part: other}))
    with pytest.raises(NumericMismatchError, match=r"^a\.dfc: "):
        decode(changed, payload)


def test_more_groups_than_the_model_can_do_are_refused(
    picture: Pixels, model: CodecModel, pixel_model: CodecModel
) -> None:
    payload, _ = stage_of(picture, pixel_model).encode(picture, 2)
    with pytest.raises(BitstreamError, match=r"^a\.dfc: expected at most 1 groups.*found 2"):
        decode(stage_of(picture, model), payload)


def test_an_empty_payload_is_refused(picture: Pixels, model: CodecModel) -> None:
    with pytest.raises(BitstreamError, match=r"^a\.dfc: .*empty"):
        decode(stage_of(picture, model), b"")


@pytest.mark.parametrize("channels", [1, 3])
def test_every_beginning_gives_the_finest_image_that_it_tells(
    channels: int, picture: Pixels, pixel_model: CodecModel
) -> None:
    pixels = picture[:, :, :channels]
    stage = stage_of(pixels, pixel_model)
    payload, _ = stage.encode(pixels, 4)
    finer = list(stage.decode(payload, len(payload), "a.dfc", every=True))
    assert len(finer) == 4 * channels
    for before, after in pairwise(finer):
        assert before.payload_bytes < after.payload_bytes
        assert before.exact_values < after.exact_values
    for length in range(1, len(payload), 5):
        told = [image for image in finer if image.payload_bytes <= length]
        found = list(stage.decode(payload[:length], len(payload), "a.dfc", every=False))
        assert len(found) == bool(told)
        if told:
            assert found[0].payload_bytes == told[-1].payload_bytes
            assert found[0].exact_values == told[-1].exact_values
            np.testing.assert_array_equal(found[0].pixels, told[-1].pixels)
    # Each shortest beginning is one: with a byte less, the image before it.
    for before, image in pairwise(finer):
        length = image.payload_bytes - 1
        (found,) = stage.decode(payload[:length], len(payload), "a.dfc", every=False)
        assert found.payload_bytes == before.payload_bytes


def test_told_values_are_exact_and_the_others_follow_them(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    layout = TileLayout(*picture.shape, SIDE)
    said = random_estimate((layout.count, 3, SIDE, SIDE), 1)
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP, said)
    payload, _ = stage.encode(picture, 2)
    stage.model.shown.clear()  # so that it says the same once more
    red, green, *_ = stage.decode(payload, len(payload), "a.dfc", every=True)
    first = layout.join(np.broadcast_to(pixel_ranks(SIDE) < 8, said.mean.shape).astype(float)) > 0
    told = first & (np.arange(3) == 0)
    np.testing.assert_array_equal(red.pixels[told], picture[told])
    assert red.exact_values == told.sum()
    # Where red is told, its residual moves the others by the chain; elsewhere it is the mean.
    x, mean = layout.split(picture), said.mean
    residual = np.where(pixel_ranks(SIDE) < 8, x[:, 0] - mean[:, 0], 0.0)
    a10, a20, a21 = said.mixing.transpose(1, 0, 2, 3)
    expected = mean.copy()
    expected[:, 1] += a10 * residual
    expected[:, 2] += (a20 + a21 * a10) * residual
    wanted = np.clip(np.rint((layout.join(expected) + 1) * HALF_RANGE), 0, 255)
    np.testing.assert_array_equal(red.pixels[~told], wanted[~told])
    told = first & (np.arange(3) < 2)
    np.testing.assert_array_equal(green.pixels[told], picture[told])


def test_a_beginning_that_tells_no_run_gives_nothing(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    stage = stage_of(picture, pixel_model)
    payload, _ = stage.encode(picture, 2)
    for length in range(1, 12):
        assert not list(stage.decode(payload[:length], len(payload), "a.dfc", every=True))
