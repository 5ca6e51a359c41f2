"""The frame of measurements on images that training sets apart, or others: options, record."""

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks import campaign, inputs
from benchmarks.adapters.base import Pixels
from benchmarks.provenance import provenance
from benchmarks.results import RESULTS, dumps, refuse_overwrite
from cli import files
from cli.data import held_out_count
from cli.main import unwinding_endings
from cli.terminal import Terminal
from cli.workers import Work, default_jobs
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.errors import DiffcodecError
from diffcodec.model.catalog import find_model
from diffcodec.training.dataset import find_data, held_out_split, load_images


@dataclass(frozen=True, eq=False)
class Subject:
    """What is measured.

    Attributes:
        origin: the provenance of the run.
        model_folder: of the model.
        images: uint8 [N, S, S, 3], S = 32 of CIFAR-10's.
    """

    origin: dict[str, Any]
    model_folder: Path
    images: Pixels

    @cached_property
    def model(self) -> CodecModel:
        """The model."""
        return load_codec_model(self.model_folder)


def held_out_images(data: Path | None, count: int) -> Pixels:
    """The first ``count`` of the images that training sets apart, uint8 [count, 32, 32, 3].

    Raises:
        DatasetError: there is no data set.
    """
    _, held_out = training_and_held_out(data)
    return held_out[:count]


def training_and_held_out(data: Path | None) -> tuple[Pixels, Pixels]:
    """What training sees and what it sets apart, uint8 [N, 32, 32, 3] each.

    Raises:
        DatasetError: there is no data set.
    """
    everything = load_images(find_data(data), "train")
    return held_out_split(everything, held_out_count(len(everything), None))


def add_options(parser: argparse.ArgumentParser, images: int) -> None:
    """``--images`` with its default, ``--data``, and those of `add_model_options`."""
    parser.add_argument("--images", type=int, default=images, metavar="N")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    add_model_options(parser)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """``--model``, ``--out`` and ``--force``."""
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--force", action="store_true", help="begin anew, replace a record")


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """``--jobs`` and ``--resume``, of measurements that `run_items` makes."""
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N", help="processes")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")


def run_items(
    options: argparse.Namespace,
    name: str,
    subject: Subject,
    work: Work,
    items: Sequence[str],
    settings: Any,
) -> tuple[Mapping[str, Any], campaign.Results]:
    """What `campaign.run` gives, with a journal beside ``name``, and the provenance of its start.

    Args:
        settings: what results depend on besides code, model and images; ready for JSON.

    Raises:
        DiffcodecError: as `campaign.Journal.open` and `campaign.run`.
    """
    group = campaign.Group()
    pixels = inputs.pixels_digest(subject.images)
    journal = campaign.Journal.open(
        campaign.journal_path(options.out / name, group),
        inputs.identity(subject.origin, subject.model_folder, pixels, settings),
        subject.origin,
        resume=options.resume,
        force=options.force,
    )
    with closing(journal), Terminal().progress("files", len(items)) as advance:
        results = campaign.run(items, work, options.jobs, journal, group, lambda: advance(1))
    return journal.origin, results


def run(
    options: argparse.Namespace,
    name: str,
    measure: Callable[[Subject], dict[str, Any]],
    show: Callable[[dict[str, Any]], None],
    images: Callable[[], Pixels] | None = None,
    split: str = "held-out",
) -> int:
    """Measure what the options name, write ``name`` and show it; 0 on success, 1 on failure.

    Args:
        measure: what the record has besides provenance, model and images, in place of which it may
            have its own.
        show: given the record.
        images: what to measure, called ``split`` in the record, in place of held-out images.
    """
    try:
        with unwinding_endings():
            if not campaign.journal_path(options.out / name, campaign.Group()).exists():
                refuse_overwrite(options.out / name, force=options.force)
            subject = Subject(
                provenance(),
                find_model(options.model),
                images() if images else held_out_images(options.data, options.images),
            )
            measured = measure(subject)
            head = inputs.record_head(subject.origin, subject.model_folder, subject.images, split)
            record = {**head, "images": len(subject.images), **measured}
            options.out.mkdir(parents=True, exist_ok=True)
            files.write_atomically(options.out / name, dumps(record), force=True)
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    show(record)
    return 0
