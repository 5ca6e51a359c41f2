"""Every adapter keeps the laws of its interface."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import adapters
from benchmarks.adapters import (
    Adapter,
    Jpeg,
    Jpeg2000,
    family_overheads,
    heic,
    jpeg_xl,
    lossless_peers,
    lossy_peers,
    overhead_bytes,
)
from benchmarks.provenance import provenance

Pixels = NDArray[np.uint8]
EVERY = (*lossless_peers(), *lossy_peers())


def draw(count: int, height: int = 32, width: int = 32) -> Pixels:
    generator = np.random.Generator(np.random.Philox(7))
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("adapter", lossless_peers(), ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("shape", [(32, 32), (1, 1), (17, 5)])
def test_lossless_round_trips(adapter: Adapter, shape: tuple[int, int]) -> None:
    assert adapter.lossless
    for pixels in (draw(1, *shape)[0], np.full((*shape, 3), 255, np.uint8)):
        decoded = adapter.decode(adapter.encode(pixels))
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("adapter", lossy_peers(), ids=lambda adapter: adapter.name)
def test_lossy_codecs_give_an_image_of_the_same_shape(
    adapter: Adapter, drawn_image: object
) -> None:
    assert callable(drawn_image)
    assert not adapter.lossless
    pixels = drawn_image(32, 32, 3, seed=1)
    decoded = adapter.decode(adapter.encode(pixels))
    assert decoded.dtype == np.uint8
    assert decoded.shape == pixels.shape


@pytest.mark.parametrize("family", sorted({adapter.family for adapter in lossy_peers()}))
def test_more_bits_of_a_family_bring_less_error(family: str, drawn_image: object) -> None:
    assert callable(drawn_image)
    pixels = drawn_image(32, 32, 3, seed=1).astype(int)
    settings = [adapter for adapter in lossy_peers() if adapter.family == family]
    points = []
    for adapter in (settings[0], settings[-1]):
        data = adapter.encode(pixels.astype(np.uint8))
        points.append((len(data), float(np.mean((adapter.decode(data) - pixels) ** 2))))
    (coarse_bytes, coarse_error), (fine_bytes, fine_error) = points
    assert fine_bytes > coarse_bytes
    assert fine_error < coarse_error / 4


@pytest.mark.parametrize("adapter", EVERY, ids=lambda adapter: adapter.name)
def test_libraries_state_a_version(adapter: Adapter) -> None:
    assert any(character.isdigit() for character in adapter.library)


def test_names_are_distinct_and_begin_with_their_family() -> None:
    names = [adapter.name for adapter in EVERY]
    assert len(set(names)) == len(names)
    assert all(adapter.name.startswith(adapter.family) for adapter in EVERY)


def test_overhead_is_the_size_of_a_file_that_says_nothing() -> None:
    codec = Jpeg(75)
    grey = codec.encode(np.full((1, 1, 3), 128, np.uint8))
    assert overhead_bytes(codec) == len(grey)
    assert family_overheads((codec, Jpeg(100)))["JPEG"] <= overhead_bytes(codec)
    for family, overhead in family_overheads(lossy_peers()).items():
        sizes = [len(a.encode(draw(1)[0])) for a in lossy_peers() if a.family == family]
        assert 0 < overhead < min(sizes), family


def test_jpeg_2000_reaches_the_psnr_it_is_asked_for(drawn_image: object) -> None:
    assert callable(drawn_image)
    pixels = drawn_image(32, 32, 3, seed=1).astype(int)
    codec = Jpeg2000(36)
    error = np.mean((codec.decode(codec.encode(pixels.astype(np.uint8))) - pixels) ** 2)
    assert 10 * np.log10(255**2 / error) == pytest.approx(36, abs=2)


def test_codecs_that_are_not_installed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("pillow_jxl", "pillow_heif", "imagecodecs"):
        monkeypatch.setitem(sys.modules, module, None)
    assert not jpeg_xl.available()
    assert not heic.available()
    families = {adapter.family for adapter in (*lossless_peers(), *lossy_peers())}
    assert families >= {"PNG", "JPEG", "WebP"}
    assert not families & {"JPEG XL", "HEIC", "QOI", "JPEG-LS"}


def test_provenance_is_complete() -> None:
    record = json.loads(json.dumps(provenance("a device")))
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["numpy"] == np.__version__
    assert record["cpu"]
    assert record["device"] == "a device"
    assert record["command"].startswith("python ")


def test_changes_have_a_digest_where_there_are_any(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import provenance as module

    answers = {"status": " M file", "diff": "- old\n+ new", "ls-files": ""}
    monkeypatch.setattr(module, "_git", lambda *arguments: answers.get(arguments[0]))
    first = module.provenance()
    answers["diff"] = "- old\n+ newer"
    assert first["dirty"]
    assert first["changes"] != module.provenance()["changes"]
    answers["status"] = ""
    assert module.provenance()["changes"] is None


def test_torch_is_not_imported() -> None:
    code = "import sys, benchmarks.adapters as a; a.lossy_peers(); sys.exit('torch' in sys.modules)"
    root = Path(adapters.__file__).parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
