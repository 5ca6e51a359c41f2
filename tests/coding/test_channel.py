"""The channel code: what is decoded, what it costs, what it looks like."""

import dataclasses
import hashlib
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import numpy as np
import pytest

from diffcodec.bits import BitReader, BitWriter
from diffcodec.coding import channel
from diffcodec.coding.channel import (
    CHANNEL_CODES,
    CODEBOOK_DOMAIN,
    ChannelCode,
    CodeState,
    TrellisCode,
)
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.errors import TruncatedStreamError
from diffcodec.units import bits_to_nats

CODES = list(CHANNEL_CODES.values())
SMALL = TrellisCode(200, 6, 2, 4.0, 1.7, lookahead=4)
HALF_NEW = TrellisCode(201, 6, 3, 4.0, 2.6, lookahead=2)
START = CodeState()
LATER = CodeState(sections=1, register=0)
ANEW = LATER.anew()
PAIR = CodeState(vectors=2)


def _direction(groups: int, dimension: int, seed: int = 1) -> np.ndarray:
    delta = SharedNoise(77, seed).normal(0, (groups, dimension))
    return delta / np.linalg.norm(delta, axis=1, keepdims=True)


def _projection(code: np.ndarray, direction: np.ndarray) -> np.ndarray:
    return np.einsum("gn,gn->g", code.astype(np.float64), direction)


def _stream(
    code: TrellisCode, delta: np.ndarray, packets: list[int], noise: SharedNoise
) -> tuple[list[np.ndarray], CodeState, BitWriter]:
    """What packets of so many sections tell of ``delta``, the state after them, their bits."""
    told, state, writer = [], CodeState(len(delta)), BitWriter()
    for sections in packets:
        bits = code.budget_bits(sections, state)
        c, state = code.encode(delta, bits, noise, state, writer)
        told.append(c)
    return told, state, writer


def test_all_codes_are_channel_codes() -> None:
    codes: list[ChannelCode] = [*CODES, PoissonCode()]
    assert len({code.code_id for code in codes}) == len(codes)
    assert len({code.name for code in codes}) == len(codes)
    assert [code.code_id for code in CODES] == list(CHANNEL_CODES)
    for code in CODES:
        assert code.name == f"trellis-{code.register_bits}-{code.new_bits}"


@pytest.mark.parametrize(("register", "new"), [(6, 0), (6, 4), (26, 2), (6, 6)])
def test_registers_that_are_none(register: int, new: int) -> None:
    with pytest.raises(ValueError, match="new bits"):
        TrellisCode(200, register, new, 4.0, 2.0)


@pytest.mark.parametrize("code", [*CODES, SMALL, HALF_NEW], ids=lambda code: code.name)
@pytest.mark.parametrize("dimension", [48, 75, 192])
@pytest.mark.parametrize("packets", [[2], [5], [2, 3, 10]], ids=str)
def test_decoding_restores_the_encoders_code_and_state(
    code: TrellisCode, dimension: int, packets: list[int]
) -> None:
    delta, noise = 3 * _direction(2, dimension), SharedNoise(4, 9)
    told, after, writer = _stream(code, delta, packets, noise)
    total = code.register_bits + code.new_bits * (sum(packets) - 1)
    assert writer.bit_length == total
    reader, state = BitReader(writer.to_bytes()), PAIR
    for sections, encoded in zip(packets, told, strict=True):
        bits = code.budget_bits(sections, state)
        decoded, state = code.decode(dimension, bits, noise, state, reader)
        assert decoded.dtype == np.float32
        np.testing.assert_array_equal(decoded, encoded)
    assert reader.position == total
    assert state == after
    assert (state.vectors, state.sections) == (2, sum(packets))


