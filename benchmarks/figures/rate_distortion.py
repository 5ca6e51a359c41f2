"""RMSE and PSNR against bits/dim: ours, other codecs on the same images, published points."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.bd_rate import front
from benchmarks.figures.style import DOTTED, LOOKS, OURS, THEORY, caption, plain_ticks, style
from benchmarks.reference import PUBLISHED_CURVES
from diffcodec.training.dataset import CIFAR10
from diffcodec.units import bits_per_dimension

Record = Mapping[str, Any]

LOWEST_RATE_BPD, HIGHEST_LINEAR_BPD, HIGHEST_LINEAR_RMSE = 0.03, 3.0, 15.0
LOWEST_RMSE, HIGHEST_RMSE = 0.5, 40.0
LOWEST_PSNR_DB, HIGHEST_PSNR_DB = 18.0, 48.0
# Lines that the main figure shows of the codecs measured; `peers_figure` shows them all.
MAIN_FAMILIES = ("JPEG", "AVIF", "WebP", "JPEG XL")


def rate_distortion_figure(record: Record) -> Figure:
    """RMSE against bits/dim: log-log over all rates, and linear up to 3 bits/dim.

    Args:
        record: what ``python -m benchmarks.measure`` or ``diffcodec rd-curve`` writes.
    """
    with style():
        figure = Figure(figsize=(9.6, 6.0), layout="constrained")
        wide, close = figure.subplots(1, 2)
        for axes in (wide, close):
            _draw_theory(axes, record)
            if record["data"] == CIFAR10:
                _draw_published(axes)
            for family in _families(record):
                if family["family"] in MAIN_FAMILIES:
                    _draw_family(axes, family, "mean_bpd", "rmse")
            _draw_ours(axes, record)
            axes.set_xlabel("rate, bits/dim, whole files")
        wide.set(
            xscale="log",
            yscale="log",
            xlim=(LOWEST_RATE_BPD, _round_up(record["lossless"]["mean_bpd"])),
            ylim=(LOWEST_RMSE, HIGHEST_RMSE),
            ylabel="RMSE of the images, 0–255 scale",
            title="all rates, logarithmic",
        )
        plain_ticks(wide.xaxis, [0.03, 0.1, 0.3, 1, 3])
        plain_ticks(wide.yaxis, [0.5, 1, 2, 5, 10, 20, 40])
        close.set(
            xlim=(0, HIGHEST_LINEAR_BPD),
            ylim=(0, HIGHEST_LINEAR_RMSE),
            title=f"up to {HIGHEST_LINEAR_BPD:g} bits/dim, linear",
        )
        handles, labels = wide.get_legend_handles_labels()
        # What is drawn last, on top, comes first.
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=2)
        _title(figure, record)
    return figure


def peers_figure(record: Record) -> Figure:
    """PSNR against bits/dim beside every codec measured: whole files, and less their overhead."""
    with style():
        figure = Figure(figsize=(9.6, 5.0), layout="constrained")
        whole, net = figure.subplots(1, 2, sharey=True)
        for axes, rate in ((whole, "mean_bpd"), (net, "net_bpd")):
            for family in _families(record):
                _draw_family(axes, family, rate, "psnr_db")
            overhead_bpd = bits_per_dimension(8.0 * record["overhead_bytes"], record["dimensions"])
            _draw_stops(axes, record, 0.0 if rate == "mean_bpd" else overhead_bpd, "psnr_db")
            axes.set(
                xscale="log",
                xlim=(LOWEST_RATE_BPD, _round_up(record["lossless"]["mean_bpd"])),
                ylim=(LOWEST_PSNR_DB, HIGHEST_PSNR_DB),
                xlabel="rate, bits/dim",
            )
            plain_ticks(axes.xaxis, [0.03, 0.1, 0.3, 1, 3])
        whole.set(title="whole files", ylabel="PSNR of the images' pooled RMSE, dB")
        net.set(title="less the size of each codec's smallest file")
        handles, labels = whole.get_legend_handles_labels()
        figure.legend(handles[::-1], labels[::-1], loc="outside lower center", ncols=4)
        _title(figure, record)
    return figure


def _title(figure: Figure, record: Record) -> None:
    size = f"lossless at {record['lossless']['mean_bpd']:.2f} bits/dim"
    figure.suptitle(f"{caption(record)}; {size}", x=0.01, ha="left")


def _families(record: Record) -> Sequence[Mapping[str, Any]]:
    peers = record.get("peers")
    return peers["lossy"] if peers is not None else ()


def _draw_family(axes: Axes, family: Mapping[str, Any], rate: str, quality: str) -> None:
    look = LOOKS[family["family"]]
    # A front of (rate, PSNR) is one of (rate, −RMSE) too.
    known = [p for p in family["points"] if p[rate] > 0.0 and p["psnr_db"] is not None]
    shown = front([(p[rate], p["psnr_db"]) for p in known])
    columns = [(p[rate], p[quality]) for p in known if (p[rate], p["psnr_db"]) in shown]
    axes.plot(
        *zip(*sorted(columns), strict=True),
        color=look.color,
        marker=look.marker,
        markersize=4.5,
        linewidth=1.2,
        label=f"{family['family']}, measured",
    )


def _draw_ours(axes: Axes, record: Record) -> None:
    cuts = record["cuts"]
    axes.plot(
        [point["rate_bpd"] for point in cuts],
        [point["rmse"] for point in cuts],
        color=OURS,
        linewidth=1.0,
        linestyle="-.",
        label="diffcodec, every file cut at one length",
    )
    _draw_stops(axes, record, 0.0, "rmse")


def _draw_stops(axes: Axes, record: Record, overhead_bpd: float, quality: str) -> None:
    stops = [
        point
        for point in record["stops"]
        if point["rate_bpd"] > overhead_bpd and point["psnr_db"] is not None
    ]
    rates = [point["rate_bpd"] - overhead_bpd for point in stops]
    if quality == "rmse":
        axes.fill_between(
            rates,
            [point["rmse_low"] for point in stops],
            [point["rmse_high"] for point in stops],
            color=OURS,
            alpha=0.22,
            linewidth=0,
        )
    band = " (band: 95 % interval)" if quality == "rmse" else ""
    axes.plot(
        rates,
        [point[quality] for point in stops],
        color=OURS,
        linewidth=2.4,
        label=f"diffcodec, every file stopped at one noise level{band}",
    )


def _draw_theory(axes: Axes, record: Record) -> None:
    theory = record.get("theory")
    if theory is None:
        return
    axes.plot(
        theory["rate_bpd"],
        theory["rmse"],
        color=THEORY,
        linestyle=DOTTED,
        linewidth=1.6,
        label="this model in theory: KL on the finest grid, T = 1000",
    )


def _draw_published(axes: Axes) -> None:
    for curve in PUBLISHED_CURVES:
        look = LOOKS[curve.name]
        meaning = "coded" if curve.coded else "theory"
        # DDPM's table has no rows between 0.12 and 1.78 bits/dim, where its curve is far from a
        # straight line: its points are not joined.
        axes.plot(
            *zip(*curve.points, strict=True),
            color=look.color,
            marker=look.marker,
            markersize=6,
            markerfacecolor=look.color if curve.coded else "white",
            linestyle="none" if curve.name == "DDPM" else "--",
            linewidth=1.0,
            label=f"{curve.name}, {meaning} ({curve.citation})",
        )


def _round_up(rate_bpd: float) -> float:
    """The next half bit/dim, so that axes end at a round number."""
    return (int(2.0 * rate_bpd) + 1) / 2.0
