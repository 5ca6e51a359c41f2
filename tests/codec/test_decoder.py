import dataclasses
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container, assemble
from diffcodec.bitstream.header import LastStage
from diffcodec.codec.decoder import Frame, decode_frames, find_hops_end
from diffcodec.codec.encoder import Encoded, EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.coding.channel import CHANNEL_CODES
from diffcodec.errors import (
    BitstreamError,
    ChecksumError,
    ModelMismatchError,
    NumericMismatchError,
    TruncatedStreamError,
)
from diffcodec.model.checkpoint import load_checkpoint

Pixels = NDArray[np.uint8]
Decode = Callable[..., Frame]


@pytest.fixture(scope="module")
def files(
    lossless: Encoded,
    lossy: Encoded,
    stored: Encoded,
    grouped: Encoded,
    picture: Pixels,
    model: CodecModel,
    pixel_model: CodecModel,
    encode_coded: Callable[..., Encoded],
) -> dict[str, tuple[Encoded, Pixels]]:
    """Files of every kind with their images."""
    gray, plan = picture[:, :, :1], PlanConfig(63, 4, 0)
    noise = np.random.default_rng(1).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    # Four tiles in two windows.
    tiled = np.concatenate(2 * [picture, picture[:, ::-1]], axis=1)[:15, :52]
    made = {
        "lossless": (lossless, picture),
        "lossy": (lossy, picture),
        "black": (stored, 0 * picture),
        "noise": (encode_image(noise, model, EncoderSettings(plan)), noise),
        "gray": (encode_coded(gray), gray),
        "tiled": (encode_coded(tiled), tiled),
        "grouped": (grouped, picture),
        "grouped gray": (encode_coded(gray, pixel_model, groups=3), gray),
    }
    stages = {name: encoded.header.last_stage for name, (encoded, _) in made.items()}
    assert stages["lossless"] is stages["gray"] is stages["tiled"] is LastStage.GAUSSIAN
    assert stages["grouped"] is stages["grouped gray"] is LastStage.GAUSSIAN
    assert stages["lossy"] is LastStage.NONE
    assert stages["black"] is stages["noise"] is LastStage.STORED
    return made


Files = dict[str, tuple[Encoded, Pixels]]


