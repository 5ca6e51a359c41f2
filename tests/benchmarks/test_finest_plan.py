import json
from pathlib import Path

import pytest

from benchmarks import finest_plan
from benchmarks.finest_plan import PLANS, RESULT, main
from diffcodec.codec.effort import effort_level


def test_the_plans_differ_in_growth_alone() -> None:
    assert PLANS["default"] == effort_level(5)
    assert PLANS["finest"].plan.growth_index == 0
    assert PLANS["finest"].groups == PLANS["default"].groups


@pytest.mark.slow
def test_one_command_compares_them(
    measured_here: None,
    tiny_folder: Path,
    tmp_path: Path,
    hops_always: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Of the finest plan a smaller one takes the place: it is the frame that is tested here.
    coarse = {"default": effort_level(1), "finest": effort_level(2)}
    monkeypatch.setattr(finest_plan, "PLANS", coarse)
    monkeypatch.setattr(finest_plan, "SHOWN_STEPS", range(0, 1000, 25))
    command = ["--images", "2", "--jobs", "1", "--model", str(tiny_folder), "--out", str(tmp_path)]
    assert main(command) == 0
    record = json.loads((tmp_path / RESULT).read_text())
    plans = record["plans"]
    assert plans["default"]["evaluations_mean"] < plans["finest"]["evaluations_mean"]
    for plan in plans.values():
        assert 0 < plan["budget_evaluations_mean"] <= plan["evaluations_mean"]
    for row in record["rows"]:
        assert row["rate_ratio"] == pytest.approx(row["rate_bpd"] / row["finest_rate_bpd"])
    printed = capsys.readouterr().out
    assert "evaluations" in printed
    assert main(command) == 1
    assert "--resume goes on with it" in capsys.readouterr().err
