"""Lossless size against time: what more evaluations of the network and a longer search buy."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np

from benchmarks.adapters.base import Pixels
from benchmarks.parts import PARTS, Seconds, time_parts
from benchmarks.real_files import decode_last, price, standard_error
from diffcodec.codec.effort import Effort
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.units import bits_per_dimension


@dataclass(frozen=True)
class EffortFile:
    """One image's lossless file at one effort.

    Attributes:
        lossless_bytes: length of the file.
        exact: whether the decoder gave the pixels back.
        kl_bits, paid_bits: of the hops, KL and what was paid for it; 0 for stored pixels.
        evaluations: of the network, that a decoder of the whole file needs.
        encode, decode: seconds on one thread.
    """

    lossless_bytes: int
    exact: bool
    kl_bits: float
    paid_bits: int
    evaluations: int
    encode: Seconds
    decode: Seconds

    def to_json(self) -> dict[str, Any]:
        """For the journal of a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        sides = {side: Seconds(**record[side]) for side in ("encode", "decode")}
        return cls(**{**record, **sides})


def measure_effort(pixels: Pixels, model: CodecModel, effort: Effort) -> EffortFile:
    """Encode and decode one image, uint8 [H, W, C], without loss."""
    settings = EncoderSettings.for_effort(effort)
    encoded, encode = time_parts(model, lambda: encode_image(pixels, model, settings))
    decoded, decode = time_parts(model, lambda: decode_last(encoded.data, model))
    return EffortFile(
        lossless_bytes=len(encoded.data),
        exact=bool(np.array_equal(decoded, pixels)),
        kl_bits=math.fsum(entry.kl_bits for entry in encoded.ledger),
        paid_bits=sum(entry.paid_bits for entry in encoded.ledger),
        evaluations=encoded.evaluations,
        encode=encode,
        decode=decode,
    )


def summarize_effort(files: Sequence[EffortFile], dimensions: int) -> dict[str, Any]:
    """Means and medians over the files of one effort, ready for JSON.

    ``encode_shares`` and ``decode_shares`` are of the seconds of all files together.

    Args:
        dimensions: H·W·C of every image.
    """
    sizes = np.array([file.lossless_bytes for file in files], dtype=np.float64)
    sizes_bpd = bits_per_dimension(8.0 * sizes, dimensions)
    return {
        "images": len(files),
        "exact_round_trips": sum(file.exact for file in files),
        "paid_over_kl": price(
            sum(file.paid_bits for file in files), math.fsum(file.kl_bits for file in files)
        ),
        "mean_bpd": float(sizes_bpd.mean()),
        "standard_error_bpd": standard_error(sizes_bpd),
        "evaluations_mean": float(np.mean([file.evaluations for file in files])),
        **_summarize_seconds("encode", [file.encode for file in files]),
        **_summarize_seconds("decode", [file.decode for file in files]),
    }


def _summarize_seconds(side: str, runs: Sequence[Seconds]) -> dict[str, Any]:
    total = sum(run.total for run in runs)
    return {
        f"{side}_seconds_median": float(np.median([run.total for run in runs])),
        f"{side}_evaluations_mean": float(np.mean([run.evaluations for run in runs])),
        f"{side}_shares": {part: sum(getattr(run, part) for run in runs) / total for part in PARTS},
    }


def summarize_efforts(
    files: Mapping[int, Sequence[EffortFile]], dimensions: int
) -> list[dict[str, Any]]:
    """One row a level of ``files``, which has those of each, marked by `mark_front`.

    Args:
        dimensions: H·W·C of every image.
    """
    rows = [
        {"effort": effort, **summarize_effort(of_effort, dimensions)}
        for effort, of_effort in files.items()
    ]
    mark_front(rows)
    return rows


def mark_front(rows: Sequence[dict[str, Any]]) -> None:
    """Set ``front`` where no other row is nowhere worse, in size and both times, and better.

    ``front_of_evaluations`` is the same in size and evaluations of the network.
    """
    times = ("encode_seconds_median", "decode_seconds_median")
    for name, keys in (("front", times), ("front_of_evaluations", ("evaluations_mean",))):
        for row in rows:
            row[name] = not any(_beats(other, row, ("mean_bpd", *keys)) for other in rows)


def _beats(other: dict[str, Any], row: dict[str, Any], keys: Sequence[str]) -> bool:
    """Whether ``other`` is nowhere worse and somewhere better."""
    pairs = [(other[key], row[key]) for key in keys]
    return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)
