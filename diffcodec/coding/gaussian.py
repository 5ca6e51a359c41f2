"""The normal distribution by IEEE 754 basic operations alone.

Whatever reaches the file's bytes, on either side, must be the same on every platform, and
platforms' ``exp``, ``erf`` and ``log`` are not. Everything here is built from + − × ÷, square
root, rounding to an integer and scaling by powers of two on float64 arrays, all of which IEEE 754
defines to the last bit, one NumPy call per operation so that no compiler may fuse two of them.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float64 = NDArray[np.float64]

_INVERSE_LN2 = 1.4426950408889634
# ln 2 in two parts: the first has 21 trailing zero bits, so that its product with an exponent
# of at most 11 bits is exact (Cody and Waite 1980).
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_INVERSE_SQRT_2PI = 0.3989422804014327

# Upper tails are expanded around multiples of 1/8; beyond 9 the tail, below 2e-19, is nothing
# beside the spacing of float64 near 1 and is held at its value there.
_CELLS_PER_UNIT = 8
_LAST_ARGUMENT = 9.0
_TAYLOR_TERMS = 12
_NEWTON_STEPS = 30


def exponential(x: ArrayLike) -> Float64:
    """e^x, elementwise, within 1e-15 relative, the same bits on every platform.

    Arguments below −700 give e^−700 and above 700 e^700, so that no result is subnormal.

    >>> round(float(exponential(1.0)), 12)
    2.718281828459
    """
    argument = np.clip(np.asarray(x, dtype=np.float64), -700.0, 700.0)
    exponent = np.rint(argument * _INVERSE_LN2)
    remainder = argument - exponent * _LN2_HIGH
    remainder = remainder - exponent * _LN2_LOW
    value = np.ones_like(remainder)
    for term in range(16, 0, -1):
        value = value * remainder
        value = value / term
        value = value + 1.0
    return np.asarray(np.ldexp(value, exponent.astype(np.int32)), dtype=np.float64)


def normal_density(x: ArrayLike) -> Float64:
    """φ(x) = e^(−x²/2)/√(2π), elementwise."""
    argument = np.asarray(x, dtype=np.float64)
    return _INVERSE_SQRT_2PI * exponential(-0.5 * (argument * argument))


@lru_cache(maxsize=1)
def _tail_expansions() -> Float64:
    """Taylor coefficients of Q(x) = 1 − Φ(x) around i/8, i = 0…72: [term, i]."""
    centre = np.arange(int(_LAST_ARGUMENT) * _CELLS_PER_UNIT + 1) / _CELLS_PER_UNIT
    density = normal_density(centre)
    # Near zero: Φ(x) − ½ = φ(x) Σ x^(2k+1)/(2k+1)!! (Abramowitz and Stegun 26.2.11).
    series = np.zeros_like(centre)
    for odd in range(2 * 60 + 1, 0, -2):
        series = centre * centre * series / (odd + 2) + 1.0
    near_zero = 0.5 - density * centre * series
    # In the tail: Q(x) = φ(x)/(x + 1/(x + 2/(x + …))) (Abramowitz and Stegun 26.2.14).
    bounded = np.maximum(centre, 2.0)
    fraction = bounded
    for numerator in range(150, 0, -1):
        fraction = bounded + numerator / fraction
    tail = np.where(centre < 2.0, near_zero, density / fraction)
    # φ'(x) = −x φ(x) and so φ^(k) = −x φ^(k−1) − (k−1) φ^(k−2).
    coefficients = [tail, -density]
    before, last = density, -centre * density
    factorial = 1.0
    for order in range(2, _TAYLOR_TERMS + 1):
        factorial *= order
        coefficients.append(-last / factorial)
        before, last = last, -centre * last - (order - 1) * before
    return np.stack(coefficients)


def normal_cdf(x: ArrayLike) -> Float64:
    """Φ(x), elementwise, within 1e-15 absolute and the same bits on every platform.

    Exactly symmetric: Φ(x) is one minus Φ(−x), rounded. Infinities are taken.

    >>> normal_cdf([-1.0, 0.0, 1.0]).round(12).tolist()
    [0.158655253931, 0.5, 0.841344746069]
    """
    argument = np.asarray(x, dtype=np.float64)
    size = np.minimum(np.abs(argument), _LAST_ARGUMENT)
    cell = np.rint(size * _CELLS_PER_UNIT)
    offset = size - cell / _CELLS_PER_UNIT
    index = cell.astype(np.intp)
    coefficients = _tail_expansions()
    tail = coefficients[-1][index]
    for term in coefficients[-2::-1]:
        tail = tail * offset
        tail = tail + term[index]
    return np.asarray(np.where(argument < 0.0, tail, 1.0 - tail), dtype=np.float64)


@lru_cache(maxsize=8)
def normal_quantiles(levels: int) -> Float64:
    """Φ⁻¹((k + ½)/levels) for k = 0…levels − 1: float64[levels], ascending, exactly symmetric.

    Raises ValueError unless 1 ≤ levels ≤ 2^20. The result is shared and read-only.

    >>> normal_quantiles(3).round(3).tolist()
    [-0.967, 0.0, 0.967]
    """
    if not 1 <= levels <= 1 << 20:
        raise ValueError(f"levels must be between 1 and {1 << 20}, not {levels}")
    upper = np.arange(levels // 2, levels)
    probability = (upper + 0.5) / levels
    # Φ is concave above zero, so Newton's steps from zero climb to the root and never pass it.
    quantile = np.zeros(len(upper))
    for _ in range(_NEWTON_STEPS):
        quantile = quantile + (probability - normal_cdf(quantile)) / normal_density(quantile)
    table = np.concatenate([-quantile[::-1][: levels // 2], quantile])
    table.flags.writeable = False
    return table


@lru_cache(maxsize=1)
def unit_variance_steps() -> NDArray[np.int32]:
    """The table behind ``SharedNoise.normal``: int32[4096] in units of 2^−20.

    Entry k is Φ⁻¹((k + ½)/4096)/√(2V), rounded half to even to a multiple of 2^−20, with V the
    mean square of the 4096 quantiles: the sum of two entries drawn uniformly has variance one.
    """
    quantiles = normal_quantiles(4096)
    mean_square = math.fsum((quantiles * quantiles).tolist()) / 4096
    steps = np.rint(quantiles / math.sqrt(2.0 * mean_square) * (1 << 20)).astype(np.int32)
    steps.flags.writeable = False
    return steps
