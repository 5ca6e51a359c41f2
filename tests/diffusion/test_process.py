import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffcodec.diffusion.process import (
    hop_kl_nats,
    levels_to_signal,
    prior_kl_nats,
    q_forward,
    q_marginal,
    q_posterior,
    reverse_kl_nats,
    reverse_log_variance,
    signal_to_levels,
)
from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule

HOPS = [(0, 1), (0, 1000), (1, 2), (30, 400), (499, 500), (999, 1000)]


@pytest.fixture(params=["cosine", "linear_beta", "linear_gamma"])
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return make_schedule(ScheduleConfig(kind=request.param))


def log_density(
    z: NDArray[np.float64], mean: NDArray[np.float64] | float, variance: float
) -> NDArray[np.float64]:
    return -0.5 * ((z - mean) ** 2 / variance + np.log(2 * np.pi * variance))


@pytest.mark.parametrize(("s", "t"), HOPS)
def test_marginals_compose(schedule: Schedule, s: int, t: int) -> None:
    x = np.linspace(-1, 1, 5)
    mean_s, variance_s = q_marginal(schedule, x, s)
    mean_t, variance_t = q_marginal(schedule, x, t)
    hop = q_forward(schedule, s, t)
    np.testing.assert_allclose(hop.mean(mean_s, x), mean_t, rtol=1e-9)
    assert hop.z_coefficient**2 * variance_s + hop.variance == pytest.approx(variance_t, rel=1e-9)


@pytest.mark.parametrize(("s", "t"), HOPS)
def test_posterior_times_marginal_is_the_joint(schedule: Schedule, s: int, t: int) -> None:
    x = np.linspace(-1, 1, 5)
    mean_s, variance_s = q_marginal(schedule, x, s)
    mean_t, variance_t = q_marginal(schedule, x, t)
    forward, posterior = q_forward(schedule, s, t), q_posterior(schedule, s, t)
    np.testing.assert_allclose(posterior.mean(mean_t, x), mean_s, rtol=1e-9)
    assert posterior.z_coefficient * variance_t == pytest.approx(
        forward.z_coefficient * variance_s, rel=1e-9
    )
    assert posterior.z_coefficient**2 * variance_t + posterior.variance == pytest.approx(
        variance_s, rel=1e-9
    )


@pytest.mark.parametrize(("s", "t"), [(10, 20), (30, 400), (600, 610)])
def test_hop_kl_is_the_mean_log_ratio(schedule: Schedule, s: int, t: int) -> None:
    random = np.random.default_rng(1)
    x = random.uniform(-1, 1, 8)
    mean, variance = q_marginal(schedule, x, t)
    z_t = mean + np.sqrt(variance) * random.standard_normal(8)
    # An estimate wrong by as much as makes a hop of about two nats.
    error = np.full(8, np.sqrt(4 / 8 / (schedule.snr[s] - schedule.snr[t])))
    posterior = q_posterior(schedule, s, t)
    q_mean, p_mean = posterior.mean(z_t, x), posterior.mean(z_t, x + error)
    z_s = q_mean + np.sqrt(posterior.variance) * random.standard_normal((20_000, 8))
    ratios = log_density(z_s, q_mean, posterior.variance) - log_density(
        z_s, p_mean, posterior.variance
    )
    nats = ratios.sum(axis=1)
    expected = hop_kl_nats(schedule, s, t, float((error**2).sum()))
    assert expected == pytest.approx(2.0)
    assert abs(nats.mean() - expected) < 4 * nats.std() / np.sqrt(len(nats))


@pytest.mark.parametrize(("s", "t"), HOPS)
def test_reverse_variance_lies_between_the_posterior_s_and_the_forward_hop_s(
    schedule: Schedule, s: int, t: int
) -> None:
    smallest, largest = q_posterior(schedule, s, t).variance, q_forward(schedule, s, t).variance
    assert smallest < largest
    variance = np.exp(reverse_log_variance(schedule, s, t, np.array([0.0, 0.5, 1.0])))
    expected = [smallest, np.sqrt(smallest * largest), largest]
    np.testing.assert_allclose(variance, expected, rtol=1e-9)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    kind=st.sampled_from(["cosine", "linear_beta", "linear_gamma"]),
    steps=st.lists(st.integers(0, 1000), min_size=2, max_size=2, unique=True).map(sorted),
    interpolation=st.floats(-1.0, 2.0),
    error=st.floats(-1.0, 1.0),
)
def test_reverse_kl_is_that_of_two_gaussians(
    kind: str, steps: list[int], interpolation: float, error: float
) -> None:
    schedule, (s, t) = make_schedule(ScheduleConfig(kind=kind)), steps
    posterior = q_posterior(schedule, s, t)
    log_variance = float(reverse_log_variance(schedule, s, t, interpolation))
    apart = posterior.x_coefficient * error
    expected = 0.5 * (
        (posterior.variance + apart**2) * np.exp(-log_variance)
        - 1.0
        + log_variance
        - np.log(posterior.variance)
    )
    nats = reverse_kl_nats(schedule, s, t, np.array([error**2]), interpolation)
    np.testing.assert_allclose(nats, expected, rtol=1e-6, atol=1e-9)


