"""Tables: what one is, and those of the main record."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table as RichTable

from benchmarks.reference import DDPM_CODELENGTH, DDPM_TABLE
from diffcodec.errors import DiffcodecError
from diffcodec.training.dataset import CIFAR10
from diffcodec.units import bits_per_dimension

Record = Mapping[str, Any]
Rows = Sequence[Sequence[str]]

NOT_MEASURED = "not measured in this run"
ABSENT = "–"
NORMAL_95 = 1.96
"""Half the 95 % interval of a normal distribution, in deviations."""


class Table(NamedTuple):
    """A table's head and rows of cells; ``**`` in a cell marks it as ours."""

    head: Sequence[str]
    rows: Rows

    def markdown(self) -> str:
        """Lines without a last line break."""
        lines = [self.head, ["---"] * len(self.head), *self.rows]
        return "\n".join(f"| {' | '.join(line)} |" for line in lines)

    def show(self) -> None:
        """Print it to stdout for people."""
        shown = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False)
        # Heads are broken at every space, so that a row has room.
        for name, *cells in zip(self.head, *self.rows, strict=True):
            width = max(map(len, (*name.split(), *cells)))
            shown.add_column(name, justify="right", width=width)
        for row in self.rows:
            shown.add_row(*row)
        console = Console(highlight=False, markup=False)
        # Rather broken by a narrow terminal than cut off.
        console.width = max(console.width, Console(width=1000).measure(shown).maximum)
        console.print(shown)


def lossless_entries(record: Record) -> list[dict[str, Any]]:
    """Every codec's lossless size, ours last, with ``ours`` and sizes less the overhead."""
    peers = record.get("peers")
    entries = [{**entry, "ours": False} for entry in (peers["lossless"] if peers else ())]
    own = record["lossless"]
    overhead_bpd = bits_per_dimension(8.0 * record["overhead_bytes"], record["dimensions"])
    entries.append(
        {
            "name": f"diffcodec, effort {record['settings']['effort']}",
            "library": f"model {record['model']['digest'][:12]}",
            "images": record["images"],
            **{key: own[key] for key in ("mean_bpd", "low_bpd", "high_bpd", "standard_error_bpd")},
            "overhead_bytes": record["overhead_bytes"],
            "net_bpd": own["mean_bpd"] - overhead_bpd,
            "ours": True,
        }
    )
    return entries


def lossless_table(record: Record) -> Table:
    """Lossless sizes: whole files, and less the codec's smallest file."""
    entries = sorted(lossless_entries(record), key=lambda entry: -entry["mean_bpd"])
    return Table(
        ("lossless codec", "bits/dim", "95 % interval", "less its smallest file"),
        [
            (
                f"**{entry['name']}**" if entry["ours"] else entry["name"],
                f"{entry['mean_bpd']:.3f}",
                _interval(entry["low_bpd"], entry["high_bpd"], 3),
                f"{entry['net_bpd']:.3f} ({entry['overhead_bytes']} bytes)",
            )
            for entry in entries
        ],
    )


def cuts_table(record: Record) -> Table:
    """Every file cut at one length."""
    theory = record.get("theory")
    return Table(
        ("file cut at, bits/dim", "RMSE", "95 % interval", "PSNR, dB", "SSIM", "price", "theory"),
        [
            (
                f"{row['rate_bpd']:g}",
                *_quality(row),
                _number(None if theory is None else _theory_rmse(theory, row["rate_bpd"]), 2),
            )
            for row in record["table"]
        ],
    )


def budgets_table(record: Record) -> Table:
    """Files made for a budget, beside lossless files of the same images cut there."""
    count = record["budgets"][0]["images"]
    return Table(
        (
            *(f"budget, bits/dim ({count} images)", "mean size", "largest size"),
            *("RMSE", "95 % interval", "PSNR, dB", "SSIM", "price", "lossless file cut there"),
        ),
        [
            (
                f"{row['asked_bpd']:g}",
                f"{row['mean_bpd']:.4f}",
                f"{row['max_bpd']:.4f}",
                *_quality(row),
                _number(row["cut_rmse"], 2),
            )
            for row in record["budgets"]
        ],
    )


def stops_table(record: Record) -> Table:
    """Every file stopped at one noise level."""
    stops = record["stops"]
    return Table(
        (
            *("stopped at step", "mean bits/dim", "95 % interval", "RMSE", "95 % interval"),
            *("PSNR, dB", "SSIM", "price"),
        ),
        [
            (
                str(row["step"]),
                f"{row['rate_bpd']:.3f}",
                _interval(row["rate_low_bpd"], row["rate_high_bpd"], 3),
                *_quality(row),
            )
            for row in stops[1::2]
        ],
    )


