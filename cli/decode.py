"""``diffcodec decode``: files, or any prefix of them, to images."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import files, options
from cli.terminal import Terminal

if TYPE_CHECKING:
    from diffcodec.codec.decoder import Frame

SHEET_NAME = "contact-sheet.png"
FRAMES_PATTERN = "frame-[0-9]*-step-[0-9]*.png"


@click.command("decode")
@click.argument("source", metavar="[INPUT]", default=files.STREAM)
@click.option(
    "-o",
    "--output",
    metavar="OUT",
    help="A PNG file, a folder for it, or '-' for standard output. Default: img.dfc becomes "
    "img.png beside it, standard input goes to standard output; with --frames nothing else.",
)
@click.option(
    "--stop-at-step",
    type=click.IntRange(0, 1000),
    default=0,
    metavar="T",
    help="Stop before a packet that ends below step T of 1000; large is noisy.",
)
@click.option(
    "--frames",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write each x̂_0 as PNG into this folder, and one contact sheet of them.",
)
@options.max_pixels
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@click.option("-f", "--force", is_flag=True, help="Overwrite; write to a terminal.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    source: str,
    output: str | None,
    stop_at_step: int,
    folder: Path | None,
    max_pixels: int,
    model: str | None,
    force: bool,
    quiet: bool,
) -> None:
    """Restore an image from a file or any prefix of one.

    INPUT is a file, or '-' for standard input, which is also the default.
    """
    from diffcodec.bitstream.container import Container
    from diffcodec.bitstream.header import LastStage
    from diffcodec.model.catalog import find_model, find_model_by_id

    terminal = Terminal(quiet)
    name = files.display_name(source)
    # The last frame is the image: with frames it is written elsewhere only where that is asked for.
    target = _target(source, output) if output or folder is None else None
    if target is not None:
        files.check_target(source, target, force)
    if folder is not None:
        files.check_new_folder(folder)
        for path in (folder / SHEET_NAME, *sorted(folder.glob(FRAMES_PATTERN))):
            files.refuse_overwrite(path, force)
    container = Container.open(files.read_bytes(source), name, max_pixels)
    model_folder = None
    if container.header.last_stage is not LastStage.STORED:
        model_folder = (
            find_model(model) if model else find_model_by_id(container.header.model_id, name)
        )

    from diffcodec.codec.decoder import decode_frames, find_hops_end
    from diffcodec.codec.model import load_codec_model
    from diffcodec.errors import BitstreamError
    from diffcodec.image import png_bytes

    codec_model = load_codec_model(model_folder) if model_folder else None
    every = folder is not None
    frames: list[Frame] = []
    damage: BitstreamError | None = None
    try:
        for frame in decode_frames(container, codec_model, stop_at_step=stop_at_step, every=every):
            frames.append(frame)
    except BitstreamError as error:
        if not frames:
            raise
        damage = error
    last = frames[-1]
    if folder is not None:
        _write_frames(folder, frames, force)
    if target == files.STREAM:
        files.write_stdout(png_bytes(last.pixels), force)
    elif target is not None:
        files.write_atomically(target, png_bytes(last.pixels), force)
    if damage is not None:
        terminal.warn(f"the last good image was written, after {last.place}")
        raise damage
    if last.truncated:
        if codec_model is None:
            shown, located = "the pixels behind it are gray", container
        else:
            shown = f"this is the image that its whole parts tell, {last.place}"
            located = find_hops_end(container, codec_model)
        terminal.warn(f"{name} ends after {located.extent}: {shown}")


def _target(source: str, output: str | None) -> str:
    files.refuse_directory(source)
    if output is None:
        return source if source == files.STREAM else str(files.decoded_path(source))
    suffix = Path(output).suffix.lower()
    if output != files.STREAM and suffix in files.IMAGE_SUFFIXES - {".png"}:
        raise click.UsageError(f"Images are written as PNG: {output} should end in .png.")
    if files.is_folder(output):
        name = "stdin" if source == files.STREAM else Path(source).name
        return str(Path(output) / files.decoded_path(name).name)
    return output


def _write_frames(folder: Path, frames: "list[Frame]", force: bool) -> None:
    from diffcodec.image import contact_sheet, png_bytes

    folder.mkdir(parents=True, exist_ok=True)
    stale = set(folder.glob(FRAMES_PATTERN))
    for number, frame in enumerate(frames):
        path = folder / f"frame-{number:04d}-step-{frame.step:04d}.png"
        files.write_atomically(path, png_bytes(frame.pixels), force)
        stale.discard(path)
    # Of an earlier run, which --force replaces: nobody could tell its frames from these.
    for path in stale:
        path.unlink()
    sheet = contact_sheet([frame.pixels for frame in frames])
    files.write_atomically(folder / SHEET_NAME, png_bytes(sheet), force)
