"""All figures of the README's table in one run over the first CIFAR-10 test images.

``python -m benchmarks.measure [--images 200] [--jobs 2] [--data PATH] [--out DIR]``

Lossless sizes beside other codecs', exact round trips, the price of the channel code, files made
for fixed budgets, and exactness across thread counts go to ``cifar10.json``; the error at every cut
to ``rd-curve.json``, which ``diffcodec rd-curve`` writes too. Markdown tables go to stdout.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.adapters import lossless_peers
from benchmarks.adapters.base import Pixels
from benchmarks.peers import first_test_images, measure
from benchmarks.plot import RESULTS
from benchmarks.provenance import provenance
from benchmarks.rate_distortion import (
    ThreadCheck,
    Work,
    check_threads,
    default_jobs,
    measure_images,
    summarize,
)
from cli import files
from cli.terminal import Terminal
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS
from diffcodec.errors import DatasetError, DiffcodecError
from diffcodec.model.catalog import find_model, recorded_digest

BUDGETS_BPD = (0.1, 0.2, 0.5, 1.0, 2.0)


def run(
    images: Pixels, model_folder: Path, work: Work, jobs: int, *, threads_check: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two records, ``cifar10.json`` and ``rd-curve.json``, of uint8 [N, H, W, 3], N ≥ 2."""
    terminal = Terminal()
    with terminal.progress("images", len(images)) as advance:
        measurements = measure_images(images, model_folder, work, jobs, lambda _: advance(1))
    checks: list[ThreadCheck] = []
    if threads_check:
        with terminal.progress("thread counts", 4 * len(images)) as advance:
            checks = check_threads(images, model_folder, work, lambda: advance(1))
    summary = summarize(measurements)
    digest = recorded_digest(model_folder).hex()
    common: dict[str, Any] = {
        "provenance": provenance(),
        "model": {"name": model_folder.name, "digest": digest},
        "effort": work.effort,
        "split": "test",
        "images": len(images),
        "pixels_sha256": hashlib.sha256(images.tobytes()).hexdigest(),
    }
    budgets = summary.pop("budgets")
    ours = {
        "name": f"diffcodec, effort {work.effort}",
        "library": f"model {digest[:12]}",
        "images": len(images),
        "mean_bpd": summary["lossless"]["mean_bpd"],
        "standard_error_bpd": summary["lossless"]["standard_error_bpd"],
    }
    table = {
        **common,
        "lossless": [*(asdict(measure(peer, images)) for peer in lossless_peers()), ours],
        "exact_round_trips": summary["lossless"]["exact_round_trips"],
        "stored_files": summary["lossless"]["stored_files"],
        "price": summary["price"],
        "budgets": budgets,
        "thread_check": _count(checks) if threads_check else None,
        "evaluations_mean": summary["evaluations_mean"],
        "encode_seconds_median": summary["encode_seconds_median"],
        "decode_seconds_median": summary["decode_seconds_median"],
    }
    return table, {**common, **summary}


def markdown(table: dict[str, Any]) -> str:
    """The README's tables of a ``cifar10.json`` record, without a last line break."""
    lines = ["| lossless codec | bits/dim |", "| --- | --- |"]
    for entry in table["lossless"]:
        size = f"{entry['mean_bpd']:.3f} ± {entry['standard_error_bpd']:.3f}"
        lines.append(f"| {entry['name']} | {size} |")
    lines += [
        "",
        "| budget, bits/dim | mean size | largest size | RMSE | 95 % interval |",
        "| --- | --- | --- | --- | --- |",
    ]
    for row in table["budgets"]:
        lines.append(
            f"| {row['asked_bpd']:g} | {row['mean_bpd']:.4f} | {row['max_bpd']:.4f} "
            f"| {row['rmse']:.2f} | {row['rmse_low']:.2f} – {row['rmse_high']:.2f} |"
        )
    count, price = table["images"], table["price"]
    facts = [("lossless files that came back exactly", f"{table['exact_round_trips']} of {count}")]
    if price["paid_over_kl"] is not None:
        facts += [
            ("bits paid for a bit of KL", f"{price['paid_over_kl']:.3f}"),
            ("the same, headers included", f"{price['paid_with_headers_over_kl']:.3f}"),
        ]
    if (threads := table["thread_check"]) is not None:
        facts += [
            ("encoded on one thread, exact on two", f"{threads['one_to_two']} of {count}"),
            ("encoded on two threads, exact on one", f"{threads['two_to_one']} of {count}"),
        ]
    seconds = f"{table['encode_seconds_median']:.2f} / {table['decode_seconds_median']:.2f} s"
    facts += [
        ("network evaluations of a lossless file, mean", f"{table['evaluations_mean']:.1f}"),
        ("encode / decode on one thread, median", seconds),
    ]
    lines += ["", "| measured | value |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    description = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=description)
    parser.add_argument("--images", type=int, default=200, metavar="N", help="at least 2")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    parser.add_argument("--effort", type=int, default=DEFAULT_EFFORT, choices=EFFORTS)
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N", help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument(
        "--threads-check",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="encode with one thread and decode with two, and the other way",
    )
    options = parser.parse_args(arguments)
    if options.images < 2 or options.jobs < 1:
        parser.error("expected --images of at least 2 and --jobs of at least 1")
    try:
        folder = find_model(options.model)
        images = first_test_images(options.data, options.images)
        work = Work(options.effort, budgets_bpd=BUDGETS_BPD)
        table, curve = run(images, folder, work, options.jobs, threads_check=options.threads_check)
        options.out.mkdir(parents=True, exist_ok=True)
        for name, record in (("cifar10.json", table), ("rd-curve.json", curve)):
            data = (json.dumps(record, indent=1) + "\n").encode()
            files.write_atomically(options.out / name, data, force=True)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        print("'diffcodec rd-curve --download' fetches CIFAR-10", file=sys.stderr)
        return 1
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(markdown(table))
    return 0


def _count(checks: Sequence[ThreadCheck]) -> dict[str, int]:
    return {
        "images": len(checks),
        "one_to_two": sum(check.one_to_two for check in checks),
        "two_to_one": sum(check.two_to_one for check in checks),
        "same_file": sum(check.same_file for check in checks),
    }


if __name__ == "__main__":
    raise SystemExit(main())
