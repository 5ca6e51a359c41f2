import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.real_files import (
    CURVE_RATES_BPD,
    TABLE_RATES_BPD,
    TABLE_STRIDE_BPD,
    Cut,
    FileMeasurement,
    cuts_at_rate,
    cuts_at_step,
    decode_last,
    measure_budgets,
    measure_file,
    summarize_files,
)
from diffcodec.bitstream.container import Container
from diffcodec.bitstream.stored import pack_pixels
from diffcodec.codec import encoder
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.codec.pixels import PixelsSoFar
from diffcodec.errors import DiffcodecError

Pixels = NDArray[np.uint8]


@pytest.fixture
def lossless_data(hops_always: None, images: Pixels, model: CodecModel) -> bytes:
    """The lossless file of the first image."""
    return encode_image(images[0], model, EncoderSettings.for_effort(effort_level(1))).data


@pytest.fixture
def measurements(results: dict[str, Any]) -> list[FileMeasurement]:
    return [FileMeasurement.from_json(results[f"files/{index}"]) for index in range(3)]


def fake(cuts: list[tuple[int, int, float]], **fields: Any) -> FileMeasurement:
    """A measurement of 80 dimensions, so that a byte is 0.1 bits/dim; cuts: bytes, step, mse."""
    return FileMeasurement(
        **{
            "dimensions": 80,
            "lossless_bytes": cuts[-1][0],
            "exact": True,
            "stored": False,
            "cuts": tuple(
                Cut(length, step, mse, 0.5, 8.0 * length, 9 * length, 0 if step else 80)
                for length, step, mse in cuts
            ),
            "header_bytes": cuts[0][0],
            "last_stage_bits": 10.0,
            "evaluations": 3,
            **fields,
        }
    )


TWO = [
    fake([(2, 1000, 100.0), (5, 500, 16.0), (8, 0, 0.0)]),
    fake([(3, 1000, 64.0), (5, 600, 36.0), (20, 0, 0.0)]),
]


def test_the_error_at_a_cut_is_that_of_the_file_cut_there(
    images: Pixels,
    model: CodecModel,
    lossless_data: bytes,
    measurements: list[FileMeasurement],
) -> None:
    cuts = measurements[0].cuts
    assert not measurements[0].stored
    assert len(cuts) > 4
    assert (cuts[-1].stream_bytes, cuts[-1].mse) == (len(lossless_data), 0.0)
    for cut in (cuts[0], *cuts[1::3], cuts[-2], cuts[-1]):
        decoded = decode_last(lossless_data[: cut.stream_bytes], model)
        difference = decoded.astype(float) - images[0]
        assert cut.mse == pytest.approx(float(np.mean(difference**2)))


def test_a_cut_at_a_rate_uses_all_its_bytes(
    measurements: list[FileMeasurement], model: CodecModel, lossless_data: bytes
) -> None:
    inside, hop_cuts = 0, measurements[0].hop_cuts
    for rate in (*TABLE_RATES_BPD, *CURVE_RATES_BPD):
        (cut,) = cuts_at_rate(measurements[:1], rate)
        if cut is None or cut.exact_values:
            continue
        held = math.floor(rate * measurements[0].dimensions / 8.0)
        assert cut.stream_bytes <= held
        if cut.paid_bits and cut != hop_cuts[-1]:
            # A section of every vector is four bits; what follows the hops comes in whole runs.
            assert held - 1 <= cut.stream_bytes
        *_, frame = decode_frames(Container.open(lossless_data[:held], "file"), model, every=False)
        assert (frame.step, frame.stream_bytes) == (cut.step, cut.stream_bytes)
        inside += 1
    assert inside > 1


def test_few_cuts_are_those_of_every_packet_at_hops_and_at_all_rates(
    images: Pixels, model: CodecModel, measurements: list[FileMeasurement], hops_always: None
) -> None:
    few = measure_file("image", images[0], model, effort_level(1), every_packet=False)
    every = measurements[0]
    assert set(few.cuts) < set(every.cuts)
    assert few.cuts[-1] == every.cuts[-1]
    # One hop a time that the network is evaluated, and the exact pixels.
    assert len(few.cuts) > few.evaluations + 1
    rates = [
        rate
        for rate in (*TABLE_RATES_BPD, *CURVE_RATES_BPD)
        if cuts_at_rate([every], rate) != [None]
    ]
    assert len(rates) > len(TABLE_RATES_BPD)
    for rate in rates:
        assert cuts_at_rate([few], rate) == cuts_at_rate([every], rate)


