"""Options for images and devices that `train` and `evaluate` have in common."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.terminal import Terminal

DEFAULT_HELD_OUT = 2000
_BYTES_PER_MB = 1e6

Command = TypeVar("Command", bound=Callable[..., Any])


def data_options(function: Command) -> Command:
    """``--data`` and ``--download``."""
    data = click.option(
        "--data",
        type=click.Path(path_type=Path),
        metavar="PATH",
        help="CIFAR-10 in an official layout, or a folder of RGB images of one size, its splits in "
        "train/ and test/ if it has those; larger ones are cut into 32×32 tiles. "
        "Default: $DIFFCODEC_DATA, else an earlier download.",
    )
    download = click.option("--download", is_flag=True, help="Fetch CIFAR-10 if it is not there.")
    return data(download(function))


def device_option(function: Command) -> Command:
    """``--device``."""
    return click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        show_default=True,
        help="Where the network runs.",
    )(function)


def locate_data(data: Path | None, download: bool, terminal: Terminal) -> Path:
    """The place that `load_images` reads, after a download where one is asked for.

    Raises :class:`DatasetError` where there is nothing, and :class:`click.UsageError` for both a
    place and a download.
    """
    from diffcodec.training.dataset import cache_directory, download_cifar10, find_data

    if not download:
        return find_data(data)
    if data is not None:
        raise click.UsageError("--download fetches into the cache: leave --data out.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise click.UsageError("--download: fetch before torchrun starts several processes.")
    with terminal.progress("CIFAR-10, MB", None) as advance:
        received = 0

        def on_bytes(now: int, total: int | None) -> None:
            nonlocal received
            advance((now - received) / _BYTES_PER_MB)
            received = now

        return download_cifar10(cache_directory(), on_bytes)


def held_out_count(images: int, wanted: int | None) -> int:
    """How many images to hold out: ``wanted``, else 2000, or a tenth where that is fewer."""
    return wanted if wanted is not None else max(1, min(DEFAULT_HELD_OUT, images // 10))


def pick_device(name: str) -> str:
    """The PyTorch device that ``--device`` names; ``auto`` is a GPU where there is one.

    Raises :class:`click.UsageError` for a GPU that is not there.
    """
    import torch

    found = torch.cuda.is_available()
    if name == "cuda" and not found:
        raise click.UsageError("--device cuda: this PyTorch finds no CUDA device.")
    return "cuda" if name != "cpu" and found else "cpu"
