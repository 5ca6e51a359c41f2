"""``diffcodec encode``: images to files."""

import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import files, options
from cli.terminal import Terminal
from cli.workers import in_processes
from diffcodec.codec.effort import (
    DEFAULT_EFFORT,
    EFFORTS,
    Effort,
    effort_for_evaluations,
    effort_level,
)
from diffcodec.codec.tiles import TileLayout
from diffcodec.errors import BudgetError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffcodec.codec.encoder import Encoded, EncoderSettings
    from diffcodec.codec.model import CodecModel

LEDGER = "ledger"


@dataclass(eq=False)
class _EncodeWork:
    """What is done to each input, by name; travels to worker processes, which load the model once.

    Attributes:
        images: of all inputs, uint8 [H, W, C].
        settings: of each input.
        folder: of the model.
        verify: whether each file is decoded before it counts.
    """

    images: "Mapping[str, NDArray[np.uint8]]"
    settings: "Mapping[str, EncoderSettings]"
    folder: Path
    verify: bool

    @cached_property
    def model(self) -> "CodecModel":
        """The model, in a worker process."""
        from diffcodec.codec.model import load_codec_model

        return load_codec_model(self.folder)

    def __call__(self, item: str) -> "Encoded":
        return self.encode(item, self.model)

    def encode(
        self, source: str, model: "CodecModel", on_step: Callable[[int], None] = lambda step: None
    ) -> "Encoded":
        """The file of one input."""
        from diffcodec.codec.encoder import encode_image
        from diffcodec.codec.verification import verify_encoding

        try:
            encoded = encode_image(self.images[source], model, self.settings[source], on_step)
        except BudgetError as error:
            raise BudgetError(f"{files.display_name(source)}: {error}") from error
        if self.verify:
            verify_encoding(encoded, self.images[source], model, files.display_name(source))
        return encoded


def _encoded(
    work: _EncodeWork, model: "CodecModel", jobs: int, terminal: Terminal
) -> "Iterator[Encoded]":
    """Each input's file, in order, as soon as it and all before it are there."""
    if jobs == 1 or len(work.images) == 1:
        for source in work.images:
            with terminal.progress(files.display_name(source), 1000) as advance:
                encoded = work.encode(source, model, _step_meter(advance))
            yield encoded
        return
    waiting: dict[str, Encoded] = {}
    order = iter(work.images)
    following = next(order)
    with terminal.progress("images", len(work.images)) as advance:
        for source, result in in_processes(list(work.images), work, jobs):
            advance(1)
            waiting[source] = result
            while following in waiting:
                yield waiting.pop(following)
                following = next(order, "")


