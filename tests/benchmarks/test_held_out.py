"""The frame of measurements on held-out images, and the commands in it."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import channel_check, channel_comparison, held_out
from benchmarks.results import CHANNEL_CODES_RECORD
from diffcodec.codec.model import CodecModel
from diffcodec.coding.channel import CHANNEL_CODES

Pixels = NDArray[np.uint8]


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch, images: Pixels) -> None:
    """Small images stand for CIFAR-10's, and little is asked of them."""
    monkeypatch.setattr(held_out, "held_out_images", lambda data, count: images[:count])
    monkeypatch.setattr(channel_check, "KL_POINTS_BPD", (0.1,))
    code = CHANNEL_CODES[0]
    contestant = (code.name, channel_comparison.trellis_teller(code), (32,), 1.0)
    monkeypatch.setattr(channel_comparison, "contestants", lambda: iter([contestant]))


@pytest.mark.parametrize(
    ("command", "name", "arguments", "section"),
    [
        (channel_check.main, channel_check.RESULT, ["--code", "0"], "codes"),
        (channel_comparison.main, CHANNEL_CODES_RECORD, ["--vectors", "8"], "rows"),
    ],
)
def test_a_command_writes_a_record_and_prints_a_table(
    command: Callable[[Sequence[str]], int],
    name: str,
    arguments: list[str],
    section: str,
    model: CodecModel,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "results"
    common = ["--images", "2", "--model", str(tiny_folder), "--out", str(out)]
    assert command([*common, *arguments]) == 0
    record = json.loads((out / name).read_text())
    assert record["provenance"]["packages"]["numpy"] == np.__version__
    assert record["model"]["name"] == tiny_folder.name
    assert bytes.fromhex(record["model"]["digest"]).startswith(model.model_id)
    assert len(record["pixels_sha256"]) == 64
    assert (record["split"], record["images"], len(record[section])) == ("held-out", 2, 1)
    assert "trellis-12-4" in capsys.readouterr().out
    assert command([*common, *arguments]) == 1
    assert f"{name}: an earlier record; --force replaces it" in capsys.readouterr().err


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert channel_check.main(["--model", "no-such-model", "--out", str(tmp_path / "none")]) == 1
    told = capsys.readouterr()
    assert told.err.startswith("error: no-such-model: expected")
    assert told.out == ""
    assert not (tmp_path / "none").exists()
