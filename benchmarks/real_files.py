"""What real files measure: one lossless file an image, all its prefixes, and files for budgets.

A lossless file is decoded hop by hop; each hop gives the length of the shortest prefix of the file
that holds it, and the error of the image that this prefix decodes to; so does the prefix of each
rate of the table and of the curve. Three questions are asked of these cuts. At equal length: cut
every file at the same number of bytes. At equal noise: stop every file at one step of the reverse
process, so that hard images take more bits, as other codecs' quality settings do. And what it cost:
bits paid for the KL bought so far.
"""

import contextlib
import math
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from benchmarks.metrics import (
    bootstrap_mean,
    bootstrap_rmse,
    mean_squared_error,
    quality,
    ssim,
)
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import FINEST_STEPS, LastStage
from diffcodec.codec.decoder import Frame, decode_frames
from diffcodec.codec.effort import Effort, effort_level
from diffcodec.codec.encoder import Encoded, EncoderSettings, LedgerEntry, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.errors import BitstreamError
from diffcodec.units import bits_per_dimension

Float64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]

BUDGETS_BPD = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0)
STORED_CUTS = 16
"""Cuts at which the error of a file of stored pixels is measured: it has no packets."""
CURVE_RATES_BPD = tuple((0.02 * 2.0 ** (np.arange(55) / 6.0)).tolist())
"""Up to more than eight bits, which the largest file has."""
TABLE_RATES_BPD = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5)
TABLE_STRIDE_BPD = 0.5
"""Distance of the table's rates beyond its listed ones."""
STOP_STEPS = tuple(range(FINEST_STEPS - 25, 0, -25))
"""Steps at which every image's file is stopped for the curve at equal noise."""
LEDGER_STEPS = tuple(range(FINEST_STEPS, -1, -20))


class Cut(NamedTuple):
    """A prefix of a file.

    Attributes:
        stream_bytes: its length.
        step: of the grid that its image is estimated at; 0 for exact pixels.
        mse: error of its image, levels squared.
        ssim: of its image, or None where it cannot be measured.
        kl_bits, paid_bits: of the packets that it holds; of the one that it ends in a share, in
            proportion to the KL.
        exact_values: of the image, told by the last stage.
    """

    stream_bytes: int
    step: int
    mse: float
    ssim: float | None
    kl_bits: float
    paid_bits: int
    exact_values: int


