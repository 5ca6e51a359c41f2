"""The numeric contract (docs/format.md): what may differ between two ends, and what is told."""

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.container import LAST_STAGE_SEGMENT, Container
from diffcodec.codec.decoder import Frame, decode_frames
from diffcodec.codec.encoder import Encoded
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.tiles import TileLayout
from diffcodec.errors import NumericMismatchError
from diffcodec.image import png_bytes
from diffcodec.model.checkpoint import Checkpoint, load_checkpoint

Pixels = NDArray[np.uint8]
REPOSITORY = Path(__file__).parents[2]
BESIDE = TileLayout(16, 2 * 16, 3, side=16)
"""Two tiles in one window."""
SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)

# One end of a file in a process of its own. Arguments: encode or decode, threads, the model's
# folder, files. Settings that belong to a thread are made in the main one, before any work.
SCRIPT = """
import hashlib, sys
from pathlib import Path
import torch
from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.image import read_image
from diffcodec.model.checkpoint import load_checkpoint

end, threads, folder, *names = sys.argv[1:]
torch.set_num_threads(int(threads))

def models():
    for flush in (True, False):
        torch.set_flush_denormal(flush)
        for layout in (torch.channels_last, torch.contiguous_format):
            checkpoint = load_checkpoint(Path(folder))
            checkpoint.denoiser.to(memory_format=layout)
            yield CodecModel(checkpoint)

for name in names:
    data = Path(name).read_bytes()
    for model in models():
        if end == "encode":
            pixels = read_image(data, name)
            settings = EncoderSettings(PlanConfig(63, 4, 0), groups=4)
            found = encode_image(pixels, model, settings).data
        else:
            *_, frame = decode_frames(Container.open(data, name), model, every=False)
            assert frame.exact
            found = frame.pixels.tobytes()
        print(name, hashlib.sha256(found).hexdigest())
"""


def fresh_process(*arguments: str | int | Path) -> list[tuple[str, str]]:
    """The lines that SCRIPT prints: file, and digest of what was made of it."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    environment.pop("OMP_NUM_THREADS", None)
    command = [sys.executable, "-c", SCRIPT, *map(str, arguments)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert run.returncode == 0, run.stderr
    lines = [line.rsplit(" ", 1) for line in run.stdout.splitlines()]
    return [(name, digest) for name, digest in lines]


@pytest.fixture(scope="module")
def tiles(smooth_image: Callable[..., Pixels]) -> Pixels:
    """Eight tiles, the last column of them padded, in two windows."""
    return smooth_image(2 * 16, 4 * 16 - 5, 3, seed=4)


@pytest.fixture(scope="module")
def tiled(tiles: Pixels, encode_coded: Callable[..., Encoded]) -> Encoded:
    """The file of `tiles`, with hops and last stage."""
    return encode_coded(tiles)


def test_fresh_processes_make_and_read_the_same_bytes(
    tmp_path: Path,
    tiny_folder: Path,
    tiles: Pixels,
    tiled: Encoded,
    picture: Pixels,
    lossless: Encoded,
) -> None:
    """Threads × flushing of denormals × the weights' layout, at both ends."""
    contents = {"tiled": (tiles, tiled.data), "one": (picture, lossless.data)}
    for name, (pixels, data) in contents.items():
        (tmp_path / f"{name}.png").write_bytes(png_bytes(pixels))
        (tmp_path / f"{name}.dfc").write_bytes(data)
    one = tmp_path / "one.png"
    encoded = fresh_process("encode", 2, tiny_folder, one)
    assert encoded == [(str(one), hashlib.sha256(lossless.data).hexdigest())] * 4
    for threads in (1, 3):
        files = [tmp_path / f"{name}.dfc" for name in contents]
        expected = [
            (str(path), hashlib.sha256(pixels.tobytes()).hexdigest())
            for path, (pixels, _) in zip(files, contents.values(), strict=True)
            for _ in range(4)
        ]
        assert fresh_process("decode", threads, tiny_folder, *files) == expected


def test_fresh_processes_agree_on_pixels_in_groups(
    tmp_path: Path, tiny_pixel_folder: Path, picture: Pixels, grouped: Encoded
) -> None:
    image, file = tmp_path / "grouped.png", tmp_path / "grouped.dfc"
    image.write_bytes(png_bytes(picture))
    file.write_bytes(grouped.data)
    for end, threads, path, made in (
        ("encode", 2, image, grouped.data),
        ("decode", 3, file, picture.tobytes()),
    ):
        expected = [(str(path), hashlib.sha256(made).hexdigest())] * 4
        assert fresh_process(end, threads, tiny_pixel_folder, path) == expected


