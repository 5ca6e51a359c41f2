"""What any bytes must do to the decoder: give an image, or fail with a `BitstreamError`.

One harness for the short fuzz of ``make test`` (test_fuzz.py), the long one of ``make fuzz``
(__main__.py) and the coverage-guided one (coverage.py). Files are made with the models of
tests/golden, with and without a pixel model, whose tiles are small and whose networks are fast.
"""

import resource
import signal
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from diffcodec import errors
from diffcodec.bitstream.container import Container, assemble
from diffcodec.bitstream.crc import crc8
from diffcodec.bitstream.header import (
    FIXED_HEADER_BYTES,
    MODEL_ID_BYTES,
    PARTS,
    Header,
    LastStage,
    pack_varint,
)
from diffcodec.bitstream.stored import pack_pixels
from diffcodec.codec.account import account_for
from diffcodec.codec.decoder import decode_frames, find_hops_end
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.codec.plan import PlanConfig
from diffcodec.errors import (
    BitstreamError,
    ChecksumError,
    DiffcodecError,
    ModelMismatchError,
    TruncatedStreamError,
)
from diffcodec.limits import counted_pixels

GOLDEN = Path(__file__).parents[1] / "golden"
MODEL_FOLDERS = (GOLDEN / "model", GOLDEN / "pixel-model")
PIXEL_LIMIT = 1 << 13
MOST_VARINTS = 7
"""Width, height, length of stored pixels, and as many bytes of fields that are spelt out."""
SECONDS_LIMIT = 20
"""For one file of at most PIXEL_LIMIT pixels; the slowest one takes a tenth of it."""

FIXED_BYTES = 1 << 27
"""What a decoder may allocate for the smallest image: codebooks, tables and one packet's signs."""
BYTES_A_PIXEL = 1 << 10
BYTES_A_FILE_BYTE = 1 << 6


class Misbehaviour(Exception):
    """The decoder did what it must not: the message says what."""


@cache
def models() -> tuple[CodecModel, CodecModel]:
    """The models of tests/golden: without and with a pixel model."""
    plain, with_pixel_model = map(load_codec_model, MODEL_FOLDERS)
    return plain, with_pixel_model


@cache
def seeds() -> tuple[bytes, ...]:
    """Whole files of every kind."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[0:16, 0:16]
    smooth = np.stack([9 * rows + 3 * columns, 8 * rows, 200 - 7 * columns], axis=2)
    picture = (smooth + random.integers(-2, 3, smooth.shape)).clip(0, 255).astype(np.uint8)
    noise = random.integers(0, 256, (9, 7, 3), dtype=np.uint8)
    tiled = np.concatenate([picture, picture[::-1]], axis=1)[:15, :20]
    # A model of 16 × 16 tiles is no match for deflate on every picture: where the stored file
    # would be smaller the file with hops is wanted all the same, so that there are both kinds.
    plain, with_pixel_model = models()
    files = [
        _with_hops(picture, plain, PlanConfig(63, 4, 1)),
        _with_hops(picture[:, :, :1], plain, PlanConfig(40, 4, 0)),
        _with_hops(tiled, plain, PlanConfig(63, 1, 2)),
        _with_hops(picture, with_pixel_model, PlanConfig(63, 16, 2), groups=4),
        _with_hops(tiled[:, :, :1], with_pixel_model, PlanConfig(63, 16, 3), groups=16),
        encode_image(picture, plain, EncoderSettings(PlanConfig(63, 4, 1), bpd=1.5)).data,
        encode_image(tiled, with_pixel_model, EncoderSettings(PlanConfig(63, 16, 0), bpd=1.0)).data,
        assemble(_header_of(noise, LastStage.STORED), b"", pack_pixels(noise)),
        assemble(_header_of(0 * picture, LastStage.STORED), b"", pack_pixels(0 * picture)),
    ]
    stages = [Container.open(file, "seed").header.last_stage for file in files]
    assert set(stages) == set(LastStage), stages
    return tuple(files)


def _with_hops(
    pixels: NDArray[np.uint8], model: CodecModel, plan: PlanConfig, groups: int = 1
) -> bytes:
    with mock.patch("diffcodec.codec.encoder.pack_pixels", return_value=bytes(1 << 20)):
        return encode_image(pixels, model, EncoderSettings(plan, groups=groups)).data


def _header_of(pixels: NDArray[np.uint8], stage: LastStage) -> Header:
    height, width, channels = pixels.shape
    return Header(width, height, channels, last_stage=stage)


# ---------------------------------------------------------------------------------- mutations

Random = np.random.Generator


def flip_bits(data: bytes, random: Random) -> bytes:
    """One to eight bits."""
    changed = bytearray(data)
    for _ in range(int(random.integers(1, 9))):
        if changed:
            changed[int(random.integers(len(changed)))] ^= 1 << int(random.integers(8))
    return bytes(changed)


def replace_bytes(data: bytes, random: Random) -> bytes:
    """A run of up to eight bytes, by chance, zeros or ones."""
    start, run = _place(data, random), int(random.integers(1, 9))
    fill = (random.bytes(run), bytes(run), b"\xff" * run)[int(random.integers(3))]
    return data[:start] + fill[: len(data) - start] + data[start + run :]


def insert_bytes(data: bytes, random: Random) -> bytes:
    """Up to sixteen bytes somewhere."""
    start = _place(data, random)
    return data[:start] + random.bytes(int(random.integers(1, 17))) + data[start:]


def delete_bytes(data: bytes, random: Random) -> bytes:
    """Up to sixteen bytes somewhere."""
    start = _place(data, random)
    return data[:start] + data[start + int(random.integers(1, 17)) :]


def truncate(data: bytes, random: Random) -> bytes:
    """The end."""
    return data[: _place(data, random)]


def splice(data: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another."""
    other = seeds()[int(random.integers(len(seeds())))]
    return data[: _place(data, random)] + other[_place(other, random) :]