@pytest.mark.parametrize("code", [CODES[0], SMALL], ids=lambda code: code.name)
def test_one_long_packet_is_what_its_pieces_are(code: TrellisCode) -> None:
    dimension, noise = 96, SharedNoise(4, 9)
    delta = _direction(1, dimension)
    packets = [3, 1, 4, 2]
    told, after, writer = _stream(code, delta, packets, noise)
    bits = code.budget_bits(sum(packets), START)
    reader = BitReader(writer.to_bytes())
    whole, state = code.decode(dimension, bits, noise, START, reader)
    assert state == after
    sums = sum(
        np.sqrt(sections) * c.astype(np.float64) for sections, c in zip(packets, told, strict=True)
    )
    np.testing.assert_allclose(np.sqrt(sum(packets)) * whole, sums, atol=1e-5)


def test_a_search_that_looks_to_the_end_finds_in_pieces_what_it_finds_at_once() -> None:
    # Without a change of δ, a packet's path is the beginning of the whole stream's.
    total, dimension, noise = 8, 40, SharedNoise(6)
    delta = _direction(2, dimension)
    whole = dataclasses.replace(SMALL, lookahead=0)
    _, state, writer = _stream(whole, delta, [total], noise)
    pieces = BitWriter()
    after = PAIR
    for told in range(0, total, 2):
        code = dataclasses.replace(SMALL, lookahead=total - told - 2)
        _, after = code.encode(delta, code.budget_bits(2, after), noise, after, pieces)
    assert after == state
    assert pieces.to_bytes() == writer.to_bytes()