class _EncodeCommand(click.Command):
    """Lets ``--bits`` stand without its number before an option, an input's name or the end."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        parsed = []
        for place, word in enumerate(args):
            following = args[place + 1] if place + 1 < len(args) else "-"
            bare = word == "--bits" and not _is_number(following)
            if bare and not following.startswith("-") and not os.path.lexists(following):
                raise click.UsageError(
                    f"--bits takes a number of bits per dimension, or nothing before an input: "
                    f"'{following}' is neither a number nor a file.",
                    ctx,
                )
            parsed.append(f"--bits={LEDGER}" if bare else word)
        return super().parse_args(ctx, parsed)


@click.command("encode", cls=_EncodeCommand)
@click.argument("inputs", metavar="INPUT...", nargs=-1, required=True)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="A file, '-' for standard output, or a folder for several inputs. "
    "Default: img.png becomes img.dfc beside it.",
)
@click.option(
    "--bits",
    metavar="[B]",
    help="With a number: a file of at most B bits per dimension, all bytes counted. "
    "Without: print the ledger of bits per step and the image's error there, of an image of "
    "several windows where hops begin. Default: lossless.",
)
@click.option(
    "--effort",
    type=click.IntRange(EFFORTS[0], EFFORTS[-1]),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="More effort, more network evaluations, fewer bits.",
)
@click.option(
    "--steps",
    type=click.IntRange(min=1),
    metavar="N",
    help="Aim at N network evaluations for a lossless file of average difficulty, "
    "in place of --effort.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Processes that share several inputs, one thread each.",
)
@click.option(
    "--verify", is_flag=True, help="Decode the file before it is written, and fail if it differs."
)
@options.max_pixels
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@click.option("-f", "--force", is_flag=True, help="Overwrite; write to a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
@click.option("-v", "--verbose", is_flag=True, help="Print the ledger whatever --bits is.")
@click.option("--json", "as_json", is_flag=True, help="Print sizes and ledger as JSON.")
def command(
    inputs: tuple[str, ...],
    output: str | None,
    bits: str | None,
    effort: int,
    steps: int | None,
    jobs: int,
    verify: bool,
    max_pixels: int,
    model: str | None,
    force: bool,
    quiet: bool,
    verbose: bool,
    as_json: bool,
) -> None:
    """Compress images, losslessly or to a given size.

    INPUT is an 8-bit gray or RGB image in any format that Pillow reads, or '-' for standard input.
    Its pixels are kept, as the file has them: no EXIF orientation, no colour profile.
    """
    from diffcodec.image import read_image, unkept_metadata
    from diffcodec.model.catalog import find_model

    terminal = Terminal(quiet)
    budget = _budget(bits)
    targets = [_target(source, output, len(inputs)) for source in inputs]
    _refuse_clashes(inputs, targets, force)
    folder = find_model(model)
    images = {}
    for source in inputs:
        data, name = files.read_bytes(source), files.display_name(source)
        images[source] = read_image(data, name, max_pixels)
        if unkept := unkept_metadata(data):
            terminal.warn(f"{name}: pixels alone are kept, not its {' and '.join(unkept)}")

    from diffcodec.codec.encoder import EncoderSettings
    from diffcodec.codec.model import load_codec_model

    codec_model = load_codec_model(folder)
    ledger = bits == LEDGER or verbose or as_json
    settings = {
        source: EncoderSettings.for_effort(
            _effort(codec_model, effort, steps, pixels), bpd=budget, trace=ledger
        )
        for source, pixels in images.items()
    }
    work = _EncodeWork(images, settings, folder, verify)
    reports = []
    for source, target, encoded in zip(
        inputs, targets, _encoded(work, codec_model, jobs, terminal), strict=True
    ):
        if target == files.STREAM:
            files.write_stdout(encoded.data, force)
        else:
            files.write_atomically(target, encoded.data, force)
        # Where the JSON goes to standard error, it is all that goes there.
        if not (as_json and target == files.STREAM):
            terminal.say(_summary(files.display_name(source), target, encoded))
        if as_json:
            reports.append(_report(source, target, encoded))
        elif ledger:
            _print_ledger(encoded, to_stderr=target == files.STREAM)
    if as_json:
        stream = sys.stderr if files.STREAM in targets else sys.stdout
        print(json.dumps(reports if len(reports) > 1 else reports[0], indent=1), file=stream)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _budget(bits: str | None) -> float | None:
    if bits is None or bits == LEDGER:
        return None
    if not _is_number(bits) or not 0 < float(bits) < float("inf"):
        raise click.UsageError(
            f"--bits takes a positive number of bits per dimension, not '{bits}'."
        )
    return float(bits)


def _target(source: str, output: str | None, inputs: int) -> str:
    """Where the stream of ``source`` goes."""
    files.refuse_directory(source)
    if output is None:
        return source if source == files.STREAM else str(files.compressed_path(source))
    if output == files.STREAM:
        return output
    if inputs > 1 or files.is_folder(output):
        name = "stdin" if source == files.STREAM else Path(source).name
        return str(Path(output) / files.compressed_path(name).name)
    return output


def _refuse_clashes(inputs: tuple[str, ...], targets: list[str], force: bool) -> None:
    """Refuse before any work is done: two inputs for one output, or one that cannot be written."""
    if inputs.count(files.STREAM) > 1:
        raise click.UsageError("Standard input can be read once: '-' was given twice.")
    places = [target if target == files.STREAM else os.path.realpath(target) for target in targets]
    for source, target, place in zip(inputs, targets, places, strict=True):
        if places.count(place) > 1:
            name = "standard output" if target == files.STREAM else target
            raise click.UsageError(
                f"Two inputs would be written to {name}: encode them by commands of their own."
            )
        files.check_target(source, target, force)


def _effort(
    model: "CodecModel", effort: int, steps: int | None, pixels: "NDArray[np.uint8]"
) -> Effort:
    if steps is None:
        return effort_level(effort)
    height, width, channels = pixels.shape
    layout = TileLayout(height, width, channels, model.tile_side)
    chosen, evaluations = effort_for_evaluations(model, steps, layout)
    if evaluations > steps:
        raise click.UsageError(
            f"--steps {steps} is too few for this model: expected at least {evaluations}."
        )
    return chosen


def _step_meter(advance: Callable[[float], None]) -> Callable[[int], None]:
    """Turns 'step s was reached' into progress since the last call."""
    reached = 1000

    def on_step(step: int) -> None:
        nonlocal reached
        advance(reached - step)
        reached = step

    return on_step


def _summary(source: str, target: str, encoded: "Encoded") -> str:
    from diffcodec.bitstream.header import LastStage

    kind = {
        LastStage.NONE: "lossy",
        LastStage.GAUSSIAN: "lossless",
        LastStage.STORED: "lossless, stored",
    }[encoded.header.last_stage]
    where = "standard output" if target == files.STREAM else target
    return f"{source} -> {where}: {len(encoded.data)} bytes, {encoded.bpd:.3f} bits/dim, {kind}"


def _report(source: str, target: str, encoded: "Encoded") -> dict[str, Any]:
    header = encoded.header
    return {
        "input": source,
        "output": target,
        "width": header.width,
        "height": header.height,
        "channels": header.channels,
        "bytes": len(encoded.data),
        "bits_per_dimension": encoded.bpd,
        "last_stage": header.last_stage.name.lower(),
        "last_stage_bytes": encoded.payload_bytes,
        "last_stage_ideal_bits": encoded.last_stage_bits,
        "evaluations": encoded.evaluations,
        "ledger": [asdict(entry) for entry in encoded.ledger],
    }


def _print_ledger(encoded: "Encoded", to_stderr: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="bits per packet", title_justify="left")
    for heading in ("t -> s", "KL, bits", "paid, bits", "bits/dim so far", "RMSE of x̂_0"):
        table.add_column(heading, justify="right")
    for entry in encoded.ledger:
        rmse = "" if entry.rmse is None else f"{entry.rmse:.2f}"
        table.add_row(
            f"{entry.t} -> {entry.s}",
            f"{entry.kl_bits:.1f}",
            f"{entry.paid_bits}",
            f"{entry.cumulative_bpd:.4f}",
            rmse,
        )
    if encoded.last_stage_bits:
        table.add_section()
        step = encoded.header.final_step
        table.add_row(
            f"{step} -> pixels",
            f"{encoded.last_stage_bits:.1f}",
            f"{8 * encoded.payload_bytes}",
            f"{encoded.bpd:.4f}",
            "0.00",
        )
    kl_bits = sum(entry.kl_bits for entry in encoded.ledger)
    if kl_bits:
        paid_bits = sum(entry.paid_bits for entry in encoded.ledger)
        table.caption = f"hops: {paid_bits} bits paid for {kl_bits:.0f} bits of KL, " + (
            f"price {paid_bits / kl_bits:.3f}; {encoded.evaluations} network evaluations"
        )
    Console(stderr=to_stderr, highlight=False).print(table)
