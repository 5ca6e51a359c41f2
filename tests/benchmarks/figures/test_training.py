import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks.figures.training import TrainingLog, per_step_figure, read_log, training_figure
from benchmarks.plot import figure_bytes
from diffcodec.errors import DiffcodecError


def report(images: int, loss: float, total: float | None = None) -> dict[str, Any]:
    bound = None if total is None else {"total": {"mean": total, "standard_error": 0.1}}
    return {"images": images, "seconds": 36.0 * images, "loss": loss, "bound": bound}


REPORTS = [report(100, 9.0), report(200, 6.0, 5.0), report(300, 2.0, 4.0)]
ROLLBACK = {"event": "rollback", "images": 250, "seconds": 9e3, "to_images": 200, "reason": "spike"}


@pytest.fixture
def log(tmp_path: Path) -> Path:
    folder = tmp_path / "long-run"
    folder.mkdir()
    lines = [*REPORTS[:2], ROLLBACK, REPORTS[2]]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    return folder / "log.jsonl"


def test_a_log_is_read(log: Path) -> None:
    assert read_log(log) == TrainingLog("long-run", REPORTS, [ROLLBACK])


def test_panels_show_loss_and_bound_by_images_and_hours(log: Path) -> None:
    figure = training_figure([read_log(log), TrainingLog("other", REPORTS[:1], [])])
    panels = figure.axes
    assert len(panels) == 4
    drawn = [[list(map(list, line.get_data())) for line in axes.lines] for axes in panels]
    loss = [9.0, 6.0, 2.0]
    assert drawn[0] == [[[100, 200, 300], loss], [[250, 250], [0, 1]], [[100], [9.0]]]
    assert drawn[1] == [[[1.0, 2.0, 3.0], loss], [[2.5, 2.5], [0, 1]], [[1.0], [9.0]]]
    assert drawn[2][0] == [[200, 300], [5.0, 4.0]]
    assert drawn[3][0] == [[2.0, 3.0], [5.0, 4.0]]
    assert panels[0].get_yscale() == "log"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["long-run", "other"]
    looks = {(line.get_color(), line.get_linestyle()) for line in panels[0].lines[::2]}
    assert len(looks) == 2


def test_runs_without_checks_have_the_loss_alone() -> None:
    figure = training_figure([TrainingLog("run", [report(10, -1.0), report(20, -2.0)], [])])
    assert len(figure.axes) == 2
    assert figure.axes[0].get_yscale() == "linear"
    assert figure_bytes(figure, "svg").startswith(b"<?xml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found no report in it"),
        (json.dumps(ROLLBACK).encode(), "found no report in it"),
        (b"{}\n", "in line 1: KeyError"),
        (b"[1]\n", "in line 1: TypeError"),
        (b'{"images": 1, "seconds": 2, "loss": 3, "bound": null}\nx', "in line 2: JSONDecode"),
        (b'{"images": 1, "seconds": 2, "loss": "3", "bound": null}', "in line 1: TypeError"),
        (b'{"images": 1, "seconds": 2, "loss": 3, "bound": 4}', "in line 1: TypeError"),
        (b"\xff", "found no text"),
    ],
)
def test_files_that_are_no_logs(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(content)
    with pytest.raises(DiffcodecError, match=re.escape(message)) as caught:
        read_log(path)
    assert str(path) in str(caught.value)


def test_steps_are_drawn_by_split() -> None:
    def step(first: int, last: int, rate: float, rmse: float) -> dict[str, Any]:
        return {
            "first_step": first,
            "last_step": last,
            "rate": {"mean": rate, "standard_error": 0.1 * rate},
            "rmse": {"mean": rmse, "standard_error": 0.5},
        }

    steps = [step(1, 2, 0.1, 1.0), step(3, 4, 0.01, 9.0)]
    record = {"model": "tiny", "per_step": {"train": steps, "test": steps[:1]}}
    rate, error = per_step_figure(record).axes
    assert [list(map(list, line.get_data())) for line in rate.lines] == [
        [[1.5, 3.5], [0.1, 0.01]],
        [[1.5], [0.1]],
    ]
    assert list(error.lines[0].get_ydata()) == [1.0, 9.0]
    assert [text.get_text() for text in rate.get_legend().get_texts()] == ["train", "test"]
