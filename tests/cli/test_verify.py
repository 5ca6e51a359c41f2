import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cli import verify
from cli.main import main
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.image import png_bytes, read_image

Pixels = NDArray[np.uint8]
Verify = Callable[..., int]


@pytest.fixture
def check(tiny_folder: Path) -> Verify:
    """Run ``diffcodec verify`` with the tiny model; gives the exit code."""

    def run(*arguments: str | Path) -> int:
        return main(["verify", "--model", str(tiny_folder), *map(str, arguments)])

    return run


def line(capsys: pytest.CaptureFixture[str]) -> str:
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.count("\n") == 1
    return output.out


def damaged(file: Path, place: int) -> None:
    data = bytearray(file.read_bytes())
    data[place] ^= 0x10
    file.write_bytes(data)


def test_a_whole_file_is_ok_and_nothing_is_written(
    check: Verify, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = file.stat().st_size
    assert check(file) == 0
    assert line(capsys) == f"{file}: ok, lossless, 16×16 RGB, {size} bytes\n"
    assert [path.name for path in file.parent.iterdir()] == ["img.dfc"]
    assert check("-q", file) == 0
    assert capsys.readouterr() == ("", "")


def test_a_lossy_file_says_where_it_ends(
    check: Verify, image: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = ["encode", "-q", "--effort", "1", "--model", str(tiny_folder)]
    assert main([*encode, "--bits", "1", str(image)]) == 0
    file = image.with_suffix(".dfc")
    assert check(file) == 0
    assert ": ok, lossy, to step " in line(capsys)
    whole = file.read_bytes()
    file.write_bytes(whole[:-10])
    assert check(file) == 5
    found = line(capsys)
    assert f": truncated, {len(whole) - 10} bytes, after packet " in found
    assert "the whole file is lossy, to step " in found
    file.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert check(file) == 3
    assert "damaged hops" in line(capsys)
    file.write_bytes(whole + b"\0")
    assert check(file) == 3
    assert "found 1 more" in line(capsys)


def test_stored_pixels_need_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = Path(__file__).parents[1] / "golden" / "model"
    (tmp_path / "black.png").write_bytes(png_bytes(np.zeros((9, 9, 1), np.uint8)))
    assert main(["encode", "-q", "--model", str(golden), str(tmp_path / "black.png")]) == 0
    file = tmp_path / "black.dfc"
    assert main(["verify", str(file)]) == 0
    assert ": ok, lossless, 9×9 gray, " in line(capsys)
    file.write_bytes(file.read_bytes()[:-1])
    assert main(["verify", str(file)]) == 5
    assert line(capsys).endswith("bytes; the whole file is lossless\n")


def test_a_truncated_file_names_its_last_packet(
    check: Verify, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = file.read_bytes()
    packets = []
    for length in (20, 60, len(whole) - 1):
        file.write_bytes(whole[:length])
        assert check(file) == 5
        found = line(capsys)
        # How long the whole file is stands behind its hops.
        total = f" of {len(whole)}" if length == len(whole) - 1 else ""
        assert f": truncated, {length}{total} bytes, after packet " in found
        assert found.endswith("; the whole file is lossless\n")
        packets.append(int(found.split("packet ")[1].split()[0]))
    assert packets == sorted(set(packets))
    file.write_bytes(whole[:3])
    assert check(file) == 5
    assert "ends inside it" in line(capsys)


@pytest.mark.parametrize(
    ("place", "complaint"),
    [(0, "not a diffcodec file"), (5, "header"), (40, "damaged hops"), (-5, "damaged last stage")],
)
def test_damage_is_told_by_segment(
    place: int, complaint: str, check: Verify, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    damaged(file, place)
    assert check(file) == 3
    assert complaint in line(capsys)


def test_damage_shows_without_the_model(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(file)]) == 3
    assert "expected the model" in line(capsys)
    damaged(file, -5)
    assert main(["verify", str(file)]) == 3
    assert "damaged last stage" in line(capsys)


def test_standard_input_once(
    check: Verify,
    file_bytes: bytes,
    feed: Callable[[bytes], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    feed(file_bytes)
    assert check("-") == 0
    assert line(capsys).startswith("standard input: ok, ")
    assert check("-", "-") == 2
    assert "read once" in capsys.readouterr().err


def test_every_file_has_a_line_and_the_gravest_decides(
    check: Verify, file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut, bad, large = (tmp_path / name for name in ("cut.dfc", "bad.dfc", "large.dfc"))
    missing = tmp_path / "missing.dfc"
    for copy in (cut, bad, large):
        shutil.copy(file, copy)
    cut.write_bytes(file.read_bytes()[:-1])
    damaged(bad, 40)
    assert check(file, cut, file) == 5
    assert check(file, cut, missing) == 1
    assert check(missing, bad, cut) == 3
    capsys.readouterr()
    assert check("-q", file, cut, missing, bad) == 3
    names = [found.split(":")[0] for found in capsys.readouterr().out.splitlines()]
    assert names == [str(path) for path in (cut, missing, bad)]


def test_the_pixel_limit_is_kept(
    check: Verify, file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check("--max-pixels", "1023", file) == 1
    assert "--max-pixels 1024" in line(capsys)
    assert check("--max-pixels", "1024", file) == 0


@pytest.fixture
def other_arithmetic(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """A function: from now on models are loaded with every weight moved up by so many ulps."""

    def perturb(ulps: int) -> None:
        def load(folder: Path) -> CodecModel:
            model = load_codec_model(folder)
            with torch.no_grad():
                for parameter in model.checkpoint.denoiser.parameters():
                    above = torch.full_like(parameter, torch.inf)
                    for _ in range(ulps):
                        parameter.copy_(torch.nextafter(parameter, above))
            return model

        verify._load_model.cache_clear()
        monkeypatch.setattr("diffcodec.codec.model.load_codec_model", load)

    yield perturb
    verify._load_model.cache_clear()


@pytest.fixture
def large_file(tmp_path: Path, tiny_folder: Path, smooth_image: Callable[..., Pixels]) -> Path:
    """A file of so many values that other arithmetic soon rounds some mean differently."""
    image = tmp_path / "large.png"
    image.write_bytes(png_bytes(smooth_image(40, 40, 3, seed=4)))
    encode = ["encode", "-q", "--effort", "1", "--model", str(tiny_folder), str(image)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffcodec.codec.encoder.pack_pixels", lambda pixels: bytes(1 << 20))
        assert main(encode) == 0
    image.unlink()
    return image.with_suffix(".dfc")


def test_a_numeric_mismatch_has_its_own_code_and_leaves_the_last_good_image(
    large_file: Path,
    tiny_folder: Path,
    other_arithmetic: Callable[[int], None],
    check: Verify,
    capsys: pytest.CaptureFixture[str],
    smooth_image: Callable[..., Pixels],
) -> None:
    # How many ulps round some mean or scale differently depends on the weights, and those on the
    # processor that trained them a moment ago: one is enough on some, and never is it damage.
    for ulps in (1, 4, 16, 64):
        other_arithmetic(ulps)
        code = check(large_file)
        found = line(capsys)
        if code == 4:
            break
        assert (code, ": ok, " in found) == (0, True)
    assert found.startswith(f"{large_file}: numeric mismatch at segment 2, the last stage: ")
    assert main(["decode", "--model", str(tiny_folder), str(large_file)]) == 4
    warning, error = capsys.readouterr().err.splitlines()
    assert "last good image was written" in warning
    assert error.startswith(f"diffcodec: error: {large_file}: numeric mismatch at segment 2")
    back = read_image(large_file.with_suffix(".png").read_bytes(), "large.png")
    assert np.abs(back.astype(int) - smooth_image(40, 40, 3, seed=4)).mean() < 3
