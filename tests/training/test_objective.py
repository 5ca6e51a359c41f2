from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule
from diffcodec.model.denoiser import Denoiser, ModelConfig, PixelPosterior, alpha_sigma
from diffcodec.model.pixel_order import RANKS, pixel_ranks
from diffcodec.model.unet import UNetConfig
from diffcodec.training.objective import (
    ContinuousVlb,
    DiscreteVlb,
    PixelVlb,
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


SMALL = ModelConfig(
    schedule=ScheduleConfig(kind="linear_gamma"),
    unet=UNetConfig(image_size=8, channels=(8,), attention_resolutions=(), groups=4),
    pixel_model=True,
)


class Watched:
    """The exact posterior of the Gaussian images, which remembers what it was shown."""

    def __init__(self) -> None:
        self.z = self.gamma = self.known = torch.empty(0)

    def posterior(self, z: Tensor, gamma: Tensor, known: Tensor) -> PixelPosterior:
        self.z, self.gamma, self.known = z, gamma, known
        error = 1.0 / (1.0 / VARIANCE + torch.exp(-gamma))
        log_variance = error.log()[:, None, None, None].expand(z.shape)
        return PixelPosterior(oracle(z, gamma), log_variance, torch.zeros_like(z))


def test_pixel_bound_shows_a_quarter_of_the_batch_known_pixels() -> None:
    x, watched = gaussian_images(64), Watched()
    losses = PixelVlb(schedule(1000))(watched, x, generator())
    assert losses.shape == (64,)
    assert losses.isfinite().all()
    known, hops = watched.known, 48
    assert known.shape == (64, 1, 8, 8)
    assert not known[:hops].any()
    # What is known are the first ranks, at most all but the last.
    ranks = torch.as_tensor(pixel_ranks(8))
    counts = (known[hops:] > 0).sum(dim=(1, 2, 3)) * RANKS // 64
    assert len(counts.unique()) > 3
    assert counts.max() < RANKS
    for mask, count in zip(known[hops:, 0], counts, strict=True):
        assert torch.equal(mask > 0, ranks < count)
    # There z is α x without noise, elsewhere it is not.
    alpha, _ = (part[:, None, None, None] for part in alpha_sigma(watched.gamma))
    place = (known > 0).expand_as(x)
    assert torch.equal(watched.z[place], (alpha * x)[place])
    assert not torch.isclose(watched.z, alpha * x, rtol=0, atol=1e-9)[~place].any()
    lowest, highest = PixelVlb.LOWEST_HANDOVER, PixelVlb.HIGHEST_HANDOVER
    assert bool(((watched.gamma[hops:] >= lowest) & (watched.gamma[hops:] <= highest)).all())
    assert watched.gamma[:hops].max() > 4.0


def test_pixel_bound_of_the_exact_posterior_is_its_entropy() -> None:
    x, watched = gaussian_images(4000), Watched()
    losses = PixelVlb(schedule(1000))(watched, x, generator()).double()
    hops = 3000
    error = 1.0 / (1.0 / VARIANCE + torch.exp(-watched.gamma.double()))
    # ½ log2(2πe v) of the unknown coordinates, in levels of 2/255.
    bits = 0.5 * torch.log2(2 * np.pi * np.e * error) + np.log2(127.5)
    assert float(losses[hops:].mean()) == pytest.approx(float(bits[hops:].mean()), abs=0.02)
    span = float(watched.gamma[:hops].max() - watched.gamma[:hops].min())
    snr = torch.exp(-watched.gamma[:hops].double())
    bound = 0.5 * span * snr * error[:hops] / np.log(2)
    expected = bound + PixelVlb.SPREAD_WEIGHT * bits[:hops]
    assert float(losses[:hops].mean()) == pytest.approx(float(expected.mean()), rel=0.02)


def test_pixel_bound_falls_as_a_model_learns_its_images() -> None:
    torch.manual_seed(0)
    denoiser, objective = Denoiser(SMALL), PixelVlb(schedule(1000))
    x = torch.linspace(-0.9, 0.9, 64).reshape(8, 8).expand(16, 3, 8, 8).contiguous()
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss = objective(denoiser, x, generator(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    # The mask channel has learned something, and so has what reads the variances.
    weight = denoiser.network.head.weight
    assert weight.grad is not None
    assert bool((weight.grad[:, 3] != 0).any())


def test_the_spread_s_lesson_has_no_say_on_the_mean() -> None:
    said = PixelPosterior(
        *(torch.randn((2, 3, 4, 4), generator=generator(n)).requires_grad_() for n in range(3))
    )
    said.with_fixed_mean().nats(torch.zeros((2, 3, 4, 4))).sum().backward()
    assert said.mean.grad is None
    assert said.log_variance.grad is not None
    assert said.mixing.grad is not None
