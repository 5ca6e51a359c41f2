"""Whether thread counts matter: files encoded with one and decoded with two, and the other way."""

from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.adapters.base import Pixels
from benchmarks.real_files import decode_last
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import load_codec_model
from diffcodec.errors import BitstreamError


def check_threads(
    images: Pixels,
    model_folder: Path,
    effort: int,
    on_pass: Callable[[], None] = lambda: None,
) -> dict[str, int]:
    """Counts of exact round trips over uint8 [N, H, W, C], each pass in a fresh process.

    ``same_file`` counts images of which both encoders wrote the same bytes. ``on_pass`` is called
    after each of the four passes.
    """

    def fresh(
        function: Callable[..., Any], items: Sequence[Any] | Pixels, threads: int
    ) -> list[Any]:
        # Spawned, not forked: torch's threads do not survive a fork.
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            results: list[Any] = pool.submit(
                function, items, model_folder, effort, threads
            ).result()
        on_pass()
        return results

    one, two = fresh(_encode, images, 1), fresh(_encode, images, 2)
    one_to_two = fresh(_are_exact, list(zip(one, images, strict=True)), 2)
    two_to_one = fresh(_are_exact, list(zip(two, images, strict=True)), 1)
    return {
        "images": len(images),
        "one_to_two": sum(one_to_two),
        "two_to_one": sum(two_to_one),
        "same_file": sum(a == b for a, b in zip(one, two, strict=True)),
    }


def _encode(images: Pixels, model_folder: Path, effort: int, threads: int) -> list[bytes]:
    torch.set_num_threads(threads)
    model = load_codec_model(model_folder)
    settings = EncoderSettings.for_effort(effort_level(effort))
    return [encode_image(pixels, model, settings).data for pixels in images]


def _are_exact(
    items: Sequence[tuple[bytes, Pixels]], model_folder: Path, effort: int, threads: int
) -> list[bool]:
    torch.set_num_threads(threads)
    model = load_codec_model(model_folder)
    exact = []
    for data, pixels in items:
        try:
            exact.append(bool(np.array_equal(decode_last(data, model), pixels)))
        except BitstreamError:
            exact.append(False)
    return exact
