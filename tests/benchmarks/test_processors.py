import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import held_out, processors
from benchmarks.processors import INSTRUCTIONS, PARTS, RESULT, compare, main
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import load_codec_model

Pixels = NDArray[np.uint8]


@pytest.mark.slow
def test_files_decode_with_older_instructions(
    images: Pixels,
    tiny_pixel_folder: Path,
    tmp_path: Path,
    hops_always: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(held_out, "held_out_images", lambda data, count: images[:count])
    monkeypatch.setattr(processors, "INSTRUCTIONS", {"AVX2": INSTRUCTIONS["AVX2"]})
    command = ["--images", "2", "--model", str(tiny_pixel_folder), "--out", str(tmp_path)]
    assert main(command) == 0
    row = json.loads((tmp_path / RESULT).read_text())["rows"]["AVX2"]
    assert row["exact"] == row["files"] == 2
    for part in PARTS:
        assert 0 <= row[part]["mean_difference"] <= row[part]["largest_difference"] < 0.1
        assert 0 < row[part]["smallest_margin"] <= row[part]["median_margin"] < 0.5
    assert "2 of 2" in capsys.readouterr().out


def test_files_that_other_roundings_would_not_read_are_counted(
    images: Pixels, tiny_pixel_folder: Path, hops_always: None
) -> None:
    model = load_codec_model(tiny_pixel_folder)
    files = [encode_image(pixels, model, EncoderSettings()).data for pixels in images[:2]]
    here = {part: np.full((2, 4), 0.4999) for part in PARTS}
    there = {part: here[part].copy() for part in PARTS} | {"exact": np.array([True, True])}
    row = compare(files, here, there)
    assert (row["exact"], row["alike_unshifted"]) == (2, 2)
    assert row["levels"]["largest_difference"] == 0.0
    there["levels"][1, 2] = 0.5001
    there["exact"][1] = False
    row = compare(files, here, there)
    assert (row["exact"], row["alike_unshifted"]) == (1, 1)
    assert row["levels"]["largest_difference"] == pytest.approx(2e-4)
