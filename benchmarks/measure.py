"""The whole measurement in one run: ``python -m benchmarks.measure [--images 1000] [--jobs 2]``.

Real files of the first CIFAR-10 test images at every rate, other codecs on the same images, the
model's theoretical curve and codelength, files for budgets, efforts, speed, thread counts and
examples go to ``cifar10.json`` and ``examples.json``, from which figures, tables and the report
are drawn. ``torchrun --nproc-per-node 2 -m benchmarks.measure --jobs 1`` shares the images among
processes and machines.
"""

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import campaign, inputs
from benchmarks.adapters import overhead_bytes
from benchmarks.adapters.base import Pixels
from benchmarks.adapters.diffcodec_file import Diffcodec
from benchmarks.efforts import EffortFile, measure_effort, summarize_efforts
from benchmarks.examples import measure_example
from benchmarks.excess import summarize_excess
from benchmarks.inputs import first_images, split_digest
from benchmarks.peers import bd_rates, measure_peers, summarize_peers
from benchmarks.provenance import provenance
from benchmarks.real_files import (
    BUDGETS_BPD,
    BudgetFile,
    FileMeasurement,
    measure_budgets,
    measure_file,
    summarize_budgets,
    summarize_files,
)
from benchmarks.results import EXAMPLES, RECORD, RESULTS, dumps, refuse_overwrite
from benchmarks.theory import (
    THEORY_DRAWS,
    Theory,
    measure_theory,
    summarize_codelength,
    summarize_theory,
)
from benchmarks.threads import check_threads
from benchmarks.timing import measure_timing, timed_codecs
from cli import files
from cli.main import unwinding_endings
from cli.terminal import Terminal
from cli.workers import default_jobs
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS, effort_level
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.errors import DatasetError, DiffcodecError
from diffcodec.model.catalog import find_model
from diffcodec.training.dataset import Split, data_name, find_data

# Stages of a run: an item of the journal is a stage and an image's number.
FILES, PEERS, BUDGETS, THEORY, TRAIN, EFFORT, EXAMPLE, SPEED, THREADS = (
    *("files", "peers", "budgets", "theory", "train", "effort", "example", "speed", "threads"),
)
ROUND_TRIP_EFFORTS = (1, 3)
"""Efforts besides the one of the files at which many images go to a file and back."""


@dataclass(frozen=True)
class Settings:
    """What is measured, and on how many of the first images each.

    Attributes:
        effort: the encoder's, 1…9.
        every_packet: cuts after every packet, not only where hops begin.
        images: real files, whole and cut.
        peers: other codecs.
        budgets: files of their own for each of ``budgets_bpd``.
        theory, train: the theoretical curve over test images, the codelength over training images.
        draws: noise levels drawn for each image of those.
        efforts: lossless files at every effort.
        round_trips: lossless files at each of `ROUND_TRIP_EFFORTS`.
        examples: pictures for strips and the report.
        speed: images timed with every codec, on a machine that should do nothing else.
        threads: images coded across thread counts.
        device: where theory's evaluations run.
        seed: of theory's draws, with the image's number.
        budgets_bpd: what files are made for.
    """

    effort: int = DEFAULT_EFFORT
    every_packet: bool = False
    images: int = 1000
    peers: int = 1000
    budgets: int = 32
    theory: int = 500
    train: int = 500
    draws: int = THEORY_DRAWS
    efforts: int = 32
    round_trips: int = 1000
    examples: int = 3
    speed: int = 6
    threads: int = 6
    device: str = "cpu"
    seed: int = 0
    budgets_bpd: tuple[float, ...] = BUDGETS_BPD

    def files_at(self, effort: int) -> int:
        """Lossless files at an effort."""
        return max(self.efforts, self.round_trips if effort in ROUND_TRIP_EFFORTS else 0)

    def items(self) -> list[str]:
        """What worker processes do, the longest first so that all end together."""
        counts = (
            *((EXAMPLE, self.examples), (BUDGETS, self.budgets), (FILES, self.images)),
            *((THEORY, self.theory), (TRAIN, self.train), (PEERS, self.peers)),
        )
        efforts = [
            f"{EFFORT}{effort}/{index}"
            for effort in EFFORTS
            for index in range(self.files_at(effort))
        ]
        return [*efforts, *(f"{stage}/{index}" for stage, n in counts for index in range(n))]


