from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule
from diffcodec.model.denoiser import alpha_sigma
from diffcodec.training.objective import (
    ContinuousVlb,
    DiscreteVlb,
    Simple,
    draw_latent,
    low_discrepancy_times,
)

VARIANCE = 0.2


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def oracle(z: Tensor, gamma: Tensor) -> Tensor:
    """E[x | z_γ] for x ~ N(0, VARIANCE)."""
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    return alpha * VARIANCE * z / (alpha**2 * VARIANCE + sigma**2)


def gaussian_images(count: int = 1000) -> Tensor:
    return VARIANCE**0.5 * torch.randn((count, 3, 8, 8), generator=generator(1))


def schedule(steps: int) -> Schedule:
    return make_schedule(ScheduleConfig(kind="linear_gamma", steps=steps))


def precision(snr: np.ndarray) -> np.ndarray:
    """One over the oracle's error."""
    return 1 / VARIANCE + snr


def continuous_bits() -> float:
    """½ ∫ dSNR / (1/v + SNR), per dimension: what z_0 tells about x beyond z_T."""
    ends = precision(schedule(1).snr)
    return float(0.5 * np.log2(ends[0] / ends[-1]))


def discrete_bits(steps: int) -> float:
    snr = schedule(steps).snr
    return float(0.5 * ((snr[:-1] - snr[1:]) / precision(snr[1:])).sum() / np.log(2))


@pytest.mark.parametrize("kind", ["linear_gamma", "linear_beta", "cosine"])
def test_continuous_bound_is_the_information_between_its_ends(kind: str) -> None:
    table = make_schedule(ScheduleConfig(kind=kind))
    ends = precision(table.snr[[0, -1]])
    losses = ContinuousVlb(table)(oracle, gaussian_images(), generator())
    assert losses.shape == (1000,)
    assert float(losses.mean()) == pytest.approx(0.5 * np.log2(ends[0] / ends[1]), rel=0.02)


@pytest.mark.parametrize("steps", [10, 20, 1000])
def test_discrete_bound_is_the_sum_of_its_hops(steps: int) -> None:
    losses = DiscreteVlb(schedule(steps))(oracle, gaussian_images(), generator())
    assert float(losses.mean()) == pytest.approx(discrete_bits(steps), rel=0.02)


def test_more_steps_cost_less_down_to_continuous_time() -> None:
    x = gaussian_images()
    ten, twenty, thousand = (
        float(DiscreteVlb(schedule(steps))(oracle, x, generator()).mean())
        for steps in (10, 20, 1000)
    )
    continuous = float(ContinuousVlb(schedule(1000))(oracle, x, generator()).mean())
    assert ten > 1.1 * twenty > 1.2 * thousand
    assert thousand == pytest.approx(continuous, rel=0.02)
    assert discrete_bits(1000) > continuous_bits()


def test_simple_loss_is_the_mean_error_of_eps() -> None:
    table = schedule(1000)
    losses = Simple(table)(oracle, gaussian_images(), generator())
    snr = table.snr[1:]
    assert float(losses.mean()) == pytest.approx((snr / precision(snr)).mean(), rel=0.02)


@pytest.mark.parametrize("make", [ContinuousVlb, DiscreteVlb, Simple])
def test_randomness_comes_from_the_generator_alone(
    make: Callable[[Schedule], Callable[..., Tensor]],
) -> None:
    x, objective = gaussian_images(8), make(schedule(100))
    first = objective(oracle, x, generator(3))
    torch.rand(7)
    assert torch.equal(objective(oracle, x, generator(3)), first)
    assert not torch.equal(objective(oracle, x, generator(4)), first)


def test_times_are_a_comb_at_a_uniform_place() -> None:
    source = generator()
    draws = torch.stack([low_discrepancy_times(8, source) for _ in range(2000)])
    assert bool(((draws >= 0) & (draws < 1)).all())
    # One in every eighth, whatever the place of the comb …
    cells = (draws * 8).long().sort(dim=1).values
    assert torch.equal(cells, torch.arange(8).expand(2000, 8))
    # … and each of them alone uniform.
    counts = torch.histc(draws[:, 3], bins=10, min=0, max=1)
    assert float(((counts - 200) ** 2 / 200).sum()) < 27.9  # χ² of 9 degrees, 0.1 %


def test_latents_have_the_marginal_s_moments() -> None:
    x = torch.full((4, 3, 64, 64), 0.5)
    gamma = torch.tensor([-8.0, -1.0, 1.0, 5.0])
    z, eps = draw_latent(x, gamma, generator())
    alpha, sigma = alpha_sigma(gamma)
    torch.testing.assert_close(z.mean(dim=(1, 2, 3)), 0.5 * alpha, rtol=0, atol=0.05)
    torch.testing.assert_close(z.std(dim=(1, 2, 3)), sigma, rtol=0.03, atol=0)
    torch.testing.assert_close(z, alpha[:, None, None, None] * x + sigma[:, None, None, None] * eps)
