"""``diffcodec verify``: whether files are whole and decode, without writing an image."""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import exit_codes, files, options
from diffcodec.errors import TruncatedStreamError

if TYPE_CHECKING:
    from diffcodec.bitstream.container import Container
    from diffcodec.codec.decoder import Frame
    from diffcodec.codec.model import CodecModel


@click.command("verify")
@click.argument("sources", metavar="FILE...", nargs=-1, required=True)
@options.max_pixels
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@click.option("-q", "--quiet", is_flag=True, help="Only the lines of files that are not ok.")
def command(sources: tuple[str, ...], max_pixels: int, model: str | None, quiet: bool) -> int:
    """Check files without writing images: every check, the model, and that the pixels decode.

    Prints one line a file. FILE may be '-' for standard input. Exit codes: 0 all are ok, 3 damaged
    or another model's, 1 not readable or too large, 4 numeric mismatch, 5 truncated; of several
    files that of the gravest, in this order.
    """
    if sources.count(files.STREAM) > 1:
        raise click.UsageError("Standard input can be read once: '-' was given twice.")
    codes = []
    for source in sources:
        try:
            line, code = _verify(source, max_pixels, model)
        except Exception as error:
            found = exit_codes.of_error(error)
            if found is None:
                raise
            cut = isinstance(error, TruncatedStreamError)
            line, code = exit_codes.explain(error), exit_codes.TRUNCATED if cut else found
        codes.append(code)
        if code != exit_codes.SUCCESS or not quiet:
            click.echo(line)
    return exit_codes.gravest(codes)


def _verify(source: str, max_pixels: int, model: str | None) -> tuple[str, int]:
    """The line and the code of a file that decodes; raises what is wrong with another."""
    from diffcodec.bitstream.container import Container
    from diffcodec.bitstream.header import LastStage

    name = files.display_name(source)
    container = Container.open(files.read_bytes(source), name, max_pixels)
    codec_model = None
    if container.header.last_stage is not LastStage.NONE:
        # The check first: of a whole file damaged pixels show without the model.
        container.by_its_checks().last_stage()
    if container.header.last_stage is not LastStage.STORED:
        codec_model = _load_model(_find_model(model, container))

    from diffcodec.codec.decoder import decode_frames, find_hops_end

    *_, frame = decode_frames(container, codec_model, every=False)
    if frame.truncated:
        located = container if codec_model is None else find_hops_end(container, codec_model)
        return _truncated(located, frame), exit_codes.TRUNCATED
    header = container.header
    colours = "RGB" if header.channels == 3 else "gray"
    kind = "lossless" if frame.exact else f"lossy, to step {frame.step}"
    size = f"{header.width}×{header.height} {colours}, {len(container.content)} bytes"
    return f"{name}: ok, {kind}, {size}", exit_codes.SUCCESS


def _truncated(container: "Container", frame: "Frame") -> str:
    from diffcodec.bitstream.header import LastStage

    where = container.extent
    if container.header.last_stage is not LastStage.STORED:
        where += f", after {frame.place}"
    lossless = container.header.last_stage is not LastStage.NONE
    whole = "lossless" if lossless else f"lossy, to step {container.header.final_step}"
    return f"{container.name}: truncated, {where}; the whole file is {whole}"


def _find_model(model: str | None, container: "Container") -> Path:
    from diffcodec.model.catalog import find_model, find_model_by_id

    return (
        find_model(model) if model else find_model_by_id(container.header.model_id, container.name)
    )


@cache
def _load_model(folder: Path) -> "CodecModel":
    from diffcodec.codec.model import load_codec_model

    return load_codec_model(folder)
