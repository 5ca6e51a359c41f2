import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import photographs
from diffcodec.image import png_bytes

Pixels = NDArray[np.uint8]


@pytest.fixture
def folder(tmp_path: Path, smooth_image: Callable[..., Pixels]) -> Path:
    """Two pictures of different sizes, beside what is none."""
    (tmp_path / "more").mkdir()
    (tmp_path / "words.txt").write_text("no picture")
    for seed, size in enumerate(((40, 33), (24, 50))):
        (tmp_path / f"{seed}.png").write_bytes(png_bytes(smooth_image(*size, 3, seed=seed)))
    return tmp_path


def test_pieces_are_the_middles(folder: Path, smooth_image: Callable[..., Pixels]) -> None:
    first, second = photographs.load_pieces(photographs.photographs(folder), 24)
    np.testing.assert_array_equal(first, smooth_image(40, 33, 3, seed=0)[8:32, 4:28])
    np.testing.assert_array_equal(second, smooth_image(24, 50, 3, seed=1)[:, 13:37])


def test_a_run_writes_a_record_and_prints_its_tables(
    folder: Path, tiny_pixel_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    command = [str(folder), "--side", "24", "--model", str(tiny_pixel_folder), "--jobs", "1"]
    assert photographs.main([*command, "--out", str(out)]) == 0
    record = json.loads((out / photographs.RESULT).read_text())
    assert (record["split"], record["images"], record["dimensions"]) == ("photographs", 2, 1728)
    assert record["lossless"]["exact_round_trips"] == 2
    assert record["settings"] == {"effort": 5, "side": 24}
    assert record["photographs"] == ["0.png", "1.png"]
    told = capsys.readouterr().out
    for words in ("diffcodec, effort 5", "PNG, optimize", "SSIM", "JPEG XL"):
        assert words in told
    assert photographs.main([*command, "--out", str(out)]) == 1
    assert "--resume goes on with it" in capsys.readouterr().err


def test_a_record_without_rates_has_its_other_tables(
    capsys: pytest.CaptureFixture[str], record: dict[str, Any]
) -> None:
    photographs.show({**record, "bd_rates": None})
    assert "SSIM" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["small", "gray", "nothing", "no folder", "no image"])
def test_what_is_no_photograph_is_one_line(
    kind: str,
    tmp_path: Path,
    tiny_folder: Path,
    drawn_image: Callable[..., Pixels],
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "pictures"
    if kind != "no folder":
        folder.mkdir()
    content = {
        "small": png_bytes(drawn_image(40, 23, 3, seed=0)),
        "gray": png_bytes(drawn_image(40, 40, 1, seed=0)),
        "no image": b"words",
    }
    if kind in content:
        (folder / "a.png").write_bytes(content[kind])
    command = [str(folder), "--side", "24", "--model", str(tiny_folder)]
    assert photographs.main([*command, "--out", str(tmp_path / "out")]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: ")
    assert "pictures" in told.err
    assert told.err.count("\n") == 1