def facts_table(record: Record) -> Table:
    """Counts and prices."""
    count, price, own = record["images"], record["price"], record["lossless"]
    effort = record["settings"]["effort"]
    exact = [(effort, own["exact_round_trips"], count, own["mean_bpd"])] + [
        (row["effort"], row["exact_round_trips"], row["images"], row["mean_bpd"])
        for row in record.get("round_trips", ())
    ]
    facts = [
        (f"lossless, effort {effort}: came back exactly", f"{back} of {tried}, {size:.3f} bits/dim")
        for effort, back, tried, size in sorted(exact)
    ]
    if price["paid_over_kl"] is not None:
        facts += [
            ("bits paid for a bit of KL", f"{price['paid_over_kl']:.3f}"),
            ("the same, headers included", f"{price['paid_with_headers_over_kl']:.3f}"),
        ]
    if (threads := record.get("thread_check")) is not None:
        images = threads["images"]
        facts += [
            ("encoded on one thread, exact on two", f"{threads['one_to_two']} of {images}"),
            ("encoded on two threads, exact on one", f"{threads['two_to_one']} of {images}"),
        ]
    facts.append(
        ("network evaluations of a lossless file, mean", f"{record['evaluations_mean']:.1f}")
    )
    for entry in record.get("speed", ()):
        if entry["family"] == "diffcodec" and entry["lossless"]:
            seconds = f"{entry['encode_ms'] / 1e3:.2f} / {entry['decode_ms'] / 1e3:.2f} s"
            facts.append(("lossless, encode / decode on one thread, median", seconds))
    return Table(("measured", "value"), facts)


def bd_table(record: Record) -> Table:
    """Bjøntegaard's delta rate against every lossy peer."""
    rows = []
    for family, rates in record["bd_rates"].items():
        row = [family]
        for rate in (rates["whole"], rates["net"]):
            if rate is None:
                row += [ABSENT, "no range in common"]
            else:
                common = _interval(rate["low_db"], rate["high_db"], 1)
                row += [f"{rate['percent']:+.1f} %", f"{common} dB"]
        rows.append(row)
    return Table(("against", "whole files", "over", "both less their smallest file", "over"), rows)


def speed_table(record: Record) -> Table:
    """Time and memory of every codec."""
    return Table(
        ("codec", "encode, ms", "decode, ms", "batch: encode, ms", "decode, ms", "peak, MiB"),
        [
            (
                entry["name"],
                *(
                    _milliseconds(entry[key])
                    for key in ("encode_ms", "decode_ms", "batch_encode_ms", "batch_decode_ms")
                ),
                f"{entry['peak_mib']:.0f}",
            )
            for entry in record["speed"]
        ],
    )


def efforts_table(record: Record) -> Table:
    """Lossless size, evaluations and seconds at every effort."""
    count = record["efforts"][0]["images"]
    return Table(
        (
            *(f"effort ({count} images)", "bits/dim", "price", "evaluations"),
            *("encode, s", "decode, s", "front of times", "front of evaluations"),
        ),
        [
            (
                str(row["effort"]),
                f"{row['mean_bpd']:.3f}",
                _number(row.get("paid_over_kl"), 3),
                f"{row['evaluations_mean']:.1f}",
                f"{row['encode_seconds_median']:.2f}",
                f"{row['decode_seconds_median']:.2f}",
                *("yes" if row[front] else "no" for front in ("front", "front_of_evaluations")),
            )
            for row in record["efforts"]
        ],
    )


def shares_table(record: Record) -> Table:
    """What takes the time of every effort."""
    sides, parts = ("encode", "decode"), tuple(record["efforts"][0]["encode_shares"])
    return Table(
        ("effort", *(f"{side}r: {part}, %" for side in sides for part in parts)),
        [
            (
                str(row["effort"]),
                *(f"{100 * row[f'{side}_shares'][part]:.0f}" for side in sides for part in parts),
            )
            for row in record["efforts"]
        ],
    )


