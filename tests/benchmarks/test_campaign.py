import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from benchmarks import campaign
from benchmarks.campaign import Group, Journal, run
from diffcodec.errors import DiffcodecError

REPOSITORY = Path(__file__).resolve().parents[2]
ITEMS = [f"item/{number}" for number in range(7)]
IDENTITY = {"commit": "abc", "settings": {"effort": 5, "budgets": (0.1, 0.2)}}


class Square:
    """Work that a test can check, and whose runs it can count by the files they leave."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: str) -> Any:
        number = int(item.partition("/")[2])
        (self.folder / f"{number}-{os.getpid()}").touch()
        return {"square": number**2}


class Faulty(Square):
    def __call__(self, item: str) -> Any:
        if item == "item/5":
            raise DiffcodecError("item 5 is faulty")
        return super().__call__(item)


class Deadly(Square):
    def __call__(self, item: str) -> Any:
        os._exit(3)


def journal(path: Path, **options: bool) -> Journal:
    origin = {"command": "first", "date": "then"}
    return Journal.open(path, IDENTITY, origin, **options)


def test_results_come_in_order_from_several_processes(tmp_path: Path) -> None:
    calls: list[None] = []
    kept = journal(tmp_path / "run.jsonl")
    results = run(ITEMS, Square(tmp_path), 2, kept, Group(), lambda: calls.append(None))
    kept.close()
    assert list(results) == ITEMS
    assert [entry["square"] for entry in results.values()] == [n**2 for n in range(7)]
    assert len(calls) == len(ITEMS)
    lines = (tmp_path / "run.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(ITEMS)
    assert json.loads(lines[0])["origin"]["command"] == "first"


def test_a_resumed_run_does_only_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    first = journal(path)
    with pytest.raises(DiffcodecError, match="item 5 is faulty"):
        run(ITEMS, Faulty(tmp_path), 1, first, Group())
    first.close()
    # As if the power had gone while a line was written.
    with path.open("a") as file:
        file.write('{"item": "item/6", "resu')
    held = set(first.results)
    assert held
    for trace in tmp_path.glob("*-*"):
        trace.unlink()
    origin = {"command": "second", "date": "now"}
    second = Journal.open(path, IDENTITY, origin, resume=True)
    assert set(second.results) == held
    assert second.origin == {"command": "second", "date": "then"}
    results = run(ITEMS, Square(tmp_path), 1, second, Group())
    second.close()
    assert [entry["square"] for entry in results.values()] == [n**2 for n in range(7)]
    redone = {f"item/{trace.name.partition('-')[0]}" for trace in tmp_path.glob("*-*")}
    assert redone == set(ITEMS) - held
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    assert sorted(entry["item"] for entry in entries) == ITEMS


def test_a_journal_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    journal(path).close()
    with pytest.raises(DiffcodecError, match="--resume goes on with it, --force begins anew"):
        journal(path)
    other = {**IDENTITY, "commit": "def", "settings": {"effort": 9}}
    with pytest.raises(DiffcodecError, match="other commit, settings; --force in place"):
        Journal.open(path, other, {}, resume=True)
    path.write_text("no journal\n")
    with pytest.raises(DiffcodecError, match="expected a run's journal"):
        journal(path, resume=True)
    journal(path, force=True).close()
    assert json.loads(path.read_text())["identity"]["commit"] == "abc"


def test_resuming_nothing_begins(tmp_path: Path) -> None:
    begun = journal(tmp_path / "run.jsonl", resume=True)
    begun.close()
    assert begun.results == {}


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    kept = journal(tmp_path / "run.jsonl")
    with pytest.raises(DiffcodecError, match="a worker process ended before its work"):
        run(ITEMS, Deadly(tmp_path), 1, kept, Group())
    kept.close()


def test_journals_of_a_group_have_names_of_their_own(tmp_path: Path) -> None:
    output = tmp_path / "cifar10.json"
    assert campaign.journal_path(output, Group()).name == "cifar10.jsonl"
    assert campaign.journal_path(output, Group(1, 2)).name == "cifar10.1-of-2.jsonl"


SHARED = """
    import json, sys
    from pathlib import Path
    import numpy as np
    from benchmarks import campaign, measure
    from cli.terminal import Terminal

    if __name__ == "__main__":
        folder, model, images = Path(sys.argv[1]), Path(sys.argv[2]), np.load(sys.argv[3])
        others = "budgets train efforts round_trips examples speed threads"
        none = dict.fromkeys(others.split(), 0)
        settings = measure.Settings(effort=1, images=3, peers=3, theory=2, draws=5, **none)
        work = measure.ImageWork("pictures", images, images, model, settings)
        with campaign.group() as group:
            path = campaign.journal_path(folder / "run.json", group)
            journal = campaign.Journal.open(path, {}, {})
            measured = measure.run(work, 1, journal, group, Terminal(quiet=True))
            journal.close()
        if measured is not None:
            (folder / "run.json").write_text(json.dumps(measured[0]))
"""


@pytest.mark.slow
def test_two_processes_of_torchrun_measure_what_one_does(
    tmp_path: Path, tiny_folder: Path, images: Any
) -> None:
    import numpy as np

    script, pixels = tmp_path / "shared.py", tmp_path / "images.npy"
    script.write_text(textwrap.dedent(SHARED))
    np.save(pixels, images)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    records = []
    for name, command in (("one", [sys.executable]), ("two", [*torchrun, "2"])):
        folder = tmp_path / name
        folder.mkdir()
        arguments = [str(script), str(folder), str(tiny_folder), str(pixels)]
        ended = subprocess.run(
            [*command, *arguments], env=environment, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, ended.stderr
        records.append(json.loads((folder / "run.json").read_text()))
    assert records[0] == records[1]
    journals = sorted(path.name for path in (tmp_path / "two").glob("*.jsonl"))
    assert journals == ["run.0-of-2.jsonl", "run.1-of-2.jsonl"]
    shares = [len((tmp_path / "two" / name).read_text().splitlines()) - 1 for name in journals]
    assert shares == [4, 4]
