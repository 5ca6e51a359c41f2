"""The Poisson functional representation: exact samples, decodable, at about their price."""

import math

import numpy as np
import pytest

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding.channel import CodeState
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.errors import TruncatedStreamError
from diffcodec.units import bits_to_nats

START = CodeState()


def _delta(groups: int, dimension: int, kl_bits: float) -> np.ndarray:
    delta = SharedNoise(3, 1).normal(0, (groups, dimension))
    delta *= math.sqrt(2 * bits_to_nats(kl_bits)) / np.linalg.norm(delta, axis=1, keepdims=True)
    return delta


def test_samples_follow_the_posterior_and_decode() -> None:
    groups, kl_bits = 800, 2.0
    code, delta, start = PoissonCode(), _delta(groups, 6, kl_bits), CodeState(groups)
    bits = code.payload_bits(bits_to_nats(groups * kl_bits), start)
    noise, writer = SharedNoise(4), BitWriter()
    encoded, state = code.encode(delta, bits, noise, start, writer)
    reader = BitReader(writer.to_bytes())
    decoded, after = code.decode(6, bits, noise, start, reader)
    np.testing.assert_array_equal(decoded, encoded)
    assert after == state
    radius = math.sqrt(2 * bits_to_nats(kl_bits))
    along = np.sort(np.einsum("gn,gn->g", encoded, delta) / radius - radius)
    expected = np.array([0.5 * math.erfc(-value / math.sqrt(2)) for value in along])
    steps = np.arange(groups + 1) / groups
    distance = max((steps[1:] - expected).max(), (expected - steps[:-1]).max())
    # Kolmogorov and Smirnov's distance is above 1.95/√N once in a thousand.
    assert distance < 1.95 / math.sqrt(groups)
    across = encoded - delta * (np.einsum("gn,gn->g", encoded, delta) / radius**2)[:, None]
    assert np.square(across).sum() / (5 * groups) == pytest.approx(1.0, abs=0.07)
    assert writer.bit_length / groups == pytest.approx(bits / groups, abs=1.0)


def test_chunks_share_out_the_vector() -> None:
    code, delta, start = PoissonCode(), _delta(4, 40, 9.0), CodeState(4)
    bits = code.payload_bits(bits_to_nats(4 * 9.0), start)
    noise, writer = SharedNoise(6), BitWriter()
    encoded, _ = code.encode(delta, bits, noise, start, writer)
    reader = BitReader(writer.to_bytes())
    decoded, _ = code.decode(40, bits, noise, start, reader)
    np.testing.assert_array_equal(decoded, encoded)
    assert reader.position == writer.bit_length
    projection = np.einsum("gn,gn->g", encoded, delta) / np.linalg.norm(delta, axis=1)
    radius = math.sqrt(2 * bits_to_nats(9.0))
    assert abs(projection.mean() - radius) < 4 / math.sqrt(4)


@pytest.mark.parametrize("vectors", [1, 3])
def test_budgets_and_what_they_buy_agree(vectors: int) -> None:
    code, start = PoissonCode(), CodeState(vectors)
    budgets = [code.nearest_budget(vectors * bits, start) for bits in range(1, 200)]
    assert budgets == [vectors * bits for bits in range(1, 200)]
    bought = [code.bought_nats(bits, start) for bits in budgets]
    # One chunk more costs its overhead: only whole chunks are sure to buy more.
    assert (np.diff(bought[6::7]) > 0).all()
    for kl_bits in (0.5, 3.0, 9.0, 64.0):
        bits = code.payload_bits(bits_to_nats(vectors * kl_bits), start)
        assert code.bought_nats(bits, start) == pytest.approx(
            vectors * bits_to_nats(kl_bits), rel=0.2, abs=0.3 * vectors
        )
    with pytest.raises(ValueError, match="budget"):
        code.bought_nats(0, START)


def test_no_difference_costs_a_bit() -> None:
    writer = BitWriter()
    zeros, state = np.zeros((3, 5), np.float32), CodeState(3)
    PoissonCode().encode(zeros, 3, SharedNoise(2), state, writer)
    assert writer.bit_length == 3


def test_a_truncated_payload_is_reported() -> None:
    with pytest.raises(TruncatedStreamError):
        PoissonCode().decode(5, 4, SharedNoise(2), START, BitReader(b"\xff"))


def test_packets_one_after_another_have_noise_of_their_own() -> None:
    code, delta, noise, writer = PoissonCode(), _delta(2, 12, 3.0), SharedNoise(8), BitWriter()
    told, state = [], CodeState(2)
    for _ in range(3):
        encoded, state = code.encode(delta, 8, noise, state, writer)
        told.append(encoded)
    assert not np.array_equal(told[0], told[1])
    reader, state = BitReader(writer.to_bytes()), CodeState(2)
    for encoded in told:
        decoded, state = code.decode(12, 8, noise, state, reader)
        np.testing.assert_array_equal(decoded, encoded)
    assert state == CodeState(vectors=2, sections=3)
