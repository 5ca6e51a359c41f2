"""Files travel between processes that do not share a number of threads."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diffcodec.codec.decoder import Frame
from diffcodec.codec.encoder import Encoded
from diffcodec.image import png_bytes, read_image

Pixels = NDArray[np.uint8]
Decode = Callable[..., Frame]
REPOSITORY = Path(__file__).parents[2]


def diffcodec(threads: int, *arguments: str | Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


def test_two_threads_decode_what_one_encoded(
    tmp_path: Path, tiny_folder: Path, picture: Pixels, lossless: Encoded
) -> None:
    file, back = tmp_path / "a.dfc", tmp_path / "a.png"
    file.write_bytes(lossless.data)
    diffcodec(2, "decode", "--model", tiny_folder, file)
    np.testing.assert_array_equal(read_image(back.read_bytes(), "a.png"), picture)


def test_one_thread_decodes_what_two_encoded(
    tmp_path: Path, tiny_folder: Path, picture: Pixels, decode: Decode
) -> None:
    tiled = np.concatenate([picture, 255 - picture], axis=1)
    image, file = tmp_path / "a.png", tmp_path / "a.dfc"
    image.write_bytes(png_bytes(tiled))
    diffcodec(2, "encode", "--effort", "3", "--model", tiny_folder, image)
    np.testing.assert_array_equal(decode(file.read_bytes()).pixels, tiled)