def progressive_table(record: Record) -> Table:
    """DDPM's Table 4, of CIFAR-10 beside ours."""
    rows = []
    ddpm = {steps: (rate, rmse) for steps, rate, rmse in DDPM_TABLE}
    for row in reversed(record["theory"]["rows"]):
        steps = row["steps_decoded"]
        rate, rmse = ddpm[steps]
        rows.append(
            (
                str(steps),
                f"{row['rate_bpd']:.5f}",
                _interval(row["rate_low_bpd"], row["rate_high_bpd"], 5),
                f"{row['rmse']:.2f}",
                _interval(row["rmse_low"], row["rmse_high"], 2),
                f"{rate:.5f}",
                f"{rmse:.2f}",
                _number(_theory_rmse(record["theory"], rate), 2),
            )
        )
    head = (
        *("steps decoded", "rate, bits/dim", "95 % interval", "RMSE", "95 % interval"),
        *("DDPM: rate", "DDPM: RMSE", "this model's RMSE at that rate"),
    )
    columns = len(head) if record["data"] == CIFAR10 else len(head) - 3
    return Table(head[:columns], [row[:columns] for row in rows])


def codelength_table(record: Record) -> Table:
    """The bound by part on test and training images, of CIFAR-10 beside DDPM's."""
    test, train = record["theory"]["codelength"], record.get("train_codelength")
    ddpm = DDPM_CODELENGTH
    parts = (
        ("L_T, prior", "prior", None),
        ("L_1..T, hops of the finest grid", "diffusion", ddpm["diffusion"]),
        ("L_0, pixels", "pixels", ddpm["pixels"]),
        ("total, test", "total", ddpm["test"]),
    )
    rows = [(label, _estimate(test[key]), _number(known, 2)) for label, key, known in parts]
    if train is not None:
        totals = test["total"], train["total"]
        gap = totals[0]["mean_bpd"] - totals[1]["mean_bpd"]
        shown = f"{gap:+.3f}"
        errors = [total["standard_error_bpd"] for total in totals]
        if None not in errors:
            # Of images that have nothing to do with each other.
            half = NORMAL_95 * math.hypot(*errors)
            shown += f" ({gap - half:+.3f} – {gap + half:+.3f})"
        rows += [
            ("total, train", _estimate(train["total"]), f"{ddpm['train']:.2f}"),
            ("gap", shown, f"{ddpm['test'] - ddpm['train']:+.2f}"),
        ]
    counts = f"{test['images']} test"
    if train is not None:
        counts += f", {train['images']} training"
    head = ("codelength, bits/dim", f"this model ({counts} images)", "DDPM, L_simple")
    columns = len(head) if record["data"] == CIFAR10 else len(head) - 1
    return Table(head[:columns], [row[:columns] for row in rows])


def parts_table(record: Record) -> Table:
    """Where the bits of lossless files go."""
    parts = record["breakdown"]
    whole = sum(parts.values())
    hops, last = parts["hops_kl_bpd"], parts["last_stage_ideal_bpd"]
    shown = (
        ("header", "header_bpd", None),
        ("hops: KL", "hops_kl_bpd", None),
        ("hops: paid above it, corrections included", "hops_excess_bpd", hops),
        ("last stage: ideal", "last_stage_ideal_bpd", None),
        (
            "last stage: above it, with its length and both segments' checks",
            "last_stage_excess_bpd",
            last,
        ),
    )
    rows = [
        (
            label,
            f"{parts[key]:.4f}",
            f"{100.0 * parts[key] / whole:.1f} %",
            ABSENT if base is None else f"{100.0 * parts[key] / base:.2f} %",
        )
        for label, key, base in shown
    ]
    return Table(
        ("part", "bits/dim", "of the file", "of the KL or ideal"),
        [*rows, ("whole file", f"{whole:.4f}", "100 %", ABSENT)],
    )


def excess_table(record: Record) -> Table:
    """Hops beside the finest grid at equal steps and at equal error, then the whole files."""
    found = record["excess"]
    rows = []
    for row in found["rows"]:
        fine, same = row["fine_kl_bpd"], row["fine_kl_at_rmse_bpd"]
        rows.append(
            (
                f"{row['step']}, {row['gamma']:.2f}",
                f"{fine:.4f}",
                f"{row['kl_bpd']:.4f}",
                f"{row['paid_bpd']:.4f}",
                f"{row['fine_rmse']:.2f}",
                f"{row['rmse']:.2f}",
                *(_ratio(row[key], same) for key in ("kl_bpd", "paid_bpd")),
            )
        )
    whole = _ratio(found["lossless_bpd"], found["bound_bpd"])
    rows.append(
        (
            *("whole file", f"{found['bound_bpd']:.4f}", ABSENT, f"{found['lossless_bpd']:.4f}"),
            *(ABSENT, "0.00", ABSENT, whole),
        )
    )
    return Table(
        (
            *("down to step, γ", "finest grid, bits/dim", "KL of the hops", "paid"),
            *("RMSE, finest grid", "RMSE of files"),
            *("KL over finest at that RMSE", "paid over it"),
        ),
        rows,
    )


