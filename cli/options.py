"""Options that several commands share, and types of theirs."""

import math
from typing import Any

import click

from diffcodec.limits import PIXEL_LIMIT


class FiniteRange(click.FloatRange):
    """A range of numbers, of which none is infinite or no number at all."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number; a usage error where it is not in the range."""
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=PIXEL_LIMIT,
    show_default=True,
    metavar="N",
    help="Refuse larger images, sides rounded up to 32: a guard against files that ask for all "
    "memory.",
)