@dataclass(frozen=True)
class FileMeasurement:
    """What one image's lossless file measures.

    Attributes:
        dimensions: H·W·C.
        lossless_bytes: length of the file.
        exact: whether the decoder gave the pixels back.
        stored: whether the file holds deflated pixels instead of hops.
        cuts: in order of length, from no packet to the whole file.
        header_bytes: length of the file's header.
        last_stage_bits: ideal length of the last stage; 0 for stored pixels.
        evaluations: of the network, by the decoder of the whole file.
    """

    dimensions: int
    lossless_bytes: int
    exact: bool
    stored: bool
    cuts: tuple[Cut, ...]
    header_bytes: int
    last_stage_bits: float
    evaluations: int

    @property
    def lossless_bpd(self) -> float:
        """Size of the lossless file in bits/dim."""
        return bits_per_dimension(8.0 * self.lossless_bytes, self.dimensions)

    @property
    def handover_step(self) -> int:
        """Where the hops end; T for stored pixels."""
        return FINEST_STEPS if self.stored else self.hop_cuts[-1].step

    @property
    def hop_cuts(self) -> list[Cut]:
        """The cuts that hold nothing of the last stage; none of stored pixels."""
        return [] if self.stored else [cut for cut in self.cuts if not cut.exact_values]

    def to_json(self) -> dict[str, Any]:
        """For the journal of a run."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(**{**record, "cuts": tuple(Cut(*cut) for cut in record["cuts"])})


@dataclass(frozen=True)
class BudgetFile:
    """One real file made for a budget.

    Attributes:
        asked_bpd, actual_bpd: the budget, and the file's size, all bytes counted.
        mse, ssim: of the decoded file.
        kl_bits, paid_bits: of its packets.
    """

    asked_bpd: float
    actual_bpd: float
    mse: float
    ssim: float | None
    kl_bits: float
    paid_bits: int


def measure_file(
    name: str,
    pixels: Pixels,
    model: CodecModel,
    effort: Effort,
    *,
    every_packet: bool,
    curve_bpd: Sequence[float] = CURVE_RATES_BPD,
) -> FileMeasurement:
    """Encode one image without loss and decode every cut of it; uint8 [H, W, C].

    Args:
        every_packet: measure a cut after every packet, which costs an evaluation of the network
            each; otherwise where hops begin, which costs none of one tile, and at the rates of
            table and curve.
        curve_bpd: rates of the curve.
    """
    encoded = encode_image(pixels, model, EncoderSettings.for_effort(effort))
    container = Container.open(encoded.data, name)
    stored = encoded.header.last_stage is LastStage.STORED
    if stored:
        cuts = _stored_cuts(container, model, pixels)
    else:
        lengths = cut_lengths(container, encoded, every_packet=every_packet, curve_bpd=curve_bpd)
        cuts = _packet_cuts(container, encoded, model, pixels, lengths)
    last = cuts[-1]
    return FileMeasurement(
        dimensions=pixels.size,
        lossless_bytes=len(encoded.data),
        exact=last.stream_bytes == len(encoded.data) and last.mse == 0.0,
        stored=stored,
        cuts=cuts,
        header_bytes=len(container.header_bytes),
        last_stage_bits=encoded.last_stage_bits,
        evaluations=encoded.evaluations,
    )


def measure_budgets(
    pixels: Pixels, model: CodecModel, effort: int, budgets_bpd: Sequence[float]
) -> list[BudgetFile]:
    """Make one file for each budget in bits/dim, and decode it; uint8 [H, W, C].

    A file for a budget is not a prefix of the lossless one: it fills its last bytes with a shorter
    packet, and its header is another.

    Raises:
        BudgetError: the image has no file as small as that.
    """
    files = []
    for asked_bpd in budgets_bpd:
        settings = EncoderSettings.for_effort(effort_level(effort), bpd=asked_bpd)
        encoded = encode_image(pixels, model, settings)
        decoded = decode_last(encoded.data, model)
        files.append(
            BudgetFile(
                asked_bpd=asked_bpd,
                actual_bpd=encoded.bpd,
                mse=mean_squared_error(decoded, pixels),
                ssim=ssim(decoded, pixels),
                kl_bits=math.fsum(entry.kl_bits for entry in encoded.ledger),
                paid_bits=sum(entry.paid_bits for entry in encoded.ledger),
            )
        )
    return files


def decode_last(data: bytes, model: CodecModel) -> Pixels:
    """The last image of a file."""
    *_, frame = decode_frames(Container.open(data, "encoded image"), model, every=False)
    return frame.pixels


def cut_lengths(
    container: Container,
    encoded: Encoded,
    *,
    every_packet: bool,
    curve_bpd: Sequence[float] = CURVE_RATES_BPD,
) -> set[int]:
    """To how many bytes a file is cut: by all rates, and behind its packets if asked to."""
    rates = (*curve_bpd, *_table_rates(encoded.bpd))
    lengths = {math.floor(rate * encoded.header.dimensions / 8.0) for rate in rates}
    if every_packet:
        paid_bits = np.cumsum([entry.paid_bits for entry in encoded.ledger], dtype=np.int64)
        lengths |= set((len(container.header_bytes) + -(-paid_bits // 8)).tolist())
    return lengths


def summarize_files(files: Sequence[FileMeasurement], overhead: int) -> dict[str, Any]:
    """Everything that tables and figures show of lossless files and their cuts, ready for JSON.

    RMSE is on the 0–255 scale, the root of the mean over all images, as in DDPM.

    Args:
        overhead: bytes of the smallest file that the codec makes.
    """
    sizes_bpd = np.array([file.lossless_bpd for file in files])
    first_bpd = max(
        bits_per_dimension(8.0 * file.cuts[0].stream_bytes, file.dimensions) for file in files
    )
    last_bpd = float(sizes_bpd.max())
    shown = [rate for rate in _table_rates(last_bpd) if first_bpd <= rate]
    curve = [rate for rate in CURVE_RATES_BPD if first_bpd <= rate < last_bpd]
    low, high = bootstrap_mean(sizes_bpd)
    return {
        "images": len(files),
        "overhead_bytes": overhead,
        "lossless": {
            "mean_bpd": float(sizes_bpd.mean()),
            "low_bpd": float(low),
            "high_bpd": float(high),
            "standard_error_bpd": standard_error(sizes_bpd),
            "exact_round_trips": sum(file.exact for file in files),
            "stored_files": sum(file.stored for file in files),
            "bytes": [file.lossless_bytes for file in files],
        },
        "price": _price(files),
        "breakdown": _breakdown(files),
        "evaluations_mean": float(np.mean([file.evaluations for file in files])),
        "cuts": _at_equal_length(files, sorted({*shown, *curve, last_bpd})),
        "table": _at_equal_length(files, shown),
        "stops": _at_equal_noise(files),
        "ledger": by_step(files),
    }


def summarize_budgets(
    images: Sequence[Sequence[BudgetFile]], lossless: Sequence[FileMeasurement]
) -> list[dict[str, Any]]:
    """One row a budget: sizes, RMSE with its interval, PSNR, SSIM and the coder's price.

    Args:
        lossless: measurements of the same images' lossless files: ``cut_rmse`` is what those give
            when they are cut to the budget.
    """
    rows = []
    for files in zip(*images, strict=True):
        cuts = cuts_at_rate(lossless, files[0].asked_bpd)
        cut_mse = [cut.mse for cut in cuts if cut is not None]
        actual_bpd = [file.actual_bpd for file in files]
        kl_bits = math.fsum(file.kl_bits for file in files)
        rows.append(
            {
                "asked_bpd": files[0].asked_bpd,
                "mean_bpd": float(np.mean(actual_bpd)),
                "max_bpd": max(actual_bpd),
                "images": len(files),
                **quality(np.array([file.mse for file in files]), [file.ssim for file in files]),
                "paid_over_kl": price(sum(file.paid_bits for file in files), kl_bits),
                "cut_rmse": math.sqrt(float(np.mean(cut_mse)))
                if len(cut_mse) == len(files)
                else None,
            }
        )
    return rows


def cuts_at_rate(files: Sequence[FileMeasurement], rate_bpd: float) -> list[Cut | None]:
    """Each image's longest measured cut of at most the rate; None where not a header fits.

    An image whose lossless file is smaller gives that file, and no error.
    """
    found: list[Cut | None] = []
    for file in files:
        held_bytes = math.floor(rate_bpd * file.dimensions / 8.0)
        fitting = [cut for cut in file.cuts if cut.stream_bytes <= held_bytes]
        found.append(fitting[-1] if fitting else None)
    return found


def cuts_at_step(files: Sequence[FileMeasurement], step: int) -> list[Cut]:
    """Each image's longest measured cut that has not gone below ``step``.

    Stored pixels have no steps: they give the whole file, as a decoder asked to stop does.
    """
    return [
        file.cuts[-1] if file.stored else [cut for cut in file.hop_cuts if cut.step >= step][-1]
        for file in files
    ]


def by_step(files: Sequence[FileMeasurement]) -> dict[str, list[float]] | None:
    """Bits told down to each step, and the error there, over the images that have hops.

    A hop's bits are spread evenly over its steps, and its error falls evenly in its logarithm.
    """
    coded = [file for file in files if not file.stored]
    if not coded:
        return None
    at = np.array(LEDGER_STEPS, dtype=np.float64)
    paid, kl, mse = (np.zeros((len(coded), len(at))) for _ in range(3))
    for row, file in enumerate(coded):
        cuts = file.hop_cuts[::-1]
        steps = [float(cut.step) for cut in cuts]
        paid[row] = np.interp(at, steps, [cut.paid_bits / file.dimensions for cut in cuts])
        kl[row] = np.interp(at, steps, [cut.kl_bits / file.dimensions for cut in cuts])
        logarithms = [math.log(max(cut.mse, 2.0**-40)) for cut in cuts]
        mse[row] = np.exp(np.interp(at, steps, logarithms))
    last = max(file.handover_step for file in coded)
    shown = at >= last
    low, high = bootstrap_rmse(mse[:, shown])
    return {
        "step": at[shown].tolist(),
        "paid_bpd": paid[:, shown].mean(axis=0).tolist(),
        "kl_bpd": kl[:, shown].mean(axis=0).tolist(),
        "rmse": np.sqrt(mse[:, shown].mean(axis=0)).tolist(),
        "rmse_low": low.tolist(),
        "rmse_high": high.tolist(),
    }


def price(paid_bits: float, kl_bits: float) -> float | None:
    """Bits paid for a bit of KL; None where there is none."""
    return paid_bits / kl_bits if kl_bits > 0.0 else None


def standard_error(values: Float64) -> float | None:
    """Of the mean: the sample deviation over √N; None for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _packet_cuts(
    container: Container,
    encoded: Encoded,
    model: CodecModel,
    pixels: Pixels,
    lengths: Collection[int],
) -> tuple[Cut, ...]:
    # Packets that end within one byte share their cut; the last of them is what it decodes to.
    by_length: dict[int, Cut] = {}
    # Of a file that does not come back exactly, the cuts that decode still count.
    with contextlib.suppress(BitstreamError):
        for frame in decode_frames(container, model, lengths=lengths):
            shares = _shares_told(encoded, frame, model)
            by_length[frame.stream_bytes] = Cut(
                stream_bytes=frame.stream_bytes,
                step=frame.step,
                mse=mean_squared_error(frame.pixels, pixels),
                ssim=ssim(frame.pixels, pixels),
                kl_bits=math.fsum(share * entry.kl_bits for share, entry in shares),
                paid_bits=round(sum(share * entry.paid_bits for share, entry in shares)),
                exact_values=frame.exact_values,
            )
    return tuple(by_length[length] for length in sorted(by_length))