def assert_same(found: PixelEstimate, expected: PixelEstimate) -> None:
    for field in ("mean", "variance", "mixing"):
        np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def first_two(estimate: PixelEstimate) -> PixelEstimate:
    """What an estimate says of the first two tiles."""
    return PixelEstimate(estimate.mean[:2], estimate.variance[:2], estimate.mixing[:2])


@pytest.mark.parametrize("scale", [0.0, 1.0, 100.0, SMALLEST_NORMAL / 4.0])
def test_a_window_s_estimate_ignores_the_others(scale: float, chosen: CodecModel) -> None:
    """However large or denormal they are."""
    layout = TileLayout(16, 4 * 16, 3, side=16)
    assert len(layout.windows) == 2
    random = np.random.default_rng(0)
    z = random.standard_normal((4, 3, 16, 16))
    known = random.random((4, 16, 16)) < 0.5
    expected = first_two(chosen.estimate(z, 400, layout, known))
    z[2:], known[2:] = scale * random.standard_normal(z[2:].shape), ~known[2:]
    assert_same(first_two(chosen.estimate(z, 400, layout, known)), expected)
    # Tiles of one window are seen together.
    z[1] += 1.0
    assert not np.array_equal(chosen.estimate(z, 400, layout, known).mean[0], expected.mean[0])


def test_the_layout_of_the_weights_has_no_say(
    tiny_pixel_folder: Path, pixel_model: CodecModel
) -> None:
    checkpoint = load_checkpoint(tiny_pixel_folder)
    checkpoint.denoiser.to(memory_format=torch.contiguous_format)
    z = np.random.default_rng(1).standard_normal((2, 3, 16, 16))
    estimates = [m.estimate(z, 300, BESIDE) for m in (CodecModel(checkpoint), pixel_model)]
    assert_same(*estimates)


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_the_program_s_precision_has_no_say_and_is_kept(precision: str, chosen: CodecModel) -> None:
    z = np.random.default_rng(2).standard_normal((2, 3, 16, 16))
    expected = chosen.estimate(z, 200, BESIDE)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        assert_same(chosen.estimate(z, 200, BESIDE), expected)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_program_s_default_type_has_no_say(chosen: CodecModel) -> None:
    z = np.random.default_rng(3).standard_normal((2, 3, 16, 16))
    expected = chosen.estimate(z, 200, BESIDE)
    torch.set_default_dtype(torch.float64)
    try:
        assert_same(chosen.estimate(z, 200, BESIDE), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def perturbed(checkpoint: Checkpoint, ulps: int = 1) -> Checkpoint:
    """Every float32 weight moved up by its last digit: another processor's arithmetic."""
    with torch.no_grad():
        for parameter in checkpoint.denoiser.parameters():
            for _ in range(ulps):
                parameter.copy_(torch.nextafter(parameter, torch.full_like(parameter, torch.inf)))
    return checkpoint


@pytest.mark.parametrize("every", [True, False])
def test_other_arithmetic_is_told_at_its_segment_after_the_last_good_image(
    every: bool, tiled: Encoded, tiles: Pixels, tiny_folder: Path
) -> None:
    container = Container.open(tiled.data, "a.dfc")
    frames: list[Frame] = []
    told: NumericMismatchError | None = None
    # How many ulps round some mean or scale differently depends on the weights, and those on the
    # processor that has just trained them: mostly one.
    for ulps in (1, 4, 16, 64):
        other = CodecModel(perturbed(load_checkpoint(tiny_folder), ulps))
        frames.clear()
        try:
            for frame in decode_frames(container, other, every=every):
                frames.append(frame)
        except NumericMismatchError as error:
            told = error
            break
        np.testing.assert_array_equal(frames[-1].pixels, tiles)
    segment = container.segments()[LAST_STAGE_SEGMENT]
    assert str(told).startswith(
        f"a.dfc: numeric mismatch at segment {LAST_STAGE_SEGMENT}, the {segment.name}: "
    )
    assert segment.check_ok
    assert frames[-1].step == tiled.header.final_step
    assert not frames[-1].exact
    assert np.abs(frames[-1].pixels.astype(int) - tiles).max() <= 12
    assert np.abs(frames[-1].pixels.astype(int) - tiles).mean() < 2


def test_other_arithmetic_moves_the_hops_by_next_to_nothing(
    tiled: Encoded, model: CodecModel, tiny_folder: Path
) -> None:
    other = CodecModel(perturbed(load_checkpoint(tiny_folder)))
    here, there = (
        list(decode_frames(Container.open(tiled.data, "a.dfc"), each, stop_at_step=1))
        for each in (model, other)
    )
    assert [frame.step for frame in here] == [frame.step for frame in there]
    for frame, moved in zip(here, there, strict=True):
        np.testing.assert_allclose(frame.pixels.astype(int), moved.pixels.astype(int), atol=1)
