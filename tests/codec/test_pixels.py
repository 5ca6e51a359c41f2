from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec import pixels as pixels_module
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.pixels import PixelStage
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.agreement import SHIFTS
from diffcodec.coding.tables import best_scale_offset, ideal_bits, scale_indices
from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.errors import BitstreamError, NumericMismatchError
from diffcodec.model.pixel_order import group_starts, pixel_ranks

Pixels = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SIDE = 16
STEP = 100


@dataclass
class Oracle:
    """A model that says something random but reproducible, and remembers what it was shown.

    ``change`` is made to all that it says.
    """

    pixel_model: CodecModel
    shown: list[tuple[Float64, NDArray[np.bool_]]] = field(default_factory=list)
    most_groups: int = 16
    change: Callable[[PixelEstimate], PixelEstimate] = lambda said: said

    @property
    def schedule(self) -> object:
        return self.pixel_model.schedule

    def estimate(
        self, z: Float64, t: int, layout: TileLayout, known: NDArray[np.bool_]
    ) -> PixelEstimate:
        self.shown.append((z.copy(), known.copy()))
        return self.change(random_estimate(z.shape, len(self.shown)))


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
    return PixelStage(model, layout, z, STEP)


def shifts_of(payload: bytes, tiles: int) -> tuple[Float64, Float64]:
    """How the grids of each tile's latent and of its levels are shifted, float64 [G] each."""
    numbers = np.frombuffer(payload[1 : 1 + 2 * tiles], dtype=np.uint8)
    latent_shift, level_shift = ((numbers + 0.5) / 256 - 0.5).reshape(tiles, 2).T
    return latent_shift, level_shift


def on_grid(stage: PixelStage, payload: bytes) -> Float64:
    """The latent that the network is shown."""
    step = 2.0 ** (np.floor(np.log2(stage.model.schedule.sigma[STEP])) - 3)
    shift = shifts_of(payload, stage.layout.count)[0][:, None, None, None]
    return (np.rint(stage.z / step + shift) - shift) * step


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
    # A byte for groups and offset, two for each tile, and less than a word of the coder's.
    assert stage.settings_bytes == 1 + 2 * 6
    assert 0 <= 8 * (len(payload) - stage.settings_bytes) - bits <= 32
    assert payload[0] >> 4 == groups - 1


def test_one_group_without_a_pixel_model(picture: Pixels, model: CodecModel) -> None:
    stage = stage_of(picture, model)
    payload, bits = stage.encode(picture, 1)
    np.testing.assert_array_equal(decode(stage, payload), picture)
    # What the model says is its average error: one scale, shifted and moved, serves all levels.
    variance = model.error_curve[STEP] * HALF_RANGE**2
    tiles, inside = stage.layout.split(picture), stage.layout.inside()
    said = model.estimate(on_grid(stage, payload), STEP, stage.layout)
    shift = np.broadcast_to(shifts_of(payload, stage.layout.count)[1][:, None, None], inside.shape)
    levels = np.rint((tiles.transpose(1, 0, 2, 3)[:, inside] + 1) * HALF_RANGE).astype(np.uint8)
    means = np.rint(
        16 * (said.mean.transpose(1, 0, 2, 3)[:, inside] + 1) * HALF_RANGE + shift[inside]
    )
    scales = np.tile(scale_indices(variance * 2000 ** (2 * shift[inside] / 255)), 3)
    levels, means = levels.ravel(), np.clip(means, 0, 4080).astype(int).ravel()
    offset = best_scale_offset(levels, means, scales)
    assert payload[0] == offset + 8
    assert bits == pytest.approx(ideal_bits(levels, means, scales + 4 * offset))


def test_known_pixels_are_shown_to_the_model_and_padding_never_is(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    oracle, layout = Oracle(pixel_model), TileLayout(*picture.shape, SIDE)
    signal = layout.split(picture)
    z = latent(layout, signal, pixel_model)
    stage = PixelStage(oracle, layout, z, STEP)
    payload, _ = stage.encode(picture, 5)
    told, oracle.shown = oracle.shown, []
    np.testing.assert_array_equal(decode(stage, payload), picture)
    assert len(told) == len(oracle.shown) == 5
    ranks, inside = pixel_ranks(SIDE), layout.inside()
    alpha = pixel_model.schedule.alpha[STEP]
    for first, encoder, decoder in zip(group_starts(5)[:-1], told, oracle.shown, strict=True):
        known = inside & (ranks < first)
        expected = np.where(known[:, None], alpha * signal, on_grid(stage, payload))
        for shown, mask in (encoder, decoder):
            np.testing.assert_array_equal(mask, known)
            # The levels are whole ones: their signal is the image's own but for its rounding.
            np.testing.assert_allclose(shown, expected, rtol=0, atol=1e-12)
            np.testing.assert_array_equal(shown, decoder[0])
    assert not known.all()


def coded_runs(
    stage: PixelStage, pixels: Pixels, groups: int
) -> list[tuple[Pixels, Float64, Float64]]:
    """Levels, exact means in levels and variances of the signal of each run, in order."""
    runs = stage.gaussians(pixels, groups, np.zeros(stage.layout.count, dtype=np.intp))
    return [(levels, said.means, said.variances / HALF_RANGE**2) for levels, said in runs]


def test_colours_are_coded_in_a_chain(picture: Pixels, pixel_model: CodecModel) -> None:
    layout = TileLayout(*picture.shape, SIDE)
    said = random_estimate((layout.count, 3, SIDE, SIDE), 1)
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP)
    runs = coded_runs(stage, picture, 2)
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
        np.testing.assert_allclose(spread, variance[:, channel], rtol=1e-12)


