"""The only place where information changes its unit.

Rates are measured in nats inside the mathematics, in bits in files and ledgers, and reported in
bits per dimension: bits / (height · width · channels).
"""

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

NATS_PER_BIT = math.log(2.0)

Quantity = TypeVar("Quantity", float, NDArray[np.float64])


def nats_to_bits(nats: Quantity) -> Quantity:
    """Information in nats, expressed in bits."""
    return nats / NATS_PER_BIT


def bits_to_nats(bits: Quantity) -> Quantity:
    """Information in bits, expressed in nats."""
    return bits * NATS_PER_BIT


def bits_per_dimension(bits: Quantity, dimensions: int) -> Quantity:
    """Bits per dimension of a signal of ``dimensions`` = height · width · channels values."""
    return bits / dimensions


def bits_per_pixel(bits: Quantity, pixels: int) -> Quantity:
    """Bits per pixel of an image of ``pixels`` = height · width positions."""
    return bits / pixels
