"""The default plan beside the finest that a file can name: ``python -m benchmarks.finest_plan``.

Held-out CIFAR-10 images are coded without loss with both, all else equal. Files stopped at one step
of the grid give a mean rate and an RMSE each; at the default plan's RMSE the finest plan's rate is
read from its own stops, log-linear between them. Evaluations are those of whole files, and of files
for a budget of 1 bit/dim. Results go to ``finest-plan.json``, a table to stdout.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from benchmarks import campaign, held_out
from benchmarks.held_out import Subject
from benchmarks.real_files import FileMeasurement, measure_file, summarize_files
from benchmarks.tables import Table
from diffcodec.bitstream.header import FINEST_STEPS
from diffcodec.codec.effort import DEFAULT_EFFORT, Effort, effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel

RESULT = "finest-plan.json"
BUDGET_BPD = 1.0
SHOWN_STEPS = range(FINEST_STEPS - 100, 0, -100)
FINEST_GROWTH = 0

_DEFAULT = effort_level(DEFAULT_EFFORT)
PLANS: Mapping[str, Effort] = {
    "default": _DEFAULT,
    "finest": replace(_DEFAULT, plan=replace(_DEFAULT.plan, growth_index=FINEST_GROWTH)),
}


@dataclass(eq=False)
class PlanWork:
    """One image with one plan; travels to worker processes, each of which loads the model once."""

    subject: Subject

    @cached_property
    def model(self) -> CodecModel:
        """The model."""
        return self.subject.model

    def __call__(self, item: str) -> Any:
        """The files of ``plan/image``, ready for JSON."""
        plan, _, image = item.partition("/")
        pixels, effort = self.subject.images[int(image)], PLANS[plan]
        budget = EncoderSettings.for_effort(effort, bpd=BUDGET_BPD)
        return {
            "file": measure_file(item, pixels, self.model, effort, every_packet=False).to_json(),
            "budget_evaluations": encode_image(pixels, self.model, budget).evaluations,
        }


def compare(results: campaign.Results, images: int) -> dict[str, Any]:
    """Both plans' sizes and evaluations, and their rates at the default's errors."""
    stops: dict[str, list[dict[str, Any]]] = {}
    found: dict[str, Any] = {}
    for plan in PLANS:
        entries = [results[f"{plan}/{image}"] for image in range(images)]
        files = [FileMeasurement.from_json(entry["file"]) for entry in entries]
        summary = summarize_files(files, overhead=0)
        # Stored pixels are exact at every stop, and have no logarithm.
        stops[plan] = [row for row in summary["stops"] if row["rmse"] > 0.0]
        found[plan] = {
            "lossless_bpd": summary["lossless"]["mean_bpd"],
            "evaluations_mean": summary["evaluations_mean"],
            "budget_evaluations_mean": float(
                np.mean([entry["budget_evaluations"] for entry in entries])
            ),
        }
    # Errors fall along the stops; interpolation wants them to rise.
    fine_rmse = np.log([row["rmse"] for row in stops["finest"]])[::-1]
    fine_rate = np.log([row["rate_bpd"] for row in stops["finest"]])[::-1]
    rows = []
    for row in stops["default"]:
        if not fine_rmse[0] <= np.log(row["rmse"]) <= fine_rmse[-1]:
            continue
        fine = float(np.exp(np.interp(np.log(row["rmse"]), fine_rmse, fine_rate)))
        rows.append(
            {
                **{key: row[key] for key in ("step", "rate_bpd", "rmse")},
                "finest_rate_bpd": fine,
                "rate_ratio": row["rate_bpd"] / fine,
            }
        )
    return {"budget_bpd": BUDGET_BPD, "plans": found, "rows": rows}


def plans_table(record: Mapping[str, Any]) -> Table:
    """Rates of both plans at the default's errors, then whole files and evaluations."""
    plans = record["plans"]

    def line(label: str, key: str, digits: int) -> tuple[str, ...]:
        values = [plans[plan][key] for plan in PLANS]
        shown = (f"{value:.{digits}f}" for value in values)
        return label, *shown, f"{values[0] / values[1]:.3f}"

    rows = [
        (
            f"bits/dim at RMSE {row['rmse']:.2f}, step {row['step']}",
            f"{row['rate_bpd']:.4f}",
            f"{row['finest_rate_bpd']:.4f}",
            f"{row['rate_ratio']:.3f}",
        )
        for row in record["rows"]
        if row["step"] in SHOWN_STEPS
    ]
    return Table(
        ("", *PLANS, "ratio"),
        [
            *rows,
            line("bits/dim, lossless", "lossless_bpd", 4),
            line(f"evaluations, {record['budget_bpd']:g} bit/dim", "budget_evaluations_mean", 1),
            line("evaluations, lossless", "evaluations_mean", 1),
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.finest_plan",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    held_out.add_options(parser, images=24)
    held_out.add_run_options(parser)
    options = parser.parse_args(arguments)
    if options.images < 2 or options.jobs < 1:
        parser.error("expected --images of at least 2 and --jobs of at least 1")

    def measure(subject: Subject) -> dict[str, Any]:
        count = len(subject.images)
        items = [f"{plan}/{image}" for plan in [*PLANS][::-1] for image in range(count)]
        plans = {plan: asdict(effort) for plan, effort in PLANS.items()}
        work = PlanWork(subject)
        origin, results = held_out.run_items(options, RESULT, subject, work, items, plans)
        return {"provenance": origin, **compare(results, count)}

    return held_out.run(options, RESULT, measure, lambda record: plans_table(record).show())


if __name__ == "__main__":
    raise SystemExit(main())
