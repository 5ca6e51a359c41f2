"""Lossless size against time at every effort: what more evaluations of the network buy."""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from benchmarks.adapters.base import Pixels
from benchmarks.real_files import decode_last, standard_error
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.units import bits_per_dimension


@dataclass(frozen=True)
class EffortFile:
    """One image's lossless file at one effort; seconds on one thread."""

    effort: int
    lossless_bytes: int
    exact: bool
    evaluations: int
    encode_seconds: float
    decode_seconds: float

    def to_json(self) -> dict[str, Any]:
        """For the journal of a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**record)


def measure_effort(pixels: Pixels, model: CodecModel, effort: int) -> EffortFile:
    """Encode and decode one image, uint8 [H, W, C], without loss."""
    start = time.perf_counter()
    encoded = encode_image(pixels, model, EncoderSettings.for_effort(effort_level(effort)))
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    decoded = decode_last(encoded.data, model)
    decode_seconds = time.perf_counter() - start
    return EffortFile(
        effort=effort,
        lossless_bytes=len(encoded.data),
        exact=bool(np.array_equal(decoded, pixels)),
        evaluations=encoded.evaluations,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
    )


def summarize_efforts(files: Sequence[EffortFile], dimensions: int) -> list[dict[str, Any]]:
    """One row an effort, ``front`` where no other is both smaller and faster to encode and decode.

    Args:
        dimensions: H·W·C of every image.
    """
    rows: list[dict[str, Any]] = []
    for effort in sorted({file.effort for file in files}):
        of_effort = [file for file in files if file.effort == effort]
        sizes = np.array([file.lossless_bytes for file in of_effort], dtype=np.float64)
        sizes_bpd = bits_per_dimension(8.0 * sizes, dimensions)
        rows.append(
            {
                "effort": effort,
                "images": len(of_effort),
                "exact_round_trips": sum(file.exact for file in of_effort),
                "mean_bpd": float(sizes_bpd.mean()),
                "standard_error_bpd": standard_error(sizes_bpd),
                "evaluations_mean": float(np.mean([file.evaluations for file in of_effort])),
                "encode_seconds_median": float(
                    np.median([file.encode_seconds for file in of_effort])
                ),
                "decode_seconds_median": float(
                    np.median([file.decode_seconds for file in of_effort])
                ),
            }
        )
    for row in rows:
        row["front"] = not any(_beats(other, row) for other in rows)
    return rows


def _beats(other: dict[str, Any], row: dict[str, Any]) -> bool:
    """Whether ``other`` is nowhere worse and somewhere better."""
    keys = ("mean_bpd", "encode_seconds_median", "decode_seconds_median")
    pairs = [(other[key], row[key]) for key in keys]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
