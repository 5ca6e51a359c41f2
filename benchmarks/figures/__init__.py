"""Figures from stored results; nothing is encoded here."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.channel_codes import channel_codes_figure
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
CHANNEL_CODES = "channel-codes"


def draw(
    record: Record, examples: Sequence[Mapping[str, Any]], channel_codes: Record | None = None
) -> dict[str, Figure]:
    """Every figure that these results are enough for, by name."""
    figures = {
        name: function(record)
        for name, (sections, function) in RECORD_FIGURES.items()
        if all(record.get(section) is not None for section in sections)
    }
    if any(example["strip"] for example in examples):
        figures[STRIPS] = strips_figure(examples)
    if channel_codes is not None:
        figures[CHANNEL_CODES] = channel_codes_figure(channel_codes)
    return figures
