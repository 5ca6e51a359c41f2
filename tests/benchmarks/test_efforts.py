import json
from typing import Any

import pytest

from benchmarks.efforts import EffortFile, summarize_efforts


def fake(effort: int, size: int, encode: float, decode: float) -> EffortFile:
    return EffortFile(effort, size, True, 10 * effort, encode, decode)


def test_the_front_holds_what_nothing_beats() -> None:
    files = [fake(1, 100, 0.1, 0.1), fake(2, 80, 0.3, 0.2), fake(3, 90, 0.4, 0.3)]
    files.append(fake(4, 70, 2.0, 0.2))
    rows = {row["effort"]: row for row in summarize_efforts(files, 800)}
    assert [effort for effort, row in rows.items() if row["front"]] == [1, 2, 4]
    assert rows[1]["mean_bpd"] == pytest.approx(1.0)


def test_equal_efforts_are_both_on_the_front() -> None:
    rows = summarize_efforts([fake(1, 100, 0.1, 0.1), fake(2, 100, 0.1, 0.1)], 800)
    assert all(row["front"] for row in rows)


def test_times_are_medians_over_images() -> None:
    files = [fake(1, 100, seconds, seconds / 2) for seconds in (0.1, 0.2, 9.0)]
    (row,) = summarize_efforts(files, 800)
    assert (row["encode_seconds_median"], row["decode_seconds_median"]) == (0.2, 0.1)
    assert row["images"] == row["exact_round_trips"] == 3


def test_real_files_of_every_effort(results: dict[str, Any], record: dict[str, Any]) -> None:
    rows = record["efforts"]
    assert [row["effort"] for row in rows] == list(range(1, 10))
    assert all(row["exact_round_trips"] == row["images"] for row in rows)
    assert rows[8]["evaluations_mean"] > rows[0]["evaluations_mean"]
    entry = results["effort3/0"]
    assert EffortFile.from_json(json.loads(json.dumps(entry))).to_json() == entry
