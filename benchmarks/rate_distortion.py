"""Error against rate: what real files reach at every cut, and what theory promises.

Real: a lossless file is decoded packet by packet; each packet gives the length of the shortest
prefix of the file that holds it, and the error of the image that this prefix decodes to.

Theoretical: the curve of DDPM §4.3 (Ho, Jain and Abbeel 2020, arXiv:2006.11239, Figure 5 and Table
4) on the model's grid of T steps, rate(t) = Σ_{u>t} L_u against the error of x̂_0(z_t) with
z_t ~ q(z_t | x).
"""

import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.codec.plan import SMALLEST_ERROR
from diffcodec.codec.tiles import TileLayout
from diffcodec.diffusion.process import HALF_RANGE, hop_kl_nats, levels_to_signal, q_marginal
from diffcodec.errors import BitstreamError, DiffcodecError
from diffcodec.units import bits_per_dimension, nats_to_bits

Float64 = NDArray[np.float64]
Pixels = NDArray[np.uint8]
Result = TypeVar("Result")

THEORY_STEPS = 100
THEORY_BATCH = 25
STORED_CUTS = 16
"""Cuts at which the error of a file of stored pixels is measured: it has no packets."""
BOOTSTRAP_RESAMPLES = 1000
CONFIDENCE = 0.95
CURVE_POINTS = 120
TABLE_RATES_BPD = (0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 1.5)
TABLE_STRIDE_BPD = 0.5
"""Distance of the table's rates beyond its listed ones."""


@dataclass(frozen=True)
class Work:
    """What to measure of every image.

    Attributes:
        effort: the encoder's, 1…9.
        theory_steps: noise levels at which the theoretical curve is measured; 0 for no curve.
        budgets_bpd: sizes to make further files for, in bits/dim.
        seed: of the theoretical curve's draws, with the image's number.
    """

    effort: int
    theory_steps: int = THEORY_STEPS
    budgets_bpd: tuple[float, ...] = ()
    seed: int = 0


@dataclass(frozen=True)
class Prefix:
    """A cut of a file: its length, and the mean squared error of its image, in levels squared."""

    stream_bytes: int
    mse: float


@dataclass(frozen=True)
class Budget:
    """One real file made for a budget.

    Attributes:
        asked_bpd, actual_bpd: the budget, and the file's size, all bytes counted.
        mse: error of the decoded file, levels squared.
    """

    asked_bpd: float
    actual_bpd: float
    mse: float


@dataclass(frozen=True, eq=False)
class Theory:
    """One image's theoretical curve on the grid 0…T.

    Attributes:
        rate_bpd: Σ_{u>t} L_u, float64 [T + 1]; 0 at T.
        mse: error of x̂_0(z_t) clipped to the valid range, levels squared, float64 [T + 1].
    """

    rate_bpd: Float64
    mse: Float64


@dataclass(frozen=True, eq=False)
class ImageMeasurement:
    """What one image's files measure.

    Attributes:
        index: the image's number in the set.
        dimensions: H·W·C.
        lossless_bytes: length of its lossless file.
        exact: whether the decoder gave the pixels back.
        stored: whether the file holds deflated pixels instead of hops.
        prefixes: cuts of the lossless file in order, one a packet, from no packet to all of it.
        kl_bits, paid_bits: sums over the hops; paid bits tell the plan's corrections too.
        header_bytes: length of the file's header.
        evaluations: of the network, by the decoder of the whole file.
        encode_seconds, decode_seconds: of the lossless file, on one thread.
        budgets: one file for each budget asked for.
        theory: the theoretical curve, if asked for.
    """

    index: int
    dimensions: int
    lossless_bytes: int
    exact: bool
    stored: bool
    prefixes: tuple[Prefix, ...]
    kl_bits: float
    paid_bits: int
    header_bytes: int
    evaluations: int
    encode_seconds: float
    decode_seconds: float
    budgets: tuple[Budget, ...]
    theory: Theory | None

    @property
    def lossless_bpd(self) -> float:
        """Size of the lossless file in bits/dim."""
        return bits_per_dimension(8.0 * self.lossless_bytes, self.dimensions)


@dataclass(frozen=True)
class ThreadCheck:
    """Whether thread counts matter.

    Attributes:
        one_to_two: encoded on one thread, decoded on two, exact.
        two_to_one: the other way.
        same_file: both encoders wrote the same bytes.
    """

    one_to_two: bool
    two_to_one: bool
    same_file: bool