@pytest.fixture
def _remember_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Evaluate the network once for all prefixes of a file: they share their z_t."""
    evaluate = CodecModel.evaluate
    memory: dict[tuple[bytes | int, ...], list[NDArray[np.float64]]] = {}

    def remembered(
        self: CodecModel,
        windows: Sequence[NDArray[np.float64]],
        t: int,
        known: Sequence[NDArray[np.bool_]] | None = None,
    ) -> list[NDArray[np.float64]]:
        key = self.model_id, t, *(array.tobytes() for array in (*windows, *(known or ())))
        if key not in memory:
            memory[key] = list(evaluate(self, windows, t, known))
        return memory[key]

    monkeypatch.setattr(CodecModel, "evaluate", remembered)


# Every byte of the small files; of the larger ones a stride that meets every kind of place.
@pytest.mark.usefixtures("_remember_estimates")
@pytest.mark.parametrize(
    ("name", "stride"),
    [
        ("lossless", 1),
        ("lossy", 1),
        ("black", 1),
        ("noise", 1),
        ("gray", 5),
        ("tiled", 11),
        ("grouped", 7),
        ("grouped gray", 5),
    ],
)
def test_every_prefix_is_an_image_and_longer_ones_are_better(
    name: str, stride: int, files: Files, decode: Decode
) -> None:
    encoded, pixels = files[name]
    data = encoded.data
    header_bytes = len(Container.open(data, "a.dfc").header_bytes)
    for length in range(header_bytes):
        with pytest.raises(TruncatedStreamError):
            decode(data[:length])
    errors = []
    for length in range(header_bytes, len(data), stride):
        frame = decode(data[:length])
        assert frame.pixels.shape == pixels.shape
        assert frame.truncated
        assert not frame.exact
        assert frame.stream_bytes <= length
        errors.append(np.mean((frame.pixels.astype(float) - pixels) ** 2))
    if len(errors) >= 30:
        thirds = [np.mean(third) for third in np.array_split(np.array(errors), 3)]
        assert thirds == sorted(thirds, reverse=True)
        assert thirds[0] > 2 * thirds[2]
    assert not decode(data).truncated


def flipped(data: bytes, position: int, mask: int) -> bytes:
    return data[:position] + bytes([data[position] ^ mask]) + data[position + 1 :]


@pytest.mark.parametrize("name", ["lossless", "lossy", "black", "noise", "gray", "grouped gray"])
def test_every_damaged_byte_is_found(name: str, files: Files, decode: Decode) -> None:
    data = files[name][0].data
    header_bytes = len(Container.open(data, "a.dfc").header_bytes)
    random = np.random.default_rng(0)
    for position in range(len(data)):
        # A flip of a varint's length or of the fields' presence is found but for a chance of 1 in
        # 256 (docs/format.md): the header is tried with all of them.
        masks = range(1, 256) if position < header_bytes else [int(random.integers(1, 256))]
        for mask in masks:
            try:
                frame = decode(flipped(data, position, mask))
            except (BitstreamError, ModelMismatchError):
                continue
            # A size or a correction that now asks for more packets makes the file look cut short:
            # it says so.
            assert frame.truncated, (position, mask)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    name=st.sampled_from(
        ["lossless", "lossy", "black", "noise", "gray", "tiled", "grouped", "grouped gray"]
    ),
    edits=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
    end=st.floats(0, 1),
)
def test_mutated_files_give_an_image_or_a_named_error(
    name: str, edits: list[tuple[float, int]], end: float, files: Files, decode: Decode
) -> None:
    data = bytearray(files[name][0].data)
    for place, value in edits:
        data[int(place * len(data))] = value
    # Cut short, the hop stream is not checked: whatever its bits say must be borne.
    cut = bytes(data[: 1 + int(end * len(data))])
    try:
        frame = decode(cut)
    except (BitstreamError, ModelMismatchError):
        return
    assert frame.pixels.dtype == np.uint8


@settings(max_examples=100, deadline=None, derandomize=True)
@given(hops=st.binary(max_size=200))
def test_any_hop_stream_is_borne_where_its_check_agrees(
    hops: bytes, lossless: Encoded, decode: Decode
) -> None:
    lossy = dataclasses.replace(lossless.header, last_stage=LastStage.NONE)
    for header in (lossless.header, lossy):
        try:
            frame = decode(assemble(header, hops))
        except BitstreamError:
            continue
        assert frame.truncated


@pytest.mark.parametrize("every", [True, False])
def test_damage_of_the_last_stage_leaves_the_last_hop_s_image(
    every: bool, lossless: Encoded, model: CodecModel, picture: Pixels
) -> None:
    container = Container.open(flipped(lossless.data, -2 % len(lossless.data), 4), "a.dfc")
    frames = []
    with pytest.raises(ChecksumError, match=r"^a\.dfc: damaged last stage"):  # noqa: PT012
        for frame in decode_frames(container, model, every=every):
            frames.append(frame)
    assert len(frames) == (len(lossless.ledger) + 1 if every else 1)
    assert frames[-1].step == lossless.header.final_step
    assert not frames[-1].exact
    assert np.abs(frames[-1].pixels.astype(int) - picture).mean() < 3


def test_damaged_hops_give_nothing(lossless: Encoded, lossy: Encoded, model: CodecModel) -> None:
    # Of the lossy file the last byte of the hops, which holds no correction, and their check.
    last = len(lossy.data) - 3
    for data, place in ((lossless.data, 40), (lossy.data, last), (lossy.data, last + 1)):
        container = Container.open(flipped(data, place, 1), "a.dfc")
        with pytest.raises(ChecksumError, match=r"^a\.dfc: damaged hops"):
            next(decode_frames(container, model))


def test_a_wrong_or_missing_model_is_told_before_any_frame(
    lossless: Encoded, stored: Encoded, model: CodecModel
) -> None:
    other = CodecModel(dataclasses.replace(model.checkpoint, digest=bytes(32)))
    for wrong in (other, None):
        container = Container.open(lossless.data, "a.dfc")
        with pytest.raises(ModelMismatchError, match=r"^a\.dfc: .*" + model.model_id.hex()):
            next(decode_frames(container, wrong))
    frame = next(decode_frames(Container.open(stored.data, "b.dfc"), None))
    assert frame.exact


def test_frames_are_what_their_prefixes_give(
    files: Files, model: CodecModel, pixel_model: CodecModel, decode: Decode
) -> None:
    for name in ("lossless", "lossy", "gray", "grouped", "tiled"):
        encoded, pixels = files[name]
        own = pixel_model if name == "grouped" else model
        frames = list(decode_frames(Container.open(encoded.data, "a.dfc"), own))
        steps = [1000, *(entry.s for entry in encoded.ledger)]
        exact = encoded.header.last_stage is LastStage.GAUSSIAN
        # The last stage's runs: a channel of a group each.
        groups = 4 if name == "grouped" else 1
        runs = groups * pixels.shape[2] if exact else 0
        if runs:
            steps += [steps[-1]] * (runs - 1) + [0]
        assert [frame.step for frame in frames] == steps
        assert [frame.exact for frame in frames] == [False] * (len(steps) - exact) + [True] * exact
        told = [frame.exact_values for frame in frames[len(encoded.ledger) :]]
        assert told == [pixels.size * run // max(1, runs) for run in range(runs + 1)]
        sizes = [frame.stream_bytes for frame in frames]
        assert sizes == sorted(set(sizes))
        for frame in frames[:-1]:
            np.testing.assert_array_equal(
                decode(encoded.data[: frame.stream_bytes]).pixels, frame.pixels
            )
        # One byte less gives what was whole before it.
        for before, frame in pairwise(frames[: len(encoded.ledger)]):
            shorter = decode(encoded.data[: frame.stream_bytes - 1])
            assert shorter.packets == before.packets
            assert frame.step <= shorter.step <= before.step
            assert before.stream_bytes <= shorter.stream_bytes < frame.stream_bytes
        if exact:
            np.testing.assert_array_equal(frames[-1].pixels, pixels)
        assert not any(frame.truncated for frame in frames)


@pytest.mark.parametrize("name", ["lossless", "lossy", "gray", "tiled"])
def test_a_packet_that_is_cut_short_is_a_shorter_one(
    name: str, files: Files, model: CodecModel, decode: Decode
) -> None:
    encoded, pixels = files[name]
    container = Container.open(encoded.data, "a.dfc")
    start, parts = len(container.header_bytes), 0
    frames = list(decode_frames(container, model))
    for before, after in pairwise(frames[: len(encoded.ledger) + 1][:12]):
        steps = [before.step]
        for length in range(before.stream_bytes, after.stream_bytes):
            cut = decode(encoded.data[:length])
            steps.append(cut.step)
            if cut.step == before.step:
                np.testing.assert_array_equal(cut.pixels, before.pixels)
                continue
            parts += 1
            assert (cut.packets, cut.partial, cut.truncated) == (before.packets, True, True)
            assert cut.place == f"packet {cut.packets} and a part of the next at step {cut.step}"
            # What a file says whose final step is there, but for its own end.
            header = dataclasses.replace(
                container.header, last_stage=LastStage.NONE, final_step=cut.step
            )
            twin = assemble(header, encoded.data[start : cut.stream_bytes])
            whole = decode(twin)
            assert (whole.step, whole.packets) == (cut.step, before.packets + 1)
            np.testing.assert_array_equal(whole.pixels, cut.pixels)
            # Every tile has its share.
            assert (cut.pixels != before.pixels).reshape(len(pixels), -1).any(axis=1).all()
        assert steps == sorted(steps, reverse=True)
        assert after.step <= steps[-1]
    assert parts > 10


def test_a_truncated_file_gives_each_frame_once(lossless: Encoded, model: CodecModel) -> None:
    container = Container.open(lossless.data[:100], "a.dfc")
    frames = list(decode_frames(container, model))
    steps = [frame.step for frame in frames]
    assert steps == sorted(set(steps), reverse=True)
    assert [frame.truncated for frame in frames] == [False] * (len(frames) - 1) + [True]


@pytest.mark.parametrize("every", [True, False])
@pytest.mark.parametrize("stop", [1000, 600, 1, 0])
def test_stopping_leaves_out_what_ends_below(
    stop: int, every: bool, lossless: Encoded, model: CodecModel
) -> None:
    container = Container.open(lossless.data, "a.dfc")
    everything = list(decode_frames(container, model))
    pixels_wanted = stop == 0
    wanted = [f for f in everything if f.step >= stop and (pixels_wanted or not f.exact_values)]
    frames = list(decode_frames(container, model, stop_at_step=stop, every=every))
    if not every:
        wanted = wanted[-1:]
    assert [frame.step for frame in frames] == [frame.step for frame in wanted]
    np.testing.assert_array_equal(frames[-1].pixels, wanted[-1].pixels)
    assert frames[-1].stream_bytes == wanted[-1].stream_bytes
    assert frames[-1].exact == (stop == 0)


def test_other_arithmetic_is_exact_or_told(
    lossless: Encoded, model: CodecModel, tiny_folder: Path, picture: Pixels, decode: Decode
) -> None:
    """Weights moved by a unit in the last place stand for another processor's arithmetic."""
    outcomes = []
    for seed in range(4):
        checkpoint = load_checkpoint(tiny_folder)
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in checkpoint.denoiser.parameters():
                side = torch.randint(0, 2, parameter.shape, generator=generator) * 2.0 - 1.0
                parameter.copy_(torch.nextafter(parameter, side * torch.inf))
        other = CodecModel(checkpoint)
        assert other.model_id == model.model_id
        try:
            frame = decode(lossless.data, other)
        except NumericMismatchError:
            outcomes.append("told")
            container = Container.open(lossless.data, "a.dfc")
            frame = next(decode_frames(container, other, every=False))
            assert not frame.exact
            assert np.abs(frame.pixels.astype(int) - picture).mean() < 3
        else:
            outcomes.append("exact")
            assert frame.exact
            np.testing.assert_array_equal(frame.pixels, picture)
    assert outcomes.count("exact") >= 3


