"""Tables say what the record says, and documents say what the tables say."""

import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results, tables
from benchmarks.tables import (
    NOT_MEASURED,
    TABLES,
    fill,
    lossless_entries,
    main,
    markdown,
    table,
    terminal_table,
)
from diffcodec.errors import DiffcodecError

DOCUMENTS = [
    results.ROOT / "README.md",
    *(results.ROOT / "docs" / name for name in ("coding.md", "performance.md", "results.md")),
]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_agree_with_the_stored_record(path: Path) -> None:
    record, _ = results.load_folder(results.RESULTS)
    text = path.read_text(encoding="utf-8")
    assert "<!-- table: " in text
    # If this fails: python -m benchmarks.tables README.md docs/*.md
    assert fill(text, record) == text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_place_for_a_table_is_closed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    places = re.findall(r"<!-- (table: [\w-]+|end) -->", text)
    assert len(places) % 2 == 0
    assert all(place == "end" for place in places[1::2])
    assert all(place != "end" for place in places[::2])


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


def test_tables_replace_what_stood_in_their_places(record: dict[str, Any]) -> None:
    text = "before\n<!-- table: facts -->\nold\n<!-- end -->\nafter\n"
    filled = fill(text, record)
    assert filled.startswith("before\n<!-- table: facts -->\n| measured | value |")
    assert filled.endswith("|\n<!-- end -->\nafter\n")
    assert "old" not in filled
    assert fill(filled, record) == filled


def test_a_terminal_gets_the_cuts(record: dict[str, Any]) -> None:
    lines = terminal_table(record).splitlines()
    assert lines[0].split() == ["bits/dim", "RMSE", "95", "%", "interval", "theory"]
    assert len(lines) > len(record["table"])
    assert "3 of 3 images exact" in terminal_table(record)


def test_command(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / results.RECORD).write_bytes(results.dumps(record))
    assert main(["--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name}\n" in printed for name in TABLES)
    document = tmp_path / "document.md"
    document.write_text("<!-- table: origin -->\n\n<!-- end -->\n")
    assert main(["--results", str(tmp_path), str(document)]) == 0
    assert "The first 3 CIFAR-10 test images" in document.read_text()
    assert main(["--results", str(tmp_path / "nowhere")]) == 1
    assert "no such file" in capsys.readouterr().err


def test_a_shown_table_keeps_its_cells_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    cells = [f"{place}/{place} [x]" for place in range(12)]
    tables.Table([f"a head {place}" for place in range(12)], [cells]).show()
    *_, row = capsys.readouterr().out.splitlines()
    assert " ".join(row.split()) == " ".join(cells)