def test_frames_at_hops_cost_next_to_no_evaluations(
    model: CodecModel, lossless_data: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[None] = []
    estimate = CodecModel.estimate

    def counted(self: CodecModel, *arguments: Any) -> Any:
        calls.append(None)
        return estimate(self, *arguments)

    monkeypatch.setattr(CodecModel, "estimate", counted)
    counts = []
    for options in ({"every": False}, {"lengths": ()}, {}):
        calls.clear()
        list(decode_frames(Container.open(lossless_data, "file"), model, **options))
        counts.append(len(calls))
    # The frame before the exact pixels stands where the last hop ends, inside a hop or not.
    assert counts[0] <= counts[1] <= counts[0] + 1 < counts[2]


def test_what_the_cuts_hold_is_counted(measurements: list[FileMeasurement]) -> None:
    for measurement in measurements:
        cuts = measurement.cuts
        assert cuts[0].paid_bits == 0
        for column in ("stream_bytes", "paid_bits", "kl_bits"):
            values = [getattr(cut, column) for cut in cuts]
            assert values == sorted(values)
        beyond = np.arange(TABLE_RATES_BPD[-1], 9.0, TABLE_STRIDE_BPD)
        rates = (*TABLE_RATES_BPD, *beyond, *CURVE_RATES_BPD)
        held = {math.floor(rate * measurement.dimensions / 8.0) for rate in rates}
        whole = 0
        for cut in measurement.hop_cuts:
            # A cut is the header and the packets' bits, whole bytes of them.
            counted_bytes = measurement.header_bytes + -(-cut.paid_bits // 8)
            if held & {cut.stream_bytes, cut.stream_bytes + 1}:
                # At a rate it may end in a packet, which pays in proportion to the KL.
                assert abs(cut.stream_bytes - counted_bytes) <= 2
            else:
                assert cut.stream_bytes == counted_bytes
                whole += 1
        assert whole > len(measurement.hop_cuts) // 2
        told = [cut.exact_values for cut in cuts]
        assert told == sorted(told)
        assert cuts[len(measurement.hop_cuts)].exact_values > 0
        assert cuts[-1].exact_values == measurement.dimensions
        assert measurement.exact
        assert cuts[-1].mse == 0.0


def test_stored_pixels_are_cut_too(model: CodecModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "pack_pixels", pack_pixels)
    black = np.zeros((16, 16, 3), np.uint8)
    measured = measure_file("black", black, model, effort_level(1), every_packet=True)
    assert measured.stored
    assert measured.exact
    assert measured.cuts[0].stream_bytes < measured.lossless_bytes
    assert measured.cuts[0].mse == 128.0**2
    assert cuts_at_step([measured], 500) == [measured.cuts[-1]]
    summary = summarize_files([measured], 10)
    assert summary["breakdown"] is None
    assert summary["ledger"] is None
    assert summary["price"]["paid_over_kl"] is None


def test_a_file_that_does_not_come_back_is_not_exact(
    images: Pixels, model: CodecModel, monkeypatch: pytest.MonkeyPatch, hops_always: None
) -> None:
    from diffcodec.codec import decoder

    black = PixelsSoFar(1, 0 * images[0], images[0].size)
    monkeypatch.setattr(decoder.PixelStage, "decode", lambda *arguments, every: iter([black]))
    measured = measure_file("image", images[0], model, effort_level(1), every_packet=False)
    assert not measured.exact
    assert summarize_files([measured], 10)["lossless"]["exact_round_trips"] == 0


def test_budget_files_stay_within_and_beat_the_cut_file(
    images: Pixels, model: CodecModel, hops_always: None
) -> None:
    files = measure_budgets(images[0], model, 1, (0.5, 1.0, 2.0))
    for file in files:
        assert file.actual_bpd <= file.asked_bpd
    errors = [file.mse for file in files]
    assert errors == sorted(errors, reverse=True)


def test_too_small_a_budget_is_an_error(images: Pixels, model: CodecModel) -> None:
    with pytest.raises(DiffcodecError, match="expected at least"):
        measure_budgets(images[0], model, 1, (0.01,))


@pytest.mark.parametrize(
    ("rate_bpd", "expected"),
    [(0.2, [2, None]), (0.3, [2, 3]), (0.5, [5, 5]), (0.8, [8, 5]), (3.0, [8, 20])],
)
def test_the_longest_cut_within_a_rate(rate_bpd: float, expected: list[int | None]) -> None:
    found = [cut and cut.stream_bytes for cut in cuts_at_rate(TWO, rate_bpd)]
    assert found == expected


def test_the_longest_cut_not_below_a_step() -> None:
    assert [cut.stream_bytes for cut in cuts_at_step(TWO, 1)] == [5, 5]
    assert [cut.stream_bytes for cut in cuts_at_step(TWO, 550)] == [2, 5]
    assert [cut.stream_bytes for cut in cuts_at_step(TWO, 700)] == [2, 3]


def test_equal_noise_lets_sizes_vary_and_counts_their_mean() -> None:
    stops = {point["step"]: point for point in summarize_files(TWO, 1)["stops"]}
    point = stops[600]
    assert point["rate_bpd"] == pytest.approx((0.2 + 0.5) / 2)
    assert point["rmse"] == pytest.approx(math.sqrt((100.0 + 36.0) / 2))
    assert point["paid_over_kl"] == pytest.approx(9 / 8)
    # From 500 on nothing changes, so no further points.
    assert min(stops) == 500


def test_equal_length_keeps_images_that_are_done() -> None:
    rows = {row["rate_bpd"]: row for row in summarize_files(TWO, 1)["table"]}
    assert list(rows)[:3] == [0.3, 0.5, 1.0]
    assert rows[0.5]["rmse"] == pytest.approx(math.sqrt((16.0 + 36.0) / 2))
    assert rows[1.0]["rmse"] == pytest.approx(math.sqrt((0.0 + 36.0) / 2))


def test_the_parts_of_a_file_add_up(record: dict[str, Any]) -> None:
    parts = record["breakdown"]
    assert sum(parts.values()) == pytest.approx(record["lossless"]["mean_bpd"])
    assert all(share > 0.0 for share in parts.values())
    price = record["price"]
    assert parts["hops_excess_bpd"] / parts["hops_kl_bpd"] == pytest.approx(
        price["paid_over_kl"] - 1.0
    )


def test_the_summary_falls_with_the_rate(
    record: dict[str, Any], measurements: list[FileMeasurement]
) -> None:
    assert record["lossless"]["exact_round_trips"] == record["images"] == len(measurements)
    cuts = record["cuts"]
    assert cuts[-1]["rmse"] == 0.0
    assert cuts[-1]["psnr_db"] is None
    assert cuts[0]["rmse"] > cuts[len(cuts) // 2]["rmse"]
    for points in (cuts, record["stops"]):
        assert all(point["rmse_low"] <= point["rmse"] <= point["rmse_high"] for point in points)
    rates = [point["rate_bpd"] for point in record["stops"]]
    assert rates == sorted(rates)
    ledger = record["ledger"]
    assert ledger["paid_bpd"] == sorted(ledger["paid_bpd"])
    assert ledger["step"][0] == 1000
    assert ledger["paid_bpd"][0] == 0.0
    for row, asked in zip(record["budgets"], (0.5, 2.0), strict=True):
        assert row["asked_bpd"] == asked
        assert row["max_bpd"] <= asked


def test_a_journal_keeps_a_measurement(measurements: list[FileMeasurement]) -> None:
    for measurement in measurements:
        record = json.loads(json.dumps(measurement.to_json()))
        assert FileMeasurement.from_json(record) == measurement


def test_images_of_several_tiles_are_measured(
    drawn_image: Callable[..., Pixels], model: CodecModel, hops_always: None
) -> None:
    measured = measure_file(
        "wide", drawn_image(16, 20, 3, seed=9), model, effort_level(1), every_packet=False
    )
    assert measured.exact
    assert measured.dimensions == 16 * 20 * 3
