"""What the channel codes and their rivals charge."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

from benchmarks.figures.style import OURS, Look, plain_ticks, style

Record = Mapping[str, Any]

# Ours in one colour and filled, the others open: kinds of rivals share a colour.
TRELLIS_MARKERS = ("o", "s", "^", "D")
RIVALS: Mapping[str, Look] = {
    "exact PFR": Look("#000000", "v"),
    "truncated PFR": Look("#d55e00", "P"),
    "random codebook": Look("#009e73", "X"),
}
RIVAL_LINES = ("--", "-.", ":")


def channel_codes_figure(record: Record) -> Figure:
    """Price less one against bits paid and against the encoder's time a bit.

    Args:
        record: what ``python -m benchmarks.channel_comparison`` writes.
    """
    names = list(dict.fromkeys(row["code"] for row in record["rows"]))
    seen = dict.fromkeys(("trellis", *RIVALS), 0)
    with style():
        figure = Figure(figsize=(9.6, 5.2), layout="constrained")
        by_bits, by_time = figure.subplots(1, 2, sharey=True)
        for name in names:
            kind = next(kind for kind in seen if name.startswith(kind))
            place, ours = seen[kind], kind == "trellis"
            seen[kind] += 1
            look = Look(OURS, TRELLIS_MARKERS[place % 4]) if ours else RIVALS[kind]
            rows = [row for row in record["rows"] if row["code"] == name]
            bits = [row["paid_bits"] for row in rows]
            micros = [1e3 * row["milliseconds"] / row["paid_bits"] for row in rows]
            for axes, values in ((by_bits, bits), (by_time, micros)):
                axes.errorbar(
                    values,
                    [row["price"] - 1.0 for row in rows],
                    yerr=[2 * row["standard_error"] for row in rows],
                    color=look.color,
                    marker=look.marker,
                    markersize=5,
                    markerfacecolor=look.color if ours else "white",
                    linestyle="-" if ours else RIVAL_LINES[place % 3],
                    linewidth=1.5 if ours else 1.0,
                    label=name,
                )
        by_bits.set(
            xscale="log",
            yscale="log",
            ylim=(0.03, 2.0),
            xlabel="bits paid for a vector and packet",
            ylabel="bits paid/KL bought, less one",
        )
        by_time.set(xscale="log", xlabel="encoder, µs a bit on one core")
        plain_ticks(by_bits.yaxis, [0.05, 0.1, 0.2, 0.5, 1, 2])
        plain_ticks(by_bits.xaxis, sorted({row["budget_bits"] for row in record["rows"]}))
        handles, labels = by_bits.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        by_bits.set_title(
            f"{record['vectors']} δ vectors of {record['images']} held-out images; "
            "bars: two standard errors"
        )
    return figure
