import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import effort_front, held_out
from benchmarks.effort_front import front_table, rows, settings_to_try
from benchmarks.efforts import EffortFile
from benchmarks.parts import Seconds
from diffcodec.codec.effort import EFFORTS, Effort, effort_level
from diffcodec.codec.plan import PlanConfig

Pixels = NDArray[np.uint8]

OTHER = Effort(PlanConfig(growth_index=50, parts=4, code_id=0), groups=1)


def test_settings_are_a_grid_that_holds_every_level() -> None:
    settings = settings_to_try()
    assert len(set(settings)) == len(settings)
    assert {effort_level(effort) for effort in EFFORTS} <= set(settings)


def test_rows_tell_the_front_and_the_levels() -> None:
    settings = [effort_level(1), OTHER, effort_level(9)]
    measured = [(100, 0.2, 0.1), (110, 0.3, 0.1), (90, 0.1, 0.3)]
    results = {
        f"0/{place}": EffortFile(
            size, True, 10.0, 11, 7, *(Seconds(total, 0.0, 0.0, 7) for total in totals)
        ).to_json()
        for place, (size, *totals) in enumerate(measured)
    }
    table = rows(settings, results, np.zeros((1, 10, 10, 3), np.uint8))
    assert [row["level"] for row in table] == [9, 1, None]
    assert [row["front"] for row in table] == [True, True, False]
    assert table[2]["setting"] == asdict(OTHER)
    head, cells = front_table(table)
    assert {len(line) for line in cells} == {len(head)}
    assert dict(zip(head, cells[2], strict=True))["growth index"] == "50"
    # All have as many evaluations: the smallest alone is on that front.
    assert [line[-3:] for line in cells] == [("yes", "yes", "9"), ("yes", "", "1"), ("", "", "")]


@pytest.mark.slow
def test_one_command_writes_the_record_and_is_resumed(
    images: Pixels,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The tree may change while the tests run; a resumed run of a changed one is refused.
    taken = held_out.provenance()
    monkeypatch.setattr(held_out, "provenance", lambda: taken)
    monkeypatch.setattr(held_out, "held_out_images", lambda data, count: images[:count])
    monkeypatch.setattr(effort_front, "settings_to_try", lambda *grids: [effort_level(1), OTHER])
    command = ["--images", "2", "--jobs", "1", "--model", str(tiny_folder), "--out", str(tmp_path)]
    assert effort_front.main(command) == 0
    written = (tmp_path / effort_front.RESULT).read_bytes()
    record = json.loads(written)
    assert (record["split"], record["images"]) == ("held-out", 2)
    assert record["provenance"]["commit"] == taken["commit"]
    assert {row["level"] for row in record["rows"]} == {1, None}
    for row in record["rows"]:
        assert row["images"] == row["exact_round_trips"] == 2
        assert row["decode_evaluations_mean"] == row["evaluations_mean"]
    assert any(row["front"] for row in record["rows"])
    assert "bits/dim" in capsys.readouterr().out
    assert effort_front.main(command) == 1
    assert "--resume goes on with it" in capsys.readouterr().err
    assert effort_front.main([*command, "--resume"]) == 0
    assert (tmp_path / effort_front.RESULT).read_bytes() == written
    monkeypatch.setattr(effort_front, "settings_to_try", lambda *grids: [OTHER])
    assert effort_front.main([*command, "--resume"]) == 1
    assert "cannot be resumed: other settings;" in capsys.readouterr().err


def test_misuse_is_told_before_work() -> None:
    for arguments in (["--images", "0"], ["--jobs", "0"]):
        with pytest.raises(SystemExit) as caught:
            effort_front.main(arguments)
        assert caught.value.code == 2
