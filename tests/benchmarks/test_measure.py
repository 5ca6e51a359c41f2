import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks import measure, results
from benchmarks.campaign import Group, Journal
from benchmarks.inputs import pixels_digest

Pixels = NDArray[np.uint8]

NOTHING_ELSE = (
    *("--peers", "0", "--budgets", "0", "--theory", "0", "--train", "0"),
    *("--efforts", "0", "--round-trips", "0", "--examples", "0", "--speed", "0", "--threads", "0"),
)


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, images: Pixels, tmp_path: Path) -> None:
    """Small images stand for CIFAR-10's."""
    place = tmp_path / "pictures"
    place.mkdir()
    monkeypatch.setattr(measure, "find_data", lambda data: place)
    monkeypatch.setattr(measure, "first_images", lambda data, count, split="test": images[:count])
    monkeypatch.setattr(measure, "split_digest", lambda data, split: f"of {split} images")


def test_one_command_writes_the_record_and_is_resumed(
    few: None,
    tiny_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # The tree may change while the tests run; a resumed run of a changed one is refused.
    taken = measure.provenance()
    monkeypatch.setattr(measure, "provenance", lambda device: taken)
    command = ["--images", "2", "--effort", "1", "--jobs", "1", *NOTHING_ELSE]
    command += ["--model", str(tiny_folder), "--out", str(tmp_path)]
    assert measure.main(command) == 0
    record, examples = results.load_folder(tmp_path)
    assert record["lossless"]["exact_round_trips"] == record["images"] == 2
    assert record["settings"]["peers"] == 0
    assert record["data"] == "pictures"
    assert "peers" not in record
    assert examples == []
    assert capsys.readouterr().out.splitlines() == [
        str(tmp_path / results.RECORD),
        str(tmp_path / results.EXAMPLES),
    ]
    assert measure.main(command) == 1
    assert "--resume goes on with it" in capsys.readouterr().err
    # Nothing is left to do, and what is written again is the same, the first command included.
    assert measure.main([*command, "--resume"]) == 0
    assert results.load_folder(tmp_path)[0] == record
    # More images are what is left to do.
    journal = tmp_path / "cifar10.jsonl"
    before = journal.read_text().splitlines()
    more = [*command, "--resume", "--images", "3", "--peers", "1"]
    assert measure.main(more) == 0
    assert results.load_folder(tmp_path)[0]["images"] == 3
    added = journal.read_text().splitlines()[len(before) :]
    assert sorted(json.loads(line)["item"] for line in added) == ["files/2", "peers/0"]
    assert measure.main([*command, "--resume", "--effort", "2"]) == 1
    assert "cannot be resumed: other settings;" in capsys.readouterr().err
    # In a clone a record has no journal, and is not replaced by accident either.
    journal.unlink()
    assert measure.main([*command, "--resume"]) == 1
    assert "cifar10.json: an earlier record; --force" in capsys.readouterr().err
    assert results.load_folder(tmp_path)[0]["images"] == 3


def test_provenance_is_that_of_the_beginning(
    work: measure.ImageWork, results: dict[str, Any]
) -> None:
    record = measure.summarize(work, results, {"commit": "before"})
    assert record["provenance"] == {"commit": "before"}


def test_the_digest_is_that_of_the_images_whose_files_were_measured(
    work: measure.ImageWork, results: dict[str, Any], images: Pixels
) -> None:
    fewer = dataclasses.replace(work.settings, images=2, budgets=0, peers=0)
    record = measure.summarize(dataclasses.replace(work, settings=fewer), results, {})
    assert record["pixels_sha256"] == pixels_digest(images[:2])


def test_subsets_are_no_larger_than_the_set_unless_asked_for() -> None:
    options = measure._parser().parse_args(["--images", "20", "--theory", "500"])
    settings = measure._settings(options)
    assert (settings.peers, settings.budgets, settings.theory) == (20, 20, 500)
    assert settings.threads == measure.Settings().threads


def test_items_are_one_a_stage_and_image() -> None:
    settings = measure.Settings(
        images=3, peers=2, budgets=1, theory=2, train=1, efforts=1, round_trips=4
    )
    items = settings.items()
    files = 7 + 2 * 4
    assert len(set(items)) == len(items) == 3 + 2 + 1 + 2 + 1 + files + settings.examples
    assert items.count("peers/1") == 1


@pytest.mark.parametrize(
    "arguments",
    [["--images", "1"], ["--jobs", "0"], ["--peers", "-1"], ["--images", "2", "--budgets", "3"]],
)
def test_misuse_is_told_before_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        measure.main(arguments)
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert measure.main(["--model", "no-such-model", "--out", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("error: no-such-model: expected")


def test_processes_that_do_not_lead_write_no_record(
    work: measure.ImageWork, results: dict[str, Any], tmp_path: Path
) -> None:
    from cli.terminal import Terminal

    class Follower(Group):
        def merge(self, own: dict[str, Any]) -> dict[str, Any]:
            return {**results, **own}

    journal = Journal.open(tmp_path / "run.jsonl", {}, {})
    assert measure.run(work, 1, journal, Follower(1, 2), Terminal(quiet=True)) is None
    journal.close()
    assert journal.results == {}


def test_the_record_survives_json(record: dict[str, Any]) -> None:
    assert json.loads(results.dumps(record)) == record
    # A line for each part of the top level.
    assert len(results.dumps(record).splitlines()) == len(record) + 2
