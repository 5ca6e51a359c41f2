"""Whether files decode on other processors: ``python -m benchmarks.processors [--images 24]``.

Held-out CIFAR-10 images are coded without loss here, and decoded in processes that are held to the
instructions of older processors, so that the network's last digits are others. The record has how
many came back exactly; of the numbers that both ends must round alike, how far they are from the
encoder's and how near to an edge of their grids, in steps of these; and of how many files all would
round alike on grids that are not shifted (`diffcodec.coding.agreement`). Results go to
``processors.json``, a table to stdout.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import held_out
from benchmarks.adapters.base import Pixels
from benchmarks.tables import Table
from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import decode_frames, last_stage_of
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.codec.pixels import PixelSettings
from diffcodec.coding.agreement import SHIFTS
from diffcodec.coding.tables import mean_positions, scale_positions
from diffcodec.errors import DiffcodecError, NumericMismatchError

RESULT = "processors.json"
INSTRUCTIONS: Mapping[str, Mapping[str, str]] = {
    "AVX2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    },
    "SSE4.1": {
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
    },
}
"""Settings of a process that hold PyTorch's libraries to a kind of instructions."""
PARTS = ("latents", "levels")

Float64 = NDArray[np.float64]


def positions(file: bytes, pixels: Pixels, model: CodecModel) -> tuple[Float64, Float64]:
    """What is rounded of a file of one tile: of its latent and of its levels, on unshifted grids.

    Args:
        pixels: the image, uint8 [H, W, C].
    """
    container = Container.open(file, "file").by_its_checks()
    stage = last_stage_of(container, model)
    settings = PixelSettings.unpacked(container.last_stage().data, stage.layout.count)
    said = [s for _, s in stage.gaussians(pixels, settings.groups, settings.latent_shifts)]
    means = [mean_positions(run.means) for run in said]
    scales = [scale_positions(run.variances) for run in said]
    return (stage.z / stage.latent_grid).ravel(), np.concatenate(means + scales)


def shifts(file: bytes) -> tuple[float, float]:
    """By how much a file of one tile shifts the grids of its latent and of its levels."""
    payload = Container.open(file, "file").by_its_checks().last_stage().data
    settings = PixelSettings.unpacked(payload, 1)
    latent, level = SHIFTS[[settings.latent_shifts[0], settings.level_shifts[0]]]
    return float(latent), float(level)


def read(folder: Path, model: CodecModel) -> None:
    """The other end: decode ``folder``'s files, and put beside them what was found."""
    images = np.load(folder / "images.npy")
    exact, found = [], []
    for number, pixels in enumerate(images):
        file = (folder / f"{number}.dfc").read_bytes()
        try:
            *_, frame = decode_frames(Container.open(file, "file"), model, every=False)
            exact.append(frame.exact and np.array_equal(frame.pixels, pixels))
        except NumericMismatchError:
            exact.append(False)
        found.append(positions(file, pixels, model))
    latents, levels = (np.stack(part) for part in zip(*found, strict=True))
    np.savez(folder / "found.npz", exact=exact, latents=latents, levels=levels)


def compare(
    files: Sequence[bytes], here: Mapping[str, Float64], there: Mapping[str, Any]
) -> dict[str, Any]:
    """What another end found beside what the encoder has, both ``latents`` and ``levels``."""
    alike = np.ones(len(files), dtype=bool)
    row: dict[str, Any] = {"files": len(files), "exact": int(there["exact"].sum())}
    for part, shift in zip(PARTS, zip(*map(shifts, files), strict=True), strict=True):
        ours, theirs = here[part], there[part]
        moved = ours + np.array(shift)[:, None]
        margins = np.abs(moved - np.floor(moved) - 0.5).min(axis=1)
        alike &= (np.rint(ours) == np.rint(theirs)).all(axis=1)
        row[part] = {
            "mean_difference": float(np.abs(ours - theirs).mean()),
            "largest_difference": float(np.abs(ours - theirs).max()),
            "median_margin": float(np.median(margins)),
            "smallest_margin": float(margins.min()),
        }
    return {**row, "alike_unshifted": int(alike.sum())}


def measure(subject: held_out.Subject) -> dict[str, Any]:
    """Code the images here and decode them with each of `INSTRUCTIONS`.

    Raises:
        DiffcodecError: a process that decodes them fails.
    """
    images, files = [], []
    for pixels in subject.images:
        encoded = encode_image(pixels, subject.model, EncoderSettings())
        # Stored pixels are every machine's.
        if encoded.ledger:
            images.append(pixels)
            files.append(encoded.data)
    found = [positions(*pair, subject.model) for pair in zip(files, images, strict=True)]
    here = dict(zip(PARTS, (np.stack(part) for part in zip(*found, strict=True)), strict=True))
    rows = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.save(folder / "images.npy", images)
        for number, file in enumerate(files):
            (folder / f"{number}.dfc").write_bytes(file)
        for kind, settings in INSTRUCTIONS.items():
            command = [sys.executable, "-m", "benchmarks.processors", "--read", name]
            command += ["--model", str(subject.model_folder)]
            run = subprocess.run(
                command, env={**os.environ, **settings}, stderr=subprocess.PIPE, text=True
            )
            if run.returncode:
                *_, reason = run.stderr.strip().splitlines() or [f"exit code {run.returncode}"]
                raise DiffcodecError(f"decoding with {kind} failed: {reason}")
            with np.load(folder / "found.npz") as there:
                rows[kind] = compare(files, here, there)
    return {"rows": rows}


def processors_table(record: Mapping[str, Any]) -> Table:
    """Exact files, differences and margins, a line for each kind of instructions."""
    head = ("instructions of the decoder", "exact", "alike on unshifted grids")
    parts = ("mean difference of {0}", "smallest and median margin of {0}")
    names = (part.format(name) for name in PARTS for part in parts)
    lines = []
    for kind, row in record["rows"].items():
        line = [kind, f"{row['exact']} of {row['files']}", f"{row['alike_unshifted']}"]
        for part in PARTS:
            values = row[part]
            margins = f"{values['smallest_margin']:.1e}, {values['median_margin']:.1e}"
            line += [f"{values['mean_difference']:.1e}", margins]
        lines.append(tuple(line))
    return Table((*head, *names), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.processors",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    held_out.add_options(parser, images=24)
    parser.add_argument("--read", type=Path, metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.images < 1:
        parser.error("expected --images of at least 1")
    if options.read is not None:
        read(options.read, load_codec_model(Path(options.model)))
        return 0
    return held_out.run(options, RESULT, measure, lambda record: processors_table(record).show())


if __name__ == "__main__":
    raise SystemExit(main())
