"""DDPM's Figure 5 for this model, and where the bits of a file go."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.figures.style import DOTTED, LOOKS, OURS, THEORY, caption, style
from benchmarks.reference import DDPM_TABLE
from diffcodec.training.dataset import CIFAR10

Record = Mapping[str, Any]

# Parts of a lossless file, from its beginning: key, label, colour, hatch.
PARTS = (
    ("header_bpd", "header", "#000000", None),
    ("hops_kl_bpd", "hops: their KL", "#0072b2", "//"),
    ("hops_excess_bpd", "hops: paid above it", "#56b4e9", None),
    ("last_stage_ideal_bpd", "pixels: ideal", "#e69f00", "\\\\"),
    ("last_stage_excess_bpd", "pixels: paid above it, checks", "#d55e00", None),
)


def progressive_figure(record: Record) -> Figure:
    """Distortion and rate against reverse steps, and against each other (DDPM, Figure 5)."""
    theory, ledger = record["theory"], record["ledger"]
    last = theory["step"][0]
    decoded = [last - step for step in theory["step"]]
    with style():
        figure = Figure(figsize=(9.6, 3.9), layout="constrained")
        distortion, rate, both = figure.subplots(1, 3)
        panels = (
            (distortion, decoded, theory["rmse"]),
            (rate, decoded, theory["rate_bpd"]),
            (both, theory["rate_bpd"], theory["rmse"]),
        )
        for axes, across, up in panels:
            axes.plot(
                across,
                up,
                color=THEORY,
                linestyle=DOTTED,
                linewidth=1.6,
                label="this model in theory, T = 1000",
            )
        if ledger is not None:
            steps = [last - step for step in ledger["step"]]
            look: dict[str, Any] = {"color": OURS, "linewidth": 2.0, "label": "real files' hops"}
            distortion.plot(steps, ledger["rmse"], **look)
            rate.plot(steps, ledger["paid_bpd"], **look)
            both.plot(ledger["paid_bpd"], ledger["rmse"], **look)
        if record["data"] == CIFAR10:
            _draw_ddpm(distortion, rate, both)
        distortion.set(xlabel="reverse steps, T − t", ylabel="RMSE, 0–255 scale", ylim=(0, 80))
        rate.set(xlabel="reverse steps, T − t", ylabel="rate, bits/dim")
        both.set(
            xlabel="rate, bits/dim", ylabel="RMSE, 0–255 scale", xlim=(-0.05, 2.0), ylim=(0, 80)
        )
        handles, labels = distortion.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3)
        figure.suptitle(f"Progressive coding, {caption(record)}", x=0.01, ha="left")
    return figure


def bits_figure(record: Record) -> Figure:
    """Bits of each step, in theory and paid, and the parts of a lossless file."""
    with style():
        figure = Figure(figsize=(9.6, 4.2), layout="constrained")
        steps, whole = figure.subplots(1, 2, width_ratios=(1.7, 1.0))
        _draw_hops(steps, record)
        _draw_parts(whole, record["breakdown"])
        figure.suptitle(f"Where the bits go, {caption(record)}", x=0.01, ha="left")
    return figure


def _draw_hops(axes: Axes, record: Record) -> None:
    theory, ledger = record["theory"], record["ledger"]
    axes.plot(
        theory["step"][1:],
        theory["hop_bpd"][1:],
        color=THEORY,
        linestyle=DOTTED,
        linewidth=1.6,
        label="L_t of the finest grid",
    )
    for key, label, line in (("kl_bpd", "KL of files' hops", "--"), ("paid_bpd", "paid", "-")):
        told = np.array(ledger[key])
        at = np.array(ledger["step"])
        # Falling steps, rising totals; each difference is drawn over the steps that it is of.
        per_step = np.diff(told) / -np.diff(at)
        axes.stairs(
            per_step[::-1],
            at[::-1],
            baseline=None,
            color=OURS,
            linestyle=line,
            linewidth=1.6,
            label=f"{label}, a step",
        )
    axes.set(
        yscale="log",
        xlim=(theory["step"][0], 0),
        xlabel="step t",
        ylabel="bits/dim a step",
        title="hops",
    )
    axes.legend(loc="upper left")


def _draw_parts(axes: Axes, parts: Mapping[str, float]) -> None:
    total = 0.0
    for key, label, color, hatch in PARTS:
        share = parts[key]
        axes.bar(
            0,
            share,
            bottom=total,
            width=0.6,
            color=color,
            hatch=hatch,
            edgecolor="white",
            linewidth=0.6,
            label=f"{label}: {share:.3f}",
        )
        total += share
    axes.set(xlim=(-0.4, 2.6), xticks=[], ylabel="bits/dim", title=f"lossless: {total:.3f}")
    axes.grid(visible=False, axis="x")
    handles, labels = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(0.27, 0.5))


def _draw_ddpm(distortion: Axes, rate: Axes, both: Axes) -> None:
    steps, rates, errors = zip(*DDPM_TABLE, strict=True)
    for axes, across, up in (
        (distortion, steps, errors),
        (rate, steps, rates),
        (both, rates, errors),
    ):
        axes.plot(
            across,
            up,
            color=LOOKS["DDPM"].color,
            marker=LOOKS["DDPM"].marker,
            markerfacecolor="white",
            linestyle="none",
            label="DDPM, its Table 4, its own schedule (Ho, Jain and Abbeel 2020)",
        )