def test_reverse_kl_of_the_posterior_s_variance_is_the_hop_s(schedule: Schedule) -> None:
    squared_error = np.random.default_rng(4).uniform(0, 0.1, (3, 5))
    s, t = np.array([0, 20, 998]), np.array([1, 300, 999])
    nats = reverse_kl_nats(schedule, s[:, None], t[:, None], squared_error)
    for row in range(3):
        expected = hop_kl_nats(schedule, s[row], t[row], squared_error[row].sum())
        assert nats[row].sum() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("gamma_end", [0.0, 2.0])
def test_prior_kl_is_the_mean_log_ratio(gamma_end: float) -> None:
    schedule = Schedule(np.linspace(-12.0, gamma_end, 11))
    random = np.random.default_rng(2)
    x = random.uniform(-1, 1, 6)
    mean, variance = q_marginal(schedule, x, schedule.steps)
    z = mean + np.sqrt(variance) * random.standard_normal((50_000, 6))
    nats = (log_density(z, mean, variance) - log_density(z, 0.0, 1.0)).sum(axis=1)
    expected = prior_kl_nats(schedule, x)
    assert abs(nats.mean() - expected) < 4 * nats.std() / np.sqrt(len(nats))


def test_the_priors_of_the_named_schedules_are_small(schedule: Schedule) -> None:
    x = np.ones(100)
    assert 0 < prior_kl_nats(schedule, x) / len(x) < 0.005


@pytest.mark.parametrize("variance", [0.05, 0.3])
def test_coarser_partitions_cost_more(schedule: Schedule, variance: float) -> None:
    # x ~ N(0, v) per dimension: the posterior mean's error is 1/(1/v + SNR), the best there is.
    error = 1 / (1 / variance + schedule.snr)

    def total(ends: list[int]) -> float:
        hops = itertools.pairwise(ends)
        return sum(hop_kl_nats(schedule, s, t, float(error[t])) for s, t in hops)

    finest = total(list(range(schedule.steps + 1)))
    information = 0.5 * np.log((1 / variance + schedule.snr[0]) / (1 / variance + schedule.snr[-1]))
    assert finest > information
    random = np.random.default_rng(3)
    for count in (0, 1, 2, 5, 20, 100, 500, 900):
        inner = random.choice(np.arange(1, schedule.steps), count, replace=False)
        ends = [0, *sorted(int(end) for end in inner), schedule.steps]
        partition = total(ends)
        assert partition >= finest
        # Splitting any one hop never adds to it.
        if count:
            assert total(ends[:1] + ends[2:]) >= partition


@pytest.mark.parametrize(("s", "t"), [(-1, 1), (1, 1), (2, 1), (0, 1001)])
def test_hops_that_are_none(schedule: Schedule, s: int, t: int) -> None:
    for function in (q_forward, q_posterior):
        with pytest.raises(ValueError, match="a hop needs"):
            function(schedule, s, t)
    with pytest.raises(ValueError, match="a hop needs"):
        hop_kl_nats(schedule, s, t, 1.0)
    with pytest.raises(ValueError, match="a hop needs"):
        reverse_log_variance(schedule, np.array([0, s]), np.array([1, t]), 0.0)
    with pytest.raises(ValueError, match="a hop needs"):
        reverse_kl_nats(schedule, s, t, np.ones(2))


def test_levels_round_trip() -> None:
    levels = np.arange(256, dtype=np.uint8)
    signal = levels_to_signal(levels)
    assert (signal[0], signal[-1]) == (-1.0, 1.0)
    np.testing.assert_array_equal(signal_to_levels(signal), levels)
    np.testing.assert_array_equal(signal_to_levels(np.array([-3.0, 3.0])), [0, 255])