def _shares_told(
    encoded: Encoded, frame: Frame, model: CodecModel
) -> list[tuple[float, LedgerEntry]]:
    """The packets that ``frame`` knows of, and how much of each: of its KL, that of the last."""
    told = [(1.0, entry) for entry in encoded.ledger[: frame.packets]]
    if frame.packets < len(encoded.ledger):
        last, snr = encoded.ledger[frame.packets], model.schedule.snr
        share = (snr[frame.step] - snr[last.t]) / (snr[last.s] - snr[last.t])
        told.append((float(share), last))
    return told


def _stored_cuts(container: Container, model: CodecModel, pixels: Pixels) -> tuple[Cut, ...]:
    whole, header = len(container.content), len(container.header_bytes)
    cuts = []
    for length in np.unique(np.linspace(header, whole, STORED_CUTS).astype(int)):
        decoded = decode_last(container.content[: int(length)], model)
        mse = mean_squared_error(decoded, pixels)
        cuts.append(Cut(int(length), 0, mse, ssim(decoded, pixels), 0.0, 0, 0))
    return tuple(cuts)


def _price(files: Sequence[FileMeasurement]) -> dict[str, float | None]:
    """Bits paid over bits of KL: of the hop streams, and with whole headers added."""
    coded = [file for file in files if not file.stored]
    kl_bits = math.fsum(file.cuts[-1].kl_bits for file in coded)
    paid_bits = sum(file.cuts[-1].paid_bits for file in coded)
    header_bits = 8 * sum(file.header_bytes for file in coded)
    return {
        "kl_bits": kl_bits,
        "paid_bits": float(paid_bits),
        "paid_over_kl": price(paid_bits, kl_bits),
        "paid_with_headers_over_kl": price(paid_bits + header_bits, kl_bits),
    }


