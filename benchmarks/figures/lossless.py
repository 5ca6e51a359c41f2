"""Lossless sizes as bars, and what more effort costs and buys."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from benchmarks.bd_rate import front
from benchmarks.figures.style import OTHERS, OURS, caption, plain_ticks, style
from benchmarks.reference import PUBLISHED_LOSSLESS, PublishedSize
from benchmarks.tables import lossless_entries
from diffcodec.training.dataset import CIFAR10
from diffcodec.units import bits_per_dimension

Record = Mapping[str, Any]

SECONDS_TICKS = [0.0001, 0.001, 0.01, 0.1, 1, 10]


def lossless_figure(record: Record) -> Figure:
    """Mean lossless size of every codec with its 95 % interval, and published sizes, as bars."""
    measured = lossless_entries(record)
    bars: list[tuple[float, dict[str, Any] | PublishedSize]]
    bars = [(entry["mean_bpd"], entry) for entry in measured]
    if record["data"] == CIFAR10:
        bars += [(size.bpd, size) for size in PUBLISHED_LOSSLESS]
    bars.sort(key=lambda bar: -bar[0])
    with style():
        figure = Figure(figsize=(7.6, 1.5 + 0.34 * len(bars)), layout="constrained")
        axes = figure.subplots()
        labels = []
        for place, (bpd, entry) in enumerate(bars):
            if isinstance(entry, dict):
                labels.append(entry["name"])
                _draw_measured(axes, place, entry, record["dimensions"])
                end = entry["high_bpd"]
            else:
                labels.append(f"{entry.name} ({entry.citation})")
                line = "--" if entry.coded else ":"
                axes.barh(
                    place, bpd, height=0.62, color="white", edgecolor="#555555", linestyle=line
                )
                end = bpd
            axes.text(end + 0.08, place, f"{bpd:.2f}", va="center")
        axes.set_yticks(range(len(bars)), labels)
        axes.set(
            xlabel="bits/dim, one file an image; whiskers: 95 % interval",
            title=f"Lossless, {caption(record)}",
        )
        axes.margins(x=0.08)
        axes.grid(visible=False, axis="y")
        handles = [
            Patch(facecolor=OURS, edgecolor="black", hatch="//", label="diffcodec"),
            Patch(facecolor=OTHERS, edgecolor="black", label="other codecs, measured"),
            Patch(
                facecolor="white",
                edgecolor="black",
                hatch="....",
                label="of which the codec's smallest file",
            ),
        ]
        if record["data"] == CIFAR10:
            handles += [
                Patch(facecolor="white", edgecolor="#555555", ls="--", label="published, coded"),
                Patch(facecolor="white", edgecolor="#555555", ls=":", label="published, bound"),
            ]
        figure.legend(
            handles=handles,
            loc="outside lower center",
            ncols=3,
        )
    return figure


def efforts_figure(record: Record) -> Figure:
    """Lossless size against seconds an image at every effort, beside other lossless codecs."""
    efforts = record["efforts"]
    with style():
        figure = Figure(figsize=(9.6, 4.4), layout="constrained")
        panels = figure.subplots(1, 2, sharey=True)
        for axes, side in zip(panels, ("encode", "decode"), strict=True):
            _draw_efforts(axes, efforts, f"{side}_seconds_median")
            _draw_peers(axes, record, f"{side}_ms")
            axes.set(xscale="log", xlabel=f"seconds to {side} an image, one thread, median")
            plain_ticks(axes.xaxis, SECONDS_TICKS)
            axes.margins(0.1)
        panels[0].set_ylabel("lossless size, bits/dim")
        figure.suptitle(
            "Size against time, efforts 1…9; filled: no other effort is both smaller and faster. "
            f"{caption(record, efforts[0]['images'])}",
            x=0.01,
            ha="left",
            fontsize=9.5,
        )
    return figure


def _draw_measured(axes: Axes, place: int, entry: Mapping[str, Any], dimensions: int) -> None:
    ours = entry["ours"]
    overhead_bpd = bits_per_dimension(8.0 * entry["overhead_bytes"], dimensions)
    look: dict[str, Any] = {"height": 0.62, "edgecolor": "black", "linewidth": 0.6}
    axes.barh(
        place,
        entry["net_bpd"],
        color=OURS if ours else OTHERS,
        hatch="//" if ours else None,
        **look,
    )
    axes.barh(
        place,
        overhead_bpd,
        left=entry["net_bpd"],
        color="white",
        hatch="....",
        xerr=[
            [entry["mean_bpd"] - entry["low_bpd"]],
            [entry["high_bpd"] - entry["mean_bpd"]],
        ],
        capsize=2.5,
        **look,
    )


def _draw_efforts(axes: Axes, efforts: Sequence[Record], key: str) -> None:
    # Smaller is better both ways: a front of time against −size.
    points = [(row[key], -row["mean_bpd"]) for row in efforts]
    shown = front(points)
    axes.plot(
        [seconds for seconds, _ in shown],
        [-size for _, size in shown],
        color=OURS,
        linewidth=1.4,
        label="diffcodec",
    )
    for row, point in zip(efforts, points, strict=True):
        kept = point in shown
        axes.plot(
            row[key],
            row["mean_bpd"],
            color=OURS,
            marker="o",
            markersize=10.5,
            markerfacecolor=OURS if kept else "white",
            linestyle="none",
        )
        axes.annotate(
            str(row["effort"]),
            (row[key], row["mean_bpd"]),
            color="white" if kept else OURS,
            fontsize=7.5,
            ha="center",
            va="center",
        )


def _draw_peers(axes: Axes, record: Record, key: str) -> None:
    """Other lossless codecs on the same images at their speed, where both were measured."""
    sizes = record.get("effort_peers") or {}
    timed = [entry for entry in record.get("speed") or () if entry["name"] in sizes]
    timed.sort(key=lambda entry: sizes[entry["name"]])
    for number, entry in enumerate(timed):
        place = (entry[key] / 1e3, sizes[entry["name"]])
        axes.plot(*place, color="#555555", marker="s", markersize=4.5, linestyle="none")
        axes.annotate(
            entry["name"].split(",")[0].replace(" lossless", ""),
            place,
            # Of two that are nearly as large one name stands below and one above.
            xytext=(0, 5 if number % 2 else -5),
            textcoords="offset points",
            ha="center",
            va="bottom" if number % 2 else "top",
            fontsize=7.5,
            color="#333333",
        )
