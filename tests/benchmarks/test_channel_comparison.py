import itertools
from dataclasses import asdict

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import channel_check
from benchmarks.channel_check import compare
from benchmarks.channel_comparison import (
    PACKETS,
    Clock,
    Told,
    collect_deltas,
    comparison_table,
    contestants,
    measure,
)
from diffcodec.codec.model import CodecModel
from diffcodec.coding.channel import CHANNEL_CODES, Float32
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats

Pixels = NDArray[np.uint8]


def _unit_vectors(count: int, dimension: int) -> Float32:
    deltas = SharedNoise(41).normal(0, (count, dimension))
    deltas /= np.linalg.norm(deltas, axis=1, keepdims=True)
    return deltas


def test_deltas_are_unit_vectors_of_real_packets(images: Pixels, model: CodecModel) -> None:
    deltas = collect_deltas(images[:2], model, 5)
    assert deltas.shape == (5, 768)
    np.testing.assert_allclose(np.linalg.norm(deltas, axis=1), 1.0, rtol=1e-5)
    assert np.abs(np.corrcoef(deltas))[np.triu_indices(5, 1)].max() < 0.99


def test_a_row_is_what_the_packets_say() -> None:
    ticks = itertools.count()

    def tell(delta: Float32, bits: int, noise: SharedNoise, clock: Clock) -> list[Told]:
        length = np.float32(np.sqrt(2 * bits_to_nats(bits / 2)))
        start = clock()
        return [Told(length * delta, float(bits), clock() - start)] * PACKETS

    row = measure("twice too dear", tell, np.eye(4, dtype=np.float32), 40, lambda: next(ticks))
    assert row.price == pytest.approx(2.0, rel=1e-5)
    assert row.bought_bits == pytest.approx(20.0, rel=1e-5)
    assert row.standard_error == pytest.approx(0.0, abs=1e-9)
    assert row.milliseconds == 1e3
    table = comparison_table({"rows": [asdict(row)]})
    # Cells without a measurement are empty, not missing.
    assert [len(line) for line in table.rows] == [len(table.head)]


def test_our_packets_run_on_and_pay_for_no_start() -> None:
    deltas = _unit_vectors(2, 96)
    code = CHANNEL_CODES[0]
    entered = {name: tell for name, tell, _, _ in contestants()}
    row = measure(code.name, entered[code.name], deltas, 32, lambda: 0.0)
    assert row.paid_bits == 32.0
    assert f"32 → {row.bought_bits:.1f}" in comparison_table({"rows": [asdict(row)]}).rows[0][1]


def test_every_rival_pays_about_its_budget() -> None:
    deltas = _unit_vectors(2, 96)
    ours = {code.name for code in CHANNEL_CODES.values()}
    entered = {name: tell for name, tell, _, _ in contestants()}
    assert entered.keys() > ours
    # Codebooks of 2^13 take a while to draw, and differ in size alone.
    for name in [name for name in entered if name not in ours and "2^13" not in name]:
        row = measure(name, entered[name], deltas, 32, lambda: 0.0)
        # A short search in few chunks ends early more often than its bound on the cost allows for.
        assert 0.3 * 32 < row.paid_bits < 1.6 * 32, name


def test_coded_hops_are_as_good_as_sampled_ones_at_equal_kl(
    images: Pixels, model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny model's images are easy: their rates are low.
    points = (0.1, 0.2)
    monkeypatch.setattr(channel_check, "KL_POINTS_BPD", points)
    entry = compare(images[:2], model, code_id=0)
    assert 1.0 < entry["price"] < 1.4
    assert [point["kl_bpd"] for point in entry["points"]] == list(points)
    for point in entry["points"]:
        assert 0.7 < point["mean_ratio"] < 1.4
    table = channel_check.check_table({"codes": [entry]})
    assert sum("bits/dim" in name for name in table.head) == len(points)
    assert [len(line) for line in table.rows] == [len(table.head)]
    assert table.rows[0][0] == "trellis-12-4"
