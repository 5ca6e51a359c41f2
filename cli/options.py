"""Options that several commands share."""

import click

from diffcodec.limits import PIXEL_LIMIT

max_pixels = click.option(
    "--max-pixels",
    type=click.IntRange(min=1),
    default=PIXEL_LIMIT,
    show_default=True,
    metavar="N",
    help="Refuse larger images, sides rounded up to 32: a guard against files that ask for all "
    "memory.",
)
