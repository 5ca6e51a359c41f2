import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec.model import PixelEstimate
from diffcodec.codec.wiener import WienerEstimate

Float64 = NDArray[np.float64]
SHAPE = (2, 3, 4, 4)


def estimate(seed: int = 0, mixed: bool = True) -> PixelEstimate:
    """Means well inside the range, variances over some orders of magnitude, strong mixing."""
    random = np.random.default_rng(seed)
    mixing = random.normal(0.0, 0.8, SHAPE) if mixed else np.zeros(SHAPE)
    variance = np.exp(random.normal(-7.0, 1.5, SHAPE))
    return PixelEstimate(random.uniform(-0.3, 0.3, SHAPE), variance, mixing)


def covariances(said: PixelEstimate) -> Float64:
    """Σ of every pixel, float64 [pixels, 3, 3], by solving its chain's equations."""
    variance = said.variance.transpose(0, 2, 3, 1).reshape(-1, 3)
    mixing = said.mixing.transpose(0, 2, 3, 1).reshape(-1, 3)
    # (1 − A)(x − mean) = innovations.
    chain = np.tile(np.eye(3), (len(variance), 1, 1))
    chain[:, [1, 2, 2], [0, 0, 1]] = -mixing
    factor = np.linalg.inv(chain)
    return factor @ (variance[:, :, None] * factor.transpose(0, 2, 1))


def vectors(tiles: Float64) -> Float64:
    """[G, 3, S, S] to [pixels, 3]."""
    return tiles.transpose(0, 2, 3, 1).reshape(-1, 3)


def reference(said: PixelEstimate, error: float, gain: float, shown: Float64) -> Float64:
    """(Σ⁻¹ + Δ)⁻¹ (Σ⁻¹ x̂_0 + Δ y) of every pixel, Σ scaled to a mean variance of ``error``."""
    sigma = covariances(said)
    sigma *= error / np.trace(sigma, axis1=1, axis2=2).mean() * 3.0
    precision = np.linalg.inv(sigma)
    right = np.einsum("pij,pj->pi", precision, vectors(said.mean)) + gain * vectors(shown)
    return np.linalg.solve(precision + gain * np.eye(3), right[:, :, None])[:, :, 0]


@pytest.mark.parametrize("gain", [1e-3, 30.0, 1e3, 1e6])
@pytest.mark.parametrize("error", [1e-4, 2e-3])
def test_it_is_the_posterior_mean_of_every_pixel(gain: float, error: float) -> None:
    said = estimate()
    shown = said.mean + np.random.default_rng(1).normal(0.0, 0.05, SHAPE)
    updated = WienerEstimate.of(said, error).updated(gain, gain * shown)
    expected = reference(said, error, gain, shown)
    assert np.abs(expected).max() < 1.0
    np.testing.assert_allclose(vectors(updated), expected, rtol=0, atol=1e-9)


def test_the_precision_is_the_inverse_of_the_scaled_covariance() -> None:
    said, error = estimate(3), 1e-3
    wiener = WienerEstimate.of(said, error)
    matrix = np.zeros((*SHAPE[:1], *SHAPE[2:], 3, 3))
    for (row, column), entry in zip(
        [(0, 0), (1, 1), (2, 2), (1, 0), (2, 0), (2, 1)], wiener.precision, strict=True
    ):
        matrix[..., row, column] = matrix[..., column, row] = entry
    scaled = np.linalg.inv(matrix)
    np.testing.assert_allclose(np.trace(scaled, axis1=-2, axis2=-1).mean() / 3, error, rtol=1e-9)
    sigma = covariances(said)
    ratio = scaled.reshape(-1, 3, 3) / sigma
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-6)


@pytest.mark.parametrize("gain", [0.5, 200.0])
def test_without_mixing_and_with_one_variance_it_is_the_scalar_formula(gain: float) -> None:
    said = estimate(mixed=False)
    uniform = PixelEstimate(said.mean, np.full(SHAPE, 0.37), said.mixing)
    shown = np.random.default_rng(2).uniform(-0.9, 0.9, SHAPE)
    error = 4e-3
    updated = WienerEstimate.of(uniform, error).updated(gain, gain * shown)
    expected = (said.mean / error + gain * shown) / (1.0 / error + gain)
    np.testing.assert_allclose(updated, expected, rtol=0, atol=1e-12)


def test_nothing_shown_changes_nothing_and_all_shown_is_what_is_taken() -> None:
    said = estimate(4)
    wiener = WienerEstimate.of(said, 1e-3)
    np.testing.assert_array_equal(wiener.updated(0.0, np.zeros(SHAPE)), said.mean)
    shown = np.random.default_rng(5).uniform(-0.9, 0.9, SHAPE)
    np.testing.assert_allclose(wiener.updated(1e12, 1e12 * shown), shown, rtol=0, atol=1e-5)


def test_what_leaves_the_range_is_clipped() -> None:
    said = estimate(6)
    updated = WienerEstimate.of(said, 1e-3).updated(1e9, np.full(SHAPE, 3e9))
    np.testing.assert_array_equal(updated, np.ones(SHAPE))


def test_the_scale_does_not_depend_on_the_order_of_the_tiles() -> None:
    said = estimate(7)
    backwards = PixelEstimate(said.mean[::-1], said.variance[::-1], said.mixing[::-1])
    there, back = WienerEstimate.of(said, 1e-3), WienerEstimate.of(backwards, 1e-3)
    for entry, reverse in zip(there.precision, back.precision, strict=True):
        np.testing.assert_array_equal(entry, reverse[::-1])


def test_a_sharper_posterior_is_never_worse_on_average() -> None:
    # x drawn from what the network says: knowing Σ beats knowing its mean alone.
    random, said = np.random.default_rng(8), estimate(9)
    sigma = covariances(said)
    error = float(np.trace(sigma, axis1=1, axis2=2).mean() / 3)
    factor, gain = np.linalg.cholesky(sigma), 1.0 / error
    squared = {"matrix": 0.0, "scalar": 0.0}
    for _ in range(50):
        draws = random.standard_normal((len(sigma), 3, 1))
        x = said.mean + (factor @ draws).reshape(2, 4, 4, 3).transpose(0, 3, 1, 2)
        shown = x + random.normal(0.0, gain**-0.5, SHAPE)
        updated = WienerEstimate.of(said, error).updated(gain, gain * shown)
        scalar = (said.mean / error + gain * shown) / (1.0 / error + gain)
        squared["matrix"] += float(np.square(updated - x).sum())
        squared["scalar"] += float(np.square(scalar - x).sum())
    assert squared["matrix"] < 0.8 * squared["scalar"]