def _breakdown(files: Sequence[FileMeasurement]) -> dict[str, float] | None:
    """Where the bits of lossless files go, means in bits/dim that add up to the files' size.

    Excess is what is paid above the KL of the hops, and above the ideal length of the last stage
    (the coder's own, the segments' checks and unused bits of last bytes).
    """
    coded = [file for file in files if not file.stored]
    if not coded:
        return None

    def mean_bpd(bits: Sequence[float]) -> float:
        shares = [
            bits_per_dimension(value, file.dimensions)
            for value, file in zip(bits, coded, strict=True)
        ]
        return float(np.mean(shares))

    header = mean_bpd([8.0 * file.header_bytes for file in coded])
    kl = mean_bpd([file.cuts[-1].kl_bits for file in coded])
    paid = mean_bpd([float(file.cuts[-1].paid_bits) for file in coded])
    ideal = mean_bpd([file.last_stage_bits for file in coded])
    whole = mean_bpd([8.0 * file.lossless_bytes for file in coded])
    return {
        "header_bpd": header,
        "hops_kl_bpd": kl,
        "hops_excess_bpd": paid - kl,
        "last_stage_ideal_bpd": ideal,
        "last_stage_excess_bpd": whole - header - paid - ideal,
    }


def _point(cuts: Sequence[Cut]) -> dict[str, Any]:
    """Quality of one cut an image, and the price of what the cuts hold."""
    kl_bits = math.fsum(cut.kl_bits for cut in cuts)
    return {
        **quality(np.array([cut.mse for cut in cuts]), [cut.ssim for cut in cuts]),
        "paid_over_kl": price(sum(cut.paid_bits for cut in cuts), kl_bits),
    }


