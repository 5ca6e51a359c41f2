import math

import numpy as np
import pytest

from benchmarks.rivals import RandomCodebook, TruncatedPoisson
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.units import bits_to_nats

DIMENSION = 256


def _projections(
    rival: RandomCodebook | TruncatedPoisson, length: float, bits: int, trials: int
) -> tuple[np.ndarray, float]:
    directions = SharedNoise(31).normal(0, (trials, DIMENSION))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    projections, paid = [], 0.0
    for place, direction in enumerate(directions):
        c, cost = rival.sample(np.float32(length) * direction, bits, SharedNoise(32, place))
        projections.append(float(np.dot(c.astype(np.float64), direction)))
        paid += cost / trials
    return np.array(projections), paid


def test_the_best_of_a_codebook_is_the_expected_maximum() -> None:
    projections, paid = _projections(RandomCodebook(6), 1.0, 13, trials=200)
    assert paid == pytest.approx(12.0)
    # The mean of the largest of 64 standard normals is 2.3439; two of them over √2.
    assert projections.mean() == pytest.approx(math.sqrt(2) * 2.3439, abs=0.12)


def test_a_truncated_search_is_nearly_a_sample_and_costs_more_than_its_kl() -> None:
    length = math.sqrt(2 * bits_to_nats(8.0))
    projections, paid = _projections(TruncatedPoisson(4.0), length, 8, trials=300)
    # An exact sample's projection is the length on average; a cut search falls short of it.
    assert 0.7 * length < projections.mean() < length
    assert 8.0 < paid < 16.0


def test_less_than_half_a_chunk_is_refused() -> None:
    with pytest.raises(ValueError, match="no chunk"):
        TruncatedPoisson(10.0).sample(np.ones(8, np.float32), 4, SharedNoise(1))