MUTATIONS: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip_bits,
    replace_bytes,
    insert_bytes,
    delete_bytes,
    truncate,
    splice,
)


def mutate(data: bytes, random: Random) -> bytes:
    """One to three of `MUTATIONS`."""
    for _ in range(int(random.integers(1, 4))):
        data = MUTATIONS[int(random.integers(len(MUTATIONS)))](data, random)
    return data


def _place(data: bytes, random: Random) -> int:
    return int(random.integers(len(data) + 1))


# ------------------------------------------------------------------------- files, level by level


def mutated_file(random: Random) -> bytes:
    """A damaged file as a disk or a network would make it: most fail at a check."""
    return mutate(_seed(random), random)


def mutated_fields(random: Random) -> bytes:
    """Header fields drawn at random, also outside what encoders write, all checks agreeing."""
    container = Container.open(_seed(random), "seed")
    segments = _segments(container)
    fields: dict[str, Any] = {
        "width": int(random.integers(1, 70)),
        "height": int(random.integers(1, 70)),
        "channels": int(random.choice([1, 3])),
        "model_id": models()[int(random.integers(2))].model_id,
        "growth_index": int(random.integers(64)),
        "parts": PARTS[int(random.integers(4))],
        "channel_code": int(random.integers(4)),
        "final_step": int(random.integers(1001)),
    }
    if container.header.last_stage is LastStage.STORED:
        fields = {name: fields[name] for name in ("width", "height", "channels")}
    chosen = {name: value for name, value in fields.items() if random.random() < 0.4}
    if random.random() < 0.5:
        segments = tuple(mutate(segment, random) if segment else b"" for segment in segments)
    return _cut(_assembled(replace(container.header, **chosen), *segments, random), random)


def mutated_segments(random: Random) -> bytes:
    """Hops and last stage mutated or drawn at random under checks that agree."""
    container = Container.open(_seed(random), "seed")
    segments = []
    for segment in _segments(container):
        way = random.random()
        if segment and way < 0.2:
            segment = random.bytes(int(random.integers(1, 400)))
        elif segment and way < 0.6:
            segment = mutate(segment, random)
        segments.append(segment)
    return _cut(_assembled(container.header, *segments, random), random)


