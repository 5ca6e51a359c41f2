"""What is timed and told, not how fast it is."""

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import inputs, speed
from benchmarks.parts import PARTS
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel

Pixels = NDArray[np.uint8]


@pytest.mark.slow
def test_one_command_prints_a_table_and_keeps_a_record(
    images: Pixels,
    model: CodecModel,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(inputs, "first_images", lambda data, count: images[:count])
    output = tmp_path / "speed.json"
    command = ["--efforts", "5", "1", "--images", "2", "--batch", "3", "--jobs", "1"]
    command += ["--model", str(tiny_folder), "--out", str(tmp_path)]
    assert speed.main(command) == 0
    record = json.loads(output.read_text())
    assert record["provenance"]["packages"]["torch"]
    assert record["model"]["digest"].startswith(model.model_id.hex())
    assert (record["dimensions"], record["batch"]) == (768, 3)
    assert [row["effort"] for row in record["efforts"]] == [1, 5]
    for row in record["efforts"]:
        assert row["images"] == row["exact_round_trips"] == 2
        assert row["batch_processes"] == 1
        settings = EncoderSettings.for_effort(effort_level(row["effort"]))
        needed = [encode_image(pixels, model, settings).evaluations for pixels in images[:2]]
        assert row["evaluations_mean"] == row["decode_evaluations_mean"] == np.mean(needed)
        for side in ("encode", "decode"):
            assert row[f"{side}_seconds_median"] > 0.0
            assert row[f"batch_{side}_ms"] > 0.0
            assert sum(row[f"{side}_shares"][part] for part in PARTS) == pytest.approx(1.0)
    *_, first, second = capsys.readouterr().out.splitlines()
    assert (first.split()[0], second.split()[0]) == ("1", "5")


def test_a_row_of_the_table() -> None:
    shares = {"network": 0.627, "coder": 0.24, "rest": 0.133}
    row = {
        "effort": 5,
        "encode_evaluations_mean": 39.25,
        "decode_evaluations_mean": 39.25,
        "encode_seconds_median": 1.5494,
        "decode_seconds_median": 0.92,
        "batch_encode_ms": 774.4,
        "batch_decode_ms": 452.0,
        "encode_shares": shares,
        "decode_shares": shares,
    }
    head, (cells,) = speed.speed_table([row])
    assert len(head) == len(cells)
    assert cells[:6] == ("5", "39.2", "1549", "920", "774", "452")
    assert cells[6] == "63/24/13"
    # An encoder that evaluates more than the decoder says so.
    more = {**row, "encode_evaluations_mean": 60.0}
    assert speed.speed_table([more]).rows[0][1] == "60.0/39.2"


@pytest.mark.parametrize(
    "arguments",
    [["--images", "0"], ["--images", "9", "--batch", "8"], ["--jobs", "0"], ["--efforts", "10"]],
)
def test_misuse_is_told_before_work(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        speed.main(arguments)
    assert caught.value.code == 2


def test_missing_images_and_models_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path)]
    assert speed.main(["--data", str(tmp_path / "none"), *out]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0].startswith("error: ")
    assert "--download" in told[1]
    assert speed.main(["--model", "no-such-model", *out]) == 1
    assert capsys.readouterr().err.startswith("error: no-such-model: expected")
    (tmp_path / speed.RESULT).write_text("{}")
    assert speed.main(out) == 1
    assert f"{speed.RESULT}: an earlier record" in capsys.readouterr().err
