"""Work on a GPU that is launched as a whole: CUDA graphs."""

from collections.abc import Callable
from typing import Generic, TypeVar

import torch

Result = TypeVar("Result")
WARM_UP_CALLS = 3


class Captured(Generic[Result]):
    """``work`` recorded once and replayed at every call.

    A training step of a small network is hundreds of small kernels, which Python would launch one
    by one while the GPU waits. What is recorded reads and writes the same memory every time: what
    ``work`` reads must stay where it is, and what it returns is overwritten by the next call. It
    must not wait for the GPU, nor copy from the processor.

    Args:
        work: gets nothing; returns tensors.
        generator: the GPU's that ``work`` draws from; the caller seeds it before each call.
    """

    def __init__(
        self, work: Callable[[], Result], generator: torch.Generator | None = None
    ) -> None:
        self._work, self._generator = work, generator
        self._graph: torch.cuda.CUDAGraph | None = None
        self._result: Result | None = None

    def warm_up(self) -> None:
        """Run ``work`` plainly a few times, so that it has compiled and allocated what it needs."""
        # On a stream of its own, or what is recorded later would wait for this one.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP_CALLS):
                self._work()
        torch.cuda.current_stream().wait_stream(side)

    def record(self) -> None:
        """Record ``work``, which has run before, without running it."""
        graph = torch.cuda.CUDAGraph()
        if self._generator is not None:
            graph.register_generator_state(self._generator)
        with torch.cuda.graph(graph):
            self._result = self._work()
        self._graph = graph

    def __call__(self) -> Result:
        """What ``work`` returns, in memory that the next call overwrites."""
        if self._graph is None:
            self.record()
        assert self._graph is not None
        self._graph.replay()
        return self._result  # type: ignore[return-value]
