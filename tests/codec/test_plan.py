from dataclasses import replace
from itertools import cycle, pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffcodec.bits import BitReader, BitWriter
from diffcodec.bitstream.header import PARTS
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS, effort_level
from diffcodec.codec.plan import (
    ALWAYS_CORRECTED_BITS,
    CORRECTION_INTERVAL_BITS,
    CORRECTIONS_PER_OCTAVE,
    HOP_OFFSET_BITS,
    LAG_BITS,
    LARGEST_CORRECTION,
    LARGEST_ERROR,
    LARGEST_PACKET_BITS,
    SMALLEST_HOP_BITS,
    SMALLEST_VECTOR_BITS,
    HopPlan,
    Packet,
    PlanConfig,
    count_evaluations,
    hop_stream_bits,
)
from diffcodec.coding.channel import CHANNEL_CODES, CodeState
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.diffusion.wiener import GAINS
from diffcodec.errors import BitstreamError, TruncatedStreamError

SCHEDULE = make_schedule(ScheduleConfig())
DIMENSIONS = 3072
# About what a trained model's error looks like over γ.
ERROR_CURVE = 0.3 / (1.0 + np.exp(-0.75 * (SCHEDULE.gamma + 1.0)))
SPREAD_CURVE = np.linspace(3.0, 1.0, 1001)[:, None] * np.ones(len(GAINS))

configs = st.builds(
    PlanConfig,
    growth_index=st.integers(0, 63),
    parts=st.sampled_from(PARTS),
    code_id=st.sampled_from(sorted(CHANNEL_CODES)),
)
# True errors of a signal and an estimate in [−1, 1].
errors = st.lists(st.floats(0.0, 4.0), min_size=1, max_size=20)


def plan_to(config: PlanConfig, final_step: int = 0, vectors: int = 1) -> HopPlan:
    dimensions = vectors * DIMENSIONS
    return HopPlan(config, SCHEDULE, ERROR_CURVE, SPREAD_CURVE, dimensions, vectors, final_step)


def move(plan: HopPlan, packet: Packet) -> None:
    """To the end of ``packet``, as if its sections had been told."""
    plan.advance(
        packet, replace(plan.code_state, sections=plan.code_state.sections + 1, register=0)
    )


def encoder_walk(
    config: PlanConfig, true_errors: list[float], end: int, vectors: int = 1
) -> list[tuple[int, Packet]]:
    """Corrections and packets of an encoder, which asks for another end than its plan's."""
    plan, walked, error = plan_to(config, vectors=vectors), [], cycle(true_errors)
    while plan.t > end:
        correction = plan.correction_for(next(error))
        packet = plan.packet(correction, end)
        walked.append((correction, packet))
        move(plan, packet)
    return walked


@settings(max_examples=30, deadline=None, derandomize=True)
@given(configs, errors, st.integers(0, 999), st.integers(1, 40))
def test_both_ends_walk_the_same_packets(
    config: PlanConfig, true_errors: list[float], end: int, vectors: int
) -> None:
    told = encoder_walk(config, true_errors, end, vectors)
    plan = plan_to(config, end, vectors)
    for correction, packet in told:
        assert not plan.finished
        assert plan.packet(correction) == packet
        move(plan, packet)
    assert plan.finished


@settings(max_examples=30, deadline=None, derandomize=True)
@given(configs, errors, st.integers(0, 1000), st.integers(1, 3))
def test_corrections_alone_tell_where_the_hops_end(
    config: PlanConfig, true_errors: list[float], end: int, vectors: int
) -> None:
    writer = BitWriter()
    for correction, packet in encoder_walk(config, true_errors, end, vectors):
        if packet.corrected:
            writer.write_unary(correction)
        writer.write_array(np.ones(packet.bits), 1)
    data = writer.to_bytes()
    for rest in (b"", b"\xff"):
        found = hop_stream_bits(plan_to(config, end, vectors), BitReader(data + rest))
        assert found == writer.bit_length
    if data:
        with pytest.raises(TruncatedStreamError):
            hop_stream_bits(plan_to(config, end, vectors), BitReader(data[:-1]))