def raw_header(random: Random) -> bytes:
    """Any flags, and fields and varints of any length, the header's check agreeing; then anything.

    Where the hops' plan ends within the body, their check disagrees; most end beyond it.
    """
    packed = bytearray(_seed(random)[:FIXED_HEADER_BYTES])
    if random.random() < 0.6:
        for place in range(2 + MODEL_ID_BYTES, len(packed)):
            packed[place] ^= int(random.integers(256)) & int(random.integers(256))
    body = random.bytes(int(random.integers(200)))
    for _ in range(MOST_VARINTS):
        checked = bytes([*packed, crc8(bytes(packed))])
        try:
            Header.unpack(checked, "header")
        except (ChecksumError, TruncatedStreamError):
            packed += _any_varint(random)  # the fields ask for more of them
        except BitstreamError:
            break
    return bytes([*packed, crc8(bytes(packed))]) + body


def _any_varint(random: Random) -> bytes:
    value = int(random.integers(1 << int(random.integers(1, 34))))
    packed = pack_varint(value)
    if random.random() < 0.1:  # not in its shortest form
        packed = packed[:-1] + bytes([packed[-1] | 0x80]) + bytes([0])
    return packed


LEVELS: dict[str, Callable[[Random], bytes]] = {
    "file": mutated_file,
    "fields": mutated_fields,
    "segments": mutated_segments,
    "header": raw_header,
}


def _seed(random: Random) -> bytes:
    return seeds()[int(random.integers(len(seeds())))]


def _segments(container: Container) -> tuple[bytes, bytes]:
    """Hops and payload of a whole file, empty where there are none."""
    container = find_hops_end(container, _model_of(container.header))
    hops = container.hops()
    stage = container.header.last_stage
    return hops.data, (b"" if stage is LastStage.NONE else container.last_stage().data)


def _assembled(header: Header, hops: bytes, payload: bytes, random: Random) -> bytes:
    """A file whose hops end where their plan does, so that its checks are where they agree."""
    if header.last_stage is not LastStage.STORED:
        hops += random.bytes(4096)
        # A lossless file's, since that of a lossy one is refused where it goes on.
        probe = replace(header, last_stage=LastStage.GAUSSIAN).pack() + hops
        found = find_hops_end(Container.open(probe, "probe", None), _model_of(header))
        hops = hops[: found.hop_bytes]
    return assemble(header, hops, payload)


def _cut(data: bytes, random: Random) -> bytes:
    """The file, or now and then a prefix, whose cut segment goes unchecked."""
    return truncate(data, random) if random.random() < 0.2 else data


# ------------------------------------------------------------------------------------ the law


def is_allowed(found: str) -> bool:
    """Whether `outcome` names an image or an error that a decoder may raise."""
    if found in ("exact", "lossy", "truncated"):
        return True
    return issubclass(getattr(errors, found), BitstreamError | ModelMismatchError)


def outcome(data: bytes) -> str:
    """Decode ``data`` and name what came of it; `Misbehaviour` where that may not be.

    Returns:
        ``exact``, ``lossy`` or ``truncated`` for an image, else the name of the error's class.
    """
    stated = _stated_size(data)
    allowed = FIXED_BYTES + BYTES_A_PIXEL * counted_pixels(*stated) + BYTES_A_FILE_BYTE * len(data)
    tracemalloc.reset_peak()
    before, _ = tracemalloc.get_traced_memory()
    resident = _most_resident_bytes()
    try:
        with _time_limit():
            found = _decode(data)
    except DiffcodecError as error:
        if not isinstance(error, BitstreamError | ModelMismatchError):
            raise Misbehaviour(f"{type(error).__name__}: {error}") from error
        if "\n" in str(error) or not str(error).startswith("fuzzed.dfc: "):
            raise Misbehaviour(f"not one line that names the file: {error}") from error
        found = type(error).__name__
    except Misbehaviour:
        raise
    except Exception as error:
        raise Misbehaviour(f"{type(error).__name__}: {error}") from error
    _, peak = tracemalloc.get_traced_memory()
    if peak - before > allowed:
        raise Misbehaviour(f"allocated {peak - before} bytes, {allowed} allowed for {stated}")
    # Coarser, but it sees what torch allocates, too.
    if (grown := _most_resident_bytes() - resident) > allowed:
        raise Misbehaviour(f"grew by {grown} bytes, {allowed} allowed for {stated}")
    return found


