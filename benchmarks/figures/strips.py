"""What images look like at growing rates, beside other codecs at equal bytes."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.figures.style import style
from diffcodec.units import bits_per_dimension

STRIP_IMAGES = 4
CODECS = ("diffcodec", "JPEG", "AVIF")


def strips_figure(examples: Sequence[Mapping[str, Any]]) -> Figure:
    """Rows of codecs, columns of rates, for each of the first examples.

    Under a picture stand its RMSE and the file's bits/dim; a peer's file is its smallest that has
    not fewer bytes than ours, its constant overhead taken off.

    Args:
        examples: what `benchmarks.examples.measure_example` gives, one an image; at least one
            with a strip.
    """
    shown = [example for example in examples if example["strip"]][:STRIP_IMAGES]
    codecs = [codec for codec in CODECS if codec in shown[0]["strip"][0]]
    # An image whose smallest cut is large has no picture at the lowest rates.
    rates = sorted({cell["rate_bpd"] for example in shown for cell in example["strip"]})
    columns, rows = len(rates) + 1, len(codecs) * len(shown)
    with style():
        figure = Figure(figsize=(1.08 * columns + 0.7, 1.27 * rows + 0.7), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for number, example in enumerate(shown):
            for place, codec in enumerate(codecs):
                line = grid[number * len(codecs) + place]
                for axes in line:
                    axes.set_axis_off()
                _name(line[0], codec)
                for cell in example["strip"]:
                    picture = cell[codec]
                    bpd = bits_per_dimension(8.0 * picture["stream_bytes"], example["dimensions"])
                    column = rates.index(cell["rate_bpd"])
                    _show(line[column], picture["png"], f"{bpd:.2f}: {picture['rmse']:.1f}")
                if place == 0:
                    _show(line[-1], example["original"], "original")
        for axes, rate_bpd in zip(grid[0], rates, strict=False):
            axes.set_title(f"{rate_bpd:g} bits/dim", fontsize=9, loc="center")
        figure.suptitle(
            "Equal bytes; under each: the whole file's bits/dim, and its RMSE.\nPeers: their "
            "smallest file not smaller than ours, the size of their smallest file taken off",
            x=0.01,
            ha="left",
            fontsize=9,
        )
    return figure


def _show(axes: Axes, png: str, caption: str) -> None:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        axes.imshow(np.asarray(image), interpolation="nearest")
    axes.text(0.5, -0.04, caption, transform=axes.transAxes, ha="center", va="top", fontsize=7.5)


def _name(axes: Axes, codec: str) -> None:
    axes.text(-0.08, 0.5, codec, transform=axes.transAxes, ha="right", va="center", rotation=90)
