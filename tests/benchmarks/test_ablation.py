import json
from pathlib import Path

import pytest

from benchmarks import ablation
from benchmarks.ablation import CHANGES, RESULT, SHIPPED, Change, main
from diffcodec.codec import plan


def test_changes_are_made_where_the_codec_looks() -> None:
    for label, change in CHANGES.items():
        owners = [getattr(owner, name) for owner, names in change.constants for name in names]
        with change.made():
            changed = [getattr(owner, name) for owner, names in change.constants for name in names]
        assert all(left is not right for left, right in zip(owners, changed, strict=True)), label
    with pytest.raises(AttributeError, match="NO_SUCH"), Change([(plan, {"NO_SUCH": 1})]).made():
        pass


@pytest.mark.slow
def test_one_command_measures_changes(
    measured_here: None,
    tiny_folder: Path,
    tmp_path: Path,
    hops_always: None,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ablation, "DEFAULT_EFFORT", 1)
    monkeypatch.setattr(ablation, "RATES_BPD", (0.5, 2.0))
    labels = ["packets of 56 bits and more", "updates by single pixels", "hand-over at γ = −8.4"]
    command = ["--images", "2", "--jobs", "1", "--model", str(tiny_folder), "--out", str(tmp_path)]
    assert main([*command, *(word for label in labels for word in ("--only", label))]) == 0
    record = json.loads((tmp_path / RESULT).read_text())
    assert [row["change"] for row in record["rows"]] == [SHIPPED, *labels]
    shipped, *changed = record["rows"]
    for row in changed:
        assert row["more_bpd"] == pytest.approx(row["bpd"] - shipped["bpd"])
        assert (row["bpd"], row["rmse"]) != (shipped["bpd"], shipped["rmse"])
    printed = capsys.readouterr().out
    assert all(label in printed for label in labels)
    with pytest.raises(SystemExit, match="2"):
        main([*command, "--only", "no such change"])
