import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cli.main import main
from diffcodec.image import read_image

Pixels = NDArray[np.uint8]
Decode = Callable[..., int]


@pytest.fixture
def decode(tiny_folder: Path) -> Decode:
    """Run ``diffcodec decode`` with the tiny model; gives the exit code."""

    def run(*arguments: str | Path) -> int:
        return main(["decode", "--model", str(tiny_folder), *map(str, arguments)])

    return run


def image_of(path: Path) -> Pixels:
    return read_image(path.read_bytes(), path.name)


def test_a_file_becomes_an_image_beside_it(
    decode: Decode, file: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(file) == 0
    assert capsys.readouterr() == ("", "")
    np.testing.assert_array_equal(image_of(file.with_suffix(".png")), pixels)


@pytest.mark.parametrize("arguments", [[], ["-"]])
def test_standard_input_to_standard_output(
    arguments: list[str],
    decode: Decode,
    file_bytes: bytes,
    pixels: Pixels,
    feed: Callable[[bytes], None],
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    feed(file_bytes)
    assert decode(*arguments) == 0
    np.testing.assert_array_equal(read_image(capsysbinary.readouterr().out, "out"), pixels)


def test_a_terminal_gets_no_binary_data(
    decode: Decode,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert decode(file, "-o", "-") == 2
    output = capsysbinary.readouterr()
    assert output.out == b""
    assert b"terminal" in output.err
    assert decode("-f", file, "-o", "-") == 0
    assert capsysbinary.readouterr().out.startswith(b"\x89PNG")


def test_nothing_is_overwritten_unless_forced(
    decode: Decode, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = file.with_suffix(".png")
    target.write_bytes(b"mine")
    assert decode(file) == 1
    assert str(target) in capsys.readouterr().err
    assert target.read_bytes() == b"mine"
    assert decode("-f", file) == 0
    assert target.read_bytes() != b"mine"


def test_a_truncated_file_warns_and_gives_its_image(
    decode: Decode, file: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole[:-20])
    assert decode(file) == 0
    error = capsys.readouterr().err
    assert error.startswith("diffcodec: warning: ")
    assert error.count("\n") == 1
    assert f"{len(whole) - 20} of {len(whole)} bytes" in error
    place = rf"packet \d+ at step \d+, \d+ of {pixels.size} values exact"
    assert re.search(f"that its whole parts tell, {place}$", error)
    assert np.abs(image_of(file.with_suffix(".png")).astype(int) - pixels).mean() < 3


def test_a_cut_file_of_stored_pixels_says_what_is_gray(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "stripes.png"
    stripes = np.zeros((32, 32), np.uint8)
    stripes[::2] = 255
    Image.fromarray(stripes).save(source)
    assert main(["encode", "-q", "--model", str(tiny_folder), str(source)]) == 0
    file = source.with_suffix(".dfc")
    file.write_bytes(file.read_bytes()[:-3])
    assert main(["decode", "-f", str(file)]) == 0
    assert capsys.readouterr().err.endswith(" bytes: the pixels behind it are gray\n")


def test_damage_of_the_last_stage_leaves_the_last_good_image(
    decode: Decode, file: Path, pixels: Pixels, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(file.read_bytes())
    data[-5] ^= 0x10
    file.write_bytes(data)
    assert decode(file) == 3
    warning, error = capsys.readouterr().err.splitlines()
    assert "last good image was written" in warning
    assert error.startswith(f"diffcodec: error: {file}: damaged last stage")
    assert np.abs(image_of(file.with_suffix(".png")).astype(int) - pixels).mean() < 3


@pytest.mark.parametrize("place", [0, 1, 5, 40])
def test_a_damaged_beginning_gives_no_image(
    place: int, decode: Decode, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x41
    file.write_bytes(data)
    assert decode(file) == 3
    error = capsys.readouterr().err
    assert error.startswith(f"diffcodec: error: {file}: ")
    assert error.count("\n") == 1
    assert not file.with_suffix(".png").exists()


def test_a_file_cut_inside_its_header_is_an_error(decode: Decode, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:5])
    assert decode(file) == 3


def test_another_model_is_told(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    golden = Path(__file__).parents[1] / "golden" / "model"
    assert main(["decode", "--model", str(golden), str(file)]) == 3
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "expected the model" in error
    # Without --model the packaged models are searched for the one that the file names.
    assert main(["decode", str(file)]) == 3
    assert "--model" in capsys.readouterr().err
    assert not file.with_suffix(".png").exists()


def test_a_damaged_model_is_a_failure(
    file: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_folder, folder)
    config = folder / "config.json"
    stored = json.loads(config.read_text())
    stored["error_curve"]["error"][0] *= 2
    config.write_text(json.dumps(stored))
    assert main(["decode", "--model", str(folder), str(file)]) == 1
    assert "damaged" in capsys.readouterr().err


def test_frames_and_their_contact_sheet(
    decode: Decode, file: Path, tmp_path: Path, pixels: Pixels
) -> None:
    folder = tmp_path / "new" / "frames"
    assert decode(file, "--frames", folder) == 0
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "contact-sheet.png"
    assert names[1] == "frame-0000-step-1000.png"
    assert names[-1].endswith("-step-0000.png")
    steps = [int(re.findall(r"step-(\d+)", name)[0]) for name in names[1:]]
    # Each step once, but for the last one of the hops, which the pixels' runs share.
    assert steps == sorted(steps, reverse=True)
    runs = Counter(steps)
    assert runs.pop(steps[-2]) > 1
    assert set(runs.values()) == {1}
    np.testing.assert_array_equal(image_of(folder / names[-1]), pixels)
    sheet = image_of(folder / names[0])
    assert sheet.size > len(steps) * pixels.size
    # An image beside the file is not asked for, and may be the original.
    assert not file.with_suffix(".png").exists()


def test_forced_frames_take_the_place_of_earlier_ones(
    decode: Decode, file: Path, tmp_path: Path, pixels: Pixels
) -> None:
    folder = tmp_path / "frames"
    assert decode(file, "--frames", folder, "--stop-at-step", 500) == 0
    (folder / "mine.png").write_bytes(b"mine")
    earlier = len(list(folder.iterdir()))
    assert decode(file, "--frames", folder, "--stop-at-step", 800, "-f", "-o", folder) == 0
    names = {path.name for path in folder.iterdir()}
    assert len(names) < earlier
    assert {"mine.png", "img.png", "contact-sheet.png"} < names
    steps = [int(step) for name in names for step in re.findall(r"step-(\d+)", name)]
    assert min(steps) >= 800


def test_frames_alone_from_standard_input(
    decode: Decode,
    file_bytes: bytes,
    tmp_path: Path,
    feed: Callable[[bytes], None],
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    feed(file_bytes[:200])
    assert decode("--frames", tmp_path / "frames") == 0
    assert capsysbinary.readouterr().out == b""
    assert (tmp_path / "frames" / "contact-sheet.png").exists()


def test_frames_that_are_there_are_kept(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "frame-of-mine.png").write_bytes(b"mine")
    earlier = folder / "frame-0003-step-0800.png"
    earlier.write_bytes(b"earlier")
    # A model that is not there shows what is looked at first.
    command = ["decode", str(file), "--frames", str(folder), "--model", "none-such"]
    assert main(command) == 1
    assert f"{earlier.name}: File exists" in capsys.readouterr().err
    assert main([*command, "-f"]) == 1
    assert "none-such" in capsys.readouterr().err
    earlier.unlink()
    assert main(command) == 1
    assert "none-such" in capsys.readouterr().err


def test_stopping_early(decode: Decode, file: Path, pixels: Pixels, tmp_path: Path) -> None:
    errors = []
    for step in (800, 400, 200, 0):
        target = tmp_path / f"{step}.png"
        assert decode(file, "--stop-at-step", str(step), "-o", target) == 0
        errors.append(np.mean((image_of(target).astype(float) - pixels) ** 2))
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] == 0 < errors[-2]


@pytest.mark.parametrize("step", ["-1", "1001", "x"])
def test_steps_off_the_grid_are_usage_errors(step: str, decode: Decode, file: Path) -> None:
    assert decode(file, "--stop-at-step", step) == 2


def test_another_image_format_is_a_usage_error(
    decode: Decode, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(file, "-o", "a.jpg") == 2
    assert "PNG" in capsys.readouterr().err


def test_a_missing_file_is_named(
    decode: Decode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert decode(tmp_path / "none.dfc") == 1
    assert str(tmp_path / "none.dfc") in capsys.readouterr().err


def test_a_folder_takes_the_image_under_its_name(
    decode: Decode, file: Path, tmp_path: Path, pixels: Pixels
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    assert decode(file, "-o", folder) == 0
    np.testing.assert_array_equal(image_of(folder / "img.png"), pixels)
    assert decode(file, "-o", folder) == 1


@pytest.mark.parametrize(
    ("arguments", "exit_code", "complaint"),
    [
        (["-o", "img.dfc"], 2, "is the input"),
        (["-f", "-o", "img.dfc"], 2, "is the input"),
        (["-o", "no/such.png"], 1, "No such directory"),
        (["-o", "none/"], 1, "No such directory"),
        (["--frames", "img.dfc/frames"], 1, "Not a directory"),
        (["--max-pixels", "1023"], 1, "--max-pixels 1024 allows them"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(
    arguments: list[str],
    exit_code: int,
    complaint: str,
    file: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(file.parent)
    # A model that is not there shows what is looked at first.
    assert main(["decode", "--model", "none-such", file.name, *arguments]) == exit_code
    error = capsys.readouterr().err
    assert complaint in error
    assert error.count("\n") == 1
    assert [path.name for path in file.parent.iterdir()] == ["img.dfc"]


def test_a_header_of_any_size_allocates_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from diffcodec.bitstream.header import Header

    file = tmp_path / "huge.dfc"
    file.write_bytes(Header(1 << 32, 1 << 32, 3).pack())
    for command in ("decode", "verify"):
        assert main([command, str(file)]) == 1
        output = capsys.readouterr()
        assert "found 4294967296×4294967296" in output.out + output.err
    assert main(["info", str(file)]) == 0
    assert "4294967296×4294967296 RGB" in capsys.readouterr().out
