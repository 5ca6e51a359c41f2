"""Work shared among processes, one thread each."""

import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import Any, Protocol

from diffcodec.errors import DiffcodecError


class Work(Protocol):
    """What is done to an item. It travels to each worker process once, and serves all its items."""

    def __call__(self, item: str) -> Any:
        """The result of the item, which travels back."""


def default_jobs() -> int:
    """The processor's cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def in_processes(items: Sequence[str], work: Work, jobs: int) -> Iterator[tuple[str, Any]]:
    """Each item with its result as soon as it is there; ``jobs`` worker processes of one thread.

    Whatever ends it early ends the items that are under way, too.

    Raises:
        DiffcodecError: an item fails, or a worker process has died.
    """
    # Spawned, not forked: torch's threads do not survive a fork.
    pool = ProcessPoolExecutor(min(jobs, len(items)), get_context("spawn"), _start_worker, (work,))
    try:
        futures = {pool.submit(_call, item): item for item in items}
        for future in as_completed(futures):
            yield futures[future], future.result()
    except BrokenProcessPool as error:
        raise DiffcodecError(
            "a worker process ended before its work; is there memory for so many --jobs?"
        ) from error
    except BaseException:
        # An item may take many minutes more, whose result nobody would read.
        for worker in active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


# What a worker process does, set once when it starts: a process pool has no other place.
_work: Work | None = None


def _start_worker(work: Work) -> None:
    global _work
    # An interrupt reaches the whole group of processes; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import torch

    torch.set_num_threads(1)
    _work = work


def _call(item: str) -> Any:
    assert _work is not None
    return _work(item)
