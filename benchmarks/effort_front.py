"""What effort levels are chosen from: ``python -m benchmarks.effort_front [--images N] [--jobs N]``

Held-out CIFAR-10 images are coded without loss at every setting of a grid, and at the levels that
there are. ``effort-front.json`` and the table on stdout have each setting's mean bits/dim, its
evaluations and the median seconds of encoder and decoder on one thread; whether it is on the front,
where no other is as good in size and times and better in one, or in size and evaluations; and the
level that it is. ``--resume``
goes on with an interrupted run. Processes that run side by side slow each other: times are for
comparison within one run.
"""

import argparse
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from benchmarks import campaign, held_out
from benchmarks.adapters.base import Pixels
from benchmarks.efforts import EffortFile, mark_front, measure_effort, summarize_effort
from benchmarks.held_out import Subject
from benchmarks.tables import Table
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS, Effort, effort_level
from diffcodec.codec.effort import GROWTH_INDICES as GROWTH_RANGE
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.coding.channel import CHANNEL_CODES
from diffcodec.model.pixel_order import RANKS

RESULT = "effort-front.json"
GROWTH_INDICES = (63, 40, 28, 19, 13, 10, 7, 4)
GROUPS = (1, 2, 4, 8, 16)


def settings_to_try(
    growth_indices: Iterable[int] = GROWTH_INDICES,
    codes: Iterable[int] = tuple(CHANNEL_CODES),
    groups: Iterable[int] = GROUPS,
) -> list[Effort]:
    """A grid of growth, channel code and groups, and the levels that there are, each once."""
    parts = effort_level(DEFAULT_EFFORT).plan.parts
    grid = itertools.product(growth_indices, codes, groups)
    tried = [Effort(PlanConfig(growth, parts, code_id), count) for growth, code_id, count in grid]
    levels = [effort_level(effort) for effort in EFFORTS]
    return list(dict.fromkeys([*tried, *levels]))


@dataclass(eq=False)
class SettingWork:
    """One setting of one image; travels to worker processes, each of which loads the model once."""

    subject: Subject
    settings: Sequence[Effort]

    @cached_property
    def model(self) -> CodecModel:
        """The model, once every code has made what a process makes once."""
        for setting in {setting.plan.code_id: setting for setting in self.settings}.values():
            measure_effort(self.subject.images[0], self.subject.model, setting)
        return self.subject.model

    def __call__(self, item: str) -> Any:
        """The file of ``image/setting``, both by number, ready for JSON."""
        image, setting = map(int, item.split("/"))
        pixels = self.subject.images[image]
        return measure_effort(pixels, self.model, self.settings[setting]).to_json()

    def items(self) -> list[str]:
        """Image by image, so that a machine's slower hours are no setting's alone."""
        places = itertools.product(range(len(self.subject.images)), range(len(self.settings)))
        return [f"{image}/{setting}" for image, setting in places]


def rows(settings: Sequence[Effort], results: campaign.Results, images: Pixels) -> list[Any]:
    """One row a setting, fastest encoder first, ready for JSON; ``level`` is None for no level's.

    Args:
        results: of `SettingWork`, by item.
        images: uint8 [N, H, W, C].
    """
    levels = {effort_level(effort): effort for effort in EFFORTS}
    table = []
    for place, setting in enumerate(settings):
        entries = [results[f"{image}/{place}"] for image in range(len(images))]
        summary = summarize_effort([EffortFile.from_json(e) for e in entries], images[0].size)
        table.append(
            {"setting": asdict(setting), "level": levels.get(setting), **summary},
        )
    mark_front(table)
    return sorted(table, key=lambda row: row["encode_seconds_median"])


def best_table(record: Mapping[str, Any]) -> Table:
    """The settings of a record that are on a front or a level's."""
    fronts = ("front", "front_of_evaluations")
    rows = record["rows"]
    return front_table([row for row in rows if row["level"] or any(row[name] for name in fronts)])


def groups_table(record: Mapping[str, Any]) -> Table:
    """Size, evaluations and seconds by the number of groups, where a plan was tried with all."""
    found: dict[tuple[int, int], dict[int, str]] = {}
    for row in record["rows"]:
        plan, groups = row["setting"]["plan"], row["setting"]["groups"]
        seconds = "{encode_seconds_median:.2f} / {decode_seconds_median:.2f} s".format(**row)
        cell = f"{row['mean_bpd']:.3f}, {row['evaluations_mean']:.1f}, {seconds}"
        found.setdefault((plan["growth_index"], plan["code_id"]), {})[groups] = cell
    whole = {plan: cells for plan, cells in sorted(found.items()) if cells.keys() >= set(GROUPS)}
    heads = (f"growth index {growth}, code {code}" for growth, code in whole)
    return Table(
        ("groups", *heads),
        [(str(groups), *(cells[groups] for cells in whole.values())) for groups in GROUPS],
    )


def front_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Settings, sizes and seconds, ``yes`` on the front."""
    flat = [{**row["setting"]["plan"], **row["setting"]} for row in rows]
    names = [name for name in flat[0] if name != "plan"]
    return Table(
        (
            *(name.replace("_", " ") for name in names),
            *("bits/dim", "evaluations", "encode, s", "decode, s"),
            *("front of times", "front of evaluations", "level"),
        ),
        [
            (
                *(str(setting[name]) for name in names),
                f"{row['mean_bpd']:.4f}",
                f"{row['evaluations_mean']:.1f}",
                f"{row['encode_seconds_median']:.2f}",
                f"{row['decode_seconds_median']:.2f}",
                "yes" if row["front"] else "",
                "yes" if row["front_of_evaluations"] else "",
                "" if row["level"] is None else str(row["level"]),
            )
            for row, setting in zip(rows, flat, strict=True)
        ],
    )


def _allowed(name: str) -> Collection[int]:
    """What a file's header can name."""
    return {"growth": GROWTH_RANGE, "code": CHANNEL_CODES, "groups": range(1, RANKS + 1)}[name]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.effort_front",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    held_out.add_options(parser, images=16)
    held_out.add_run_options(parser)
    for name, numbers, meaning in (
        ("growth", GROWTH_INDICES, "growth indices"),
        ("code", CHANNEL_CODES, "channel codes"),
        ("groups", GROUPS, "groups of pixels"),
    ):
        parser.add_argument(
            f"--{name}",
            type=int,
            nargs="+",
            choices=_allowed(name),
            default=list(numbers),
            metavar="N",
            help=f"{meaning} of the grid",
        )
    options = parser.parse_args(arguments)
    if options.images < 1 or options.jobs < 1:
        parser.error("expected --images and --jobs of at least 1")

    def measure(subject: Subject) -> dict[str, Any]:
        settings = settings_to_try(options.growth, options.code, options.groups)
        work = SettingWork(subject, settings)
        tried = [asdict(setting) for setting in settings]
        origin, results = held_out.run_items(options, RESULT, subject, work, work.items(), tried)
        return {"provenance": origin, "rows": rows(settings, results, subject.images)}

    return held_out.run(options, RESULT, measure, lambda record: front_table(record["rows"]).show())


if __name__ == "__main__":
    raise SystemExit(main())
