"""Stored results to figures; nothing is encoded here.

``python -m benchmarks.plot [--results DIR] [--out DIR]``
"""

import argparse
import io
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from benchmarks.reference import PUBLISHED_CURVES
from diffcodec.errors import DiffcodecError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
FIGURES = ROOT / "docs" / "figures"
FORMATS = ("png", "svg")

# One style for all figures. Colours are Okabe and Ito's; in grey, line styles and markers differ.
STYLE: Mapping[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    # Fixed identifiers: the same results give the same bytes.
    "svg.hashsalt": "diffcodec",
}
OURS, THEORY = "#0072b2", "#000000"
# Colour, marker and line. DDPM's table has no rows between 0.12 and 1.78 bits/dim, where its curve
# is far from a straight line: its points are not joined.
PEERS = {
    "JPEG": ("#d55e00", "s", "--"),
    "BPG": ("#e69f00", "^", "--"),
    "UQDM": ("#009e73", "D", "--"),
    "VDM": ("#56b4e9", "v", "-."),
    "DDPM": ("#cc79a7", "o", "none"),
}
LOWEST_RATE_BPD, HIGHEST_LINEAR_BPD, HIGHEST_LINEAR_RMSE = 0.03, 3.0, 15.0
LOWEST_RMSE, HIGHEST_RMSE = 0.5, 40.0


def rate_distortion_figure(record: Mapping[str, Any]) -> Figure:
    """RMSE against bits/dim: log-log over all rates, and linear up to 3 bits/dim.

    Args:
        record: what ``diffcodec rd-curve`` writes, a `rate_distortion.summarize` summary.
    """
    with _style():
        figure = Figure(figsize=(9.6, 5.3), layout="constrained")
        wide, close = figure.subplots(1, 2)
        for axes in (wide, close):
            _draw_published(axes)
            _draw_measured(axes, record)
            axes.set_xlabel("rate, bits/dim")
        wide.set(
            xscale="log",
            yscale="log",
            xlim=(LOWEST_RATE_BPD, _round_up(record["lossless"]["mean_bpd"])),
            ylim=(LOWEST_RMSE, HIGHEST_RMSE),
            ylabel="RMSE of the image, 0–255 scale",
            title="all rates, logarithmic",
        )
        wide.set_xticks([0.03, 0.1, 0.3, 1, 3])
        wide.set_yticks([0.5, 1, 2, 5, 10, 20, 40])
        for axis in (wide.xaxis, wide.yaxis):
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axis.set_minor_formatter(FuncFormatter(lambda value, _: ""))
        close.set(
            xlim=(0, HIGHEST_LINEAR_BPD),
            ylim=(0, HIGHEST_LINEAR_RMSE),
            title=f"up to {HIGHEST_LINEAR_BPD:g} bits/dim, linear",
        )
        handles, labels = wide.get_legend_handles_labels()
        # What is drawn last, on top, comes first.
        published = len(PUBLISHED_CURVES)
        order = [*reversed(range(published, len(labels))), *range(published)]
        figure.legend(
            [handles[place] for place in order],
            [labels[place] for place in order],
            loc="outside lower center",
            ncols=2,
        )
        lossless = record["lossless"]
        figure.suptitle(
            f"CIFAR-10 test set, first {record['images']} images; "
            f"lossless at {lossless['mean_bpd']:.2f} bits/dim",
            x=0.01,
            ha="left",
        )
    return figure


def lossless_figure(record: Mapping[str, Any]) -> Figure:
    """Mean lossless size of every codec with its standard error, as bars.

    Args:
        record: what ``python -m benchmarks.measure`` writes to ``cifar10.json``.
    """
    entries = sorted(record["lossless"], key=lambda entry: entry["mean_bpd"], reverse=True)
    with _style():
        figure = Figure(figsize=(7.2, 0.9 + 0.45 * len(entries)), layout="constrained")
        axes = figure.subplots()
        for place, entry in enumerate(entries):
            ours = entry["name"].startswith("diffcodec")
            axes.barh(
                place,
                entry["mean_bpd"],
                xerr=entry["standard_error_bpd"],
                height=0.62,
                color=OURS if ours else "#c8c8c8",
                edgecolor="black",
                linewidth=0.6,
                hatch="//" if ours else None,
                capsize=3,
            )
            axes.text(entry["mean_bpd"] + 0.15, place, f"{entry['mean_bpd']:.2f}", va="center")
        axes.set_yticks(range(len(entries)), [entry["name"] for entry in entries])
        axes.set(
            xlabel="bits/dim, whole files, one an image; bars: standard error",
            title=f"Lossless, CIFAR-10 test set, first {record['images']} images",
        )
        axes.margins(x=0.1)
        axes.grid(visible=False, axis="y")
    return figure