@pytest.mark.parametrize("channel_code", [3])
def test_an_unknown_channel_code_names_the_file(
    channel_code: int, lossy: Encoded, model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(CHANNEL_CODES, channel_code)
    header = dataclasses.replace(lossy.header, channel_code=channel_code)
    container = Container.open(assemble(header, b"hops"), "a.dfc")
    with pytest.raises(BitstreamError, match=r"^a\.dfc: expected a channel code"):
        next(decode_frames(container, model))


@pytest.mark.parametrize(
    ("kind", "hops", "complaint"),
    [
        ("lossless", b"\xff" * 60 + b"\0", "correction"),
        ("lossy", b"\xff" * 60 + b"\0", "correction"),
    ],
)
@pytest.mark.parametrize("every", [True, False])
def test_a_stream_that_ends_wrongly_gives_its_image_first(
    every: bool, kind: str, hops: bytes, complaint: str, files: Files, model: CodecModel
) -> None:
    container = Container.open(assemble(files[kind][0].header, hops), "a.dfc")
    frames = decode_frames(container, model, every=every)
    assert next(frames).step == 1000
    with pytest.raises(BitstreamError, match=rf"^a\.dfc: .*{complaint}"):
        next(frames)


def test_hops_with_more_than_their_packets_are_damaged(
    lossless: Encoded, model: CodecModel
) -> None:
    whole = Container.open(lossless.data, "a.dfc").by_its_checks()
    data = assemble(lossless.header, whole.hops().data + b"\0", whole.last_stage().data)
    longer = Container.open(data, "a.dfc")
    assert len(longer.by_its_checks().hops().data) == len(whole.hops().data) + 1
    with pytest.raises(BitstreamError, match="damaged hops"):
        next(decode_frames(longer, model))


@pytest.mark.parametrize("hops", [b"", b"\0"])
def test_hops_with_less_than_their_packets_look_cut_short(
    hops: bytes, lossless: Encoded, model: CodecModel
) -> None:
    container = Container.open(assemble(lossless.header, hops), "a.dfc")
    for opened in (container, container.by_its_checks()):
        (frame,) = decode_frames(opened, model, every=False)
        assert frame.truncated


@pytest.mark.parametrize("stop", [0, 1000])
def test_a_lossy_file_that_goes_on_gives_nothing(
    stop: int, lossy: Encoded, model: CodecModel
) -> None:
    container = find_hops_end(Container.open(lossy.data, "a.dfc"), model)
    assert container.total_bytes == len(lossy.data)
    longer = assemble(lossy.header, container.hops().data + b"\0")
    for data, excess in ((longer, 1), (lossy.data + bytes(2), 2)):
        message = rf"^a\.dfc: expected the file to end at {len(lossy.data)} bytes, found {excess} "
        with pytest.raises(BitstreamError, match=message):
            next(decode_frames(Container.open(data, "a.dfc"), model, stop_at_step=stop))


def test_a_lossy_file_is_whole_with_its_check(lossy: Encoded, decode: Decode) -> None:
    whole = decode(lossy.data)
    assert not whole.truncated
    # Of one that lacks its check, or a byte of it, every packet is there.
    for missing in (1, 2):
        frame = decode(lossy.data[:-missing])
        assert frame.truncated
        assert frame.packets == whole.packets
        np.testing.assert_array_equal(frame.pixels, whole.pixels)
    assert decode(lossy.data[:-3]).packets == whole.packets - 1
