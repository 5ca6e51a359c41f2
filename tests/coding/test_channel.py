"""The channel code: what is decoded, what it costs, what it looks like."""

import hashlib
from itertools import product

import numpy as np
import pytest

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding.channel import CHANNEL_CODES, CODEBOOK_DOMAIN, ChannelCode, TrellisCode
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.errors import TruncatedStreamError
from diffcodec.units import bits_to_nats, nats_to_bits

CODES = list(CHANNEL_CODES.values())
SMALL = TrellisCode(200, 6, 2, ((6, 4.0), (8, 6.0)))
SHORT_REGISTER = TrellisCode(201, 6, 4, ((6, 4.0), (10, 8.0)))


def _direction(groups: int, dimension: int, seed: int = 1) -> np.ndarray:
    delta = SharedNoise(77, seed).normal(0, (groups, dimension))
    return delta / np.linalg.norm(delta, axis=1, keepdims=True)


def _projection(code: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return np.einsum("gn,gn->g", code.astype(np.float64), direction)


def test_all_codes_are_channel_codes() -> None:
    codes: list[ChannelCode] = [*CODES, PoissonCode()]
    assert len({code.code_id for code in codes}) == len(codes)
    assert [code.name for code in codes] == [
        "trellis-16-8",
        "trellis-12-4",
        "trellis-16-4",
        "poisson",
    ]


@pytest.mark.parametrize("code", [*CODES, SMALL, SHORT_REGISTER], ids=lambda code: code.name)
@pytest.mark.parametrize("dimension", [48, 75, 192])
@pytest.mark.parametrize("sections", [1, 2, 5])
def test_decoding_restores_the_encoders_code(
    code: TrellisCode, dimension: int, sections: int
) -> None:
    bits = code.budget_bits(sections)
    delta = 3 * _direction(2, dimension)
    noise, writer = SharedNoise(4, 9), BitWriter()
    writer.write(1, 1)
    encoded = code.encode(delta, bits, noise, writer)
    assert writer.bit_length == 1 + 2 * bits
    reader = BitReader(writer.to_bytes())
    reader.read(1)
    decoded = code.decode((2, dimension), bits, noise, reader)
    assert reader.position == 1 + 2 * bits
    assert decoded.dtype == np.float32
    np.testing.assert_array_equal(decoded, encoded)


@pytest.mark.parametrize("code", [SMALL, SHORT_REGISTER], ids=lambda code: code.name)
def test_the_path_is_the_best_of_all(code: TrellisCode) -> None:
    bits, dimension = code.budget_bits(2), 10
    delta, noise = _direction(1, dimension), SharedNoise(4)
    best = -np.inf
    for first, new in product(range(1 << code.register_bits), range(1 << code.new_bits)):
        writer = BitWriter()
        writer.write(first, code.register_bits)
        writer.write(new, code.new_bits)
        candidate = code.decode((1, dimension), bits, noise, BitReader(writer.to_bytes()))
        best = max(best, float(_projection(candidate, delta)[0]))
    found = code.encode(delta, bits, noise, BitWriter())
    assert _projection(found, delta)[0] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
@pytest.mark.parametrize("sections", [1, 5, 24])
def test_a_budget_buys_what_is_calibrated(code: TrellisCode, sections: int) -> None:
    bits = code.budget_bits(sections)
    direction = _direction(24, 3072)
    encoded = code.encode(direction, bits, SharedNoise(5, sections), BitWriter())
    projection = _projection(encoded, direction)
    standard_error = projection.std() / np.sqrt(len(projection))
    expected = np.sqrt(2 * code.bought_nats(bits))
    assert abs(projection.mean() - expected) < 4 * standard_error + 0.003 * expected


def test_the_price_falls_and_is_near_the_designs() -> None:
    for code, bits, price in zip(CODES, (136, 128, 132), (1.10, 1.13, 1.09), strict=True):
        assert bits / nats_to_bits(code.bought_nats(bits)) == pytest.approx(price, abs=0.015)
    for code in CODES:
        prices = [paid / bought for paid, bought in code.prices]
        assert prices[0] > prices[-1] > 1.0


def test_what_is_bought_does_not_depend_on_the_length_of_delta() -> None:
    code, direction = CODES[1], _direction(4, 3072)
    bought = [
        code.encode(length * direction, 40, SharedNoise(6), BitWriter())
        for length in (np.float32(2**-6), np.float32(1), np.float32(2**8))
    ]
    np.testing.assert_array_equal(bought[0], bought[1])
    np.testing.assert_array_equal(bought[0], bought[2])


def test_zero_and_constant_differences_are_coded_too() -> None:
    code = CODES[1]
    assert np.isfinite(
        code.encode(np.zeros((1, 64), np.float32), 16, SharedNoise(1), BitWriter())
    ).all()
    constant = np.full((8, 768), 768**-0.5, dtype=np.float32)
    encoded = code.encode(constant, 40, SharedNoise(7), BitWriter())
    expected = np.sqrt(2 * code.bought_nats(40))
    assert _projection(encoded, constant).mean() == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_off_the_direction_the_code_is_gaussian_noise(code: TrellisCode) -> None:
    direction = _direction(24, 3072, seed=2)
    bits = code.budget_bits(8)
    encoded = code.encode(direction, bits, SharedNoise(8), BitWriter()).astype(np.float64)
    rest = encoded - _projection(encoded, direction)[:, None] * direction
    assert abs(rest.mean()) < 4 / np.sqrt(rest.size)
    assert rest.var() == pytest.approx(1.0, abs=0.03)
    assert np.mean(rest**4) / rest.var() ** 2 == pytest.approx(3.0, abs=0.1)
    assert abs(np.mean(rest[:, 1:] * rest[:, :-1])) < 0.02


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_budgets_and_what_they_buy_are_inverses(code: TrellisCode) -> None:
    budgets = [code.budget_bits(sections) for sections in range(1, 200)]
    bought = [code.bought_nats(bits) for bits in budgets]
    assert (np.diff(bought) > 0).all()
    assert [code.payload_bits(nats) for nats in bought] == budgets
    for kl_nats in np.geomspace(0.01, bought[-2], 100):
        nearest = min(budgets, key=lambda bits: abs(code.bought_nats(bits) - kl_nats))
        assert code.payload_bits(kl_nats) == nearest
    assert code.payload_bits(0.0) == code.register_bits
    with pytest.raises(ValueError, match="budget"):
        code.bought_nats(code.register_bits + 1)
    with pytest.raises(ValueError, match="budget"):
        code.bought_nats(0)
    assert bits_to_nats(code.prices[0][1]) == bought[0]


def test_a_truncated_payload_is_reported() -> None:
    code, writer = CODES[0], BitWriter()
    code.encode(_direction(2, 48), 24, SharedNoise(1), writer)
    with pytest.raises(TruncatedStreamError):
        code.decode((2, 48), 24, SharedNoise(1), BitReader(writer.to_bytes()[:-1]))


@pytest.mark.parametrize("code", [*CODES, SMALL, SHORT_REGISTER], ids=lambda code: code.name)
def test_decoding_is_what_the_format_says(code: TrellisCode) -> None:
    width, new, dimension, sections = code.register_bits, code.new_bits, 50, 3
    bits = code.budget_bits(sections)
    payload = bytes(range(201, 201 + -(-bits // 8)))
    digits = "".join(f"{octet:08b}" for octet in payload)
    signs = SharedNoise(3, 1).signs(0, (sections, dimension))
    total = np.zeros(dimension, dtype=np.float32)
    register = 0
    for section in range(sections):
        taken = digits[:width] if section == 0 else digits[:new]
        digits = digits[len(taken) :]
        register = ((register << new) + int(taken, 2)) % (1 << width)
        number = (register % (1 << new) << (width - new)) + (register >> new)
        vector, shift = divmod(number % (1 << (width - 1)), dimension)
        steps = SharedNoise(CODEBOOK_DOMAIN, dimension).normal_steps(vector, (dimension,))
        squared_norm = sum(step * step for step in steps.tolist())
        codeword = np.roll((steps * np.sqrt(dimension / squared_norm)).astype(np.float32), shift)
        minus = number >> (width - 1)
        total = total + signs[section] * (-codeword if minus else codeword)
    decoded = code.decode((1, dimension), bits, SharedNoise(3, 1), BitReader(payload))
    np.testing.assert_array_equal(decoded[0], total / np.sqrt(np.float32(sections)))


def test_decoded_noise_is_pinned() -> None:
    digest = hashlib.sha256()
    for code in CODES:
        for dimension in (48, 3072):
            bits = code.budget_bits(3)
            payload = bytes(range(17, 17 + -(-bits // 8)))
            decoded = code.decode((1, dimension), bits, SharedNoise(3, 1), BitReader(payload))
            digest.update(decoded.astype("<f4").tobytes())
    assert digest.hexdigest() == "225e525dc2b552be8aa7ac178428019caed9a84d78a02b70be82d246d47418c3"
