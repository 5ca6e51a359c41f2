"""Every adapter keeps the one law of its interface; the peers' table is made of whole files."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.adapters import Adapter, Png, WebpLossless, jpeg_xl, lossless_peers
from benchmarks.provenance import provenance
from diffcodec.errors import DiffcodecError

Pixels = NDArray[np.uint8]


def draw(count: int, height: int = 32, width: int = 32) -> Pixels:
    generator = np.random.Generator(np.random.Philox(7))
    return generator.integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write_test_batch(folder: Path, images: Pixels) -> None:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    labels = np.zeros((len(images), 1), np.uint8)
    np.concatenate([labels, planes], axis=1).tofile(folder / "test_batch.bin")


@pytest.mark.parametrize("adapter", lossless_peers(), ids=lambda adapter: adapter.name)
class TestLosslessPeers:
    @pytest.mark.parametrize("shape", [(32, 32), (1, 1), (17, 5)])
    def test_round_trip(self, adapter: Adapter, shape: tuple[int, int]) -> None:
        assert adapter.lossless
        for pixels in (draw(1, *shape)[0], np.full((*shape, 3), 255, np.uint8)):
            decoded = adapter.decode(adapter.encode(pixels))
            assert decoded.dtype == np.uint8
            np.testing.assert_array_equal(decoded, pixels)

    def test_library_states_a_version(self, adapter: Adapter) -> None:
        assert any(character.isdigit() for character in adapter.library)


def test_names_are_distinct() -> None:
    names = [adapter.name for adapter in lossless_peers()]
    assert len(set(names)) == len(names)


def test_without_the_jpeg_xl_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_jxl", None)
    assert not jpeg_xl.available()
    assert lossless_peers() == (Png(), WebpLossless())


class Raw:
    """A codec whose rate is known: eight bits a value and what else it is told to add."""

    name = "raw"
    library = "1"
    lossless = True

    def encode(self, pixels: Pixels) -> bytes:
        return pixels.tobytes() + bytes(int(pixels[0, 0, 0]))

    def decode(self, data: bytes) -> Pixels:
        return np.frombuffer(data[:3072], np.uint8).reshape(32, 32, 3)


class Forgetful(Raw):
    def decode(self, data: bytes) -> Pixels:
        return super().decode(data) & np.uint8(0xFE)


def test_measure_counts_whole_files() -> None:
    images = np.zeros((4, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = [0, 96, 0, 96]
    result = peers.measure(Raw(), images)
    assert result.mean_bpd == pytest.approx(8 + 8 * 48 / 3072)
    deviation_bpd = 8 * 48 / 3072 * np.sqrt(4 / 3)
    assert result.standard_error_bpd == pytest.approx(deviation_bpd / 2)


def test_measure_verifies_the_round_trip() -> None:
    with pytest.raises(DiffcodecError, match="raw: image 0 does not come back exactly"):
        peers.measure(Forgetful(), draw(2))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_test_batch(tmp_path, draw(3))
    out = tmp_path / "results" / "peers.json"
    assert peers.main(["--images", "2", "--data", str(tmp_path), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    record = json.loads(out.read_text())
    assert record["images"] == 2
    assert [result["name"] for result in record["results"]] == [
        adapter.name for adapter in lossless_peers()
    ]
    for result in record["results"]:
        assert result["name"] in printed
        # Noise does not compress, and a file has a header.
        assert result["mean_bpd"] > 8


def test_command_errors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_test_batch(tmp_path, draw(3))
    assert peers.main(["--images", "4", "--data", str(tmp_path)]) == 1
    assert capsys.readouterr().err.endswith("expected 4 test images, found 3\n")
    with pytest.raises(SystemExit) as caught:
        peers.main(["--images", "1", "--data", str(tmp_path)])
    assert caught.value.code == 2


def test_provenance_is_complete() -> None:
    record = json.loads(json.dumps(provenance()))
    assert record["python"] == ".".join(map(str, sys.version_info[:3]))
    assert record["packages"]["numpy"] == np.__version__
    assert record["cpu"]
    assert record["command"].startswith("python ")


def test_torch_is_not_imported() -> None:
    code = "import sys, benchmarks.peers as p; p.provenance(); sys.exit('torch' in sys.modules)"
    root = Path(peers.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=False).returncode == 0
