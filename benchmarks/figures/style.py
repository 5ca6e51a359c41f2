"""One style for all figures: legible in grey, the same bytes for the same results.

Colours are Okabe and Ito's. Measured on real files: solid lines, filled markers. Published: dashed
lines. What a perfect coder would pay: open markers, dotted lines.
"""

import io
from collections.abc import Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import matplotlib
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter

FORMATS = ("png", "svg")
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
    "legend.fontsize": 8.5,
    "figure.dpi": 100,
    "savefig.dpi": 160,
    "svg.fonttype": "path",
    # Fixed identifiers: the same results give the same bytes.
    "svg.hashsalt": "diffcodec",
}
OURS, THEORY, OTHERS = "#0072b2", "#000000", "#c8c8c8"
DOTTED = (0, (1, 1.2))


class Look(NamedTuple):
    """How a curve is drawn."""

    color: str
    marker: str


# A codec's look is its own in every figure; markers tell them apart in grey.
LOOKS: Mapping[str, Look] = {
    "JPEG": Look("#d55e00", "s"),
    "JPEG 2000": Look("#cc79a7", "P"),
    "WebP": Look("#009e73", "^"),
    "AVIF": Look("#e69f00", "D"),
    "HEIC": Look("#8c6d1f", "v"),
    "JPEG XL": Look("#56b4e9", "o"),
    "BPG": Look("#8c6d1f", "<"),
    "UQDM": Look("#555555", "X"),
    "VDM": Look("#555555", "v"),
    "DDPM": Look("#555555", "o"),
}


def style() -> AbstractContextManager[None]:
    """A context in which figures are drawn and saved."""
    parameters: dict[Any, Any] = dict(STYLE)
    return matplotlib.rc_context(parameters)


def figure_bytes(figure: Figure, image_format: str) -> bytes:
    """A figure's file, ``png`` or ``svg``; the same bytes for a figure drawn anew."""
    buffer = io.BytesIO()
    metadata = {"Date": None} if image_format == "svg" else {"Software": None}
    with style():
        figure.savefig(buffer, format=image_format, metadata=metadata)
    return buffer.getvalue()


def plain_ticks(axis: Axis, ticks: list[float]) -> None:
    """A logarithmic axis with these ticks, written as plain numbers."""
    axis.set_ticks(ticks)
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def caption(record: Mapping[str, Any], images: int | None = None) -> str:
    """What was measured, for titles."""
    count = record["images"] if images is None else images
    data = record["data"]
    return f"{data} test set, first {count} images" if count > 1 else f"first {data} test image"
