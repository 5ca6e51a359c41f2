"""When a step is not to be trusted: losses that are no numbers, or far above the recent ones."""

import math
from collections import deque
from collections.abc import Iterable
from statistics import median

WINDOW_STEPS = 128
FIRST_STEPS = 32
# Of a normal distribution's standard deviation to its median absolute deviation.
_ROBUST_DEVIATION = 1.4826
_SMALLEST_DEVIATION = 0.05


class SpikeDetector:
    """Judges a step by its loss and gradient before the weights take it.

    A step is refused if its loss or its gradient's norm is not finite, or if its loss is a spike:
    above the median of the last `WINDOW_STEPS` accepted losses by more than ``deviations`` robust
    standard deviations, 1.4826 times their median absolute deviation, but no deviation is taken to
    be below 5 % of the median. Nothing is a spike before `FIRST_STEPS` losses have been accepted.

    The norm alone is no criterion: clipping already limits what one large gradient does.
    """

    def __init__(self, deviations: float, recent: Iterable[float] = ()) -> None:
        """``deviations``: how many make a spike; 0 for none. ``recent``: losses accepted before."""
        self._deviations = deviations
        self._recent = deque(recent, maxlen=WINDOW_STEPS)

    @property
    def recent(self) -> list[float]:
        """The losses that a new detector has to know to judge as this one."""
        return list(self._recent)

    def objection(self, loss: float, gradient_norm: float) -> str | None:
        """Why the step is refused, or None."""
        if not (math.isfinite(loss) and math.isfinite(gradient_norm)):
            return f"the loss is {loss} and the norm of its gradient {gradient_norm}"
        limit = self.limit()
        if loss > limit:
            return f"the loss is {loss:.4g}, a spike above {limit:.4g}"
        return None

    def limit(self) -> float:
        """The largest loss that is no spike."""
        if not self._deviations or len(self._recent) < FIRST_STEPS:
            return math.inf
        middle = median(self._recent)
        deviation = _ROBUST_DEVIATION * median(abs(loss - middle) for loss in self._recent)
        return middle + self._deviations * max(deviation, _SMALLEST_DEVIATION * abs(middle))

    def accept(self, loss: float) -> None:
        """Take a loss into the window."""
        if self._deviations:
            self._recent.append(loss)
