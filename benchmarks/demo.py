"""A tour of the codec on a picture drawn here: ``python -m benchmarks.demo [--out DIR]``."""

import argparse
import contextlib
import io
import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapters import Png, WebpLossless
from cli.decode import SHEET_NAME
from cli.main import main as diffcodec
from diffcodec.image import png_bytes, read_image
from diffcodec.units import bits_per_dimension

Pixels = NDArray[np.uint8]

HEIGHT, WIDTH = 48, 64
PERCENTAGES = (10, 25, 50)
LEDGER_HEAD, LEDGER_TAIL = 14, 12
"""Lines of a long ledger that are shown."""


class DemoError(Exception):
    """A step of the tour did not do what it should."""


def draw_scene(height: int = HEIGHT, width: int = WIDTH) -> Pixels:
    """A hazy evening by the sea, uint8 [H, W, 3], the same on every run."""
    generator = np.random.Generator(np.random.Philox(2006))
    # Four samples a pixel each way, averaged at the end: edges as soft as a lens makes them.
    fine = 4
    rows, columns = np.mgrid[0 : height * fine, 0 : width * fine] / (fine * height)
    horizon = 0.58
    sky = np.clip(rows / horizon, 0.0, 1.0)[..., None]
    picture = (1.0 - sky) * np.array([74, 118, 178.0]) + sky * np.array([246, 196, 150.0])
    clouds = _cloudiness(generator, rows.shape, octaves=5)[..., None]
    picture += np.clip(clouds - 0.1, 0.0, None) * (1.0 - sky) * np.array([120, 100, 80.0])
    sun = np.hypot(rows - 0.42, columns - 0.95)
    glow = np.exp(-((sun / 0.16) ** 2))[..., None]
    picture += glow * np.array([70, 50, 10.0])
    picture[sun < 0.07] = [255, 238, 196]
    far = horizon - 0.1 * np.abs(np.sin(4.1 * columns + 0.6)) - 0.04 * np.sin(11.0 * columns)
    woods = _cloudiness(generator, rows.shape, octaves=7)[..., None]
    picture = np.where((rows > far)[..., None], [112, 112, 140] + 26.0 * woods, picture)
    near = horizon - 0.06 * np.clip(np.sin(3.0 * columns - 1.9), 0.0, None)
    picture = np.where((rows > near)[..., None], [70, 84, 86] + 44.0 * woods, picture)
    depth = np.clip((rows - horizon) / (1.0 - horizon), 0.0, 1.0)
    waves = _cloudiness(generator, rows.shape, octaves=6)
    ripples = np.sin(60.0 * np.sqrt(depth) + 7.0 * waves)
    water = np.array([86, 112, 136.0]) - 34.0 * depth[..., None] + 16.0 * ripples[..., None]
    reflection = np.exp(-(((columns - 0.95) / (0.05 + 0.12 * depth)) ** 2)) * (0.7 + 0.3 * ripples)
    water += reflection[..., None] * np.array([110, 72, 30.0])
    picture = np.where((rows > horizon)[..., None], water, picture)
    hull = (np.abs(columns - 0.42) < 0.09 - 0.9 * (rows - 0.7)) & (np.abs(rows - 0.715) < 0.02)
    picture[hull] = [66, 34, 28]
    sail = (
        (rows > 0.44)
        & (rows < 0.685)
        & (columns > 0.415)
        & (columns - 0.415 < 0.45 * (rows - 0.44))
    )
    picture[sail] = [236, 226, 208]
    picture[(np.abs(columns - 0.41) < 0.004) & (rows > 0.42) & (rows < 0.7)] = [60, 44, 36]
    averaged = picture.reshape(height, fine, width, fine, 3).mean(axis=(1, 3))
    # A sensor's noise: mostly common to the channels after demosaicing.
    grain = 1.2 * generator.standard_normal((height, width, 1))
    grain = grain + 0.5 * generator.standard_normal((height, width, 3))
    levels: Pixels = np.clip(np.rint(averaged + grain), 0, 255).astype(np.uint8)
    return levels


