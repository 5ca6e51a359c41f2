import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cli.main import main
from diffcodec.bitstream.container import assemble
from diffcodec.bitstream.header import Header, LastStage
from diffcodec.bitstream.stored import pack_pixels

UNKNOWN = "cut short or damaged"


def test_segments_add_up_to_the_file(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "--json", str(file)]) == 0
    report = json.loads(capsys.readouterr().out)
    size = file.stat().st_size
    assert (report["width"], report["height"], report["channels"]) == (16, 16, 3)
    assert report["bytes"] == report["whole_file_bytes"] == size
    assert [segment["name"] for segment in report["segments"]] == ["header", "hops", "last stage"]
    assert sum(segment["bytes"] for segment in report["segments"]) == size
    assert {segment["check"] for segment in report["segments"]} == {"ok"}
    assert report["bits_per_dimension"] == pytest.approx(8 * size / 768)
    assert sum(segment["bits_per_dimension"] for segment in report["segments"]) == pytest.approx(
        report["bits_per_dimension"]
    )


def test_a_listing_for_people(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(file)]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert output.out.startswith(f"{file}: 16×16 RGB, last stage gaussian, ")
    for word in ("header", "hops", "last stage", "bits/dim", "ok", "model ", "final step"):
        assert word in output.out


def test_a_cut_or_damaged_file_is_shown_as_far_as_it_goes(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = file.read_bytes()
    middle = data[:50] + bytes([data[50] ^ 1]) + data[51:]
    end = data[:-1] + bytes([data[-1] ^ 1])
    for content, expected in (
        (data, ["ok", "ok", "ok"]),
        (end, ["ok", "ok", "damaged"]),
        # Where hops end that are cut or damaged, nothing but the model's plan tells.
        (data[:-3], ["ok", UNKNOWN]),
        (middle, ["ok", UNKNOWN]),
    ):
        file.write_bytes(content)
        assert main(["info", "--json", str(file)]) == 0
        found = [s["check"] for s in json.loads(capsys.readouterr().out)["segments"]]
        assert found == expected


def test_of_a_lossy_file_the_check_at_its_end_tells(
    image: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encode = ["encode", "-q", "--effort", "1", "--model", str(tiny_folder)]
    assert main([*encode, "--bits", "1", str(image)]) == 0
    file = image.with_suffix(".dfc")
    data = file.read_bytes()
    flipped = data[:15] + bytes([data[15] ^ 1]) + data[16:]
    for content, check in ((data, "ok"), *((odd, UNKNOWN) for odd in (data[:-1], flipped))):
        file.write_bytes(content)
        assert main(["info", "--json", str(file)]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["whole_file_bytes"] == (len(data) if check == "ok" else None)
        header, hops = report["segments"]
        assert (header["check"], hops["check"]) == ("ok", check)
        assert hops["bytes"] == (hops["bytes_found"] if check == "ok" else None)
        assert header["bytes"] + hops["bytes_found"] == len(content)
        assert main(["info", str(file)]) == 0
        output = capsys.readouterr().out
        whole = f" of {len(data)}" if check == "ok" else ""
        assert f"last stage none, {len(content)}{whole} bytes, " in output
        assert check in output
    verbose = ["info", "-v", "--model", str(tiny_folder), str(file)]
    file.write_bytes(data[:-1])
    assert main(verbose) == 3
    assert f"{file}: expected a whole file, found a truncated one" in capsys.readouterr().err
    file.write_bytes(data)
    assert main(verbose) == 0


def test_stored_pixels_name_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    golden = Path(__file__).parents[1] / "golden" / "model"
    Image.fromarray(np.zeros((16, 16), np.uint8)).save(tmp_path / "black.png")
    assert main(["encode", "-q", "--model", str(golden), str(tmp_path / "black.png")]) == 0
    assert main(["info", "--json", str(tmp_path / "black.dfc")]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["last_stage"] == "stored"
    assert report["channels"] == 1
    assert "model_id" not in report
    assert main(["info", str(tmp_path / "black.dfc")]) == 0
    assert "gray, last stage stored" in capsys.readouterr().out


def test_standard_input(
    file_bytes: bytes, feed: Callable[[bytes], None], capsys: pytest.CaptureFixture[str]
) -> None:
    feed(file_bytes)
    assert main(["info", "-"]) == 0
    assert capsys.readouterr().out.startswith("standard input: 16×16")


@pytest.mark.parametrize(("content", "exit_code"), [(None, 1), (b"\x89PNG", 3), (b"\xdf\xc4", 3)])
def test_what_is_no_file_of_ours_is_one_line(
    content: bytes | None, exit_code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "odd.dfc"
    if content is not None:
        path.write_bytes(content)
    assert main(["info", str(path)]) == exit_code
    error = capsys.readouterr().err
    assert error.startswith(f"diffcodec: error: {path}: ")
    assert error.count("\n") == 1


def test_verbose_gives_every_bit_a_place(
    file: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["info", "-v", "--model", str(tiny_folder), str(file)]
    assert main([*command, "--json"]) == 0
    account = json.loads(capsys.readouterr().out)["account"]
    hops = sum(hop["correction_bits"] + hop["code_bits"] for hop in account["hops"])
    rest = ("header_bits", "padding_bits", "check_bits", "last_stage_bits")
    assert hops + sum(account[part] for part in rest) == 8 * file.stat().st_size
    assert account["exact"]
    assert main(command) == 0
    output = capsys.readouterr().out
    for word in ("hops: corrections", "bits/ideal", "KL: the image's own"):
        assert word in output


def test_verbose_shows_a_cut_file_and_says_why_it_has_no_account(
    file: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file.write_bytes(file.read_bytes()[:-1])
    command = ["info", "-v", "--model", str(tiny_folder), str(file)]
    assert main([*command, "--json"]) == 3
    shown = capsys.readouterr()
    report = json.loads(shown.out)
    assert report["account"] is None
    assert [segment["name"] for segment in report["segments"]] == ["header", "hops"]
    assert f"{file}: expected a whole file, found a truncated one" in shown.err
    assert main(command) == 3
    assert "last stage gaussian" in capsys.readouterr().out


def test_verbose_of_stored_pixels_has_their_segments_alone(
    tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "dot.png"
    Image.fromarray(np.zeros((1, 1), np.uint8)).save(source)
    assert main(["encode", "-q", "--model", str(tiny_folder), str(source)]) == 0
    file = str(source.with_suffix(".dfc"))
    assert main(["info", "-v", "--json", file]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["last_stage"], report["account"]) == ("stored", None)
    assert main(["info", "-v", file]) == 0
    assert "bits/KL" not in capsys.readouterr().out


@pytest.mark.parametrize("kept", [-1, None])
def test_verbose_checks_stored_pixels(
    kept: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    header = Header(4, 4, 3, last_stage=LastStage.STORED)
    # Whole by its checks, but the pixels of a smaller image.
    data = assemble(header, b"", pack_pixels(np.zeros((2, 4, 3), np.uint8)))
    file = tmp_path / "stored.dfc"
    file.write_bytes(data[:kept])
    assert main(["info", "-v", str(file)]) == 3
    shown = capsys.readouterr()
    assert "last stage stored" in shown.out
    assert str(file) in shown.err