@settings(max_examples=30, deadline=None, derandomize=True)
@given(configs, errors)
def test_a_walk_descends_to_its_end_in_budgets_that_the_code_has(
    config: PlanConfig, true_errors: list[float]
) -> None:
    plan, packets = plan_to(config), []
    for correction, packet in encoder_walk(config, true_errors, 0):
        assert plan.packet(correction) == packet
        assert CHANNEL_CODES[config.code_id].sections(packet.bits, plan.code_state) >= 1
        packets.append(packet)
        move(plan, packet)
    assert packets[0].t == 1000
    assert packets[-1].s == 0
    assert packets[0].begins_hop
    assert all(packet.s < packet.t for packet in packets)
    assert all(a.s == b.t for a, b in pairwise(packets))
    # No more packets between two evaluations than the header says.
    hops = np.cumsum([packet.begins_hop for packet in packets])
    assert np.bincount(hops).max() <= config.parts


@pytest.mark.parametrize("growth_index", [11, 25, 63])
@pytest.mark.parametrize("parts", [1, 16])
def test_hops_grow_in_proportion_to_what_was_paid(growth_index: int, parts: int) -> None:
    config = PlanConfig(growth_index, parts, code_id=2)
    plan, hops = plan_to(config), []
    while not plan.finished:
        packet = plan.packet(0)
        if packet.begins_hop:
            hops.append([packet.t, 0])
        hops[-1][1] += packet.bits
        move(plan, packet)
    assert len(hops) > 3
    paid = 0
    # The last hop is cut at the final step.
    for t, bits in hops[:-1]:
        wanted = max(SMALLEST_HOP_BITS, config.growth * (paid + HOP_OFFSET_BITS))
        wanted = min(wanted, parts * LARGEST_PACKET_BITS)
        # A part is rounded to whole sections, then to whole steps of the grid.
        step = SCHEDULE.snr[t - 1] - SCHEDULE.snr[t]
        grid_bits = 0.75 * step * DIMENSIONS * ERROR_CURVE[t]
        assert abs(bits - wanted) <= parts * (8 + grid_bits) + 0.05 * wanted, (t, bits, wanted)
        paid += bits


@pytest.mark.parametrize("parts", [1, 16])
def test_evaluations_fall_as_growth_rises(parts: int) -> None:
    counts = [
        count_evaluations(plan_to(PlanConfig(growth, parts, code_id=2), final_step=90))
        for growth in (0, 1, 2, 5, 11, 25, 51, 63)
    ]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > 4 * counts[-1]


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.floats(1e-9, 4.0))
def test_a_correction_brings_the_error_within_half_a_correction(error: float) -> None:
    plan = plan_to(effort_level(DEFAULT_EFFORT).plan)
    correction = plan.correction_for(error)
    if abs(correction) < LARGEST_CORRECTION:
        told = plan.packet(correction).error
        assert abs(np.log2(told / error)) <= 0.5 / CORRECTIONS_PER_OCTAVE + 1e-9


@pytest.mark.parametrize("correction", [LARGEST_CORRECTION + 1, -LARGEST_CORRECTION - 1, 10**6])
def test_a_correction_that_no_encoder_makes_is_refused(correction: int) -> None:
    with pytest.raises(BitstreamError, match=str(correction)):
        plan_to(effort_level(DEFAULT_EFFORT).plan).packet(correction)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(configs, st.integers(0, 60), st.integers(-20, 200), st.integers(-6, 6), st.integers(1, 9))
def test_the_beginning_of_a_packet_is_one_of_a_plan_that_ends_there(
    config: PlanConfig, packets: int, bits: int, correction: int, vectors: int
) -> None:
    bits *= vectors
    plan = plan_to(config, vectors=vectors)
    for _ in range(packets):
        if not plan.finished:
            move(plan, plan.packet(0))
    if plan.finished:
        return
    correction = correction if plan.is_due else 0
    packet, state = plan.packet(correction), plan.code_state
    part = plan.beginning(packet, bits)
    code = config.code
    smallest = code.budget_bits(vectors, state)
    if bits < smallest:
        assert part is None
    if part is None:
        return
    assert smallest <= part.bits <= min(bits, packet.bits)
    assert packet.s <= part.s < packet.t
    assert not part.runs_on
    # What a decoder makes of a file whose final step this is.
    alike = replace(plan.packet(correction, part.s), runs_on=False)
    assert alike == part
    # No section of it is left out where the grid is fine enough.
    if packet.t - packet.s > packet.bits:
        assert part.bits == code.largest_budget(min(bits, packet.bits), state)
    longer = plan.beginning(packet, bits + code.new_bits)
    assert longer is not None
    assert longer.s <= part.s