def measure_image(index: int, pixels: Pixels, model: CodecModel, work: Work) -> ImageMeasurement:
    """Encode one image, decode it and every cut of it; uint8 [H, W, C]."""
    settings = EncoderSettings.for_effort(effort_level(work.effort))
    start = time.perf_counter()
    encoded = encode_image(pixels, model, settings)
    encode_seconds = time.perf_counter() - start
    start = time.perf_counter()
    exact = _is_exact(encoded.data, model, pixels)
    decode_seconds = time.perf_counter() - start
    container = Container.open(encoded.data, f"image {index}")
    stored = encoded.header.last_stage is LastStage.STORED
    prefixes = _stored_prefixes if stored else _packet_prefixes
    return ImageMeasurement(
        index=index,
        dimensions=pixels.size,
        lossless_bytes=len(encoded.data),
        exact=exact,
        stored=stored,
        prefixes=prefixes(container, model, pixels),
        kl_bits=math.fsum(entry.kl_bits for entry in encoded.ledger),
        paid_bits=sum(entry.paid_bits for entry in encoded.ledger),
        header_bytes=len(container.header_bytes),
        evaluations=encoded.evaluations,
        encode_seconds=encode_seconds,
        decode_seconds=decode_seconds,
        budgets=tuple(_budget_file(pixels, model, work, bpd) for bpd in work.budgets_bpd),
        theory=theoretical_curve(pixels, model, work.theory_steps, (work.seed, index))
        if work.theory_steps
        else None,
    )


def theoretical_curve(pixels: Pixels, model: CodecModel, steps: int, seed: Sequence[int]) -> Theory:
    """The theoretical curve of one image, uint8 [H, W, C].

    The error is measured once in each of ``steps`` equal strata of the grid, and at its ends, and
    interpolated between them in its logarithm. L_u is the KL of the unit hop u → u − 1, over all
    tiles; where they reach beyond the image, it pays for what it does not show, as files do.
    """
    schedule = model.schedule
    height, width, channels = pixels.shape
    layout = TileLayout(height, width, channels, model.tile_side)
    generator = np.random.Generator(np.random.Philox(np.random.SeedSequence(list(seed))))
    strata = np.floor((np.arange(steps) + generator.random(steps)) / steps * schedule.steps)
    measured = np.unique(np.concatenate([[0, schedule.steps], strata.astype(np.int64)]))
    signal = layout.split(pixels)
    latents = np.empty((len(measured), *signal.shape), dtype=np.float32)
    for place, t in enumerate(measured):
        mean, variance = q_marginal(schedule, signal, int(t))
        latents[place] = mean + math.sqrt(variance) * generator.standard_normal(signal.shape)
    gamma = np.repeat(schedule.gamma[measured], layout.count)
    estimates = _estimates(model, latents.reshape(-1, *signal.shape[1:]), gamma)
    estimates = estimates.reshape(latents.shape)
    squared_error = ((estimates - signal) ** 2).sum(axis=(1, 2, 3, 4))
    shown = levels_to_signal(pixels)
    mse = np.array([np.mean((layout.join(tiles) - shown) ** 2) for tiles in estimates])
    squared_error, mse = (
        _at_every_step(schedule.steps, measured, values) for values in (squared_error, mse)
    )
    hops_nats = [
        hop_kl_nats(schedule, u - 1, u, squared_error[u]) for u in range(schedule.steps, 0, -1)
    ]
    rate_nats = np.concatenate([[0.0], np.cumsum(hops_nats)])[::-1]
    return Theory(bits_per_dimension(nats_to_bits(rate_nats), pixels.size), mse * HALF_RANGE**2)


def measure_images(
    images: Pixels,
    model_folder: Path,
    work: Work,
    jobs: int,
    on_image: Callable[[ImageMeasurement], None] = lambda measurement: None,
) -> list[ImageMeasurement]:
    """`measure_image` of each of uint8 [N, H, W, C] in ``jobs`` processes of one thread each.

    Raises:
        DiffcodecError: an image cannot be measured, or a process has died.
    """
    return _in_processes(measure_image, images, model_folder, work, jobs, on_image)


def check_threads(
    images: Pixels,
    model_folder: Path,
    work: Work,
    on_pass: Callable[[], None] = lambda: None,
) -> list[ThreadCheck]:
    """Encode with one thread and decode with two, and the other way, each in fresh processes.

    ``on_pass`` is called 4·N times for uint8 [N, H, W, C].
    """

    def done(_: object) -> None:
        on_pass()

    def run(function: Callable[..., Result], items: Any, threads: int) -> list[Result]:
        return _in_processes(function, items, model_folder, work, 1, done, threads)

    one, two = run(_encode_item, images, 1), run(_encode_item, images, 2)
    one_to_two = run(_decodes_item, list(zip(one, images, strict=True)), 2)
    two_to_one = run(_decodes_item, list(zip(two, images, strict=True)), 1)
    same_file = [a == b for a, b in zip(one, two, strict=True)]
    return [ThreadCheck(*row) for row in zip(one_to_two, two_to_one, same_file, strict=True)]