# A table's name → the sections of the record that it needs, and what writes it.
TABLES: Mapping[str, tuple[tuple[str, ...], Callable[[Record], Table]]] = {
    "lossless": (("lossless",), lossless_table),
    "cuts": (("table",), cuts_table),
    "stops": (("stops",), stops_table),
    "budgets": (("budgets",), budgets_table),
    "facts": (("lossless",), facts_table),
    "bd-rates": (("bd_rates",), bd_table),
    "speed": (("speed",), speed_table),
    "efforts": (("efforts",), efforts_table),
    "shares": (("efforts",), shares_table),
    "parts": (("breakdown",), parts_table),
    "excess": (("excess",), excess_table),
    "progressive": (("theory",), progressive_table),
    "codelength": (("theory",), codelength_table),
}


def table(name: str, record: Record) -> Table | None:
    """A table; None where the run has not measured what it shows.

    Raises:
        DiffcodecError: there is no such table.
    """
    if name not in TABLES:
        raise DiffcodecError(f"expected a table of {', '.join(TABLES)}, found {name!r}")
    sections, write = TABLES[name]
    if any(record.get(section) is None for section in sections):
        return None
    return write(record)


def markdown(name: str, record: Record) -> str:
    """A table's lines, or a word that the run has not measured it; no last line break."""
    found = table(name, record)
    return NOT_MEASURED if found is None else found.markdown()


def terminal_table(record: Record) -> str:
    """The cuts, the lossless size and the price as lines for a terminal, no last line break."""
    theory, lossless = record.get("theory"), record["lossless"]
    lines = [f"{'bits/dim':>8}  {'RMSE':>7}  {'95 % interval':>15}  {'theory':>7}"]
    for row in record["table"]:
        known = None if theory is None else _theory_rmse(theory, row["rate_bpd"])
        shown = "" if known is None else f"{known:.2f}"
        interval = _interval(row["rmse_low"], row["rmse_high"], 2)
        lines.append(f"{row['rate_bpd']:8.2f}  {row['rmse']:7.2f}  {interval:>15}  {shown:>7}")
    lines.append("")
    size = f"{lossless['mean_bpd']:.3f}"
    if (error := lossless["standard_error_bpd"]) is not None:
        size += f" ± {error:.3f}"
    lines.append(
        f"lossless: {size} bits/dim, {lossless['exact_round_trips']} of {record['images']} "
        "images exact"
    )
    if (price := record["price"]["paid_over_kl"]) is not None:
        lines.append(f"price: {price:.3f} bits paid for each bit of KL")
    return "\n".join(lines)


def origin(record: Record) -> str:
    """One line on where the record comes from."""
    provenance, images = record["provenance"], record["images"]
    state = " with uncommitted changes" if provenance["dirty"] else ""
    commit = str(provenance["commit"])[:12]
    return (
        f"The first {images} {record['data']} test images; model {record['model']['digest'][:12]}, "
        f"commit {commit}{state}, {provenance['date'][:10]}, {provenance['cpu']}, "
        f"torch {provenance['packages']['torch']}: `{provenance['command']}`"
    )


def _quality(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        f"{row['rmse']:.2f}",
        _interval(row["rmse_low"], row["rmse_high"], 2),
        _number(row["psnr_db"], 2),
        _number(row["ssim"], 3),
        _number(row["paid_over_kl"], 3),
    )


def _interval(low: float, high: float, digits: int) -> str:
    return f"{low:.{digits}f} – {high:.{digits}f}"


def _estimate(part: Mapping[str, Any]) -> str:
    interval = _interval(part["low_bpd"], part["high_bpd"], 3)
    return f"{part['mean_bpd']:.3f} ({interval})"


def _number(value: float | None, digits: int) -> str:
    return ABSENT if value is None else f"{value:.{digits}f}"


def _ratio(value: float, base: float | None) -> str:
    return f"{value / base:.3f}" if base else ABSENT


def _milliseconds(value: float) -> str:
    """Three digits, and never an exponent."""
    return f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"


def _theory_rmse(theory: Mapping[str, Any], rate_bpd: float) -> float | None:
    """The theoretical RMSE at a rate, log-linear between steps; None beyond the curve's end."""
    rates, errors = theory["rate_bpd"], theory["rmse"]
    if rate_bpd > rates[-1]:
        return None
    return float(np.exp(np.interp(rate_bpd, rates, np.log(errors))))
