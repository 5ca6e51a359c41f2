"""Figures of a model's training and of its bound; nothing is trained or measured here."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.style import style
from diffcodec.errors import DiffcodecError

# Okabe and Ito's colours; lines differ in grey, too.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
LINES = ("-", "--", "-.", ":")
SECONDS_PER_HOUR = 3600.0
CLOCKS = {"images": "images seen", "seconds": "hours of training"}


@dataclass(frozen=True)
class TrainingLog:
    """A run's log, as `diffcodec train` writes it.

    Attributes:
        name: what the figure calls it.
        reports: its lines in order, roll-backs apart.
        rollbacks: the lines that say that the run went back.
    """

    name: str
    reports: Sequence[Mapping[str, Any]]
    rollbacks: Sequence[Mapping[str, Any]]


def read_log(path: Path) -> TrainingLog:
    """A log of JSON lines.

    Raises:
        DiffcodecError: a line is not one of a training log, or no line is a report.
        OSError: the file cannot be read.
    """
    reports, rollbacks = [], []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DiffcodecError(f"{path}: expected a training log, found no text") from error
    for number, line in enumerate(lines, start=1):
        try:
            entry = json.loads(line)
            numbers = [entry["images"], entry["seconds"]]
            if "event" in entry:
                rollbacks.append(entry)
            else:
                numbers.append(entry["loss"])
                if entry["bound"] is not None:
                    numbers.append(entry["bound"]["total"]["mean"])
                reports.append(entry)
            if not all(isinstance(value, int | float) for value in numbers):
                raise TypeError("a measure that is no number")
        except (ValueError, KeyError, TypeError) as error:
            raise DiffcodecError(
                f"{path}: expected a line of a training log in line {number}: {error!r}"
            ) from error
    if not reports:
        raise DiffcodecError(f"{path}: expected a training log, found no report in it")
    # Runs keep their logs under one name, so the folder's is the telling one.
    return TrainingLog(path.resolve().parent.name, reports, rollbacks)


def training_figure(logs: Sequence[TrainingLog]) -> Figure:
    """Loss and, where it was measured, the held-out bound, by images and by time."""
    checked = any(report["bound"] is not None for log in logs for report in log.reports)
    rows = ["loss", "held-out bits/dim"][: 2 if checked else 1]
    with style():
        figure = Figure(figsize=(9.6, 0.6 + 3.0 * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), 2, squeeze=False, sharey="row", sharex="col")
        for row, panels in zip(rows, grid, strict=True):
            panels[0].set_ylabel(row)
            for clock, axes in zip(CLOCKS, panels, strict=True):
                for place, log in enumerate(logs):
                    _draw_log(axes, log, clock, row != "loss", place)
        for (clock, label), axes in zip(CLOCKS.items(), grid[-1], strict=True):
            axes.set_xlabel(label)
            if clock == "images":
                axes.xaxis.set_major_formatter("{x:,.0f}")
        losses = [report["loss"] for log in logs for report in log.reports]
        if min(losses) > 0 and max(losses) > 4 * min(losses):
            grid[0][0].set_yscale("log")
        figure.legend(*grid[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


def per_step_figure(record: Mapping[str, Any]) -> Figure:
    """L_t and the error of x̂_0 at every step, a line for each split.

    Args:
        record: what ``diffcodec evaluate --per-step`` writes.
    """
    with style():
        figure = Figure(figsize=(9.6, 3.6), layout="constrained")
        rate, error = figure.subplots(1, 2)
        for place, (split, steps) in enumerate(record["per_step"].items()):
            middle = [(step["first_step"] + step["last_step"]) / 2 for step in steps]
            look = _look(place)
            for axes, name in ((rate, "rate"), (error, "rmse")):
                means = [step[name]["mean"] for step in steps]
                spreads = [step[name]["standard_error"] for step in steps]
                axes.plot(middle, means, label=split, **look)
                axes.fill_between(
                    middle,
                    [m - s for m, s in zip(means, spreads, strict=True)],
                    [m + s for m, s in zip(means, spreads, strict=True)],
                    color=look["color"],
                    alpha=0.2,
                    linewidth=0,
                )
        rate.set(yscale="log", ylabel="$L_t$, bits/dim", xlabel="step t")
        error.set(ylabel="RMSE of the estimate of x, 0–255 scale", xlabel="step t")
        rate.legend()
        figure.suptitle(f"{record['model']}: bands are standard errors", x=0.01, ha="left")
    return figure


def _draw_log(axes: Axes, log: TrainingLog, clock: str, held_out: bool, place: int) -> None:
    unit = SECONDS_PER_HOUR if clock == "seconds" else 1.0
    reports = [report for report in log.reports if not held_out or report["bound"] is not None]
    values = [
        report["bound"]["total"]["mean"] if held_out else report["loss"] for report in reports
    ]
    times = [report[clock] / unit for report in reports]
    marker = "o" if held_out else None
    axes.plot(times, values, label=log.name, marker=marker, markersize=3, **_look(place))
    for rollback in log.rollbacks:
        axes.axvline(rollback[clock] / unit, color=_look(place)["color"], linewidth=0.5)


def _look(place: int) -> dict[str, Any]:
    """Colour and line of the ``place``-th curve."""
    line = LINES[place % len(LINES)]
    return {"color": COLOURS[place % len(COLOURS)], "linestyle": line, "linewidth": 1.4}