def test_a_file_s_last_packet_looks_no_further() -> None:
    plan, looked_ahead = plan_to(effort_level(DEFAULT_EFFORT).plan, final_step=300), 0
    while not plan.finished:
        packet = plan.packet(0)
        assert not (packet.s == 300 and packet.runs_on)
        looked_ahead += packet.runs_on
        move(plan, packet)
    assert looked_ahead > 10


def test_an_unknown_channel_code_is_refused() -> None:
    with pytest.raises(BitstreamError, match="found 200"):
        plan_to(PlanConfig(40, 16, code_id=200))


def test_asking_for_a_packet_moves_nothing() -> None:
    plan = plan_to(effort_level(DEFAULT_EFFORT).plan)
    first = plan.packet(3)
    plan.packet(-5, 900)
    assert plan.packet(3) == first
    assert plan.t == 1000


@pytest.mark.parametrize("code_id", sorted(CHANNEL_CODES))
@pytest.mark.parametrize("correction", [-LARGEST_CORRECTION, LARGEST_CORRECTION])
@pytest.mark.parametrize("vectors", [1, 12])
def test_no_corrections_make_packets_without_bound(
    correction: int, code_id: int, vectors: int
) -> None:
    """Whatever a stream claims, a packet's bits and its numbers stay finite."""
    plan, state = plan_to(PlanConfig(63, 1, code_id), vectors=vectors), CodeState(vectors)
    largest = CHANNEL_CODES[code_id].nearest_budget(vectors * LARGEST_PACKET_BITS, state)
    while not plan.finished:
        packet = plan.packet(correction if plan.is_due else 0)
        assert packet.bits <= largest
        assert 0.0 < packet.error <= LARGEST_ERROR
        move(plan, packet)


@pytest.mark.parametrize("effort", EFFORTS)
def test_no_effort_s_packets_come_near_the_largest(effort: int) -> None:
    plan = plan_to(effort_level(effort).plan)
    while not plan.finished:
        packet = plan.packet(0)
        assert 4 * packet.bits < LARGEST_PACKET_BITS
        move(plan, packet)


@pytest.mark.parametrize("vectors", [1, 16])
@pytest.mark.parametrize("growth_index", [0, 8, 63])
def test_corrections_are_told_at_hops_so_many_bits_apart(growth_index: int, vectors: int) -> None:
    plan = plan_to(PlanConfig(growth_index, 16, 2), vectors=vectors)
    interval = vectors * CORRECTION_INTERVAL_BITS
    paid, since, passed_over = 0, interval, 0
    while not plan.finished:
        far = paid < vectors * ALWAYS_CORRECTED_BITS or since >= interval
        assert plan.is_due == (plan.at_hop and far)
        # A prediction twice too small is told where a correction is due, else it is not.
        assert plan.correction_for(2.0 * plan.predicted_error()) == (
            CORRECTIONS_PER_OCTAVE if plan.is_due else 0
        )
        packet = plan.packet(0)
        assert packet.corrected == plan.is_due
        passed_over += packet.begins_hop and not packet.corrected
        since = packet.bits if packet.corrected else since + packet.bits
        paid += packet.bits
        move(plan, packet)
    assert passed_over > 3 or growth_index == 63


def test_a_hop_is_corrected_once_where_it_begins() -> None:
    plan = plan_to(PlanConfig(40, 16, 2))
    # Let hops grow until they have parts.
    while plan.at_hop:
        move(plan, plan.packet(0))
    inside = 0
    while not plan.finished:
        begins = plan.at_hop
        packet = plan.packet(3 if begins else 0)
        assert packet.begins_hop == begins
        if not begins:
            inside += 1
            # What both ends reckon with is what they predicted: nothing is told inside a hop.
            assert packet.error == plan.predicted_error()
        move(plan, packet)
    assert inside > 10


