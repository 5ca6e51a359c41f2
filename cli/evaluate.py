"""``diffcodec evaluate``: a model's bound in bits/dim by part, step and split."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import files
from cli.data import data_options, device_option, held_out_count, locate_data, pick_device
from cli.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.table import Table

    from diffcodec.training.evaluation import Bound, BoundSamples, CodecCost, Estimate

SPLITS = ("train", "test", "held-out")
FIGURE_SUFFIXES = (".svg", ".png")
# Field of a bound → its row.
PARTS = {
    "prior": "L_T, prior",
    "diffusion": "L_1..T-1, diffusion",
    "reconstruction": "L_0, pixels",
    "total": "total",
}


@click.command("evaluate")
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@data_options
@click.option(
    "--split",
    "splits",
    type=click.Choice(SPLITS),
    multiple=True,
    default=SPLITS[:2],
    show_default=True,
    help="Which images, once or more; held-out is the part of train that `train` sets apart by "
    "default, and train is the rest.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="At most so many of each split, the first ones.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    metavar="N",
    help="Stratified times t drawn for each image.  [default: 16]",
)
@click.option(
    "--exact", is_flag=True, help="Every t of the grid for each image, in place of draws."
)
@click.option(
    "--final-step",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Step of the grid at which pixels are coded.",
)
@click.option(
    "--per-step",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.json",
    help="Write L_t and the error of the estimate of x at every step, or stratum of steps.",
)
@click.option(
    "--figure",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FIG",
    help="Draw what --per-step writes, as .svg or .png.",
)
@click.option(
    "--pixels",
    is_flag=True,
    help="Of a model with a pixel model: what lossless files cost in theory, with pixels coded in "
    "1 to 16 groups, at the hand-over where that is least.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-f", "--force", is_flag=True, help="Overwrite.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only, besides the result.")
def command(
    model: str | None,
    data: Path | None,
    download: bool,
    splits: tuple[str, ...],
    images: int,
    draws: int | None,
    exact: bool,
    final_step: int,
    per_step: Path | None,
    figure: Path | None,
    pixels: bool,
    device: str,
    as_json: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Measure a model's bound in bits per dimension.

    L_T is what the noisiest latent tells, L_1..T-1 the steps down to the final one, L_0 the
    pixels there. Each is a mean over images with its standard error, which includes that of the
    Monte Carlo draws over t. The gap is test less train.
    """
    from diffcodec.model.catalog import find_model

    if exact and draws is not None:
        raise click.UsageError("--exact and --draws exclude each other.")
    if pixels and final_step:
        raise click.UsageError("--pixels chooses the hand-over itself: leave --final-step out.")
    if figure is not None and figure.suffix not in FIGURE_SUFFIXES:
        raise click.UsageError(f"--figure {figure}: expected one of {', '.join(FIGURE_SUFFIXES)}.")
    for target in (per_step, figure):
        if target is not None:
            files.check_target(files.STREAM, target, force)
    terminal = Terminal(quiet)
    folder = find_model(model)
    place = locate_data(data, download, terminal)
    splits = tuple(dict.fromkeys(splits))

    from diffcodec.model.checkpoint import load_checkpoint
    from diffcodec.training.evaluation import PIXEL_GROUPS, evaluate_codec, sample_bound

    checkpoint = load_checkpoint(folder)
    config = checkpoint.config
    steps = config.schedule.steps
    if final_step >= steps:
        raise click.UsageError(f"--final-step {final_step}: expected less than {steps} steps.")
    if pixels and not config.pixel_model:
        raise click.UsageError(f"--pixels: {folder} has no pixel model.")
    denoiser = checkpoint.denoiser.to(pick_device(device))
    sets = {split: _load(place, split) for split in splits}
    _warn_of_one_set(place, sets, terminal)
    sets = {split: found[:images] for split, found in sets.items()}
    samples: dict[str, BoundSamples] = {}
    codec: dict[str, list[CodecCost]] = {}
    for split, chosen in sets.items():
        with terminal.progress(f"{split} images", len(chosen)) as advance:
            samples[split] = sample_bound(
                denoiser,
                chosen,
                final_step=final_step,
                draws=None if exact else draws or 16,
                progress=advance,
            )
        if pixels:
            # The total is unknown: how many hand-overs there are follows from the schedule.
            with terminal.progress(f"{split} images, pixels", None) as advance:
                codec[split] = evaluate_codec(
                    denoiser, chosen, samples[split], groups=PIXEL_GROUPS, progress=advance
                )
    bounds = {split: found.bound() for split, found in samples.items()}
    origin = {
        "model": str(folder),
        "digest": checkpoint.digest.hex(),
        "data": str(place),
        "steps": steps,
        "final_step": final_step,
        "exact": exact,
    }
    record = {
        **origin,
        "per_step": {
            split: [dataclasses.asdict(step) for step in found.steps()]
            for split, found in samples.items()
        },
    }
    if per_step is not None:
        files.write_atomically(per_step, _json(record).encode(), force)
    if figure is not None:
        from benchmarks.figures.style import figure_bytes
        from benchmarks.figures.training import per_step_figure

        drawn = per_step_figure({**record, "model": config.name})
        files.write_atomically(figure, figure_bytes(drawn, figure.suffix[1:]), force)
    if as_json:
        report = {**origin, "splits": {split: _parts(bound) for split, bound in bounds.items()}}
        if {"train", "test"} <= bounds.keys():
            report["gap"] = {part: dataclasses.asdict(gap) for part, gap in _gap(bounds).items()}
        if codec:
            report["codec"] = {
                split: [dataclasses.asdict(cost) for cost in costs]
                for split, costs in codec.items()
            }
        print(_json(report), end="")
    else:
        _print(config.name, bounds, exact)
        for split, costs in codec.items():
            _print_codec(split, costs)