@dataclass(eq=False)
class ImageWork:
    """One stage of one image; travels to worker processes, each of which loads the model once.

    Attributes:
        data: what the images are called (`data_name`).
        images, train_images: uint8 [N, S, S, 3].
        model_folder: of the model.
        settings: what is measured.
    """

    data: str
    images: Pixels
    train_images: Pixels
    model_folder: Path
    settings: Settings

    @cached_property
    def model(self) -> CodecModel:
        """The model on the CPU, for files."""
        return load_codec_model(self.model_folder)

    @cached_property
    def theory_model(self) -> CodecModel:
        """The model where theory is measured; another copy, so that files stay on the CPU."""
        model = load_codec_model(self.model_folder)
        model.checkpoint.denoiser.to(self.settings.device)
        return model

    def __call__(self, item: str) -> Any:
        """The result of ``stage/index``, ready for JSON."""
        stage, _, number = item.partition("/")
        index, settings = int(number), self.settings
        pixels = (self.train_images if stage == TRAIN else self.images)[index]
        if stage == FILES:
            return measure_file(
                f"image {index}",
                pixels,
                self.model,
                effort_level(settings.effort),
                every_packet=settings.every_packet,
            ).to_json()
        if stage == PEERS:
            return measure_peers(pixels)
        if stage == BUDGETS:
            budgets = measure_budgets(pixels, self.model, settings.effort, settings.budgets_bpd)
            return [asdict(file) for file in budgets]
        if stage in (THEORY, TRAIN):
            seed = (settings.seed, stage == TRAIN, index)
            return measure_theory(pixels, self.theory_model, settings.draws, seed).to_json()
        if stage == EXAMPLE:
            return measure_example(pixels, self.model, settings.effort)
        effort = effort_level(int(stage.removeprefix(EFFORT)))
        return measure_effort(pixels, self.model, effort).to_json()


