"""That every codec is timed, not how fast it is."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.adapters import Png
from benchmarks.adapters.diffcodec_file import Diffcodec
from benchmarks.timing import measure_timing, peak_memory_bytes, timed_codecs

Pixels = NDArray[np.uint8]


def test_times_and_memory_of_a_codec(images: Pixels) -> None:
    measured = measure_timing(Png(), images, 2)
    assert measured["name"] == Png().name
    assert measured["images"] == len(images)
    assert measured["batch_processes"] == 2
    for key in ("encode_ms", "decode_ms", "batch_encode_ms", "batch_decode_ms"):
        assert measured[key] > 0.0
    # An interpreter with NumPy, and no torch.
    assert 10.0 < measured["peak_mib"] < 150.0


def test_memory_is_the_process_own_and_rises() -> None:
    # A large parent must not count: its child starts small.
    ballast = np.ones(300 << 20, np.uint8)
    script = (
        "from benchmarks.timing import peak_memory_bytes as peak\n"
        "before = peak(); kept = b'x' * (200 << 20); print(before, peak())"
    )
    root = Path(__file__).resolve().parents[2]
    ended = subprocess.run(
        [sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True
    )
    before, after = map(int, ended.stdout.split())
    assert before < ballast.nbytes < peak_memory_bytes()
    assert after - before > 190 << 20


def test_the_codecs_that_are_timed(tiny_folder: Path) -> None:
    codecs = timed_codecs(tiny_folder, 1)
    names = [codec.name for codec in codecs]
    assert len(set(names)) == len(names)
    assert [codec.lossless for codec in codecs[:2]] == [True, False]


def test_our_codec_keeps_the_law_of_the_interface(images: Pixels, tiny_folder: Path) -> None:
    codec = Diffcodec(tiny_folder, 1)
    np.testing.assert_array_equal(codec.decode(codec.encode(images[0])), images[0])
    within = Diffcodec(tiny_folder, 1, bpd=2.0)
    assert len(within.encode(images[0])) <= 2.0 * images[0].size / 8
    assert not within.lossless
    assert codec.library.startswith("model ")