def _warn_of_one_set(place: Path, sets: "dict[str, NDArray[np.uint8]]", terminal: Terminal) -> None:
    """A folder without train/ and test/ has one set of images, whatever splits are asked for."""
    if not {"train", "test"} <= sets.keys():
        return
    train, test = ({hash(image.tobytes()) for image in sets[split]} for split in ("train", "test"))
    if train <= test:
        terminal.warn(
            f"{place}: train and test are the same images, whose gap tells nothing; expected a "
            "folder with train/ and test/ in it"
        )


def _load(place: Path, split: str) -> "NDArray[np.uint8]":
    from diffcodec.training.dataset import held_out_split, load_images

    if split == "test":
        return load_images(place, "test")
    everything = load_images(place, "train")
    training, held_out = held_out_split(everything, held_out_count(len(everything), None))
    return held_out if split == "held-out" else training


def _json(record: dict[str, Any]) -> str:
    return json.dumps(record, indent=1) + "\n"


def _parts(bound: "Bound") -> dict[str, Any]:
    """Each part's mean and standard error, and how many images and draws they are from."""
    fields = dataclasses.asdict(bound)
    return {name: fields[name] for name in (*PARTS, "images", "draws")}


def _gap(bounds: dict[str, "Bound"]) -> dict[str, "Estimate"]:
    """Test less train, by part."""
    pairs = {
        part: (getattr(bounds["test"], part), getattr(bounds["train"], part)) for part in PARTS
    }
    return {part: test.minus(train) for part, (test, train) in pairs.items()}


def _print(name: str, bounds: dict[str, "Bound"], exact: bool) -> None:
    first = next(iter(bounds.values()))
    counts = ", ".join(f"{bound.images} {split} images" for split, bound in bounds.items())
    times = "every t" if exact else f"{first.draws} draws of t"
    table = _table(f"{name}: {counts}, {times}, final step {first.final_step}; bits/dim")
    table.add_column("part")
    for split in bounds:
        table.add_column(split, justify="right")
    gap = _gap(bounds) if {"train", "test"} <= bounds.keys() else {}
    if gap:
        table.add_column("gap", justify="right")
    for part, label in PARTS.items():
        if part == "total":
            table.add_section()
        cells = [_cell(getattr(bound, part)) for bound in bounds.values()]
        table.add_row(label, *cells, *([_cell(gap[part])] if gap else []))
    _show(table)


def _print_codec(split: str, costs: list["CodecCost"]) -> None:
    """For each number of groups, the hand-over of the least total."""
    table = _table(f"lossless files of {split} images in theory; bits/dim")
    for name in ("groups", "γ", "hops", "pixels", "total"):
        table.add_column(name, justify="right")
    for groups in dict.fromkeys(cost.groups for cost in costs):
        best = min((c for c in costs if c.groups == groups), key=lambda cost: cost.total.mean)
        cells = [_cell(part) for part in (best.hops, best.pixels, best.total)]
        table.add_row(str(groups), f"{best.gamma:.2f}", *cells)
    _show(table)


def _table(title: str) -> "Table":
    from rich.table import Table

    return Table(title=title, title_justify="left")


def _show(table: "Table") -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(table)


def _cell(estimate: "Estimate") -> str:
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}"