def run(
    work: ImageWork,
    jobs: int,
    journal: campaign.Journal,
    group: campaign.Group,
    terminal: Terminal,
) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
    """The record and the examples; None in the processes of a group that do not lead it.

    Raises:
        DiffcodecError: something cannot be measured.
    """
    items = work.settings.items()
    terminal = terminal if group.leads else Terminal(quiet=True)
    with terminal.progress("measurements", -(-len(items) // group.size)) as advance:
        results = campaign.run(items, work, jobs, journal, group, lambda: advance(1))
    if not group.leads:
        return None
    _measure_alone(work, jobs, journal, terminal)
    return summarize(work, {**journal.results, **results}, journal.origin), [
        results[f"{EXAMPLE}/{index}"] for index in range(work.settings.examples)
    ]


def identity(
    origin: dict[str, Any], model_folder: Path, digests: dict[Split, str], settings: Settings
) -> dict[str, Any]:
    """All that the results of items depend on, for a journal: not how many there are of each.

    Args:
        digests: of all images of each split, `split_digest`.
    """
    same = {name: value for name, value in asdict(settings).items() if name not in _COUNTS}
    return inputs.identity(origin, model_folder, digests, same)


def _measure_alone(
    work: ImageWork, jobs: int, journal: campaign.Journal, terminal: Terminal
) -> None:
    """What needs processes of its own, and the machine for itself: speed and thread counts."""
    settings = work.settings
    if settings.speed:
        codecs = timed_codecs(work.model_folder, settings.effort)
        with terminal.progress("codecs timed", len(codecs)) as advance:
            for codec in codecs:
                if (item := _speed_item(settings, codec.name)) not in journal.results:
                    journal.add(item, measure_timing(codec, work.images[: settings.speed], jobs))
                advance(1)
    threads = f"{THREADS}/{settings.threads}"
    if settings.threads and threads not in journal.results:
        with terminal.progress("thread counts", 4) as advance:
            checked = check_threads(
                work.images[: settings.threads],
                work.model_folder,
                settings.effort,
                lambda: advance(1),
            )
        journal.add(threads, checked)


def _speed_item(settings: Settings, codec: str) -> str:
    return f"{SPEED}/{settings.speed}/{codec}"


def summarize(work: ImageWork, results: campaign.Results, origin: Any) -> dict[str, Any]:
    """The record of all results by item; ``origin`` is the provenance of the run that began."""
    settings, dimensions = work.settings, work.images[0].size

    def of(stage: str, count: int) -> list[Any]:
        return [results[f"{stage}/{index}"] for index in range(count)]

    overhead = overhead_bytes(Diffcodec(work.model_folder, settings.effort))
    own = [FileMeasurement.from_json(entry) for entry in of(FILES, settings.images)]
    summary = summarize_files(own, overhead)
    schedule = work.model.schedule
    record: dict[str, Any] = {
        **inputs.record_head(origin, work.model_folder, work.images[: settings.images]),
        "data": work.data,
        "settings": asdict(settings),
        **summary,
    }
    if settings.peers:
        record["peers"] = summarize_peers(of(PEERS, settings.peers), dimensions)
        record["bd_rates"] = bd_rates(summary["stops"], overhead, record["peers"], dimensions)
    if settings.budgets:
        budgets = [[BudgetFile(**f) for f in image] for image in of(BUDGETS, settings.budgets)]
        record["budgets"] = summarize_budgets(budgets, own[: settings.budgets])
    if settings.theory:
        theories = [Theory.from_json(entry) for entry in of(THEORY, settings.theory)]
        record["theory"] = summarize_theory(theories, schedule)
        record["excess"] = summarize_excess(own, theories, schedule)
    if settings.train:
        theories = [Theory.from_json(entry) for entry in of(TRAIN, settings.train)]
        record["train_codelength"] = summarize_codelength(theories, schedule)

    def files_at(effort: int, count: int) -> list[EffortFile]:
        return [EffortFile.from_json(entry) for entry in of(f"{EFFORT}{effort}", count)]

    if settings.round_trips:
        record["round_trips"] = summarize_efforts(
            {effort: files_at(effort, settings.round_trips) for effort in ROUND_TRIP_EFFORTS},
            dimensions,
        )
    if settings.efforts:
        efforts = {effort: files_at(effort, settings.efforts) for effort in EFFORTS}
        record["efforts"] = summarize_efforts(efforts, dimensions)
        # The same images, however few.
        same = of(PEERS, min(settings.efforts, settings.peers))
        if len(same) == settings.efforts:
            entries = summarize_peers(same, dimensions)["lossless"]
            record["effort_peers"] = {entry["name"]: entry["mean_bpd"] for entry in entries}
    if settings.speed:
        names = [codec.name for codec in timed_codecs(work.model_folder, settings.effort)]
        record["speed"] = [results[_speed_item(settings, name)] for name in names]
    if settings.threads:
        record["thread_check"] = results[f"{THREADS}/{settings.threads}"]
    return record


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and write; 0 on success, 1 on failure, 2 on misuse."""
    parser = _parser()
    options = parser.parse_args(arguments)
    settings = _settings(options)
    if options.jobs < 1 or settings.images < 2 or min(_counts(settings)) < 0:
        parser.error("expected --images of at least 2, --jobs of at least 1, no negative counts")
    if settings.budgets > settings.images:
        parser.error("expected --budgets of at most --images: both files are compared")
    with unwinding_endings():
        return _measure(options, settings)


def _measure(options: argparse.Namespace, settings: Settings) -> int:
    try:
        origin = provenance(settings.device)
        folder = find_model(options.model)
        place = find_data(options.data)
        images = first_images(place, max(settings.images, *_counts(settings)))
        train = first_images(place, max(1, settings.train), "train")
        splits: tuple[Split, ...] = ("test", "train")
        digests = {split: split_digest(place, split) for split in splits}
        work = ImageWork(data_name(place), images, train, folder, settings)
        with campaign.group() as group:
            path = campaign.journal_path(options.out / RECORD, group)
            if not path.exists():
                for name in (RECORD, EXAMPLES):
                    refuse_overwrite(options.out / name, force=options.force)
            journal = campaign.Journal.open(
                path,
                identity(origin, folder, digests, settings),
                origin,
                resume=options.resume,
                force=options.force,
            )
            with closing(journal):
                measured = run(work, options.jobs, journal, group, Terminal())
        if measured is not None:
            record, examples = measured
            head = inputs.record_head(journal.origin, folder, images[: settings.images])
            shown = {**head, "examples": examples}
            for name, content in ((RECORD, record), (EXAMPLES, shown)):
                files.write_atomically(options.out / name, dumps(content), force=True)
                print(options.out / name)
    except DatasetError as error:
        print(f"error: {error}", file=sys.stderr)
        print("'diffcodec rd-curve --download' fetches CIFAR-10", file=sys.stderr)
        return 1
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


# Option → the field of `Settings` that it counts images for.
_COUNT_OPTIONS = {
    "peers": "other codecs",
    "budgets": "a file for each budget",
    "theory": "the theoretical curve",
    "train": "the codelength of training images",
    "efforts": "lossless files at every effort",
    "round_trips": f"round trips at efforts {', '.join(map(str, ROUND_TRIP_EFFORTS))}",
    "examples": "pictures for strips and the report",
    "speed": "speed of every codec",
    "threads": "exactness across thread counts",
}


def _parser() -> argparse.ArgumentParser:
    description = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measure", description=description)
    default = Settings()
    parser.add_argument(
        "--images", type=int, default=default.images, metavar="N", help="real files"
    )
    for name, meaning in _COUNT_OPTIONS.items():
        count = getattr(default, name)
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int,
            metavar="N",
            help=f"images for {meaning}; default {count}",
        )
    parser.add_argument("--draws", type=int, default=default.draws, metavar="N")
    parser.add_argument("--every-packet", action="store_true", help="cuts after every packet")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    parser.add_argument("--effort", type=int, default=default.effort, choices=range(1, 10))
    parser.add_argument("--device", default=default.device, help="of theory: cpu, cuda")
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N", help="processes")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument(
        "--resume", action="store_true", help="go on with a run, for more images, too"
    )
    parser.add_argument("--force", action="store_true", help="begin anew, replace a record")
    return parser


def _settings(options: argparse.Namespace) -> Settings:
    """Subsets that are not asked for by number are no larger than the set."""
    default = Settings()
    counts = {
        name: min(getattr(default, name), options.images)
        if getattr(options, name) is None
        else getattr(options, name)
        for name in _COUNT_OPTIONS
    }
    return Settings(
        effort=options.effort,
        every_packet=options.every_packet,
        images=options.images,
        draws=options.draws,
        device=options.device,
        **counts,
    )


_COUNTS = ("images", *_COUNT_OPTIONS)


def _counts(settings: Settings) -> list[int]:
    return [getattr(settings, name) for name in _COUNT_OPTIONS if name != "train"]


if __name__ == "__main__":
    raise SystemExit(main())
