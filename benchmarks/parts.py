"""Where the time of an encoder or a decoder goes: the network, the coder, the rest.

Functions are replaced by timed ones while a measurement runs. A profiler would slow what calls much
more than what computes.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar
from unittest.mock import patch

from diffcodec.codec import pixels as last_stage
from diffcodec.codec.model import CodecModel
from diffcodec.coding.ans import LevelDecoder
from diffcodec.coding.channel import CHANNEL_CODES

Result = TypeVar("Result")
Clock = Callable[[], float]

PARTS = ("network", "coder", "rest")


@dataclass(frozen=True)
class Seconds:
    """Where the seconds of one run went.

    Attributes:
        total: of the whole run.
        network: inside the denoiser.
        coder: inside the channel code and the entropy coder, the choice of its tables included.
        evaluations: tiles that the denoiser was evaluated on, those that fill up a batch included.
    """

    total: float
    network: float
    coder: float
    evaluations: int

    @property
    def rest(self) -> float:
        """Seconds in neither."""
        return self.total - self.network - self.coder


def time_parts(
    model: CodecModel, run: Callable[[], Result], clock: Clock = time.perf_counter
) -> tuple[Result, Seconds]:
    """What ``run``, an encoder or a decoder with ``model``, gives, and where its seconds went.

    Parts of which one calls another count once, as the outer one. One run at a time, in a process
    whose torch has one thread: evaluations side by side would count several times.
    """
    watch = _Stopwatch(clock)
    denoiser = model.checkpoint.denoiser
    with ExitStack() as replaced:
        for owner, name in ((denoiser, "forward"), (denoiser, "posterior")):
            timed = watch.timed("network", getattr(owner, name))
            replaced.enter_context(patch.object(owner, name, timed))
        for owner, name in _coder():
            timed = watch.timed("coder", getattr(owner, name))
            replaced.enter_context(patch.object(owner, name, timed))
        start = clock()
        result = run()
        total = clock() - start
    return result, Seconds(total, evaluations=watch.evaluations, **watch.seconds)


def _coder() -> Iterator[tuple[Any, str]]:
    """Owner and name of every function of `diffcodec.coding` that takes time in a codec."""
    for kind in {type(code) for code in CHANNEL_CODES.values()}:
        yield from ((kind, name) for name in dir(kind) if name.startswith(("encode", "decode")))
    yield from ((LevelDecoder, name) for name in ("pop", "finish"))
    yield from ((last_stage, name) for name in ("encode_levels", "best_scale_offset", "ideal_bits"))


class _Stopwatch:
    """Seconds by part, and tiles evaluated, so far."""

    def __init__(self, clock: Clock) -> None:
        self.seconds = {"network": 0.0, "coder": 0.0}
        self.evaluations = 0
        self._clock = clock
        self._inside = threading.local()

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, its time added to ``part`` unless a timed function has called it."""

        @wraps(function)
        def timed(*arguments: Any, **options: Any) -> Any:
            if getattr(self._inside, "part", None) is not None:
                return function(*arguments, **options)
            self._inside.part = part
            start = self._clock()
            try:
                return function(*arguments, **options)
            finally:
                self.seconds[part] += self._clock() - start
                self._inside.part = None
                if part == "network":
                    self.evaluations += len(arguments[0])

        return timed
