import json
from typing import Any

import pytest

from benchmarks.efforts import EffortFile, summarize_effort, summarize_efforts
from benchmarks.parts import PARTS, Seconds


def fake(size: int, encode: float, decode: float) -> EffortFile:
    """A file of ``size`` bytes: a quarter of the time in the network, half in the coder."""
    times = [Seconds(total, total / 4, total / 2, 10) for total in (encode, decode)]
    return EffortFile(size, True, 220.0, 242, 10, *times)


def test_the_front_holds_what_nothing_beats() -> None:
    measured = ((100, 0.1, 0.1), (80, 0.3, 0.2), (90, 0.4, 0.3), (70, 2.0, 0.2))
    files = {effort: [fake(*file)] for effort, file in enumerate(measured, start=1)}
    rows = {row["effort"]: row for row in summarize_efforts(files, 800)}
    assert [effort for effort, row in rows.items() if row["front"]] == [1, 2, 4]
    # With as many evaluations each the smallest is alone.
    assert [effort for effort, row in rows.items() if row["front_of_evaluations"]] == [4]
    assert rows[1]["mean_bpd"] == pytest.approx(1.0)


def test_equal_efforts_are_both_on_the_front() -> None:
    rows = summarize_efforts({1: [fake(100, 0.1, 0.1)], 2: [fake(100, 0.1, 0.1)]}, 800)
    assert all(row["front"] for row in rows)


def test_times_are_medians_over_images_and_shares_of_all_of_them() -> None:
    files = [fake(100, seconds, seconds / 2) for seconds in (0.1, 0.2, 9.0)]
    files[2] = EffortFile(100, True, 220.0, 242, 10, Seconds(9.7, 9.7, 0.0, 10), files[2].decode)
    row = summarize_effort(files, 800)
    assert (row["encode_seconds_median"], row["decode_seconds_median"]) == (0.2, 0.1)
    assert row["paid_over_kl"] == pytest.approx(1.1)
    assert row["images"] == row["exact_round_trips"] == 3
    expected = {"network": 0.9775, "coder": 0.015, "rest": 0.0075}
    assert row["encode_shares"] == pytest.approx(expected)
    assert row["decode_shares"] == pytest.approx({"network": 0.25, "coder": 0.5, "rest": 0.25})


def test_real_files_of_every_effort(results: dict[str, Any], record: dict[str, Any]) -> None:
    rows = record["efforts"]
    assert [row["effort"] for row in rows] == list(range(1, 10))
    assert all(row["exact_round_trips"] == row["images"] for row in rows)
    assert rows[8]["evaluations_mean"] > rows[0]["evaluations_mean"]
    for row in rows:
        assert row["decode_evaluations_mean"] == row["evaluations_mean"]
        assert row["encode_evaluations_mean"] >= row["evaluations_mean"]
        for side in ("encode", "decode"):
            assert set(row[f"{side}_shares"]) == set(PARTS)
            assert sum(row[f"{side}_shares"].values()) == pytest.approx(1.0)
    entry = results["effort3/0"]
    assert EffortFile.from_json(json.loads(json.dumps(entry))).to_json() == entry