def _table_rates(last_bpd: float) -> list[float]:
    """The table's rates: the listed ones, and beyond them those below ``last_bpd``."""
    beyond = np.arange(TABLE_RATES_BPD[-1] + TABLE_STRIDE_BPD, last_bpd, TABLE_STRIDE_BPD)
    return [*TABLE_RATES_BPD, *beyond.tolist()]


def _at_equal_length(
    files: Sequence[FileMeasurement], rates_bpd: Sequence[float]
) -> list[dict[str, Any]]:
    points = []
    for rate_bpd in rates_bpd:
        cuts = [cut for cut in cuts_at_rate(files, rate_bpd) if cut is not None]
        # Rounding may put the first rate below the longest header's.
        if len(cuts) == len(files):
            points.append({"rate_bpd": rate_bpd, **_point(cuts)})
    return points


def _at_equal_noise(files: Sequence[FileMeasurement]) -> list[dict[str, Any]]:
    points: list[dict[str, Any]] = []
    before: list[Cut] = []
    for step in STOP_STEPS:
        cuts = cuts_at_step(files, step)
        # Below the handover no image goes on.
        if cuts == before:
            continue
        before = cuts
        sizes_bpd = np.array(
            [
                bits_per_dimension(8.0 * cut.stream_bytes, file.dimensions)
                for cut, file in zip(cuts, files, strict=True)
            ]
        )
        low, high = bootstrap_mean(sizes_bpd)
        points.append(
            {
                "step": step,
                "rate_bpd": float(sizes_bpd.mean()),
                "rate_low_bpd": float(low),
                "rate_high_bpd": float(high),
                **_point(cuts),
            }
        )
    return points
