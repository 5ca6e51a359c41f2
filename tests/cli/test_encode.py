import json
import os
import sys
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageCms

from cli.main import main
from diffcodec.bitstream.header import VERSION, Header
from diffcodec.image import png_bytes, read_image

Pixels = NDArray[np.uint8]
Encode = Callable[..., int]

BEGINNING = bytes([0xDF, 0xC0 | VERSION])


@pytest.fixture
def encode(tiny_folder: Path) -> Encode:
    """Run ``diffcodec encode`` fast with the tiny model; gives the exit code."""

    def run(*arguments: str | Path) -> int:
        return main(["encode", "--model", str(tiny_folder), "--effort", "1", *map(str, arguments)])

    return run


def decoded(file: Path, model: Path) -> Pixels:
    back = file.with_name("back.png")
    assert main(["decode", "-f", "-q", "--model", str(model), str(file), "-o", str(back)]) == 0
    return read_image(back.read_bytes(), "back.png")


def one_line_error(capsys: pytest.CaptureFixture[str]) -> str:
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.startswith("diffcodec: error: ")
    assert output.err.count("\n") == 1
    return output.err


def test_an_image_becomes_a_file_beside_it(
    encode: Encode,
    image: Path,
    pixels: Pixels,
    tiny_folder: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert encode(image) == 0
    output = capsys.readouterr()
    assert output.out == ""
    size = image.with_suffix(".dfc").stat().st_size
    assert f"{size} bytes" in output.err
    assert "lossless" in output.err
    np.testing.assert_array_equal(decoded(image.with_suffix(".dfc"), tiny_folder), pixels)


def test_quiet_says_nothing(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("-q", image) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["P", "1", "L", "RGB"])
def test_palettes_and_bilevel_images_come_back(
    mode: str, encode: Encode, tmp_path: Path, pixels: Pixels, tiny_folder: Path
) -> None:
    path = tmp_path / "img.png"
    picture = Image.fromarray(pixels).convert(mode)
    picture.save(path)
    assert encode(path) == 0
    expected = np.array(picture.convert("L" if mode in ("1", "L") else "RGB"))
    back = decoded(path.with_suffix(".dfc"), tiny_folder)
    np.testing.assert_array_equal(back, expected.reshape(16, 16, -1))


def test_standard_input_to_standard_output(
    encode: Encode,
    pixels: Pixels,
    feed: Callable[[bytes], None],
    tmp_path: Path,
    tiny_folder: Path,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    feed(png_bytes(pixels))
    assert encode("-") == 0
    output = capsysbinary.readouterr()
    (tmp_path / "a.dfc").write_bytes(output.out)
    assert b"standard input -> standard output" in output.err
    np.testing.assert_array_equal(decoded(tmp_path / "a.dfc", tiny_folder), pixels)


def test_a_terminal_gets_no_binary_data_unless_forced(
    encode: Encode,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert encode(image, "-o", "-") == 2
    output = capsysbinary.readouterr()
    assert output.out == b""
    assert b"terminal" in output.err
    assert encode("-f", image, "-o", "-") == 0
    assert capsysbinary.readouterr().out.startswith(BEGINNING)


def test_a_terminal_is_not_waited_for(
    encode: Encode, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    assert encode("-") == 2
    assert "terminal" in one_line_error(capsys)


@pytest.mark.parametrize("before", [True, False])
def test_bits_without_a_number_prints_the_ledger(
    before: bool, encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(*(["--bits", image] if before else [image, "--bits"])) == 0
    ledger = capsys.readouterr().out
    for heading in ("t -> s", "KL, bits", "paid, bits", "bits/dim so far", "RMSE"):
        assert heading in ledger
    assert "1000 -> " in ledger
    assert " -> pixels" in ledger
    assert "price " in ledger


@pytest.mark.parametrize("option", [["--bits", "0.5"], ["--bits=0.5"]])
def test_bits_with_a_number_is_a_budget(
    option: list[str], encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(*option, image) == 0
    assert 44 <= image.with_suffix(".dfc").stat().st_size <= 48
    output = capsys.readouterr()
    assert "lossy" in output.err
    assert output.out == ""


@pytest.mark.parametrize("bits", ["x", "0", "-1", "nan", "inf", ""])
def test_bits_of_no_use_are_a_usage_error(
    bits: str, encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(f"--bits={bits}", image) == 2
    assert "--bits" in one_line_error(capsys)


def test_what_is_not_kept_is_told(
    encode: Encode, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    turned = tmp_path / "turned.png"
    with Image.open(image) as picture:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        picture.save(turned, exif=exif, icc_profile=profile)
    assert encode(image, turned) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert warnings == [
        f"diffcodec: warning: {turned}: pixels alone are kept, not its EXIF orientation and colour "
        "profile"
    ]
    assert image.with_suffix(".dfc").read_bytes() == turned.with_suffix(".dfc").read_bytes()


@pytest.mark.slow
def test_processes_share_inputs_and_change_nothing_else(
    encode: Encode,
    image: Path,
    drawn_image: Callable[..., Pixels],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    others = [tmp_path / f"{seed}.png" for seed in (7, 8)]
    for seed, path in enumerate(others):
        path.write_bytes(png_bytes(drawn_image(16, 16, 3, seed=seed)))
    sources = [image, *others]
    told = []
    for jobs in ("1", "2"):
        assert encode("--jobs", jobs, "--json", "--verify", "-f", *sources) == 0
        told.append(capsys.readouterr())
    assert told[0] == told[1]
    assert [entry["input"] for entry in json.loads(told[1].out)] == list(map(str, sources))
    assert encode("--jobs", "2", "--bits", "0.01", "-f", *sources) == 1
    assert "expected at least" in one_line_error(capsys)


def test_any_finite_budget_will_do(encode: Encode, image: Path) -> None:
    assert encode("--bits", "1e307", image) == 0


def test_bits_that_no_file_keeps_are_an_error(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("--bits", "0.01", image) == 1
    error = one_line_error(capsys)
    assert f"{image}: 0.01 bits/dim" in error
    assert "expected at least" in error
    assert not image.with_suffix(".dfc").exists()


def test_json_tells_the_ledger_and_it_adds_up(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("--json", image) == 0
    report = json.loads(capsys.readouterr().out)
    size = image.with_suffix(".dfc").stat().st_size
    assert report["bytes"] == size
    assert report["bits_per_dimension"] == pytest.approx(8 * size / 768)
    assert main(["info", "--json", str(image.with_suffix(".dfc"))]) == 0
    segments = json.loads(capsys.readouterr().out)["segments"]
    assert sum(segment["bytes"] for segment in segments) == size
    paid_bits = sum(entry["paid_bits"] for entry in report["ledger"])
    by_name = {segment["name"]: segment["bytes"] for segment in segments}
    # Behind the hops the length of what follows, of two bytes, and a check.
    assert by_name["hops"] == -(-paid_bits // 8) + 2 + 2
    assert by_name["last stage"] == report["last_stage_bytes"] + 1
    assert by_name["header"] + by_name["hops"] + by_name["last stage"] == size
    assert report["ledger"][0]["t"] == 1000
    assert all(entry["rmse"] >= 0 for entry in report["ledger"])


def test_json_leaves_standard_output_to_the_data(
    encode: Encode, image: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    assert encode("--json", "--bits", "1", image, "-o", "-") == 0
    output = capsysbinary.readouterr()
    assert output.out.startswith(BEGINNING)
    assert json.loads(output.err)["bytes"] == len(output.out)


def test_several_inputs_and_a_folder(
    encode: Encode, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    second = tmp_path / "two.png"
    second.write_bytes(image.read_bytes())
    assert encode("--json", image, second) == 0
    reports = json.loads(capsys.readouterr().out)
    assert [Path(report["output"]).name for report in reports] == ["img.dfc", "two.dfc"]
    folder = tmp_path / "out"
    folder.mkdir()
    assert encode(image, second, "-o", folder) == 0
    assert {path.name for path in folder.iterdir()} == {"img.dfc", "two.dfc"}
    assert encode(image, second, "-o", "-") == 2
    assert encode(image, image) == 2


def test_nothing_is_overwritten_unless_forced(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = image.with_suffix(".dfc")
    target.write_bytes(b"mine")
    assert encode(image) == 1
    assert str(target) in one_line_error(capsys)
    assert target.read_bytes() == b"mine"
    assert encode("-f", image) == 0
    assert target.read_bytes() != b"mine"


def sixteen_bit(path: Path) -> None:
    Image.fromarray(np.arange(256, dtype=np.uint16).reshape(16, 16) * 99).save(path)


def animated(path: Path) -> None:
    frames = [Image.new("RGB", (16, 16), colour) for colour in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])


def text(path: Path) -> None:
    path.write_text("no image")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (sixteen_bit, "more than 8 bits"),
        (animated, "an animation"),
        (text, "no image format"),
        (lambda path: None, "No such file"),
    ],
)
def test_what_the_codec_does_not_take_is_refused_by_name(
    make: Callable[[Path], None],
    complaint: str,
    encode: Encode,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "odd.png"
    make(path)
    assert encode(path) == 1
    error = one_line_error(capsys)
    assert str(path) in error
    assert complaint in error
    assert not path.with_suffix(".dfc").exists()


def test_steps_choose_the_plan(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("--steps", "30", "--json", image) == 0
    evaluations = json.loads(capsys.readouterr().out)["evaluations"]
    assert 15 <= evaluations <= 45
    assert encode("-f", "--steps", "1", image) == 2
    assert "--steps 1" in one_line_error(capsys)


def test_steps_choose_each_image_s_plan_by_itself(
    encode: Encode, tmp_path: Path, smooth_image: Callable[..., NDArray[np.uint8]]
) -> None:
    paths = [tmp_path / "one.png", tmp_path / "nine.png"]
    for path, side in zip(paths, (16, 48), strict=True):
        path.write_bytes(png_bytes(smooth_image(side, side, 3, seed=3)))
    assert encode("--steps", "40", *paths) == 0
    together = [path.with_suffix(".dfc").read_bytes() for path in paths]
    assert encode("-f", "--steps", "40", paths[0]) == 0
    assert paths[0].with_suffix(".dfc").read_bytes() == together[0]


@pytest.mark.parametrize(
    "arguments", [["--effort", "0"], ["--effort", "10"], ["--steps", "0"], ["--steps", "many"]]
)
def test_values_out_of_range_are_usage_errors(
    arguments: list[str], encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(*arguments, image) == 2
    assert arguments[0] in one_line_error(capsys)


@pytest.mark.parametrize("word", ["x", "0,5", "img2.png"])
def test_a_word_after_bits_is_a_number_or_a_file(
    word: str, encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("--bits", word, image) == 2
    error = one_line_error(capsys)
    assert f"'{word}' is neither a number nor a file" in error
    assert "bits per dimension" in error


def test_bits_before_an_option_or_standard_input_stand_alone(
    encode: Encode,
    image: Path,
    pixels: Pixels,
    feed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert encode("--bits", "-q", image) == 0
    assert "paid, bits" in capsys.readouterr().out
    feed(png_bytes(pixels))
    assert encode("-f", "-o", image.with_suffix(".dfc"), "--bits", "-") == 0
    assert "paid, bits" in capsys.readouterr().out


def test_verified_files_are_the_same_files(encode: Encode, image: Path, tmp_path: Path) -> None:
    assert encode("-q", image) == 0
    assert encode("-q", "--verify", image, "-o", tmp_path / "verified.dfc") == 0
    verified = tmp_path / "verified.dfc"
    assert verified.read_bytes() == image.with_suffix(".dfc").read_bytes()


def test_a_file_that_does_not_verify_is_not_written(
    encode: Encode,
    image: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from diffcodec.codec import encoder

    whole = encoder.assemble

    def flawed(header: Header, hops: bytes, payload: bytes = b"") -> bytes:
        return whole(header, hops, payload[:-1] + b"\x55" if payload else b"")

    monkeypatch.setattr(encoder, "assemble", flawed)
    target = image.with_suffix(".dfc")
    target.write_bytes(b"old")
    assert encode("-f", "--verify", image) == 1
    assert f"{image}: not written" in one_line_error(capsys)
    assert target.read_bytes() == b"old"
    # Without --verify nobody looks.
    assert encode("-f", "-q", image) == 0
    assert target.read_bytes() != b"old"


@pytest.mark.parametrize(
    ("target", "exit_code", "complaint"),
    [
        ("img.png", 2, "is the input"),
        ("no/such/folder.dfc", 1, "No such directory"),
        ("none/", 1, "No such directory"),
        ("img.png/in-a-file.dfc", 1, "Not a directory"),
        ("x" * 300, 1, "File name too long"),
    ],
)
@pytest.mark.parametrize("force", [[], ["-f"]])
def test_an_output_that_cannot_be_is_refused_before_any_work(
    target: str,
    exit_code: int,
    complaint: str,
    force: list[str],
    image: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = image.read_bytes()
    # A model that is not there shows what is looked at first.
    arguments = [*force, str(image), "-o", f"{image.parent}/{target}", "--model", "none-such"]
    assert main(["encode", *arguments]) == exit_code
    assert complaint in one_line_error(capsys)
    assert image.read_bytes() == before


def test_one_output_under_two_names_is_refused(
    image: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(image.parent)
    assert main(["encode", image.name, str(image), "--model", "none-such"]) == 2
    assert "Two inputs would be written to" in one_line_error(capsys)


@pytest.mark.parametrize("source", [".", "..", "/", ""])
def test_a_folder_is_no_image(
    source: str, encode: Encode, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode(source) == 1
    assert "Is a directory" in one_line_error(capsys)


def test_standard_input_is_read_once(encode: Encode, capsys: pytest.CaptureFixture[str]) -> None:
    assert encode("-", "-") == 2
    assert "read once" in one_line_error(capsys)


def test_the_pixel_limit_is_kept_and_can_be_raised(
    encode: Encode, image: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert encode("--max-pixels", "1023", image) == 1
    assert "--max-pixels 1024 allows them" in one_line_error(capsys)
    assert encode("-q", "--max-pixels", "1024", image) == 0


def test_a_decompression_bomb_is_one_line(
    encode: Encode, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The header of a PNG of 100,000 × 100,000, which Pillow would stop at with a traceback."""
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    data = b"\x89PNG\r\n\x1a\n"
    for chunk in (header, b"IDAT"):
        data += (len(chunk) - 4).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(data)
    assert encode(tmp_path / "bomb.png") == 1
    assert "found 100000×100000" in one_line_error(capsys)


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1)])
def test_the_thinnest_images_come_back(
    shape: tuple[int, int], encode: Encode, tmp_path: Path, tiny_folder: Path
) -> None:
    path = tmp_path / "thin.png"
    expected = np.arange(3 * shape[0] * shape[1]).astype(np.uint8).reshape(*shape, 3)
    path.write_bytes(png_bytes(expected))
    assert encode("-q", "--verify", path) == 0
    np.testing.assert_array_equal(decoded(path.with_suffix(".dfc"), tiny_folder), expected)


def test_names_need_not_be_unicode(
    encode: Encode, image: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    image.rename(odd)
    assert encode(odd) == 0
    assert main(["info", str(odd.with_suffix(".dfc"))]) == 0
    output = capsys.readouterr()
    assert "\\udcff.dfc" in output.out
    assert "\\udcff.png -> " in output.err


def test_an_unknown_model_is_an_error(image: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["encode", "--model", "none-such", str(image)]) == 1
    assert "none-such" in one_line_error(capsys)
