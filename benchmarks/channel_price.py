"""What the channel codes charge: python -m benchmarks.channel_price [--trials N]

For each code and number of sections, the bits paid, the KL bought (E[⟨c, δ/‖δ‖⟩]²/2, averaged over
random directions), their quotient and the encoder's time. ``prices`` in
``diffcodec/coding/channel.py`` are this table's columns of bits. Below it, the exact reference: the
Poisson functional representation on 64 coordinates, at the mean length of its codes.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from itertools import chain

import numpy as np

from diffcodec.bits import BitWriter
from diffcodec.coding.channel import CHANNEL_CODES, TrellisCode
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats, nats_to_bits

DIRECTION_DOMAIN = 0x646972656374696F
NOISE_DOMAIN = 0x7072696365
SECTIONS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)


def measure(
    code: TrellisCode, sections: int, dimension: int, trials: int
) -> tuple[float, float, float]:
    """Bits of KL bought, their standard error, and microseconds of encoder time a bit paid."""
    delta = SharedNoise(DIRECTION_DOMAIN, code.code_id).normal(sections, (trials, dimension))
    delta /= np.linalg.norm(delta, axis=1, keepdims=True)
    bits = code.budget_bits(sections)
    noise = SharedNoise(NOISE_DOMAIN, code.code_id * 4096 + sections)
    code.encode(delta[:1], bits, noise, BitWriter())
    start = time.perf_counter()
    c = code.encode(delta, bits, noise, BitWriter())
    seconds = time.perf_counter() - start
    projection = np.einsum("gn,gn->g", c.astype(np.float64), delta)
    mean = float(projection.mean())
    error = float(projection.std() / np.sqrt(trials))
    return (
        nats_to_bits(mean * mean / 2),
        nats_to_bits(mean * error),
        1e6 * seconds / (bits * trials),
    )


def rows(total_sections: int, dimension: int) -> Iterator[str]:
    """Lines of the table, a code at a time; each measurement codes ``total_sections`` sections."""
    for code in CHANNEL_CODES.values():
        yield f"{code.name}, n = {dimension}"
        yield "sections   paid    bought     ±    price  µs/bit"
        for sections in SECTIONS:
            paid = code.budget_bits(sections)
            trials = max(24, total_sections // sections)
            bought, error, micros = measure(code, sections, dimension, trials)
            yield (
                f"{sections:8d} {paid:6d} {bought:9.2f} {error:5.2f} {paid / bought:8.4f} "
                f"{micros:7.1f}"
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
        code.encode(
            delta, code.payload_bits(bits_to_nats(kl_bits)), SharedNoise(NOISE_DOMAIN), writer
        )
        seconds = time.perf_counter() - start
        paid = writer.bit_length / trials
        micros = 1e6 * seconds / writer.bit_length
        yield f"{kl_bits:11.1f} {paid:9.2f} {paid / kl_bits:8.4f} {micros:7.1f}"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--trials", type=int, default=4000, help="sections for each row")
    parser.add_argument("--dimension", type=int, default=3072)
    arguments = parser.parse_args()
    for line in chain(rows(arguments.trials, arguments.dimension), poisson_rows(50)):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
