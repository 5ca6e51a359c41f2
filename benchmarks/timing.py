"""Speed and memory of every codec, each in fresh processes of its own.

``python -m benchmarks.timing`` is what `measure_timing` starts for one image at a time: pickled on
standard input a codec and images, JSON on standard output. No other way of starting a process
leaves it as small: multiprocessing imports the parent's main module, and with it torch.

Milliseconds depend on the machine and on what else it does: they are reported, never asserted.
"""

import json
import pickle
import resource
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.adapters import (
    Adapter,
    Avif,
    Heic,
    Jpeg,
    Jpeg2000,
    JpegXl,
    Webp,
    avif,
    heic,
    jpeg2000,
    jpeg_xl,
    lossless_peers,
)
from benchmarks.adapters.base import Pixels
from benchmarks.results import ROOT

OUR_BUDGET_BPD = 0.5
_KIBIBYTE = 1024
_MEBIBYTE = 1024.0**2


def timed_codecs(model_folder: Path, effort: int) -> tuple[Adapter, ...]:
    """Ours and, of each peer that runs here, one lossy setting and the lossless ones."""
    # Loads torch, which the process of another codec should do without.
    from benchmarks.adapters.diffcodec_file import Diffcodec

    codecs: list[Adapter] = [
        Diffcodec(model_folder, effort),
        Diffcodec(model_folder, effort, OUR_BUDGET_BPD),
        *lossless_peers(),
        Jpeg(75),
        Webp(70),
    ]
    if jpeg2000.available():
        codecs.append(Jpeg2000(32))
    if avif.available():
        codecs.append(Avif(65, "4:4:4"))
    if heic.available():
        codecs.append(Heic(50, "4:4:4"))
    if jpeg_xl.available():
        codecs.append(JpegXl(82))
    return tuple(codecs)


def measure_timing(adapter: Adapter, images: Pixels, jobs: int) -> dict[str, Any]:
    """Medians of one image at a time on one thread, a batch over ``jobs`` processes, peak memory.

    The first image is coded once before the clock starts: a codec's loading is not its speed.
    Memory is that of the whole Python process that codes one image at a time. uint8 [N, H, W, 3].
    """
    child = subprocess.run(
        [sys.executable, "-m", "benchmarks.timing"],
        cwd=ROOT,
        input=pickle.dumps((adapter, images)),
        stdout=subprocess.PIPE,
        check=True,
    )
    return {
        "name": adapter.name,
        "family": adapter.family,
        "library": adapter.library,
        "lossless": adapter.lossless,
        "images": len(images),
        **json.loads(child.stdout),
        **time_batch(adapter, images, jobs),
    }


def time_batch(adapter: Adapter, images: Pixels, jobs: int) -> dict[str, Any]:
    """Milliseconds an image of a batch over ``jobs`` processes of one thread; uint8 [N, H, W, 3].

    The clock starts when every process has loaded its codec.
    """
    with ProcessPoolExecutor(jobs, get_context("spawn"), _warm_up, (adapter, images[0])) as pool:
        list(pool.map(_ready, range(4 * jobs)))
        start = time.perf_counter()
        files = list(pool.map(_encode, images))
        encode_seconds = time.perf_counter() - start
        start = time.perf_counter()
        list(pool.map(_decode, files))
        decode_seconds = time.perf_counter() - start
    return {
        "batch_processes": jobs,
        "batch_encode_ms": 1e3 * encode_seconds / len(images),
        "batch_decode_ms": 1e3 * decode_seconds / len(images),
    }


def peak_memory_bytes() -> int:
    """The most memory that this process has had resident.

    Linux carries ru_maxrss over from the process that spawned this one; its VmHWM starts anew.
    """
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name == "VmHWM":
            return int(value.split()[0]) * _KIBIBYTE
    unit = 1 if sys.platform == "darwin" else _KIBIBYTE
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _single(adapter: Adapter, images: Pixels) -> dict[str, Any]:
    _one_thread()
    adapter.decode(adapter.encode(images[0]))
    encode_seconds, decode_seconds = [], []
    for pixels in images:
        start = time.perf_counter()
        data = adapter.encode(pixels)
        encode_seconds.append(time.perf_counter() - start)
        start = time.perf_counter()
        adapter.decode(data)
        decode_seconds.append(time.perf_counter() - start)
    return {
        "encode_ms": 1e3 * float(np.median(encode_seconds)),
        "decode_ms": 1e3 * float(np.median(decode_seconds)),
        "peak_mib": peak_memory_bytes() / _MEBIBYTE,
    }


# A batch process's codec, set once when it starts: a process pool has no other place.
_adapter: Adapter | None = None


def _warm_up(adapter: Adapter, pixels: Pixels) -> None:
    global _adapter
    _one_thread()
    adapter.decode(adapter.encode(pixels))
    _adapter = adapter


def _ready(_: int) -> None:
    time.sleep(0.01)


def _encode(pixels: Pixels) -> bytes:
    assert _adapter is not None
    return _adapter.encode(pixels)


def _decode(data: bytes) -> Pixels:
    assert _adapter is not None
    return _adapter.decode(data)


def _one_thread() -> None:
    # Of the codecs only ours uses torch; the others' processes should not hold it in memory.
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(1)


if __name__ == "__main__":
    print(json.dumps(_single(*pickle.load(sys.stdin.buffer))))
