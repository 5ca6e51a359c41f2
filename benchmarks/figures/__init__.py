"""Figures from stored results; nothing is encoded here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.lossless import efforts_figure, lossless_figure
from benchmarks.figures.rate_distortion import peers_figure, rate_distortion_figure
from benchmarks.figures.steps import bits_figure, progressive_figure
from benchmarks.figures.strips import strips_figure

Record = Mapping[str, Any]

# A figure's name → the sections of the record that it needs, and what draws it.
RECORD_FIGURES: Mapping[str, tuple[tuple[str, ...], Callable[[Record], Figure]]] = {
    "rd-curve": (("stops", "cuts"), rate_distortion_figure),
    "rd-peers": (("stops", "peers"), peers_figure),
    "lossless": (("lossless",), lossless_figure),
    "progressive": (("theory",), progressive_figure),
    "bits-by-step": (("theory", "ledger", "breakdown"), bits_figure),
    "efforts": (("efforts",), efforts_figure),
}
STRIPS = "strips"


def draw(record: Record, examples: Sequence[Mapping[str, Any]]) -> dict[str, Figure]:
    """Every figure that these results are enough for, by name."""
    figures = {
        name: function(record)
        for name, (sections, function) in RECORD_FIGURES.items()
        if all(record.get(section) is not None for section in sections)
    }
    if any(example["strip"] for example in examples):
        figures[STRIPS] = strips_figure(examples)
    return figures
