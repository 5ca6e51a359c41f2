import numpy as np
import pytest

from diffcodec.diffusion.schedule import SCHEDULES, Schedule, ScheduleConfig, make_schedule


@pytest.fixture(params=sorted(SCHEDULES))
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return make_schedule(ScheduleConfig(kind=request.param))


def test_coefficients_are_those_of_gamma(schedule: Schedule) -> None:
    gamma = schedule.gamma
    np.testing.assert_allclose(schedule.alpha_squared, 1 / (1 + np.exp(gamma)), rtol=1e-11)
    np.testing.assert_allclose(schedule.sigma_squared, 1 / (1 + np.exp(-gamma)), rtol=1e-11)
    np.testing.assert_allclose(schedule.alpha_squared + schedule.sigma_squared, 1, rtol=1e-11)
    np.testing.assert_allclose(schedule.alpha**2, schedule.alpha_squared, rtol=1e-15)
    np.testing.assert_allclose(schedule.sigma**2, schedule.sigma_squared, rtol=1e-15)
    np.testing.assert_allclose(
        schedule.snr, schedule.alpha_squared / schedule.sigma_squared, rtol=1e-11
    )


def test_noise_grows(schedule: Schedule) -> None:
    assert schedule.steps == 1000
    assert len(schedule.gamma) == 1001
    assert np.all(np.diff(schedule.gamma) > 0)
    assert np.all(np.diff(schedule.snr) < 0)


def test_every_step_is_found_at_its_gamma(schedule: Schedule) -> None:
    assert [schedule.step_at_gamma(g) for g in schedule.gamma[::97]] == list(range(0, 1001, 97))


def test_linear_gamma_hits_its_ends() -> None:
    schedule = make_schedule(ScheduleConfig(kind="linear_gamma", gamma_min=-12, gamma_max=5))
    assert (schedule.gamma[0], schedule.gamma[-1]) == (-12, 5)
    np.testing.assert_allclose(np.diff(schedule.gamma), 17 / 1000, atol=2e-6)


def test_ddpm_s_beta() -> None:
    # 999 hops have the 1000 noise levels x_1 … x_1000 of DDPM.
    schedule = make_schedule(ScheduleConfig(kind="linear_beta", steps=999))
    alpha_bar = schedule.alpha_squared
    assert alpha_bar[0] == pytest.approx(1 - 1e-4, rel=1e-9)
    # β_2 = 1e-4 + 0.0199/999 = 1.1992e-4.
    assert alpha_bar[1] == pytest.approx((1 - 1e-4) * (1 - 1.1991992e-4), rel=1e-9)
    # β grows by 0.0199/999 a step; Σ ln(1 − β) over all of them is −10.1177.
    assert alpha_bar[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert 1 - alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.02, rel=1e-4)


def test_improved_ddpm_s_cosine() -> None:
    schedule = make_schedule(ScheduleConfig(kind="cosine", steps=999))
    alpha_bar = schedule.alpha_squared
    # β_1 = 1 − cos²(π/2 · 0.009/1.008) / cos²(π/2 · 0.008/1.008).
    assert 1 - alpha_bar[0] == pytest.approx(4.12842e-5, rel=1e-4)
    # cos²(π/2 · 0.508/1.008) / cos²(π/2 · 0.008/1.008) = 0.493844.
    assert alpha_bar[499] == pytest.approx(0.493844, abs=2e-6)
    # The last β would be 1; it is limited.
    assert 1 - alpha_bar[-1] / alpha_bar[-2] == pytest.approx(0.999, rel=1e-6)


@pytest.mark.parametrize(
    "gamma", [[0.0], [0.0, 0.0], [1.0, 0.0], [0.0, np.nan], [0.0, np.inf], [[0.0, 1.0]]]
)
def test_tables_that_are_none(gamma: list[float]) -> None:
    with pytest.raises(ValueError, match="gamma"):
        Schedule(np.array(gamma))


def test_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="unknown schedule 'sigmoid', expected one of"):
        make_schedule(ScheduleConfig(kind="sigmoid"))
