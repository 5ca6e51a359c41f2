from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container, assemble
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.bitstream.stored import pack_pixels
from diffcodec.codec.decoder import Frame, decode_frames
from diffcodec.codec.effort import EFFORTS, effort_level
from diffcodec.codec.encoder import Encoded, EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.channel import CHANNEL_CODES
from diffcodec.errors import BudgetError
from diffcodec.units import bits_per_dimension

Pixels = NDArray[np.uint8]
Decode = Callable[..., Frame]

FAST = EncoderSettings(PlanConfig(growth_index=40, parts=4, code_id=0))
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def stored_bytes(pixels: Pixels) -> int:
    height, width, channels = pixels.shape
    header = Header(width, height, channels, last_stage=LastStage.STORED)
    return len(assemble(header, b"", pack_pixels(pixels)))


def assert_exact(pixels: Pixels, encoded: Encoded, decode: Decode) -> None:
    frame = decode(encoded.data)
    assert frame.exact
    assert not frame.truncated
    assert frame.stream_bytes == len(encoded.data)
    assert len(encoded.data) <= stored_bytes(pixels)
    np.testing.assert_array_equal(frame.pixels, pixels)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (16, 16), (32, 32), (33, 20), (5, 40), (64, 64)])
def test_a_lossless_file_gives_the_image_back(
    size: tuple[int, int],
    channels: int,
    model: CodecModel,
    decode: Decode,
    smooth_image: Callable[..., Pixels],
    encode_coded: Callable[..., Encoded],
) -> None:
    pixels = smooth_image(*size, channels, seed=4)
    assert_exact(pixels, encode_image(pixels, model, FAST), decode)
    coded = encode_coded(pixels)
    assert coded.header.last_stage is LastStage.GAUSSIAN
    np.testing.assert_array_equal(decode(coded.data).pixels, pixels)


@pytest.mark.parametrize("pixels", [np.zeros_like(NOISE), np.full_like(NOISE, 255), NOISE])
def test_the_worst_images_are_no_larger_than_stored_ones(
    pixels: Pixels, model: CodecModel, decode: Decode
) -> None:
    assert_exact(pixels, encode_image(pixels, model, FAST), decode)


@pytest.mark.parametrize("code_id", sorted(CHANNEL_CODES))
@pytest.mark.parametrize("parts", [1, 64])
def test_every_channel_code_and_number_of_parts(
    code_id: int, parts: int, picture: Pixels, model: CodecModel, decode: Decode
) -> None:
    settings = EncoderSettings(PlanConfig(40, parts, code_id))
    assert_exact(picture, encode_image(picture, model, settings), decode)


def test_every_effort_and_effort_pays(picture: Pixels, model: CodecModel, decode: Decode) -> None:
    files = [
        encode_image(picture, model, EncoderSettings.for_effort(effort_level(effort)))
        for effort in EFFORTS
    ]
    for encoded in files:
        assert_exact(picture, encoded, decode)
    evaluations = [encoded.evaluations for encoded in files]
    # Levels that differ in their channel code alone take about as many.
    assert all(later > 0.9 * earlier for earlier, later in pairwise(evaluations))
    assert evaluations[-1] > 3 * evaluations[0]
    assert len(files[-1].data) < len(files[0].data)


def test_the_handover_is_the_encoder_s_choice(
    picture: Pixels, model: CodecModel, decode: Decode
) -> None:
    for gamma in (-6.0, -12.0):
        encoded = encode_image(picture, model, EncoderSettings(FAST.plan, handover_gamma=gamma))
        assert encoded.header.final_step == model.schedule.step_at_gamma(gamma)
        assert_exact(picture, encoded, decode)


def test_memory_layout_does_not_matter(
    lossless: Encoded, picture: Pixels, model: CodecModel
) -> None:
    header = lossless.header
    plan = PlanConfig(header.growth_index, header.parts, header.channel_code)
    settings = EncoderSettings(plan)
    planes = np.ascontiguousarray(picture.transpose(2, 0, 1)).transpose(1, 2, 0)
    backwards = np.ascontiguousarray(picture[::-1, ::-1])[::-1, ::-1]
    for pixels in (planes, backwards, np.asfortranarray(picture)):
        assert encode_image(pixels, model, settings).data == lossless.data