def mse_at_rates(measurements: Sequence[ImageMeasurement], rates_bpd: Float64) -> Float64:
    """Mean squared error of every image at each rate, float64 [images, rates], levels squared.

    An image's error is that of its longest measured prefix of at most the rate: a step function.
    One whose lossless file is smaller contributes no error. NaN where not even a header fits.
    """
    table = np.full((len(measurements), len(rates_bpd)), np.nan)
    for row, measurement in zip(table, measurements, strict=True):
        cuts = [prefix.stream_bytes for prefix in measurement.prefixes]
        errors = np.array([prefix.mse for prefix in measurement.prefixes])
        held_bytes = np.floor(rates_bpd * measurement.dimensions / 8.0)
        last = np.searchsorted(cuts, held_bytes, side="right") - 1
        row[last >= 0] = errors[last[last >= 0]]
    return table


def bootstrap_rmse(mse: Float64, seed: int = 0) -> tuple[Float64, Float64]:
    """Ends of the 95 % interval of √(mean over images), by resampling images.

    Args:
        mse: float64 [images, …]; the interval has the other axes.
    """
    generator = np.random.Generator(np.random.Philox(seed))
    # Counts instead of copies: a resample is a weighting of the images.
    weights = generator.multinomial(
        len(mse), np.full(len(mse), 1.0 / len(mse)), size=BOOTSTRAP_RESAMPLES
    )
    resampled = np.sqrt(weights @ mse / len(mse))
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(resampled, [tail, 1.0 - tail], axis=0)
    return low, high


def summarize(measurements: Sequence[ImageMeasurement]) -> dict[str, Any]:
    """Everything that tables and figures show, ready for JSON.

    RMSE is on the 0–255 scale, the root of the mean over all images, as in DDPM. The theoretical
    curve pairs mean rate and RMSE over the images at equal steps.
    """
    by_index = sorted(measurements, key=lambda measurement: measurement.index)
    sizes_bpd = np.array([measurement.lossless_bpd for measurement in by_index])
    first_bpd = max(
        bits_per_dimension(8.0 * m.prefixes[0].stream_bytes, m.dimensions) for m in by_index
    )
    last_bpd = float(sizes_bpd.max())
    theory = _theory_summary(by_index)
    return {
        "images": len(by_index),
        "lossless": {
            "mean_bpd": float(sizes_bpd.mean()),
            "standard_error_bpd": _standard_error(sizes_bpd),
            "exact_round_trips": sum(m.exact for m in by_index),
            "stored_files": sum(m.stored for m in by_index),
            "bytes": [m.lossless_bytes for m in by_index],
        },
        "price": _price(by_index),
        "evaluations_mean": float(np.mean([m.evaluations for m in by_index])),
        "encode_seconds_median": float(np.median([m.encode_seconds for m in by_index])),
        "decode_seconds_median": float(np.median([m.decode_seconds for m in by_index])),
        "curve": _curve(by_index, np.geomspace(first_bpd, last_bpd, CURVE_POINTS)),
        "theory": theory,
        "table": _table(by_index, theory, first_bpd, last_bpd),
        "budgets": _budget_table(by_index),
    }


def format_table(summary: dict[str, Any]) -> str:
    """The rates of `summarize` as lines for a terminal, without a last line break."""
    lines = [f"{'bits/dim':>8}  {'RMSE':>7}  {'95 % interval':>15}  {'theory':>7}"]
    for row in summary["table"]:
        theory = row["theory_rmse"]
        shown = "" if theory is None else f"{theory:.2f}"
        interval = f"{row['rmse_low']:.2f} – {row['rmse_high']:.2f}"
        lines.append(f"{row['rate_bpd']:8.2f}  {row['rmse']:7.2f}  {interval:>15}  {shown:>7}")
    lossless = summary["lossless"]
    lines.append("")
    lines.append(
        f"lossless: {lossless['mean_bpd']:.3f} ± {lossless['standard_error_bpd']:.3f} bits/dim, "
        f"{lossless['exact_round_trips']} of {summary['images']} images exact"
    )
    price = summary["price"]
    if price["paid_over_kl"] is not None:
        lines.append(f"price: {price['paid_over_kl']:.3f} bits paid for each bit of KL")
    return "\n".join(lines)


