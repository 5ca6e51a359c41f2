"""A few images at growing rates, ours beside others' at equal bytes, as pictures in JSON."""

import base64
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.adapters import Adapter, Avif, Jpeg, avif, family_overheads
from benchmarks.adapters.base import Pixels
from benchmarks.metrics import mean_squared_error
from benchmarks.real_files import BUDGETS_BPD, cut_lengths
from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.image import png_bytes
from diffcodec.units import bits_per_dimension

AVIF_QUALITIES = range(0, 100, 3)


def measure_example(pixels: Pixels, model: CodecModel, effort: int) -> dict[str, Any]:
    """Every image on the way of one file, and others' files of the strip's sizes, ready for JSON.

    ``frames`` are the images of all packets' prefixes, of those at the table's rates and of the
    whole file. ``strip`` has, for each rate of `BUDGETS_BPD`, the longest of them that fits, and
    each peer's smallest file that has not fewer bytes than that prefix once its constant overhead
    is taken off; its largest file where all are smaller.
    """
    encoded = encode_image(pixels, model, EncoderSettings.for_effort(effort_level(effort)))
    frames: dict[int, dict[str, Any]] = {}
    container = Container.open(encoded.data, "example")
    lengths = cut_lengths(container, encoded, every_packet=True)
    for frame in decode_frames(container, model, lengths=lengths):
        frames[frame.stream_bytes] = {
            **_picture(frame.stream_bytes, frame.pixels, pixels),
            "step": frame.step,
            "exact_values": frame.exact_values,
        }
    known = sorted(frames)
    strip: list[dict[str, Any]] = []
    for rate_bpd in BUDGETS_BPD:
        held = [n for n in known if bits_per_dimension(8.0 * n, pixels.size) <= rate_bpd]
        if held:
            strip.append({"rate_bpd": rate_bpd, "diffcodec": frames[held[-1]]})
    for family, settings in _settings().items():
        overhead = family_overheads(settings)[family]
        files = [(adapter, adapter.encode(pixels)) for adapter in settings]
        files.sort(key=lambda file: len(file[1]))
        for cell in strip:
            wanted = overhead + cell["diffcodec"]["stream_bytes"]
            adapter, data = next((f for f in files if len(f[1]) >= wanted), files[-1])
            cell[family] = {
                **_picture(len(data), adapter.decode(data), pixels),
                "net_bytes": len(data) - overhead,
            }
    return {
        "original": _png(pixels),
        "total_bytes": len(encoded.data),
        "dimensions": pixels.size,
        "frames": [frames[length] for length in known],
        "strip": strip,
    }


def _settings() -> dict[str, tuple[Adapter, ...]]:
    """All qualities of the codecs that the strips show, chroma halved as their users have it."""
    makers: dict[str, tuple[Callable[[int], Adapter], Sequence[int]]] = {
        "JPEG": (Jpeg, range(1, 101))
    }
    if avif.available():
        makers["AVIF"] = (Avif, AVIF_QUALITIES)
    return {family: tuple(map(make, qualities)) for family, (make, qualities) in makers.items()}


def _picture(stream_bytes: int, decoded: Pixels, pixels: Pixels) -> dict[str, Any]:
    return {
        "stream_bytes": stream_bytes,
        "rmse": float(np.sqrt(mean_squared_error(decoded, pixels))),
        "png": _png(decoded),
    }


def _png(pixels: Pixels) -> str:
    return base64.b64encode(png_bytes(pixels)).decode("ascii")