@pytest.mark.parametrize("bpd", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("size", [(16, 16), (33, 20)])
def test_a_budget_is_kept_and_used(
    bpd: float,
    size: tuple[int, int],
    model: CodecModel,
    decode: Decode,
    smooth_image: Callable[..., Pixels],
) -> None:
    pixels = smooth_image(*size, 3, seed=9)
    encoded = encode_image(pixels, model, EncoderSettings(FAST.plan, bpd=bpd))
    assert encoded.header.last_stage is LastStage.NONE
    assert encoded.bpd <= bpd
    assert encoded.bpd == bits_per_dimension(8 * len(encoded.data), pixels.size)
    # One packet of one section for every vector, and the rounding to bytes, may be left.
    assert len(encoded.data) >= min(0.95 * bpd * pixels.size / 8, bpd * pixels.size / 8 - 4)
    frame = decode(encoded.data)
    assert not frame.exact
    assert not frame.truncated
    assert frame.step == encoded.header.final_step


def test_more_budget_is_a_better_image(model: CodecModel, decode: Decode, picture: Pixels) -> None:
    errors = []
    for bpd in (0.5, 1.0, 2.0, 4.0):
        data = encode_image(picture, model, EncoderSettings(FAST.plan, bpd=bpd)).data
        errors.append(np.mean((decode(data).pixels.astype(float) - picture) ** 2))
    assert errors == sorted(errors, reverse=True)


def test_a_budget_below_the_smallest_file_is_refused(model: CodecModel, picture: Pixels) -> None:
    empty = len(encode_image(picture, model, EncoderSettings(FAST.plan, bpd=0.2)).data)
    assert empty < 20
    with pytest.raises(BudgetError, match="expected at least"):
        encode_image(picture, model, EncoderSettings(FAST.plan, bpd=0.01))


@pytest.mark.parametrize("name", ["picture", "noise", "black"])
def test_a_budget_from_the_lossless_size_on_gives_the_lossless_file(
    name: str, model: CodecModel, picture: Pixels
) -> None:
    pixels = {"picture": picture, "noise": NOISE[:16, :16], "black": 0 * picture}[name]
    whole = encode_image(pixels, model, FAST)
    for budget in (whole.bpd, whole.bpd + 0.3, 9.0):
        within = encode_image(pixels, model, EncoderSettings(FAST.plan, bpd=budget))
        assert within.data == whole.data
        assert within.evaluations == whole.evaluations
        assert within.ledger == whole.ledger
    below = encode_image(
        pixels, model, EncoderSettings(FAST.plan, bpd=8 * (len(whole.data) - 1) / pixels.size)
    )
    assert below.header.last_stage is LastStage.NONE


def test_the_ledger_adds_up_to_the_file(model: CodecModel, picture: Pixels) -> None:
    encoded = encode_image(picture, model, EncoderSettings(FAST.plan, trace=True))
    header = encoded.header
    assert header.last_stage is LastStage.GAUSSIAN
    paid_bits = sum(entry.paid_bits for entry in encoded.ledger)
    hop_bytes = -(-paid_bits // 8)
    assert len(Container.open(encoded.data, "a.dfc").by_its_checks().hops().data) == hop_bytes
    checks_and_header = len(encoded.data) - hop_bytes - encoded.payload_bytes
    assert checks_and_header <= 16
    settings_bytes = 1 + 2 * TileLayout(*picture.shape, model.tile_side).count
    assert 0 <= 8 * (encoded.payload_bytes - settings_bytes) - encoded.last_stage_bits <= 32
    assert encoded.ledger[0].t == 1000
    assert encoded.ledger[-1].s == header.final_step
    sizes = [entry.cumulative_bpd for entry in encoded.ledger]
    assert sizes == sorted(sizes)
    rmse = [entry.rmse for entry in encoded.ledger if entry.rmse is not None]
    assert len(rmse) == len(encoded.ledger)
    assert rmse[-1] < 5 < rmse[0]
    assert 1.0 < paid_bits / sum(entry.kl_bits for entry in encoded.ledger) < 1.3


def test_tracing_several_windows_changes_no_byte(
    lossy_tiles: Encoded, tiles: Pixels, model: CodecModel
) -> None:
    untraced = encode_image(tiles, model, EncoderSettings(FAST.plan, bpd=0.8))
    assert untraced.data == lossy_tiles.data
    assert untraced.evaluations == lossy_tiles.evaluations


def test_tracing_changes_no_byte(lossless: Encoded, model: CodecModel, picture: Pixels) -> None:
    plan = PlanConfig(lossless.header.growth_index, lossless.header.parts, 0)
    steps: list[int] = []
    traced = encode_image(picture, model, EncoderSettings(plan, trace=True), steps.append)
    assert traced.data == lossless.data
    assert steps == [entry.s for entry in traced.ledger]


@pytest.fixture(scope="module")
def tiles(smooth_image: Callable[..., Pixels]) -> Pixels:
    """A picture of eight tiles in two windows."""
    return smooth_image(56, 24, 3, seed=5)


@pytest.fixture(scope="module")
def lossy_tiles(model: CodecModel, tiles: Pixels) -> Encoded:
    """`tiles` in at most 0.8 bits/dim, the ledger with errors."""
    return encode_image(tiles, model, EncoderSettings(FAST.plan, bpd=0.8, trace=True))


def test_the_ledger_of_several_windows_has_errors_where_hops_begin(
    lossy_tiles: Encoded, tiles: Pixels, model: CodecModel
) -> None:
    container = Container.open(lossy_tiles.data, "a.dfc")
    _, *frames = decode_frames(container, model)
    errors = [np.sqrt(np.mean((frame.pixels.astype(float) - tiles) ** 2)) for frame in frames]
    for entry, error in zip(lossy_tiles.ledger, errors, strict=True):
        assert entry.rmse is None or entry.rmse == pytest.approx(error)
    at_hops = {frame.step for frame in decode_frames(container, model, lengths=())}
    shown = {entry.s for entry in lossy_tiles.ledger if entry.rmse is not None}
    assert shown == (at_hops | {lossy_tiles.header.final_step}) - {1000}
    assert len(shown) < len(lossy_tiles.ledger)


@pytest.mark.parametrize("kind", ["lossless", "grouped", "lossy", "lossy_tiles"])
def test_a_decoder_needs_the_evaluations_that_the_encoder_says(
    kind: str, request: pytest.FixtureRequest, decode: Decode, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: Encoded = request.getfixturevalue(kind)
    calls = 0
    evaluate = CodecModel.evaluate

    def counted(
        self: CodecModel,
        windows: Sequence[NDArray[np.float64]],
        t: int,
        known: Sequence[NDArray[np.bool_]] | None = None,
    ) -> Iterator[NDArray[np.float64]]:
        nonlocal calls
        calls += 1
        return evaluate(self, windows, t, known)

    monkeypatch.setattr(CodecModel, "evaluate", counted)
    assert decode(encoded.data).exact == (encoded.header.last_stage is not LastStage.NONE)
    assert calls == encoded.evaluations


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("groups", [1, 2, 3, 8, 16])
@pytest.mark.parametrize("size", [(16, 16), (40, 33)])
def test_pixels_in_groups_give_the_image_back(
    size: tuple[int, int],
    groups: int,
    channels: int,
    pixel_model: CodecModel,
    decode: Decode,
    smooth_image: Callable[..., Pixels],
    encode_coded: Callable[..., Encoded],
) -> None:
    pixels = smooth_image(*size, channels, seed=4)
    encoded = encode_coded(pixels, pixel_model, groups=groups)
    payload = Container.open(encoded.data, "a.dfc").by_its_checks().last_stage().data
    assert len(payload) == encoded.payload_bytes
    assert payload[0] >> 4 == groups - 1
    frame = decode(encoded.data)
    assert frame.exact
    np.testing.assert_array_equal(frame.pixels, pixels)


def test_a_model_without_a_pixel_model_codes_pixels_in_one_group(
    picture: Pixels, model: CodecModel, decode: Decode
) -> None:
    encoded = encode_image(picture, model, EncoderSettings(FAST.plan, groups=16))
    payload = Container.open(encoded.data, "a.dfc").by_its_checks().last_stage().data
    assert payload[0] >> 4 == 0
    assert_exact(picture, encoded, decode)