@pytest.mark.parametrize("code", [SMALL, HALF_NEW], ids=lambda code: code.name)
@pytest.mark.parametrize("before", [None, 37])
def test_the_path_is_the_best_of_all(code: TrellisCode, before: int | None) -> None:
    code = dataclasses.replace(code, lookahead=0)
    state = CodeState(sections=3, register=before)
    bits, dimension = code.budget_bits(2, state), 10
    delta, noise = _direction(1, dimension), SharedNoise(4)
    first_bits = code.register_bits if before is None else code.new_bits
    best = -np.inf
    for first, new in product(range(1 << first_bits), range(1 << code.new_bits)):
        writer = BitWriter()
        writer.write(first, first_bits)
        writer.write(new, code.new_bits)
        reader = BitReader(writer.to_bytes())
        candidate, _ = code.decode(dimension, bits, noise, state, reader)
        best = max(best, float(_projection(candidate, delta)[0]))
    found, _ = code.encode(delta, bits, noise, state, BitWriter())
    assert _projection(found, delta)[0] == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_a_packet_buys_about_what_is_calibrated(code: TrellisCode) -> None:
    # The rows that the figures are taken from: packets of 64 bits at n = 3072.
    packets = [64 // code.new_bits] * 3
    direction = _direction(3, 3072)
    alone = [_stream(code, row[None], packets, SharedNoise(5))[0] for row in direction]
    state = START
    for sections, of_rows in zip(packets, zip(*alone, strict=True), strict=True):
        expected = np.sqrt(2 * code.bought_nats(code.budget_bits(sections, state), state))
        projection = _projection(np.concatenate(of_rows), direction)
        # The projection of one vector scatters by about a tenth.
        assert projection.mean() == pytest.approx(expected, rel=0.08)
        state = LATER


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_vectors_that_share_a_register_are_told_as_well(code: TrellisCode) -> None:
    count, packets = 5, [8, 11, 13]
    direction = _direction(count, 1536)
    told, _, _ = _stream(code, direction, packets, SharedNoise(5))
    state, bought, expected = CodeState(count), 0.0, 0.0
    for sections, c in zip(packets, told, strict=True):
        bought += float((_projection(c, direction) ** 2).sum())
        expected += 2 * code.bought_nats(code.budget_bits(sections, state), state)
        state = dataclasses.replace(state, register=0)
    # Squares of so few projections scatter by less than a twelfth.
    assert bought == pytest.approx(expected, rel=0.1)


def test_looking_ahead_buys_more() -> None:
    code = CHANNEL_CODES[0]
    short_sighted = dataclasses.replace(code, lookahead=0)
    # How far the encoder looks is its own affair.
    assert short_sighted == code

    def bought(code: TrellisCode) -> float:
        """By what follows a stream's first packet, which alone loses nothing."""
        total = 0.0
        for row in _direction(6, 768):
            told, _, _ = _stream(code, row[None], [8] * 5, SharedNoise(5))
            total += sum(float(_projection(c, row[None])[0]) ** 2 for c in told[1:])
        return total

    assert bought(code) > 1.02 * bought(short_sighted)


def test_a_packet_that_nothing_runs_on_from_is_searched_to_its_end() -> None:
    code, delta, noise = CODES[0], _direction(3, 768, seed=2), SharedNoise(5)
    state = CodeState(3)
    bits = code.budget_bits(6, state)
    last, _ = code.encode(delta, bits, noise, state, BitWriter(), runs_on=False)
    without = dataclasses.replace(code, lookahead=0)
    near, _ = without.encode(delta, bits, noise, state, BitWriter())
    np.testing.assert_array_equal(last, near)
    ahead, _ = code.encode(delta, bits, noise, state, BitWriter())
    # For itself a packet can only lose by what its search looks ahead for.
    assert _projection(last, delta).sum() > _projection(ahead, delta).sum()


@pytest.mark.parametrize("vectors", [1, 3])
@pytest.mark.parametrize(("block", "packets"), [(8, [8, 8, 8]), (7, [7, 7, 7, 3]), (24, [24])])
def test_a_long_packet_is_searched_like_packets_one_after_another(
    vectors: int, block: int, packets: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, delta, noise = SMALL, _direction(vectors, 96), SharedNoise(5)
    _, after, pieces = _stream(code, delta, packets, noise)
    # A section's table has 96 float32, and four are looked ahead at.
    monkeypatch.setattr(channel, "_TABLE_SIZE", 96 * (block + 4))
    monkeypatch.setattr(channel, "_BLOCK_SECTIONS", 5)
    c, state, writer = _stream(code, delta, [sum(packets)], noise)
    assert writer.to_bytes() == pieces.to_bytes()
    assert state == after
    bits = code.budget_bits(sum(packets), CodeState(vectors))
    decoded, _ = code.decode(96, bits, noise, CodeState(vectors), BitReader(writer.to_bytes()))
    np.testing.assert_array_equal(decoded, c[0])


def test_a_packet_that_begins_anew_owes_nothing_to_the_registers_before_it() -> None:
    code, delta, noise = CODES[0], _direction(2, 96), SharedNoise(5)
    _, before, _ = _stream(code, delta, [7], noise)
    _, other, _ = _stream(code, -delta, [7], noise)
    assert before != other
    assert before.anew() == other.anew() == CodeState(2, 7)
    writer = BitWriter()
    bits = code.budget_bits(3, before.anew())
    assert bits == code.register_bits + 2 * code.new_bits
    c, after = code.encode(delta, bits, noise, before.anew(), writer)
    assert (writer.bit_length, after.sections) == (bits, 10)
    # Its signs are those of sections 7 to 9, not those of the first ones.
    reader = BitReader(writer.to_bytes())
    decoded, state = code.decode(96, bits, noise, CodeState(2, 7), reader)
    np.testing.assert_array_equal(decoded, c)
    assert state == after
    reader = BitReader(writer.to_bytes())
    assert not np.array_equal(code.decode(96, bits, noise, PAIR, reader)[0], c)


def test_other_vectors_than_the_state_s_are_refused() -> None:
    with pytest.raises(ValueError, match="expected 2 vectors, found 3"):
        CODES[0].encode(_direction(3, 48), 24, SharedNoise(1), PAIR, BitWriter())


def test_streams_fork() -> None:
    code, noise, delta = CODES[0], SharedNoise(5), _direction(2, 96)
    _, state, writer = _stream(code, delta, [2], noise)
    bits = code.budget_bits(3, state)
    ends = []
    for other in (delta, -delta, delta):
        twin = BitWriter()
        twin.write_bits(writer)
        c, after = code.encode(other, bits, noise, state, twin)
        ends.append((c.tobytes(), after, twin.to_bytes()))
    assert ends[0] == ends[2] != ends[1]


def test_what_was_coded_before_and_in_which_thread_has_no_say() -> None:
    noise = SharedNoise(5)

    def told(code: TrellisCode, dimension: int) -> tuple[bytes, bytes]:
        codes, _, writer = _stream(code, _direction(1, dimension), [3, 1], noise)
        return writer.to_bytes(), np.stack(codes).tobytes()

    # Tables that grow, shrink and are shared by all codes.
    calls = [(code, dimension) for dimension in (192, 48, 300) for code in (*CODES, SMALL)]
    together = [told(*call) for call in calls]
    with ThreadPoolExecutor(2) as pool:
        assert list(pool.map(lambda call: told(*call), reversed(calls))) == together[::-1]
    for call, before in zip(calls, together, strict=True):
        with ThreadPoolExecutor(1) as fresh:
            assert fresh.submit(told, *call).result() == before


def test_what_is_bought_does_not_depend_on_the_length_of_delta() -> None:
    code, direction = CODES[0], _direction(2, 768)
    bought = [
        code.encode(length * direction, 40, SharedNoise(6), PAIR, BitWriter())[0]
        for length in (np.float32(2**-6), np.float32(1), np.float32(2**8))
    ]
    np.testing.assert_array_equal(bought[0], bought[1])
    np.testing.assert_array_equal(bought[0], bought[2])


def test_zero_and_constant_differences_are_coded_too() -> None:
    code = CODES[0]
    zero = np.zeros((1, 64), np.float32)
    assert np.isfinite(code.encode(zero, 16, SharedNoise(1), START, BitWriter())[0]).all()
    constant = np.full((8, 768), 768**-0.5, dtype=np.float32)
    state = CodeState(8)
    bits = code.nearest_budget(8 * 40, state)
    encoded, _ = code.encode(constant, bits, SharedNoise(7), state, BitWriter())
    expected = 2 * code.bought_nats(bits, state)
    assert (_projection(encoded, constant) ** 2).sum() == pytest.approx(expected, rel=0.12)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_off_the_direction_the_code_is_gaussian_noise(code: TrellisCode) -> None:
    direction = _direction(6, 3072, seed=2)
    told, _, _ = _stream(code, direction, [24, 26], SharedNoise(8))
    for c in told:
        encoded = c.astype(np.float64)
        rest = encoded - _projection(encoded, direction)[:, None] * direction
        assert abs(rest.mean()) < 4 / np.sqrt(rest.size)
        assert rest.var() == pytest.approx(1.0, abs=0.05)
        assert np.mean(rest**4) / rest.var() ** 2 == pytest.approx(3.0, abs=0.2)
        assert abs(np.mean(rest[:, 1:] * rest[:, :-1])) < 0.04


@pytest.mark.parametrize("vectors", [1, 7])
@pytest.mark.parametrize("state", [START, LATER, ANEW], ids=["first", "later", "anew"])
@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_budgets_and_what_they_buy_are_inverses(
    code: TrellisCode, state: CodeState, vectors: int
) -> None:
    state, begins = dataclasses.replace(state, vectors=vectors), state.register is None
    counts = range(vectors, vectors + 200)
    budgets = [code.budget_bits(sections, state) for sections in counts]
    first = code.register_bits if begins else code.new_bits
    assert budgets[0] == first + (vectors - 1) * code.new_bits
    assert set(np.diff(budgets)) == {code.new_bits}
    assert [code.sections(bits, state) for bits in budgets] == list(counts)
    bought = [code.bought_nats(bits, state) for bits in budgets]
    first_bought = code.first_bits if begins else code.section_bits
    expected = bits_to_nats(first_bought + (vectors - 1) * code.section_bits)
    assert bought[0] == pytest.approx(expected)
    np.testing.assert_allclose(np.diff(bought), bits_to_nats(code.section_bits))
    assert [code.payload_bits(nats, state) for nats in bought] == budgets
    assert [code.nearest_budget(bits, state) for bits in budgets] == budgets
    for kl_nats in np.geomspace(0.01, bought[-2], 100):
        nearest = min(budgets, key=lambda bits: abs(code.bought_nats(bits, state) - kl_nats))
        assert code.payload_bits(kl_nats, state) == nearest
    assert code.payload_bits(0.0, state) == code.nearest_budget(0, state) == budgets[0]
    for bits in range(budgets[-1]):
        assert code.largest_budget(bits, state) == max([0, *(b for b in budgets if b <= bits)])
    for impossible in (budgets[0] + 1, budgets[0] - code.new_bits, 0):
        with pytest.raises(ValueError, match="budget"):
            code.bought_nats(impossible, state)


@pytest.mark.parametrize("code", CODES, ids=lambda code: code.name)
def test_nothing_is_sold_below_its_price(code: TrellisCode) -> None:
    assert 0 < code.section_bits < code.new_bits
    assert code.section_bits < code.first_bits < code.register_bits


def test_a_truncated_payload_is_reported() -> None:
    code, delta = CODES[0], _direction(2, 48)
    _, _, writer = _stream(code, delta, [3], SharedNoise(1))
    data, bits = writer.to_bytes(), code.budget_bits(3, PAIR)
    with pytest.raises(TruncatedStreamError):
        code.decode(48, bits, SharedNoise(1), PAIR, BitReader(data[:-1]))


@pytest.mark.parametrize("code", [*CODES, SMALL, HALF_NEW], ids=lambda code: code.name)
@pytest.mark.parametrize(
    "state", [PAIR, CodeState(2, 7, 0b101101), CodeState(2, 7)], ids=["first", "later", "anew"]
)
def test_decoding_is_what_the_format_says(code: TrellisCode, state: CodeState) -> None:
    width, new, dimension, sections, count = code.register_bits, code.new_bits, 50, 5, 2
    bits = code.budget_bits(sections, state)
    payload = bytes(range(201, 201 + -(-bits // 8)))
    digits = "".join(f"{octet:08b}" for octet in payload)
    total = np.zeros((count, dimension), dtype=np.float32)
    told = [0] * count
    register = state.register
    for section in range(state.sections, state.sections + sections):
        taken = digits[:width] if register is None else digits[:new]
        digits = digits[len(taken) :]
        register = (((register or 0) << new) + int(taken, 2)) % (1 << width)
        number = (register % (1 << new) << (width - new)) + (register >> new)
        vector, shift = divmod(number % (1 << (width - 1)), dimension)
        steps = SharedNoise(CODEBOOK_DOMAIN, dimension).normal_steps(vector, (dimension,))
        squared_norm = sum(step * step for step in steps.tolist())
        scaled = (steps * np.sqrt(dimension / squared_norm)).astype(np.float32)
        codeword = np.roll(scaled, shift)
        minus = number >> (width - 1)
        signs = SharedNoise(3, section).signs(0, (dimension,))
        row = section % count
        total[row] = total[row] + signs * (-codeword if minus else codeword)
        told[row] += 1
    # The noise's own index is of no account: a section's is its number.
    reader = BitReader(payload)
    decoded, after = code.decode(dimension, bits, SharedNoise(3, 1), state, reader)
    roots = np.sqrt(np.array(told, dtype=np.float32))
    np.testing.assert_array_equal(decoded, total / roots[:, None])
    assert after == CodeState(count, state.sections + sections, register)


def test_decoded_noise_is_pinned() -> None:
    digest = hashlib.sha256()
    for register, new in ((12, 4), (16, 8), (16, 4), (16, 2)):
        code = TrellisCode(202, register, new, 1.0, 1.0)
        for dimension in (48, 3072):
            bits = code.budget_bits(3, START)
            payload = BitReader(bytes(range(17, 17 + -(-bits // 8))))
            decoded, _ = code.decode(dimension, bits, SharedNoise(3), START, payload)
            digest.update(decoded.astype("<f4").tobytes())
    assert digest.hexdigest() == "11a50362fbbd00cdb7b2eb5966c946034eebc8f10f663aaad33e1b82b2dd806c"
