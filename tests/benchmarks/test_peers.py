from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import peers
from benchmarks.adapters import Jpeg
from diffcodec.errors import DiffcodecError

Pixels = NDArray[np.uint8]


class Raw:
    """A codec whose rate is known: eight bits a value and what else it is told to add."""

    family, name, library, lossless = "Raw", "Raw", "raw 1", True

    def encode(self, pixels: Pixels) -> bytes:
        return pixels.tobytes() + bytes(int(pixels[0, 0, 0]))

    def decode(self, data: bytes) -> Pixels:
        return np.frombuffer(data[:3072], np.uint8).reshape(32, 32, 3)


class Forgetful(Raw):
    def decode(self, data: bytes) -> Pixels:
        return super().decode(data) & np.uint8(0xFE)


def test_whole_files_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "lossless_peers", lambda: (Raw(),))
    monkeypatch.setattr(peers, "lossy_peers", lambda: ())
    images = np.zeros((4, 32, 32, 3), np.uint8)
    images[:, 0, 0, 0] = [0, 96, 0, 96]
    measured = [peers.measure_peers(image) for image in images]
    (entry,) = peers.summarize_peers(measured, 3072)["lossless"]
    assert entry["mean_bpd"] == pytest.approx(8 + 8 * 48 / 3072)
    deviation_bpd = 8 * 48 / 3072 * np.sqrt(4 / 3)
    assert entry["standard_error_bpd"] == pytest.approx(deviation_bpd / 2)
    assert entry["low_bpd"] <= entry["mean_bpd"] <= entry["high_bpd"]
    # One mid-gray pixel: its three bytes, and the 128 that this codec adds to it.
    assert entry["overhead_bytes"] == 3 + 128
    assert entry["net_bpd"] == pytest.approx(entry["mean_bpd"] - 8 * 131 / 3072)


def test_a_lossless_codec_must_give_the_image_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "lossless_peers", lambda: (Forgetful(),))
    with pytest.raises(DiffcodecError, match="Raw: an image does not come back exactly"):
        peers.measure_peers(np.full((32, 32, 3), 1, np.uint8))


def test_lossy_points_are_what_the_files_are(
    images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    codecs = (Jpeg(10), Jpeg(90))
    monkeypatch.setattr(peers, "lossless_peers", lambda: ())
    monkeypatch.setattr(peers, "lossy_peers", lambda: codecs)
    summary = peers.summarize_peers([peers.measure_peers(image) for image in images], 768)
    (family,) = summary["lossy"]
    assert family["family"] == "JPEG"
    for codec, point in zip(codecs, family["points"], strict=True):
        data = [codec.encode(image) for image in images]
        assert point["mean_bpd"] == pytest.approx(8 * np.mean([len(d) for d in data]) / 768)
        errors = np.array([codec.decode(d) for d in data]).astype(float) - images
        assert point["rmse"] == pytest.approx(np.sqrt(np.mean(errors**2)))


def test_delta_rates_against_every_family(record: dict[str, Any]) -> None:
    if record["bd_rates"] is None:
        pytest.skip("bjontegaard is not installed")
    assert set(record["bd_rates"]) == {family["family"] for family in record["peers"]["lossy"]}


def test_half_the_rate_is_minus_half() -> None:
    points = [
        {"mean_bpd": rate, "net_bpd": rate - 0.1, "psnr_db": 20.0 + 10.0 * rate}
        for rate in (0.5, 1.0, 1.5, 2.0)
    ]
    stops = [{"rate_bpd": p["mean_bpd"] / 2, "psnr_db": p["psnr_db"]} for p in points]
    # A point without error has no PSNR.
    stops.append({"rate_bpd": 3.0, "psnr_db": None})
    family = {"family": "Other", "points": points}
    rates = peers.bd_rates(stops, 10, {"lossy": [family]}, 80)
    if rates is None:
        pytest.skip("bjontegaard is not installed")
    assert rates["Other"]["whole"]["percent"] == pytest.approx(-50.0)
    # Our overhead of a bit a dimension is more than these files have: nothing is left to compare.
    assert rates["Other"]["net"] is None