# Results file → the figure's name and what draws it.
DRAWINGS: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Figure]]] = {
    "rd-curve.json": ("rd-curve", rate_distortion_figure),
    "cifar10.json": ("lossless", lossless_figure),
}


def figure_bytes(figure: Figure, image_format: str) -> bytes:
    """A figure's file, ``png`` or ``svg``; the same bytes for a figure drawn anew."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if image_format == "svg" else {"Software": None}
    with _style():
        figure.savefig(buffer, format=image_format, metadata=metadata)
    return buffer.getvalue()


def render(results: Path, out: Path) -> list[Path]:
    """Every figure whose results are in ``results``, as PNG and SVG in ``out``; the files written.

    Raises:
        DiffcodecError: there are no results, or they are not what `DRAWINGS` expects.
    """
    written = []
    for name, (stem, draw) in DRAWINGS.items():
        source = results / name
        if not source.is_file():
            continue
        try:
            figure = draw(json.loads(source.read_text(encoding="utf-8")))
        except (ValueError, KeyError, TypeError) as error:
            raise DiffcodecError(f"{source}: not this figure's results: {error!r}") from error
        out.mkdir(parents=True, exist_ok=True)
        for image_format in FORMATS:
            target = out / f"{stem}.{image_format}"
            target.write_bytes(figure_bytes(figure, image_format))
            written.append(target)
    if not written:
        expected = ", ".join(DRAWINGS)
        raise DiffcodecError(f"{results}: expected at least one of {expected}, found none")
    return written


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw all figures; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plot", description=__doc__)
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--out", type=Path, default=FIGURES, metavar="DIR")
    options = parser.parse_args(arguments)
    try:
        written = render(options.results, options.out)
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


def _style() -> AbstractContextManager[None]:
    parameters: dict[Any, Any] = dict(STYLE)
    return matplotlib.rc_context(parameters)


def _draw_measured(axes: Axes, record: Mapping[str, Any]) -> None:
    curve = record["curve"]
    rates = [point["rate_bpd"] for point in curve]
    theory = record["theory"]
    if theory:
        axes.plot(
            [point["rate_bpd"] for point in theory],
            [point["rmse"] for point in theory],
            color=THEORY,
            linestyle=(0, (1, 1.2)),
            linewidth=1.6,
            label="this model in theory: KL on the finest grid, T = 1000",
        )
    axes.fill_between(
        rates,
        [point["rmse_low"] for point in curve],
        [point["rmse_high"] for point in curve],
        color=OURS,
        alpha=0.22,
        linewidth=0,
    )
    axes.plot(
        rates,
        [point["rmse"] for point in curve],
        color=OURS,
        linewidth=2.4,
        label="diffcodec: real files cut at each packet (band: 95 % interval)",
    )


def _draw_published(axes: Axes) -> None:
    for curve in PUBLISHED_CURVES:
        color, marker, line = PEERS[curve.name]
        meaning = "coded" if curve.coded else "theory"
        axes.plot(
            *zip(*curve.points, strict=True),
            color=color,
            marker=marker,
            markersize=6,
            # Filled where a file was made, open where a perfect coder is supposed.
            markerfacecolor=color if curve.coded else "white",
            linestyle=line,
            linewidth=1.0,
            label=f"{curve.name}, {meaning} ({curve.citation})",
        )


def _round_up(rate_bpd: float) -> float:
    """The next half bit/dim, so that axes end at a round number."""
    return (int(2.0 * rate_bpd) + 1) / 2.0


if __name__ == "__main__":
    raise SystemExit(main())
