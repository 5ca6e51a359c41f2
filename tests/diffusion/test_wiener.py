import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.diffusion import wiener
from diffcodec.diffusion.cosine import frequency_bands
from diffcodec.diffusion.wiener import WienerEstimate, pixel_variances

Float64 = NDArray[np.float64]
SIDE = 8
SHAPE = (2, 3, SIDE, SIDE)
PIXELS = SIDE * SIDE


@pytest.fixture
def _converged(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many steps as a solution takes, instead of the codec's few."""
    monkeypatch.setattr(wiener, "GRADIENT_STEPS", 300)


def power(strength: float = 1.0) -> Float64:
    """A spectrum that falls with the frequency, of mean one in each channel."""
    bands = frequency_bands(SIDE)
    falling = np.stack([np.exp(-strength * (0.2 + 0.1 * c) * bands) for c in range(3)])
    return falling / falling.mean(axis=(1, 2), keepdims=True)


FLAT = np.ones(SHAPE[1:])


def said(seed: int = 0, mixed: bool = True) -> tuple[Float64, Float64, Float64]:
    """Means well inside the range, variances over some orders of magnitude, strong mixing."""
    random = np.random.default_rng(seed)
    mixing = random.normal(0.0, 0.8, SHAPE) if mixed else np.zeros(SHAPE)
    variance = np.exp(random.normal(-7.0, 1.0, SHAPE))
    return random.uniform(-0.3, 0.3, SHAPE), variance, mixing


def covariance(variance: Float64, mixing: Float64, spectrum: Float64, tile: int) -> Float64:
    """L D F P Fᵀ D Lᵀ of one tile as a matrix, [3 S², 3 S²]."""
    n = np.arange(SIDE)
    basis = np.cos(np.pi / SIDE * (n + 0.5) * n[:, None]) * np.sqrt(2.0 / SIDE)
    basis[0] /= np.sqrt(2.0)
    transform = np.kron(np.eye(3), np.kron(basis, basis))
    chain = np.eye(3 * PIXELS)
    for row, column, entry in ((1, 0, 0), (2, 0, 1), (2, 1, 2)):
        rows, columns = (slice(c * PIXELS, (c + 1) * PIXELS) for c in (row, column))
        chain[rows, columns] = -np.diag(mixing[tile, entry].ravel())
    factor = np.linalg.inv(chain) @ np.diag(np.sqrt(variance[tile].ravel()))
    colour = transform.T @ np.diag(spectrum.ravel()) @ transform
    return np.asarray(factor @ colour @ factor.T)


def scaled(variance: Float64, mixing: Float64, error: float) -> Float64:
    """Variances of a mean total of ``error`` over all tiles."""
    return variance * error / pixel_variances(variance, mixing).mean()


@pytest.mark.usefixtures("_converged")
@pytest.mark.parametrize("gain", [1e-2, 30.0, 1e3])
@pytest.mark.parametrize("error", [1e-4, 2e-3])
def test_it_is_the_posterior_mean(gain: float, error: float) -> None:
    mean, variance, mixing = said()
    shown = mean + np.random.default_rng(1).normal(0.0, 0.05, SHAPE)
    updated = WienerEstimate.of(mean, variance, mixing, power(), error).updated(gain, gain * shown)
    for tile in range(SHAPE[0]):
        sigma = covariance(scaled(variance, mixing, error), mixing, power(), tile)
        seen = (shown - mean)[tile].ravel()
        moved = sigma @ np.linalg.solve(sigma + np.eye(len(sigma)) / gain, seen)
        expected = mean[tile].ravel() + moved
        assert np.abs(expected).max() < 1.0
        np.testing.assert_allclose(updated[tile].ravel(), expected, rtol=0, atol=2e-6)


def test_few_steps_are_near_it() -> None:
    # Gains of a hop's first packets: Δ e well below 1.
    mean, variance, mixing = said()
    error = 1e-3
    shown = mean + np.random.default_rng(1).normal(0.0, 0.05, SHAPE)
    for gain in (30.0, 100.0):
        updated = WienerEstimate.of(mean, variance, mixing, power(), error).updated(
            gain, gain * shown
        )
        for tile in range(SHAPE[0]):
            sigma = covariance(scaled(variance, mixing, error), mixing, power(), tile)
            seen = (shown - mean)[tile].ravel()
            moved = sigma @ np.linalg.solve(sigma + np.eye(len(sigma)) / gain, seen)
            missed = updated[tile].ravel() - mean[tile].ravel() - moved
            assert np.linalg.norm(missed) < 0.1 * np.linalg.norm(moved)


def test_variances_are_the_covariance_s_diagonal() -> None:
    _, variance, mixing = said(3)
    variances = pixel_variances(variance, mixing)
    for tile in range(SHAPE[0]):
        sigma = covariance(variance, mixing, FLAT, tile)
        np.testing.assert_allclose(variances[tile].ravel(), np.diag(sigma), rtol=1e-9)
    single = variance[:, :1], mixing[:, :0]
    np.testing.assert_array_equal(pixel_variances(*single), variance[:, :1])


@pytest.mark.parametrize("gain", [0.5, 200.0])
def test_with_one_variance_and_a_flat_spectrum_it_is_the_scalar_formula(gain: float) -> None:
    mean, _, mixing = said(mixed=False)
    shown = np.random.default_rng(2).uniform(-0.9, 0.9, SHAPE)
    error = 4e-3
    wiener = WienerEstimate.of(mean, np.full(SHAPE, 0.37), mixing, FLAT, error)
    expected = (mean / error + gain * shown) / (1.0 / error + gain)
    np.testing.assert_allclose(wiener.updated(gain, gain * shown), expected, rtol=0, atol=1e-6)


def test_the_error_is_that_of_pixels_inside() -> None:
    mean, variance, mixing = said(4)
    inside = np.random.default_rng(5).random((SHAPE[0], *SHAPE[2:])) < 0.4
    wiener = WienerEstimate.of(mean, variance, mixing, power(), 1e-3, inside)
    total = pixel_variances(wiener.deviation**2, mixing).transpose(0, 2, 3, 1)
    assert total[inside].mean() == pytest.approx(1e-3)
    assert total[~inside].mean() != pytest.approx(1e-3, rel=1e-3)


def test_nothing_new_changes_nothing() -> None:
    mean, variance, mixing = said(4)
    wiener = WienerEstimate.of(mean, variance, mixing, power(), 1e-3)
    np.testing.assert_array_equal(wiener.updated(8.0, 8.0 * mean), mean)
    # In one of two tiles alone.
    shown = mean + np.array([0.0, 0.1])[:, None, None, None]
    updated = wiener.updated(8.0, 8.0 * shown)
    np.testing.assert_array_equal(updated[0], mean[0])
    assert (updated[1] != mean[1]).any()


def test_what_leaves_the_range_is_clipped() -> None:
    mean, _, mixing = said(6, mixed=False)
    wiener = WienerEstimate.of(mean, np.ones(SHAPE), mixing, FLAT, 1.0)
    np.testing.assert_array_equal(wiener.updated(1e3, np.full(SHAPE, 9e3)), np.ones(SHAPE))


def test_tiles_and_layouts_have_no_say() -> None:
    mean, variance, mixing = said(7)
    shown = mean + np.random.default_rng(3).normal(0.0, 0.05, SHAPE)
    there = WienerEstimate.of(mean, variance, mixing, power(), 1e-3)
    updated = there.updated(50.0, 50.0 * shown)
    turned = (np.asfortranarray(part[::-1]) for part in (mean, variance, mixing))
    back = WienerEstimate.of(*turned, power(), 1e-3)
    np.testing.assert_array_equal(back.deviation, there.deviation[::-1])
    np.testing.assert_array_equal(back.updated(50.0, 50.0 * shown[::-1]), updated[::-1])
    alone = WienerEstimate(mean[:1], there.deviation[:1], mixing[:1], power())
    np.testing.assert_array_equal(alone.updated(50.0, 50.0 * shown[:1]), updated[:1])


def test_knowing_the_covariance_is_better_than_one_variance() -> None:
    # x drawn from what is said: knowing pixels beats a scalar, knowing the spectrum beats pixels.
    random = np.random.default_rng(8)
    mean, variance, mixing = said(9)
    strong = power(3.0)
    error = float(pixel_variances(variance, mixing).mean())
    gain = 0.3 / error
    factors = [
        np.linalg.cholesky(covariance(variance, mixing, strong, tile) + 1e-12 * np.eye(3 * PIXELS))
        for tile in range(SHAPE[0])
    ]
    squared = {"spectrum": 0.0, "pixels": 0.0, "scalar": 0.0}
    for _ in range(30):
        draws = [factor @ random.standard_normal(3 * PIXELS) for factor in factors]
        x = mean + np.stack(draws).reshape(SHAPE)
        shown = x + random.normal(0.0, gain**-0.5, SHAPE)
        for name, spectrum in (("spectrum", strong), ("pixels", FLAT)):
            estimate = WienerEstimate.of(mean, variance, mixing, spectrum, error)
            squared[name] += float(np.square(estimate.updated(gain, gain * shown) - x).sum())
        scalar = (mean / error + gain * shown) / (1.0 / error + gain)
        squared["scalar"] += float(np.square(scalar - x).sum())
    assert squared["pixels"] < 0.95 * squared["scalar"]
    assert squared["spectrum"] < 0.9 * squared["pixels"]