def default_jobs() -> int:
    """The processor's cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _encode_item(index: int, pixels: Pixels, model: CodecModel, work: Work) -> bytes:
    settings = EncoderSettings.for_effort(effort_level(work.effort))
    return encode_image(pixels, model, settings).data


def _decodes_item(index: int, item: tuple[bytes, Pixels], model: CodecModel, work: Work) -> bool:
    return _is_exact(item[0], model, item[1])


def _decode(data: bytes, model: CodecModel) -> Pixels:
    """The last image of a file."""
    *_, frame = decode_frames(Container.open(data, "encoded image"), model, every=False)
    return frame.pixels


def _is_exact(data: bytes, model: CodecModel, pixels: Pixels) -> bool:
    """Whether a file gives ``pixels`` back; one that the decoder complains of does not."""
    try:
        return bool(np.array_equal(_decode(data, model), pixels))
    except BitstreamError:
        return False


def _mse(decoded: Pixels, pixels: Pixels) -> float:
    return float(np.mean((decoded.astype(np.float64) - pixels) ** 2))


def _packet_prefixes(container: Container, model: CodecModel, pixels: Pixels) -> tuple[Prefix, ...]:
    # Packets that end within one byte share their cut; the last of them is what it decodes to.
    by_length: dict[int, float] = {}
    # Of a file that does not come back exactly, the cuts that decode still count.
    with contextlib.suppress(BitstreamError):
        for frame in decode_frames(container, model):
            by_length[frame.stream_bytes] = _mse(frame.pixels, pixels)
    return tuple(Prefix(length, mse) for length, mse in sorted(by_length.items()))


def _stored_prefixes(container: Container, model: CodecModel, pixels: Pixels) -> tuple[Prefix, ...]:
    whole, header = container.total_bytes, len(container.header_bytes)
    prefixes = []
    for length in np.unique(np.linspace(header, whole, STORED_CUTS).astype(int)):
        decoded = _decode(container.content[: int(length)], model)
        prefixes.append(Prefix(int(length), _mse(decoded, pixels)))
    return tuple(prefixes)


def _budget_file(pixels: Pixels, model: CodecModel, work: Work, bpd: float) -> Budget:
    settings = EncoderSettings.for_effort(effort_level(work.effort), bpd=bpd)
    encoded = encode_image(pixels, model, settings)
    return Budget(bpd, encoded.bpd, _mse(_decode(encoded.data, model), pixels))


@torch.inference_mode()
def _estimates(model: CodecModel, latents: NDArray[np.float32], gamma: Float64) -> Float64:
    """x̂_0 clipped to [−1, 1], float64 of the shape of ``latents`` [N, 3, S, S], one γ each."""
    estimates = np.empty(latents.shape)
    for start in range(0, len(latents), THEORY_BATCH):
        part = slice(start, start + THEORY_BATCH)
        z = torch.from_numpy(latents[part]).contiguous(memory_format=torch.channels_last)
        noise_level = torch.from_numpy(gamma[part].astype(np.float32))
        x_hat = model.checkpoint.denoiser(z, noise_level).clamp(-1.0, 1.0)
        estimates[part] = x_hat.double().numpy()
    return estimates


def _at_every_step(steps: int, measured: NDArray[np.int64], errors: Float64) -> Float64:
    """``errors`` at the steps ``measured``, interpolated in their logarithm to 0…``steps``."""
    # A network can be exact to float32 on a flat image; the logarithm must stay finite.
    logarithms = np.log(np.maximum(errors, SMALLEST_ERROR))
    return np.exp(np.interp(np.arange(steps + 1), measured, logarithms))


# The model of a worker process, loaded once when it starts: a process pool has no other place.
_worker_model: CodecModel | None = None


def _start_worker(model_folder: Path, threads: int) -> None:
    global _worker_model
    # An interrupt reaches the whole group of processes; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(threads)
    _worker_model = load_codec_model(model_folder)


def _call(
    function: Callable[[int, Any, CodecModel, Work], Result], index: int, item: Any, work: Work
) -> Result:
    assert _worker_model is not None
    return function(index, item, _worker_model, work)


def _in_processes(
    function: Callable[[int, Any, CodecModel, Work], Result],
    items: Any,
    model_folder: Path,
    work: Work,
    jobs: int,
    on_result: Callable[[Result], None],
    threads: int = 1,
) -> list[Result]:
    """``function`` of every item, in their order, in ``jobs`` processes of ``threads`` each."""
    # A model that cannot be loaded is told here, not by a broken pool.
    load_codec_model(model_folder)
    # Spawned, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(
        min(jobs, len(items)), get_context("spawn"), _start_worker, (model_folder, threads)
    )
    try:
        futures: list[Future[Result]] = [
            pool.submit(_call, function, index, item, work) for index, item in enumerate(items)
        ]
        for future in as_completed(futures):
            on_result(future.result())
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise DiffcodecError(
            "a worker process ended before its work; is there memory for so many --jobs?"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _standard_error(values: Float64) -> float | None:
    """Of the mean; None for a single value."""
    return float(values.std(ddof=1) / math.sqrt(len(values))) if len(values) > 1 else None


def _price(measurements: Sequence[ImageMeasurement]) -> dict[str, float | None]:
    """Bits paid over bits of KL: of the hop streams, and with whole headers added."""
    coded = [m for m in measurements if not m.stored]
    kl_bits = math.fsum(m.kl_bits for m in coded)
    paid_bits = sum(m.paid_bits for m in coded)
    header_bits = 8 * sum(m.header_bytes for m in coded)
    return {
        "kl_bits": kl_bits,
        "paid_bits": float(paid_bits),
        "paid_over_kl": paid_bits / kl_bits if kl_bits else None,
        "paid_with_headers_over_kl": (paid_bits + header_bits) / kl_bits if kl_bits else None,
    }


def _curve(measurements: Sequence[ImageMeasurement], rates_bpd: Float64) -> list[dict[str, float]]:
    mse = mse_at_rates(measurements, rates_bpd)
    # Rounding may put the first rate below the longest header's.
    held = ~np.isnan(mse).any(axis=0)
    rates_bpd, mse = rates_bpd[held], mse[:, held]
    low, high = bootstrap_rmse(mse)
    columns = zip(rates_bpd, np.sqrt(mse.mean(axis=0)), low, high, strict=True)
    return [
        {"rate_bpd": float(r), "rmse": float(e), "rmse_low": float(a), "rmse_high": float(b)}
        for r, e, a, b in columns
    ]


def _theory_summary(measurements: Sequence[ImageMeasurement]) -> list[dict[str, float]]:
    """Mean rate and RMSE over the images at every step of the grid, from T down."""
    curves = [m.theory for m in measurements if m.theory is not None]
    if not curves:
        return []
    rate_bpd = np.mean([curve.rate_bpd for curve in curves], axis=0)
    rmse = np.sqrt(np.mean([curve.mse for curve in curves], axis=0))
    return [
        {"step": step, "rate_bpd": float(rate_bpd[step]), "rmse": float(rmse[step])}
        for step in range(len(rate_bpd) - 1, -1, -1)
    ]


def _table(
    measurements: Sequence[ImageMeasurement],
    theory: list[dict[str, float]],
    first_bpd: float,
    last_bpd: float,
) -> list[dict[str, float | None]]:
    beyond = np.arange(TABLE_RATES_BPD[-1] + TABLE_STRIDE_BPD, last_bpd, TABLE_STRIDE_BPD)
    rates = [rate for rate in (*TABLE_RATES_BPD, *beyond.tolist()) if first_bpd <= rate]
    rows: list[dict[str, float | None]] = []
    for point in _curve(measurements, np.array(rates)):
        rows.append({**point, "theory_rmse": _theory_at(theory, point["rate_bpd"])})
    return rows


def _theory_at(theory: list[dict[str, float]], rate_bpd: float) -> float | None:
    """The theoretical RMSE at a rate, log-linear between steps; None beyond the curve's end."""
    if not theory or rate_bpd > theory[-1]["rate_bpd"]:
        return None
    rates = [point["rate_bpd"] for point in theory]
    return float(np.exp(np.interp(rate_bpd, rates, np.log([point["rmse"] for point in theory]))))


def _budget_table(measurements: Sequence[ImageMeasurement]) -> list[dict[str, float]]:
    rows = []
    for files in zip(*(m.budgets for m in measurements), strict=True):
        actual_bpd = [file.actual_bpd for file in files]
        mse = np.array([file.mse for file in files])
        low, high = bootstrap_rmse(mse)
        rows.append(
            {
                "asked_bpd": files[0].asked_bpd,
                "mean_bpd": float(np.mean(actual_bpd)),
                "max_bpd": max(actual_bpd),
                "rmse": math.sqrt(float(mse.mean())),
                "rmse_low": float(low),
                "rmse_high": float(high),
            }
        )
    return rows