def _most_resident_bytes() -> int:
    """The most memory that this process has had at a time."""
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def _decode(data: bytes) -> str:
    container = Container.open(data, "fuzzed.dfc", PIXEL_LIMIT)
    header = container.header
    model = _model_of(header)
    # What `info` shows of a file, however damaged.
    for segment in container.by_its_checks().segments():
        if not 0 <= segment.found_bytes <= len(data):
            raise Misbehaviour(f"{segment.found_bytes} bytes found in {len(data)}")
    # Each frame, as `decode --frames` has them, or the last alone: one decoder, two paths of it.
    every = bool(data[-1] & 1)
    frame = None
    for frame in decode_frames(container, model, every=every):
        if frame.pixels.shape != (header.height, header.width, header.channels):
            raise Misbehaviour(f"an image of {frame.pixels.shape} for {header}")
        if not 0 <= frame.exact_values <= frame.pixels.size:
            raise Misbehaviour(f"{frame.exact_values} exact values of {frame.pixels.size}")
    if frame is None:
        raise Misbehaviour("neither an image nor an error")
    if frame.truncated:
        return "truncated"
    if header.last_stage is not LastStage.STORED:
        account = account_for(container, model)
        if account.header_bits + account.last_stage_bits > 8 * len(data):
            raise Misbehaviour(f"{account} of {len(data)} bytes")
    return "exact" if frame.exact else "lossy"


def _model_of(header: Header) -> CodecModel:
    """The model that a header names, or the first."""
    named = (model for model in models() if model.model_id == header.model_id)
    return next(named, models()[0])


def _stated_size(data: bytes) -> tuple[int, int]:
    """Width and height of a header within the limit, or of the smallest image."""
    try:
        header, _ = Header.unpack(data, "fuzzed.dfc", PIXEL_LIMIT)
    except BitstreamError:
        return 1, 1
    return header.width, header.height


@contextmanager
def _time_limit() -> Iterator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        raise Misbehaviour(f"still at work after {SECONDS_LIMIT} s")

    previous = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS_LIMIT)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextmanager
def measured() -> Iterator[None]:
    """Allocations are measured in here; codebooks and tables, made once, are not a file's."""
    for seed in seeds():
        _decode(seed)
    nested = tracemalloc.is_tracing()
    tracemalloc.start()
    try:
        yield
    finally:
        if not nested:
            tracemalloc.stop()


def make_file(level: str, number: int) -> bytes:
    """The file of this level and number, the same on every run."""
    return LEVELS[level](np.random.default_rng([sorted(LEVELS).index(level), number]))


def file_of_bytes(data: bytes) -> bytes:
    """A file whose fields and segments are cut from ``data``, for a fuzzer that chooses bytes.

    The first byte says whether the rest is the file itself or a seed's header, some of its fields
    changed, and the segments that follow it, all checks agreeing.
    """
    if len(data) < 12 or data[0] & 1:
        return data[1:]
    header = Container.open(seeds()[data[1] % len(seeds())], "seed").header
    fields = {"width": data[2] % 70 + 1, "height": data[3] % 70 + 1}
    if header.last_stage is not LastStage.STORED:
        fields |= {"growth_index": data[4] % 64, "parts": PARTS[data[5] % 4]}
        fields |= {"channel_code": data[6] % 4}
        fields |= {"final_step": int.from_bytes(data[7:9], "big") % 1001}
    chosen = {name: value for bit, (name, value) in enumerate(fields.items()) if data[9] >> bit & 1}
    hop_bytes = 0 if header.last_stage is LastStage.STORED else int.from_bytes(data[10:12], "big")
    hops, payload = data[12 : 12 + hop_bytes], data[12 + hop_bytes :]
    if header.last_stage is LastStage.NONE:
        payload = b""
    return assemble(replace(header, **chosen), hops, payload)