def tour(out: Path, model: str | None = None) -> None:
    """Walk through the commands, printing each before it runs; files go to ``out``.

    Raises:
        DemoError: a command fails, or the picture does not come back exactly.
    """
    out.mkdir(parents=True, exist_ok=True)
    scene = draw_scene()
    source, stream, restored = out / "scene.png", out / "scene.dfc", out / "restored.png"
    source.write_bytes(png_bytes(scene))
    print(f"A picture of {WIDTH} x {HEIGHT} pixels was drawn: {source}\n")
    choice = ["--model", model] if model is not None else []

    print("Encode it without loss, and print the ledger of bits per step:")
    ledger = _run(["encode", str(source), "-o", str(stream), "--bits", "-f", *choice])
    print(_abridged(ledger), end="\n\n")
    data = stream.read_bytes()
    _print_sizes(scene, len(data))

    print("Decode it, and keep the image after every packet:")
    frames = out / "frames"
    arguments = ["decode", str(stream), "-o", str(restored), "--frames", str(frames), "-f"]
    _run([*arguments, *choice])
    if not np.array_equal(_read(restored), scene):
        raise DemoError(f"{restored}: not the picture that was encoded")
    count = len(list(frames.glob("frame-*.png")))
    print(f"{restored} is {source}, pixel for pixel.")
    print(f"The {count} images on the way are on one sheet: {frames / SHEET_NAME}\n")

    print("Every prefix of the file is an image:")
    for percentage in PERCENTAGES:
        _decode_prefix(out, data, scene, percentage, choice)
    print(f"\nAll files are in {out.resolve()}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the tour; 0 on success, 1 on failure, 2 on misuse."""
    description = __doc__.splitlines()[0] if __doc__ else None
    parser = argparse.ArgumentParser(prog="python -m benchmarks.demo", description=description)
    parser.add_argument("--out", type=Path, default=Path("demo"), metavar="DIR")
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    options = parser.parse_args(arguments)
    try:
        tour(options.out, options.model)
    except (DemoError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _cloudiness(
    generator: np.random.Generator, shape: tuple[int, ...], octaves: int
) -> NDArray[np.float64]:
    """Smooth noise of mean near 0: random values on ever finer grids, each half as strong."""
    total = np.zeros(shape)
    for octave in range(octaves):
        cells = 3 * 2**octave
        grid = generator.standard_normal((cells + 1, cells + 1))
        row = np.linspace(0.0, cells, shape[0], endpoint=False)
        column = np.linspace(0.0, cells, shape[1], endpoint=False)
        across = np.array([np.interp(column, np.arange(cells + 1), line) for line in grid])
        down = np.floor(row).astype(np.int64)
        weight = (row - down)[:, None]
        total += 0.5**octave * ((1.0 - weight) * across[down] + weight * across[down + 1])
    return total / 2.0


def _run(arguments: Sequence[str]) -> str:
    """Print a command as a user would type it, run it here, and give what it writes to stdout."""
    print(f"$ diffcodec {shlex.join(arguments)}", flush=True)
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        code = diffcodec(list(arguments))
    if code != 0:
        raise DemoError(f"the command ended with {code}, expected 0")
    return output.getvalue().rstrip("\n")


def _abridged(ledger: str) -> str:
    lines = ledger.splitlines()
    left_out = len(lines) - LEDGER_HEAD - LEDGER_TAIL
    if left_out <= 1:
        return ledger
    return "\n".join(
        [*lines[:LEDGER_HEAD], f"   … {left_out} more packets …", *lines[-LEDGER_TAIL:]]
    )


def _print_sizes(scene: Pixels, size_bytes: int) -> None:
    sizes = [("diffcodec", size_bytes)]
    for peer in (Png(), WebpLossless()):
        sizes.append((peer.name, len(peer.encode(scene))))
    for name, size in sizes:
        rate_bpd = bits_per_dimension(8.0 * size, scene.size)
        print(f"  {name:38} {size:6} bytes  {rate_bpd:.3f} bits/dim")
    print()


def _decode_prefix(
    out: Path, data: bytes, scene: Pixels, percentage: int, choice: Sequence[str]
) -> None:
    """Cut the file, decode what is left, and tell its error."""
    cut = out / f"scene-{percentage}-percent.dfc"
    image = cut.with_suffix(".png")
    cut.write_bytes(data[: len(data) * percentage // 100])
    _run(["decode", str(cut), "-o", str(image), "-f", "-q", *choice])
    error = _read(image).astype(np.float64) - scene
    rmse = math.sqrt(float(np.mean(error**2)))
    print(f"  {percentage} % of the bytes ({cut.stat().st_size}): RMSE {rmse:.2f}, {image}")


def _read(path: Path) -> Pixels:
    return read_image(path.read_bytes(), str(path))


if __name__ == "__main__":
    raise SystemExit(main())
