"""The channel codes beside exact and truncated PFR and a random codebook, on real δ vectors.

``python -m benchmarks.channel_comparison [--images 4] [--vectors 24] [--model M] [--out DIR]``

δ vectors are taken from packets of the default plan's first 24 hops on held-out CIFAR-10 images. A
code that names codewords is given a budget; one that draws samples is given the δ, scaled to the KL
that its code carries in about as many bits. What counts in both is the projection of c on δ/‖δ‖:
bought bits are E[⟨c, δ/‖δ‖⟩]²/(2 ln 2). Every δ is told ``PACKETS`` times over; ours as the codec
tells it, in packets that run on, and after one more whose register they continue. Times are the
process's own, of the encoder alone and with one thread. Results go to ``channel-codes.json``, a
table to stdout.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from benchmarks import held_out
from benchmarks.adapters.base import Pixels
from benchmarks.results import CHANNEL_CODES_RECORD
from benchmarks.rivals import RandomCodebook, TruncatedPoisson
from benchmarks.tables import Table
from diffcodec.bits import BitWriter
from diffcodec.codec.effort import DEFAULT_EFFORT, effort_level
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import PlanConfig
from diffcodec.codec.reverse import ReverseProcess
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.channel import CHANNEL_CODES, CodeState, Float32, TrellisCode
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

BUDGETS = (32, 64, 128, 256)
NOISE_DOMAIN = 0x636F6D70617265
HOPS = 24
PACKETS = 3

Clock = Callable[[], float]
OwnCode = TypeVar("OwnCode", bound=TrellisCode)


@dataclass(frozen=True)
class Told:
    """One packet: c, float32 [n], for a unit δ, the bits that it cost, the encoder's seconds."""

    c: Float32
    bits: float
    seconds: float


# A unit δ, a budget of bits, noise and a clock to `PACKETS` packets.
Teller = Callable[[Float32, int, SharedNoise, Clock], list[Told]]


@dataclass(frozen=True)
class Row:
    """One code at one budget, averaged over the vectors.

    Attributes:
        code: its name.
        budget_bits: what was aimed at.
        paid_bits, bought_bits: means for a packet.
        price: paid over bought; standard_error: of the price, over the vectors.
        milliseconds: the encoder's processor time for a packet.
    """

    code: str
    budget_bits: int
    paid_bits: float
    bought_bits: float
    price: float
    standard_error: float
    milliseconds: float


@dataclass(frozen=True)
class PlanWith(PlanConfig, Generic[OwnCode]):
    """A plan whose code is no file's: ``own`` is priced like the one that ``code_id`` names."""

    own: OwnCode

    @property
    def code(self) -> OwnCode:
        """``own``."""
        return self.own


@dataclass(frozen=True)
class RecordingCode(TrellisCode):
    """A trellis code that keeps the directions, unit float32 [n], of the vectors it was given."""

    directions: list[Float32] = field(default_factory=list, compare=False)

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
        """As the code does."""
        self.directions.append(delta[0] / np.linalg.norm(delta[0]))
        return super().encode(delta, bits, noise, state, writer, runs_on=runs_on)


def default_plan(kind: type[OwnCode], code_id: int | None = None) -> PlanWith[OwnCode]:
    """The default effort's plan, the code ``code_id`` or that effort's own made one of ``kind``."""
    plan = effort_level(DEFAULT_EFFORT).plan
    code_id = plan.code_id if code_id is None else code_id
    own = kind(**vars(CHANNEL_CODES[code_id]))
    return PlanWith(plan.growth_index, plan.parts, code_id, own)


