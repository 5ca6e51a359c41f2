"""A run over many items: shared among processes and machines, kept as it goes, and resumed.

Every result goes to a journal, a JSONL file, as soon as it is there. Its first line says what is
measured (commit, model, settings); a run that is resumed must agree with it. Under ``torchrun``
each process takes every n-th item and keeps a journal of its own; the first one has all results at
the end, wherever the others ran.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from cli.workers import Work, in_processes
from diffcodec.errors import DiffcodecError

Results = dict[str, Any]
JOURNAL_SUFFIX = ".jsonl"


@dataclass(frozen=True)
class Group:
    """The processes of one run: this one's rank among ``size``."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes the results."""
        return self.rank == 0

    def merge(self, own: Results) -> Results:
        """All processes' results; every process must call it, and gets the same."""
        if self.size == 1:
            return own
        from torch import distributed

        everyone: list[Results | None] = [None] * self.size
        distributed.all_gather_object(everyone, own)
        merged: Results = {}
        for results in everyone:
            merged.update(results or {})
        return merged


@contextmanager
def group() -> Iterator[Group]:
    """The group that ``torchrun`` has started, over gloo; of one process without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Group()
        return
    from torch import distributed

    distributed.init_process_group("gloo")
    try:
        yield Group(distributed.get_rank(), size)
    finally:
        distributed.destroy_process_group()


class Journal:
    """Results on disk, one line each, behind a line that says what they are results of.

    Attributes:
        origin: what the run that began the journal wrote of itself, and the ``command`` of the one
            that goes on with it, which may ask for more.
        results: by item.
    """

    def __init__(
        self, path: Path, origin: Mapping[str, Any], results: Results, file: TextIO
    ) -> None:
        self.path, self.origin, self.results, self._file = path, origin, results, file

    @staticmethod
    def open(
        path: Path,
        identity: Mapping[str, Any],
        origin: Mapping[str, Any],
        *,
        resume: bool = False,
        force: bool = False,
    ) -> "Journal":
        """Begin a journal, or go on with one.

        Args:
            identity: what results depend on; all of it must agree for a run to be resumed.
            origin: what else the first line says, of the run that begins the journal.
            resume: go on where a journal is; begin one where none is.
            force: begin anew where a journal is.

        Raises:
            DiffcodecError: there is a journal and neither is asked for, it is of other images,
                code, model or settings, or it is not a journal.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        results: Results = {}
        if path.exists() and resume:
            begun, results = _read(path, identity)
            origin = {**begun, **{k: v for k, v in origin.items() if k == "command"}}
        elif path.exists() and not force:
            raise DiffcodecError(
                f"{path}: an earlier run's results; --resume goes on with it, --force begins anew"
            )
        # Rewritten, without the half line that an interrupted run may end with.
        temporary = path.with_name(path.name + ".tmp")
        with temporary.open("w", encoding="utf-8") as file:
            first = {"identity": identity, "origin": origin}
            file.write(json.dumps(first) + "\n")
            for item, result in results.items():
                file.write(json.dumps({"item": item, "result": result}) + "\n")
        temporary.replace(path)
        return Journal(path, origin, results, path.open("a", encoding="utf-8"))

    def add(self, item: str, result: Any) -> None:
        """Keep a result; what was added is on disk when this returns."""
        self.results[item] = result
        self._file.write(json.dumps({"item": item, "result": result}) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def journal_path(output: Path, group: Group) -> Path:
    """Beside ``output``, with its name; one a process where there are several."""
    rank = f".{group.rank}-of-{group.size}" if group.size > 1 else ""
    return output.with_name(output.stem + rank + JOURNAL_SUFFIX)


def run(
    items: Sequence[str],
    work: Work,
    jobs: int,
    journal: Journal,
    group: Group,
    on_done: Callable[[], None] = lambda: None,
) -> Results:
    """The results of all items, in their order, in every process of the group.

    Items that any journal of the group holds are not done again; the others are shared among the
    group, and each process works with ``jobs`` worker processes of one thread each.

    Raises:
        DiffcodecError: an item fails, or a worker process has died.
    """
    done = group.merge(journal.results)
    missing = [item for item in items if item not in done]
    for _ in range(len(items) - len(missing)):
        on_done()
    own = missing[group.rank :: group.size]
    if own:
        for item, result in in_processes(own, work, jobs):
            journal.add(item, result)
            on_done()
    merged = group.merge(journal.results)
    return {item: merged[item] for item in items}


def _read(path: Path, identity: Mapping[str, Any]) -> tuple[Mapping[str, Any], Results]:
    lines = path.read_text(encoding="utf-8").splitlines()
    try:
        first = json.loads(lines[0])
        found, origin = first["identity"], first["origin"]
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise DiffcodecError(f"{path}: expected a run's journal, found something else") from error
    # As JSON has it: tuples are lists there.
    expected = json.loads(json.dumps(identity))
    if found != expected:
        names = sorted(
            name for name in {*found, *expected} if found.get(name) != expected.get(name)
        )
        raise DiffcodecError(
            f"{path}: cannot be resumed: other {', '.join(names)}; --force in place of --resume "
            "begins anew"
        )
    results: Results = {}
    for line in lines[1:]:
        try:
            entry = json.loads(line)
        except ValueError:
            # An interrupted run's last line may be cut short; its item is done again.
            continue
        results[entry["item"]] = entry["result"]
    return origin, results
