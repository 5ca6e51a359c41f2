"""What the channel codes charge: python -m benchmarks.channel_price [--trials N] [--code ID]

For each code and number of bits in a packet, the bits that a section pays and the KL that it buys
(E[⟨c, δ/‖δ‖⟩]²/2 of a packet, over random directions) in a stream of packets that run on, their
quotient, and the encoder's processor time. Then what the first section buys where a packet of about
``FIRST_BITS`` bits begins anew and ends for good. ``section_bits`` and ``first_bits`` in
``diffcodec/coding/channel.py`` are the two rows marked with a star. Below it, the exact reference:
the Poisson functional representation on 64 coordinates, at the mean length of its codes.
"""

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from diffcodec.bits import BitWriter
from diffcodec.coding.channel import CHANNEL_CODES, CodeState, Float32, TrellisCode
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

DIRECTION_DOMAIN = 0x646972656374696F
NOISE_DOMAIN = 0x7072696365
PACKET_BITS = (16, 32, 64, 128, 256)
PLANNED_BITS = 64
STREAM_BITS = 768
FIRST_BITS = 40
FIRST_PACKETS = 32
START = CodeState()


@dataclass(frozen=True)
class Price:
    """What a code's sections buy in packets that run on.

    Attributes:
        section_bits: bits of KL bought by a section.
        error: standard error of ``section_bits``.
        micros: microseconds of the encoder for a bit paid.
    """

    section_bits: float
    error: float
    micros: float


def directions(code: TrellisCode, seed: int, dimension: int, trials: int) -> Float32:
    """Random unit vectors, float32 [trials, dimension]."""
    delta = SharedNoise(DIRECTION_DOMAIN, code.code_id).normal(seed, (trials, dimension))
    delta /= np.linalg.norm(delta, axis=1, keepdims=True)
    return delta


def measure(code: TrellisCode, sections: int, dimension: int, trials: int) -> Price:
    """Streams of packets of ``sections`` sections each, one direction δ a stream.

    The first packet of a stream, which pays for its beginning, is left out.
    """
    delta = directions(code, sections, dimension, trials)
    packets = max(3, STREAM_BITS // (code.new_bits * sections))
    projections, writer, seconds = np.empty((packets, trials)), BitWriter(), 0.0
    for trial, row in enumerate(delta):
        noise = SharedNoise(NOISE_DOMAIN + trial)
        bits = code.budget_bits(sections, START)
        _, state = code.encode(row[None], bits, noise, START, BitWriter())
        bits = code.budget_bits(sections, state)
        start = time.process_time()
        for packet in range(packets):
            c, state = code.encode(row[None], bits, noise, state, writer)
            projections[packet, trial] = c[0].astype(np.float64) @ row
        seconds += time.process_time() - start
    mean = float(projections.mean())
    spread = float(projections.mean(axis=0).std(ddof=1)) / np.sqrt(trials)
    return Price(
        section_bits=nats_to_bits(mean * mean / 2) / sections,
        error=nats_to_bits(mean * spread) / sections,
        micros=1e6 * seconds / writer.bit_length,
    )


def measure_first(
    code: TrellisCode, section_bits: float, dimension: int, trials: int
) -> tuple[float, float]:
    """What a packet of ``FIRST_BITS`` buys less ``section_bits`` for each section after its first.

    Each packet begins anew, and none follows it. Returns it with its standard error.
    """
    delta = directions(code, 0, dimension, trials)
    bits = code.nearest_budget(FIRST_BITS, START)
    sections = code.sections(bits, START)
    projections = np.empty((FIRST_PACKETS, trials))
    for trial, row in enumerate(delta):
        noise, state = SharedNoise(NOISE_DOMAIN + trial), START
        for packet in range(FIRST_PACKETS):
            c, state = code.encode(row[None], bits, noise, state.anew(), BitWriter(), runs_on=False)
            projections[packet, trial] = c[0].astype(np.float64) @ row
    mean = float(projections.mean())
    spread = float(projections.mean(axis=0).std(ddof=1)) / np.sqrt(trials)
    first_bits = nats_to_bits(mean * mean / 2) - (sections - 1) * section_bits
    return first_bits, nats_to_bits(mean * spread)


def rows(codes: Sequence[TrellisCode], trials: int, dimension: int) -> Iterator[str]:
    """Lines of the table, a code at a time."""
    for code in codes:
        yield f"{code.name}, n = {dimension}, {code.lookahead} sections ahead"
        yield "packet, bits  section: paid  bought      ±    price  µs/bit"
        section_bits = 0.0
        for packet_bits in PACKET_BITS:
            price = measure(code, packet_bits // code.new_bits, dimension, trials)
            planned = packet_bits == PLANNED_BITS
            if planned:
                section_bits = price.section_bits
            yield (
                f"{packet_bits:12d} {code.new_bits:14d} {price.section_bits:7.3f} "
                f"{price.error:6.3f} {code.new_bits / price.section_bits:8.4f} "
                f"{price.micros:7.1f}" + (" *" if planned else "")
            )
        first_bits, error = measure_first(code, section_bits, dimension, trials)
        yield f"{'first':>12} {code.register_bits:14d} {first_bits:7.3f} {error:6.3f}  *"


def poisson_rows(trials: int, dimension: int = 64) -> Iterator[str]:
    """Lines for the Poisson functional representation, which buys the KL it is given."""
    code = PoissonCode()
    yield f"{code.name}, n = {dimension}"
    yield "   KL, bits      paid    price  µs/bit"
    for kl_bits in (2.0, 4.0, 16.0):
        delta = SharedNoise(DIRECTION_DOMAIN, code.code_id).normal(0, (trials, dimension))
        delta /= np.linalg.norm(delta, axis=1, keepdims=True)
        delta *= np.float32(np.sqrt(2 * bits_to_nats(kl_bits)))
        writer = BitWriter()
        start = time.process_time()
        state = CodeState(vectors=trials)
        bits = code.payload_bits(bits_to_nats(trials * kl_bits), state)
        code.encode(delta, bits, SharedNoise(NOISE_DOMAIN), state, writer)
        seconds = time.process_time() - start
        paid = writer.bit_length / trials
        micros = 1e6 * seconds / writer.bit_length
        yield f"{kl_bits:11.1f} {paid:9.2f} {paid / kl_bits:8.4f} {micros:7.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=16, help="directions for each row")
    parser.add_argument("--dimension", type=int, default=3072)
    parser.add_argument(
        "--code", type=int, choices=sorted(CHANNEL_CODES), action="append", help="default: all"
    )
    arguments = parser.parse_args()
    codes = [CHANNEL_CODES[code_id] for code_id in arguments.code or sorted(CHANNEL_CODES)]
    trials = arguments.trials
    for line in chain(rows(codes, trials, arguments.dimension), poisson_rows(trials)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
