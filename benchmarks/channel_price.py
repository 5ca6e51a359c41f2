"""What the channel codes charge: python -m benchmarks.channel_price [--trials N]

For each code and number of sections in a packet, the bits that a section pays and the KL that it
buys (E[⟨c, δ/‖δ‖⟩]²/2 of a packet, over random directions) in a stream of packets, their quotient,
what the very first section buys, and the encoder's time. ``first_bits`` and ``section_bits`` in
``diffcodec/coding/channel.py`` are the rows marked with a star. Below it, the exact reference: the
Poisson functional representation on 64 coordinates, at the mean length of its codes.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from diffcodec.bits import BitWriter
from diffcodec.coding.channel import CHANNEL_CODES, CodeState, TrellisCode
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

DIRECTION_DOMAIN = 0x646972656374696F
NOISE_DOMAIN = 0x7072696365
PACKET_BITS = (16, 32, 64, 128, 256)
PLANNED_BITS = 64
STREAM_BITS = 768


@dataclass(frozen=True)
class Price:
    """What a code's sections buy.

    Attributes:
        first_bits, section_bits: bits of KL bought by a stream's first section and by any other.
        error: standard error of ``section_bits``.
        micros: microseconds of the encoder for a bit paid.
    """

    first_bits: float
    section_bits: float
    error: float
    micros: float


def measure(code: TrellisCode, sections: int, dimension: int, trials: int) -> Price:
    """Streams of packets of ``sections`` sections each, one direction δ a stream."""
    delta = SharedNoise(DIRECTION_DOMAIN, code.code_id).normal(sections, (trials, dimension))
    delta /= np.linalg.norm(delta, axis=1, keepdims=True)
    noise = SharedNoise(NOISE_DOMAIN)
    packets = max(3, STREAM_BITS // (code.new_bits * sections))
    state, writer = CodeState(), BitWriter()
    projections = np.empty((packets, trials))
    start = time.perf_counter()
    for packet in range(packets):
        bits = code.budget_bits(sections, state)
        c, state = code.encode(delta, bits, noise, state, writer)
        projections[packet] = np.einsum("gn,gn->g", c.astype(np.float64), delta)
    seconds = time.perf_counter() - start
    bought = nats_to_bits(projections.mean(axis=1) ** 2 / 2)
    section_bits = float(bought[1:].mean()) / sections
    mean = float(projections[1:].mean())
    spread = float(projections[1:].mean(axis=0).std()) / np.sqrt(trials)
    return Price(
        first_bits=float(bought[0]) - (sections - 1) * section_bits,
        section_bits=section_bits,
        error=nats_to_bits(mean * spread) / sections,
        micros=1e6 * seconds / writer.bit_length,
    )


def rows(trials: int, dimension: int) -> Iterator[str]:
    """Lines of the table, a code at a time."""
    for code in CHANNEL_CODES.values():
        yield f"{code.name}, n = {dimension}, {code.lookahead} sections ahead"
        yield "packet, bits  section: paid  bought      ±    price   first  µs/bit"
        for packet_bits in PACKET_BITS:
            price = measure(code, packet_bits // code.new_bits, dimension, trials)
            yield (
                f"{packet_bits:12d} {code.new_bits:14d} {price.section_bits:7.3f} "
                f"{price.error:6.3f} {code.new_bits / price.section_bits:8.4f} "
                f"{price.first_bits:7.2f} {price.micros:7.1f}"
                + (" *" if packet_bits == PLANNED_BITS else "")
            )


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
        start = time.perf_counter()
        bits = code.payload_bits(bits_to_nats(kl_bits), CodeState())
        code.encode(delta, bits, SharedNoise(NOISE_DOMAIN), CodeState(), writer)
        seconds = time.perf_counter() - start
        paid = writer.bit_length / trials
        micros = 1e6 * seconds / writer.bit_length
        yield f"{kl_bits:11.1f} {paid:9.2f} {paid / kl_bits:8.4f} {micros:7.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=16, help="streams for each row")
    parser.add_argument("--dimension", type=int, default=3072)
    arguments = parser.parse_args()
    for line in chain(rows(arguments.trials, arguments.dimension), poisson_rows(50)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