def test_gray_is_the_chain_s_word_on_three_equal_channels(
    picture: Pixels, pixel_model: CodecModel
) -> None:
    gray = picture[:, :, :1]
    layout = TileLayout(*gray.shape, SIDE)
    said = random_estimate((layout.count, 3, SIDE, SIDE), 1)
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP)
    ((levels, means, variance),) = coded_runs(stage, gray, 1)
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


def nudged(said: PixelEstimate) -> PixelEstimate:
    """As another processor might have said it."""
    random = np.random.default_rng(3)
    digits = [1.0 + 3e-7 * random.uniform(-1, 1, said.mean.shape) for _ in range(3)]
    return PixelEstimate(said.mean * digits[0], said.variance * digits[1], said.mixing * digits[2])


@pytest.mark.parametrize("shift", ["safest", "unsafest"])
def test_shifted_grids_make_machines_agree(
    shift: str, picture: Pixels, pixel_model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = TileLayout(*picture.shape, SIDE)
    z = latent(layout, layout.split(picture), pixel_model)
    here = PixelStage(Oracle(pixel_model), layout, z, STEP)
    drift = 1e-7 * np.random.default_rng(4).uniform(-1, 1, z.shape)
    there = PixelStage(Oracle(pixel_model, change=nudged), layout, z + drift, STEP)
    if shift == "safest":
        payload, _ = here.encode(picture, 8)
        np.testing.assert_array_equal(decode(there, payload), picture)
        for shown, expected in zip(there.model.shown, here.model.shown, strict=True):
            np.testing.assert_array_equal(shown[0], expected[0])
        return

    def unsafest(positions: Float64, owners: NDArray[np.intp], count: int) -> NDArray[np.intp]:
        moved = positions[:, None] + SHIFTS
        distances = np.abs(moved - np.floor(moved) - 0.5)
        worst = [distances[owners == owner].min(axis=0).argmin() for owner in range(count)]
        return np.array(worst)

    monkeypatch.setattr(pixels_module, "safest_shifts", unsafest)
    payload, _ = here.encode(picture, 8)
    with pytest.raises(NumericMismatchError):
        decode(there, payload)


@pytest.mark.parametrize("part", ["mean", "variance", "mixing"])
def test_another_estimate_is_a_numeric_mismatch_that_names_the_file(
    part: str, picture: Pixels, pixel_model: CodecModel
) -> None:
    def changed(said: PixelEstimate) -> PixelEstimate:
        # The mixing of a pixel whose first channel is as expected would not show: change them all.
        other = getattr(said, part)
        other = other + (0.02 if part == "mixing" else 0.01 * other)
        return replace(said, **{part: other})

    layout = TileLayout(*picture.shape, SIDE)
    z = latent(layout, layout.split(picture), pixel_model)
    payload, _ = PixelStage(Oracle(pixel_model), layout, z, STEP).encode(picture, 2)
    with pytest.raises(NumericMismatchError, match=r"^a\.dfc: "):
        decode(PixelStage(Oracle(pixel_model, change=changed), layout, z, STEP), payload)


def test_more_groups_than_the_model_can_do_are_refused(
    picture: Pixels, model: CodecModel, pixel_model: CodecModel
) -> None:
    payload, _ = stage_of(picture, pixel_model).encode(picture, 2)
    with pytest.raises(BitstreamError, match=r"^a\.dfc: expected at most 1 groups.*found 2"):
        decode(stage_of(picture, model), payload)


def test_an_empty_payload_is_refused(picture: Pixels, model: CodecModel) -> None:
    with pytest.raises(BitstreamError, match=r"^a\.dfc: .*after 13 bytes, found.*of 0"):
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
    stage = PixelStage(Oracle(pixel_model), layout, np.zeros_like(said.mean), STEP)
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
    for length in range(1, stage.settings_bytes + 12):
        assert not list(stage.decode(payload[:length], len(payload), "a.dfc", every=True))