@pytest.mark.parametrize("spread", [1.0, 2.5])
def test_the_error_inside_a_hop_follows_from_its_spread(spread: float) -> None:
    # Smaller where more was gained, and from step to step another.
    falling = spread / (1.0 + np.array(GAINS))
    table = falling + np.linspace(0.0, 1.0, 1001)[:, None]
    plan = HopPlan(PlanConfig(63, 16, 2), SCHEDULE, ERROR_CURVE, table, DIMENSIONS, 1, 0)
    checked = 0
    while not plan.finished:
        if plan.at_hop:
            first = plan.packet(-2)
            move(plan, first)
            assert plan.at_hop or plan.hop_step == first.t
            continue
        gained = (SCHEDULE.snr[plan.t] - SCHEDULE.snr[plan.hop_step]) * first.error
        at_gain = np.interp(gained, GAINS, table[first.t])
        expected = first.error / (1.0 + at_gain * gained)
        assert plan.predicted_error() == pytest.approx(expected, rel=1e-12)
        checked += 1
        move(plan, plan.packet(0))
    assert checked > 10


@pytest.mark.parametrize("correction", [-3, 0, 3, 6])
def test_harder_images_believe_less_of_the_spectrum(correction: int) -> None:
    table = np.full((1001, len(GAINS)), 5.0)
    plan = HopPlan(PlanConfig(63, 16, 2), SCHEDULE, ERROR_CURVE, table, DIMENSIONS, 1, 0)
    while plan.packet(0).runs_on is False:
        move(plan, plan.packet(0))
    first = plan.packet(correction)
    trust = min(1.0, 2.0 ** (-correction / 3))
    assert first.trust == pytest.approx(trust, rel=1e-9)
    move(plan, first)
    assert plan.packet(0).trust == first.trust
    gained = (SCHEDULE.snr[plan.t] - SCHEDULE.snr[first.t]) * first.error
    expected = first.error / (1.0 + (1.0 + trust * 4.0) * gained)
    assert plan.predicted_error() == pytest.approx(expected, rel=1e-9)


def test_the_next_hop_remembers_the_difficulty_of_this_one() -> None:
    plan = plan_to(PlanConfig(40, 1, 2))
    packet = plan.packet(CORRECTIONS_PER_OCTAVE)
    move(plan, packet)
    expected = 2.0 * ERROR_CURVE[plan.t] * (packet.bits + 2 * LAG_BITS) / (packet.bits + LAG_BITS)
    assert plan.predicted_error() == pytest.approx(expected, rel=1e-6)


def test_the_first_errors_are_those_of_a_latent_that_knows_nothing() -> None:
    plan = plan_to(PlanConfig(63, 1, 2))
    assert plan.predicted_error() == pytest.approx(2.0 * ERROR_CURVE[-1])
    ratios = []
    while not plan.finished:
        ratios.append(plan.predicted_error() / ERROR_CURVE[plan.t])
        move(plan, plan.packet(0))
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("vectors", [2, 16, 500])
def test_packets_of_many_vectors_are_small_for_each(effort: int, vectors: int) -> None:
    config, packets = effort_level(effort).plan, []
    for count in (1, vectors):
        plan, begun = plan_to(config, vectors=count), 0
        while not plan.finished:
            packet = plan.packet(0)
            begun += 1
            if count > 1 and not packet.begins_hop and packet.s > 0:
                # Within what rounding to the grid's steps takes away.
                assert packet.bits >= count * SMALLEST_VECTOR_BITS / 2
            move(plan, packet)
        packets.append(begun)
    assert packets[1] > packets[0]


def test_a_hop_of_one_packet_begins_the_code_anew() -> None:
    config = PlanConfig(40, 16, 0)
    plan, code = plan_to(config), CHANNEL_CODES[0]
    alone, parted, sections = 0, 0, 0
    while not plan.finished:
        packet, state = plan.packet(0), plan.code_state
        if packet.runs_on:
            parted += 1
            # The first hop that has parts goes on from the last one that has none.
            assert state.register is not None
        elif packet.s > 0:
            alone += 1
            assert packet.begins_hop
            assert state.register is None
            assert (packet.bits - code.register_bits) % code.new_bits == 0
        # Sections are counted through the whole file all the same.
        assert state.sections == sections
        sections += code.sections(packet.bits, state)
        plan.advance(packet, CodeState(1, sections, 0))
    assert alone > 3
    assert parted > 10


def test_a_plan_without_parts_begins_the_code_anew_at_every_hop() -> None:
    plan = plan_to(PlanConfig(40, 1, 2))
    while not plan.finished:
        packet = plan.packet(0)
        assert plan.code_state.register is None
        assert not packet.runs_on
        move(plan, packet)
