import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cli.main import main

Pixels = NDArray[np.uint8]

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path, drawn_image: Callable[..., Pixels]) -> Path:
    """Two drawn pictures where a data set is expected."""
    place = tmp_path / "data" / "test"
    place.mkdir(parents=True)
    for seed in (3, 4):
        Image.fromarray(drawn_image(32, 32, 3, seed=seed)).save(place / f"{seed}.png")
    return place.parent


def arguments(folder: Path, model: Path, out: Path, *more: str) -> list[str]:
    named = ["--data", str(folder), "--model", str(model), "--out", str(out)]
    return ["rd-curve", "--images", "2", "--effort", "1", "--jobs", "2", *named, *more]


def test_a_table_json_and_two_figures(
    folder: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "curve"
    assert main(arguments(folder, tiny_folder, out)) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[0].split() == [
        *("bits/dim", "RMSE", "95", "%", "interval", "theory")
    ]
    assert "2 of 2 images exact" in captured.out
    assert "written: " in captured.err
    names = ["rd-curve.json", "rd-curve.jsonl", "rd-curve.png", "rd-curve.svg"]
    assert sorted(path.name for path in out.iterdir()) == names
    record = json.loads((out / "rd-curve.json").read_text())
    assert record["images"] == 2
    assert record["lossless"]["exact_round_trips"] == 2
    assert record["model"]["name"] == tiny_folder.name
    assert record["cuts"][-1]["rmse"] == 0.0
    assert len(record["theory"]["rate_bpd"]) == 1001
    assert record["provenance"]["device"] == "cpu"
    rates = [row["rate_bpd"] for row in record["table"]]
    assert rates[:7] == [0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5]


def test_a_report_is_one_page_with_other_codecs(
    folder: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.html"
    more = ["--images", "1", "--report", str(report), "--device", "cpu"]
    assert main(arguments(folder, tiny_folder, tmp_path / "curve", *more)) == 0
    page = report.read_text()
    assert 'id="bytes"' in page
    assert "JPEG" in page
    assert str(report) in capsys.readouterr().err
    # The journal has everything: the same again, at once, with the run's own files written anew.
    resumed = arguments(folder, tiny_folder, tmp_path / "curve", *more, "--resume")
    assert main(resumed) == 1
    assert f"{report}: File exists; -f overwrites it" in capsys.readouterr().err
    report.unlink()
    assert main(resumed) == 0
    assert report.read_text() == page


@pytest.mark.slow
def test_processes_of_torchrun_share_the_images(
    folder: Path, tiny_folder: Path, tmp_path: Path
) -> None:
    tables = []
    torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    for name, launcher in (("one", []), ("two", torchrun)):
        command = arguments(folder, tiny_folder, tmp_path / name, "--device", "cpu")
        ended = subprocess.run(
            [sys.executable, "-m", *launcher, "cli.main", *command],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
        )
        assert ended.returncode == 0, ended.stderr
        assert ended.stdout.count("RMSE") == 1
        tables.append(json.loads((tmp_path / name / "rd-curve.json").read_text())["table"])
    assert tables[0] == tables[1]
    journals = sorted(path.name for path in (tmp_path / "two").glob("*.jsonl"))
    assert journals == ["rd-curve.0-of-2.jsonl", "rd-curve.1-of-2.jsonl"]


def test_what_is_there_is_not_overwritten(
    folder: Path, tiny_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rd-curve.svg").write_text("mine")
    assert main(arguments(folder, tiny_folder, tmp_path)) == 1
    assert "rd-curve.svg" in capsys.readouterr().err
    assert (tmp_path / "rd-curve.svg").read_text() == "mine"


@pytest.mark.parametrize(
    ("more", "exit_code", "message"),
    [
        (["--model", "no-such-model"], 1, "no-such-model: expected a packaged model"),
        (["--images", "9999"], 1, "expected 9999 test images, found 2"),
        (["--data", "no-such-folder"], 1, "no-such-folder: no such file or folder"),
        (["--images", "0"], 2, "--images"),
        (["--resume", "-f"], 2, "--resume and --force exclude each other"),
        (["--effort", "10"], 2, "--effort"),
        (["--report", "no-such-folder/r.html"], 1, "no-such-folder: No such directory"),
    ],
)
def test_input_errors_are_one_line(
    more: list[str],
    exit_code: int,
    message: str,
    folder: Path,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(arguments(folder, tiny_folder, tmp_path / "out", *more)) == exit_code
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