def collect_deltas(images: Pixels, model: CodecModel, count: int) -> Float32:
    """Unit δ vectors of packets in the first hops, spread evenly over them: float32 [count, n]."""
    per_image = -(-count // len(images))
    kept: list[Float32] = []
    for pixels in images:
        height, width, channels = pixels.shape
        layout = TileLayout(height, width, channels, model.tile_side)
        signal = layout.split(pixels)
        plan = default_plan(RecordingCode)
        process = ReverseProcess(model, layout, plan, final_step=0)
        while process.evaluations <= HOPS and not process.plan.finished:
            correction = 0
            if process.plan.at_hop:
                error = float(np.mean((signal - process.x_hat()) ** 2))
                correction = process.plan.correction_for(error)
            process.tell(process.plan.packet(correction), signal, BitWriter())
        directions = plan.own.directions
        places = np.linspace(0, len(directions) - 1, per_image).round().astype(int)
        kept.extend(directions[place] for place in places)
    return np.stack(kept[:count])


def trellis_teller(code: TrellisCode) -> Teller:
    """A channel code in packets that run on."""

    def tell(delta: Float32, bits: int, noise: SharedNoise, clock: Clock) -> list[Told]:
        state, told = CodeState(), []
        for _ in range(1 + PACKETS):
            writer, start = BitWriter(), clock()
            budget = code.nearest_budget(bits, state)
            c, state = code.encode(delta[None], budget, noise, state, writer)
            told.append(Told(c[0], float(writer.bit_length), clock() - start))
        return told[1:]

    return tell


def poisson_teller() -> Teller:
    """The exact Poisson functional representation, its δ as long as the budget carries."""
    code = PoissonCode()

    def tell(delta: Float32, bits: int, noise: SharedNoise, clock: Clock) -> list[Told]:
        state, told = CodeState(), []
        for _ in range(PACKETS):
            writer, start = BitWriter(), clock()
            length = np.float32(math.sqrt(2.0 * code.bought_nats(bits, state)))
            c, state = code.encode(length * delta[None], bits, noise, state, writer)
            told.append(Told(c[0], float(writer.bit_length), clock() - start))
        return told

    return tell


def truncated_teller(code: TruncatedPoisson) -> Teller:
    """Truncated PFR of the whole number of chunks whose ideal code is nearest to the budget."""
    # Li and El Gamal's bound on the mean length, near what is paid.
    chunk_cost = code.chunk_bits + math.log2(code.chunk_bits + 1.0) + 1.0

    def tell(delta: Float32, bits: int, noise: SharedNoise, clock: Clock) -> list[Told]:
        kl_bits = max(1, round(bits / chunk_cost)) * code.chunk_bits
        length = np.float32(math.sqrt(2.0 * bits_to_nats(kl_bits)))
        told = []
        for packet in range(PACKETS):
            start = clock()
            c, paid = code.sample(length * delta, round(kl_bits), noise.substream(packet))
            told.append(Told(c, paid, clock() - start))
        return told

    return tell


def codebook_teller(code: RandomCodebook) -> Teller:
    """A random codebook of as many sections as the budget holds."""

    def tell(delta: Float32, bits: int, noise: SharedNoise, clock: Clock) -> list[Told]:
        told = []
        for packet in range(PACKETS):
            start = clock()
            c, paid = code.sample(delta, bits, noise.substream(packet))
            told.append(Told(c, paid, clock() - start))
        return told

    return tell


def contestants() -> Iterator[tuple[str, Teller, Sequence[int], float]]:
    """Name, teller, the budgets and the share of the vectors that its time allows."""
    for code in CHANNEL_CODES.values():
        yield code.name, trellis_teller(code), BUDGETS, 1.0
    # In chunks: more bits are more of the same.
    yield "exact PFR, chunks of 4 bits", poisson_teller(), BUDGETS[:2], 0.125
    for chunk_bits in (6.0, 10.0):
        truncated = TruncatedPoisson(chunk_bits)
        yield truncated.name, truncated_teller(truncated), BUDGETS, 1.0
    for index_bits in (6, 10, 13):
        codebook = RandomCodebook(index_bits)
        yield codebook.name, codebook_teller(codebook), BUDGETS, 1.0


def measure(name: str, tell: Teller, deltas: Float32, bits: int, clock: Clock) -> Row:
    """One row over ``deltas``, unit float32 [N, n] with N ≥ 2."""
    tell(deltas[0], BUDGETS[0], SharedNoise(NOISE_DOMAIN), clock)  # builds the codebook
    projections = np.empty((len(deltas), PACKETS))
    paid = seconds = 0.0
    for place, delta in enumerate(deltas):
        told = tell(delta, bits, SharedNoise(NOISE_DOMAIN + 1 + place), clock)
        projections[place] = [np.dot(packet.c.astype(np.float64), delta) for packet in told]
        paid += sum(packet.bits for packet in told)
        seconds += sum(packet.seconds for packet in told)
    paid /= projections.size
    mean = float(projections.mean())
    bought = nats_to_bits(mean * mean / 2.0)
    price = paid / bought
    spread = float(projections.mean(axis=1).std(ddof=1)) / math.sqrt(len(deltas))
    milliseconds = 1e3 * seconds / projections.size
    return Row(name, bits, paid, bought, price, 2 * price * spread / mean, milliseconds)


def rows(deltas: Float32, clock: Clock = time.process_time) -> Iterator[Row]:
    """Every contestant at every budget."""
    for name, tell, budgets, share in contestants():
        for bits in budgets:
            count = max(2, round(share * len(deltas)))
            yield measure(name, tell, deltas[:: len(deltas) // count], bits, clock)


def comparison_table(record: Mapping[str, Any]) -> Table:
    """A code a line: bits paid and bought, price with twice its error, and time at each budget."""
    table = record["rows"]
    lines = []
    for name in dict.fromkeys(row["code"] for row in table):
        cells = {
            row["budget_bits"]: f"{row['paid_bits']:.0f} → {row['bought_bits']:.1f}: "
            f"{row['price']:.3f} ± {2 * row['standard_error']:.3f}, {row['milliseconds']:.1f} ms"
            for row in table
            if row["code"] == name
        }
        lines.append((name, *(cells.get(bits, "") for bits in BUDGETS)))
    return Table(("code", *(f"{bits} bits" for bits in BUDGETS)), lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.channel_comparison",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    held_out.add_options(parser, images=4)
    parser.add_argument("--vectors", type=int, default=24, metavar="N", help="at least 8")
    options = parser.parse_args(arguments)
    if options.images < 1 or options.vectors < 8:
        parser.error("expected --images of at least 1 and --vectors of at least 8")

    def compare(subject: held_out.Subject) -> dict[str, Any]:
        deltas = collect_deltas(subject.images, subject.model, options.vectors)
        table = []
        for row in rows(deltas):
            table.append(asdict(row))
            print(f"{row.code}: {row.budget_bits} bits, {row.price:.3f}", file=sys.stderr)
        return {"vectors": len(deltas), "rows": table}

    return held_out.run(
        options, CHANNEL_CODES_RECORD, compare, lambda record: comparison_table(record).show()
    )


if __name__ == "__main__":
    raise SystemExit(main())
