"""Documents say what tables say, of the main record and of those beside it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from benchmarks import documents, effort_front, results
from benchmarks.documents import SIDES, fill, main
from benchmarks.tables import NOT_MEASURED, TABLES
from diffcodec.errors import DiffcodecError

DOCUMENTS = [results.ROOT / "README.md", *sorted((results.ROOT / "docs").glob("*.md"))]
PLACE = "before\n<!-- table: {} -->\nold\n<!-- end -->\nafter\n"
ORIGIN = {
    "commit": "0123456789abcdef",
    "dirty": False,
    "date": "2026-11-27T04:00:00+00:00",
    "cpu": "a processor",
    "packages": {"torch": "2.13.0"},
    "command": "python -m benchmarks.something",
}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_agree_with_the_stored_records(path: Path) -> None:
    record, _ = results.load_folder(results.RESULTS)
    text = path.read_text(encoding="utf-8")
    # If this fails: make figures
    assert fill(text, record, results.RESULTS) == text
    assert NOT_MEASURED not in text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_place_for_a_table_is_closed(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    places = re.findall(r"<!-- (table: [\w-]+|end) -->", text)
    assert len(places) % 2 == 0
    assert all(place == "end" for place in places[1::2])
    assert all(place != "end" for place in places[::2])


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_to_files(path: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", path.read_text(encoding="utf-8"))
    assert [target for target in targets if not (path.parent / target).exists()] == []


def test_tables_replace_what_stood_in_their_places(record: dict[str, Any], tmp_path: Path) -> None:
    filled = fill(PLACE.format("facts"), record, tmp_path)
    assert filled.startswith("before\n<!-- table: facts -->\n| measured | value |")
    assert filled.endswith("|\n<!-- end -->\nafter\n")
    assert "old" not in filled
    assert fill(filled, record, tmp_path) == filled
    with pytest.raises(DiffcodecError, match=r"expected a table of origin, .*, found 'no-such'"):
        fill(PLACE.format("no-such"), record, tmp_path)


def front_row(groups: int, level: int | None, *, front: bool) -> dict[str, Any]:
    plan = {"growth_index": 9, "parts": 64, "code_id": 2}
    return {
        "setting": {"plan": plan, "groups": groups},
        "level": level,
        "mean_bpd": 3.5 + 0.1 / groups,
        "evaluations_mean": 40.0 + groups,
        "encode_seconds_median": 1.0,
        "decode_seconds_median": 0.5,
        "front": front,
        "front_of_evaluations": front,
    }


def test_records_beside_the_main_one_have_tables(record: dict[str, Any], tmp_path: Path) -> None:
    text = PLACE.format("effort-front") + PLACE.format("groups")
    assert fill(text, record, tmp_path).count(NOT_MEASURED) == 2
    rows = [
        front_row(groups, 5 if groups == 8 else None, front=groups == 16)
        for groups in effort_front.GROUPS
    ]
    side = {"provenance": ORIGIN, "model": {"digest": "fedcba9876543210"}, "rows": rows}
    (tmp_path / effort_front.RESULT).write_text(json.dumps(side))
    filled = fill(text, record, tmp_path)
    assert "| 9 | 64 | 2 | 16 | 3.5063 | 56.0 | 1.00 | 0.50 | yes | yes |  |" in filled
    assert "| 9 | 64 | 2 | 8 | 3.5125 | 48.0 | 1.00 | 0.50 |  |  | 5 |" in filled
    assert "| 4 | 3.525, 44.0, 1.00 / 0.50 s |" in filled
    assert filled.count("(Model fedcba987654, commit 0123456789ab, 2026-11-27, a processor") == 2
    (tmp_path / effort_front.RESULT).write_text(json.dumps({"rows": [{}]}))
    with pytest.raises(DiffcodecError, match="not the results of a measurement"):
        fill(text, record, tmp_path)


def test_command(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / results.RECORD).write_bytes(results.dumps(record))
    assert main(["--results", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{name}\n" in printed for name in (*TABLES, *SIDES))
    document = tmp_path / "document.md"
    document.write_text(f"<!-- table: {documents.ORIGIN} -->\n\n<!-- end -->\n")
    assert main(["--results", str(tmp_path), str(document)]) == 0
    assert "The first 3 CIFAR-10 test images" in document.read_text()
    assert main(["--results", str(tmp_path / "nowhere")]) == 1
    assert "no such file" in capsys.readouterr().err
