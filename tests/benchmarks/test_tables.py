"""Tables say what the record says."""

from typing import Any

import pytest

from benchmarks import tables
from benchmarks.tables import (
    NOT_MEASURED,
    TABLES,
    lossless_entries,
    markdown,
    table,
    terminal_table,
)
from diffcodec.errors import DiffcodecError


@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_written(name: str, record: dict[str, Any]) -> None:
    if name == "bd-rates" and record["bd_rates"] is None:
        pytest.skip("bjontegaard is not installed")
    found = table(name, record)
    assert found is not None
    assert found.rows
    assert all(len(row) == len(found.head) for row in found.rows)
    assert "nan" not in found.markdown()


def test_numbers_are_the_record_s(record: dict[str, Any]) -> None:
    lossless = table("lossless", record)
    assert lossless is not None
    ours = next(row for row in lossless.rows if row[0].startswith("**"))
    assert ours[1] == f"{record['lossless']['mean_bpd']:.3f}"
    assert len(lossless.rows) == len(record["peers"]["lossless"]) + 1
    entry = next(entry for entry in lossless_entries(record) if entry["ours"])
    overhead_bpd = 8 * record["overhead_bytes"] / record["dimensions"]
    assert entry["net_bpd"] == pytest.approx(entry["mean_bpd"] - overhead_bpd)
    progressive = table("progressive", record)
    assert progressive is not None
    assert progressive.rows[0][-3:-1] == ("1.77581", "0.95")


def test_what_was_not_measured_is_said_to_be_so(record: dict[str, Any]) -> None:
    assert markdown("budgets", {**record, "budgets": None}) == NOT_MEASURED
    with pytest.raises(DiffcodecError, match="expected a table of"):
        markdown("no-such-table", record)


def test_a_terminal_gets_the_cuts(record: dict[str, Any]) -> None:
    lines = terminal_table(record).splitlines()
    assert lines[0].split() == ["bits/dim", "RMSE", "95", "%", "interval", "theory"]
    assert len(lines) > len(record["table"])
    assert "3 of 3 images exact" in terminal_table(record)


def test_a_shown_table_keeps_its_cells_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    cells = [f"{place}/{place} [x]" for place in range(12)]
    tables.Table([f"a head {place}" for place in range(12)], [cells]).show()
    *_, row = capsys.readouterr().out.splitlines()
    assert " ".join(row.split()) == " ".join(cells)
