import base64
import io
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks.adapters import Jpeg, overhead_bytes
from benchmarks.real_files import FileMeasurement

Pixels = NDArray[np.uint8]


def decoded(png: str) -> Pixels:
    with Image.open(io.BytesIO(base64.b64decode(png))) as image:
        return np.asarray(image)


def test_frames_are_the_file_s_cuts(
    examples: list[dict[str, Any]], results: dict[str, Any], images: Pixels
) -> None:
    (example,) = examples
    measured = FileMeasurement.from_json(results["files/0"])
    frames = example["frames"]
    assert [frame["stream_bytes"] for frame in frames] == [
        cut.stream_bytes for cut in measured.cuts
    ]
    assert example["total_bytes"] == measured.lossless_bytes
    np.testing.assert_array_equal(decoded(example["original"]), images[0])
    np.testing.assert_array_equal(decoded(frames[-1]["png"]), images[0])
    for frame in frames[::5]:
        error = decoded(frame["png"]).astype(float) - images[0]
        assert frame["rmse"] == pytest.approx(float(np.sqrt(np.mean(error**2))))


def test_peers_have_no_fewer_bytes_once_their_overhead_is_off(
    examples: list[dict[str, Any]],
) -> None:
    overhead = min(overhead_bytes(Jpeg(quality)) for quality in range(1, 101))
    for cell in examples[0]["strip"]:
        ours, jpeg = cell["diffcodec"], cell["JPEG"]
        assert 8 * ours["stream_bytes"] / examples[0]["dimensions"] <= cell["rate_bpd"]
        assert jpeg["net_bytes"] == jpeg["stream_bytes"] - overhead
        assert jpeg["net_bytes"] >= ours["stream_bytes"]
