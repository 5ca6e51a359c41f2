"""``diffcodec evaluate``: a model's bound in bits/dim by part."""

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.data import data_options, device_option, held_out_count, locate_data, pick_device
from cli.terminal import Terminal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffcodec.training.evaluation import Bound

SPLITS = ("test", "train", "held-out")


@click.command("evaluate")
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@data_options
@click.option(
    "--split",
    type=click.Choice(SPLITS),
    default=SPLITS[0],
    show_default=True,
    help="Which images; held-out is the part of train that `train` sets apart by default.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    metavar="N",
    help="At most so many, the first ones.",
)
@click.option(
    "--draws",
    type=click.IntRange(min=1),
    default=16,
    show_default=True,
    metavar="N",
    help="Stratified times t drawn for each image.",
)
@click.option(
    "--final-step",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="N",
    help="Step of the grid at which pixels are coded.",
)
@device_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only, besides the result.")
def command(
    model: str | None,
    data: Path | None,
    download: bool,
    split: str,
    images: int,
    draws: int,
    final_step: int,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Measure a model's bound in bits per dimension.

    L_T is what the noisiest latent tells, L_1..T-1 the steps down to the final one, L_0 the
    pixels there. Each is a mean over images with its standard error, which includes that of the
    Monte Carlo draws over t.
    """
    from diffcodec.model.catalog import find_model

    terminal = Terminal(quiet)
    folder = find_model(model)
    place = locate_data(data, download, terminal)
    pixels = _load(place, split)[:images]

    from diffcodec.model.checkpoint import load_checkpoint
    from diffcodec.training.evaluation import evaluate_bound

    checkpoint = load_checkpoint(folder)
    steps = checkpoint.config.schedule.steps
    if final_step >= steps:
        raise click.UsageError(f"--final-step {final_step}: expected less than {steps} steps.")
    denoiser = checkpoint.denoiser.to(pick_device(device))
    with terminal.progress(f"{split} images", len(pixels)) as advance:
        bound = evaluate_bound(
            denoiser, pixels, final_step=final_step, draws=draws, progress=advance
        )
    if as_json:
        origin = {
            "model": str(folder),
            "digest": checkpoint.digest.hex(),
            "data": str(place),
            "split": split,
            "steps": steps,
        }
        print(
            json.dumps({**origin, "bits_per_dimension": _parts(bound), **_sizes(bound)}, indent=1)
        )
    else:
        _print(checkpoint.config.name, split, bound)


def _load(place: Path, split: str) -> "NDArray[np.uint8]":
    from diffcodec.training.dataset import held_out_split, load_images

    if split == "test":
        return load_images(place, "test")
    everything = load_images(place, "train")
    training, held_out = held_out_split(everything, held_out_count(len(everything), None))
    return held_out if split == "held-out" else training


def _parts(bound: "Bound") -> dict[str, dict[str, float]]:
    """Each part's mean and standard error."""
    return {
        "prior": dataclasses.asdict(bound.prior),
        "diffusion": dataclasses.asdict(bound.diffusion),
        "reconstruction": dataclasses.asdict(bound.reconstruction),
        "total": dataclasses.asdict(bound.total),
    }


def _sizes(bound: "Bound") -> dict[str, int]:
    return {"final_step": bound.final_step, "images": bound.images, "draws": bound.draws}


def _print(name: str, split: str, bound: "Bound") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{name}: {bound.images} {split} images, {bound.draws} draws of t, "
        f"final step {bound.final_step}",
        title_justify="left",
    )
    table.add_column("part")
    table.add_column("bits/dim", justify="right")
    table.add_column("standard error", justify="right")
    labels = {
        "L_T, prior": bound.prior,
        "L_1..T-1, diffusion": bound.diffusion,
        "L_0, pixels": bound.reconstruction,
    }
    for label, estimate in labels.items():
        table.add_row(label, f"{estimate.mean:.4f}", f"{estimate.standard_error:.4f}")
    table.add_section()
    table.add_row("total", f"{bound.total.mean:.4f}", f"{bound.total.standard_error:.4f}")
    Console(highlight=False, markup=False).print(table)
