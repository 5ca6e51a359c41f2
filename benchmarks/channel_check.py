"""Whether what the channel code buys is real: coded hops beside exactly sampled ones of equal KL.

``python -m benchmarks.channel_check [--code ID]… [--images 16] [--model M] [--out DIR]``

Held-out CIFAR-10 images go through the default plan twice for each code: once with c from the code,
once with c = δ + N(0, I), an exact sample of q(z_s | z_t, x). At the beginning of every hop the
RMSE of x̂_0 is set against Σ KL(q ‖ p) of the hops so far, the image's true KL. If c looked to the
network like anything but a sample, or its projection on δ were not what the plan takes it for, the
coded run would have the larger RMSE at equal KL. Results go to ``channel-check.json``, a table to
stdout.
"""

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import held_out
from benchmarks.adapters.base import Pixels
from benchmarks.channel_comparison import default_plan
from benchmarks.tables import Table
from diffcodec.bits import BitWriter
from diffcodec.codec.effort import DEFAULT_EFFORT, effort_level
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.codec.reverse import ReverseProcess
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.channel import CHANNEL_CODES, CodeState, Float32, TrellisCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.diffusion.process import HALF_RANGE, hop_kl_nats
from diffcodec.units import nats_to_bits

RESULT = "channel-check.json"
KL_POINTS_BPD = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)

Float64 = NDArray[np.float64]


def _seeded() -> np.random.Generator:
    return np.random.Generator(np.random.Philox(0))


@dataclass(frozen=True)
class SampledCode(TrellisCode):
    """Exact samples at a trellis code's budgets: c = δ + N(0, I), of which nothing is written."""

    random: np.random.Generator = field(default_factory=_seeded, compare=False)

    def encode(
        self,
        delta: Float32,
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        writer: BitWriter,
        *,
        runs_on: bool = True,
    ) -> tuple[Float32, CodeState]:
        """A sample of N(δ, I) for each row of ``delta``."""
        sections = state.sections + self.sections(bits, state)
        sample = delta + self.random.standard_normal(delta.shape, dtype=np.float32)
        return sample, replace(state, sections=sections, register=0)


def mse_at_points(
    pixels: Pixels, model: CodecModel, plan: PlanConfig
) -> tuple[Float64, float, float]:
    """The MSE of x̂_0, in squared levels, where Σ KL passes each of `KL_POINTS_BPD`.

    Linear in Σ KL and log MSE between the hops. Returns it with Σ KL and Σ bits paid for packets,
    both in bits.
    """
    height, width, channels = pixels.shape
    layout = TileLayout(height, width, channels, model.tile_side)
    signal = layout.split(pixels)
    process = ReverseProcess(model, layout, plan, final_step=0)
    kl_bits, paid_bits = 0.0, 0
    hops: list[tuple[float, float]] = []
    while True:
        difference, correction = signal - process.x_hat(), 0
        if process.plan.at_hop:
            error = float(np.mean(difference**2))
            hops.append((kl_bits / pixels.size, math.log(error * HALF_RANGE**2)))
            if hops[-1][0] >= KL_POINTS_BPD[-1] or process.plan.finished:
                break
            correction = process.plan.correction_for(error)
        packet = process.plan.packet(correction)
        squared_error = float(np.sum(difference**2))
        kl_bits += nats_to_bits(hop_kl_nats(model.schedule, packet.s, packet.t, squared_error))
        paid_bits += packet.bits
        process.tell(packet, signal, BitWriter())
    rates, errors = zip(*hops, strict=True)
    return np.exp(np.interp(KL_POINTS_BPD, rates, errors)), kl_bits, float(paid_bits)


def compare(images: Pixels, model: CodecModel, code_id: int) -> dict[str, Any]:
    """Both runs of all images, uint8 [N, H, W, C] with N ≥ 2, for one code."""
    coding, sampling = (default_plan(kind, code_id) for kind in (TrellisCode, SampledCode))
    ours = [mse_at_points(pixels, model, coding) for pixels in images]
    exact = [mse_at_points(pixels, model, sampling) for pixels in images]
    ours_mse, exact_mse = (np.stack([mse for mse, _, _ in runs]) for runs in (ours, exact))
    # Of the same image, so that the difference between images falls out of the error.
    ratios = np.log(ours_mse / exact_mse) / 2.0
    return {
        "code": coding.own.name,
        "price": sum(paid for _, _, paid in ours) / sum(kl for _, kl, _ in ours),
        "points": [
            {
                "kl_bpd": point,
                "rmse_coded": float(np.sqrt(ours_mse[:, place].mean())),
                "rmse_sampled": float(np.sqrt(exact_mse[:, place].mean())),
                "mean_ratio": float(np.exp(ratios[:, place].mean())),
                "standard_error": float(ratios[:, place].std(ddof=1) / math.sqrt(len(images))),
            }
            for place, point in enumerate(KL_POINTS_BPD)
        ],
    }


def check_table(record: Mapping[str, Any]) -> Table:
    """RMSE coded / sampled at each KL, and the mean ratio with twice its error, a code a line."""
    lines = [
        (
            entry["code"],
            *(
                f"{point['rmse_coded']:.2f} / {point['rmse_sampled']:.2f}, "
                f"{point['mean_ratio']:.3f} ± {2 * point['standard_error']:.3f}"
                for point in entry["points"]
            ),
            f"{entry['price']:.3f}",
        )
        for entry in record["codes"]
    ]
    points = (f"{point:g} bits/dim" for point in KL_POINTS_BPD)
    return Table(("code", *points, "bits over KL"), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.channel_check",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument(
        "--code",
        type=int,
        choices=sorted(CHANNEL_CODES),
        action="append",
        help="an id; more than once for several; default: the default effort's",
    )
    held_out.add_options(parser, images=16)
    options = parser.parse_args(arguments)
    if options.images < 2:
        parser.error("expected --images of at least 2")

    def check(subject: held_out.Subject) -> dict[str, Any]:
        codes = []
        for code_id in options.code or [effort_level(DEFAULT_EFFORT).plan.code_id]:
            codes.append(compare(subject.images, subject.model, code_id))
            print(f"{codes[-1]['code']}: price {codes[-1]['price']:.4f}", file=sys.stderr)
        return {"codes": codes}

    return held_out.run(options, RESULT, check, lambda record: check_table(record).show())


if __name__ == "__main__":
    raise SystemExit(main())
