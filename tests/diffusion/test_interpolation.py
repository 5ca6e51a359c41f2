import numpy as np
import pytest

from diffcodec.diffusion.interpolation import interpolate

POINTS = (-2.0, 0.5, 3.0)


def test_it_is_numpy_s_of_each_column() -> None:
    at = np.linspace(-4.0, 5.0, 91)
    values = np.random.default_rng(0).normal(size=(3, 2, 4))
    curve = interpolate(at, POINTS, values)
    assert curve.shape == (91, 2, 4)
    for row in range(2):
        for column in range(4):
            expected = np.interp(at, POINTS, values[:, row, column])
            np.testing.assert_allclose(curve[:, row, column], expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("at", POINTS)
def test_points_have_their_own_values(at: float) -> None:
    values = (0.1, 0.7, 0.3)
    expected = pytest.approx(values[POINTS.index(at)], rel=1e-15)
    assert float(interpolate(at, POINTS, values)) == expected


def test_one_point_is_a_constant() -> None:
    curve = interpolate([-1.0, 8.0], [0.0], [[1.0, 2.0]])
    np.testing.assert_array_equal(curve, [[1.0, 2.0], [1.0, 2.0]])
