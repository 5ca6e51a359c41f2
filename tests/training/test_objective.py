from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffcodec.diffusion.process import levels_to_signal, prior_kl_nats, reverse_kl_nats
from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule
from diffcodec.model.denoiser import (
    Denoiser,
    ModelConfig,
    Parameterization,
    PixelPosterior,
    Prediction,
    Variance,
    alpha_sigma,
)
from diffcodec.model.learned_gamma import LearnedGamma
from diffcodec.model.pixel_order import RANKS, pixel_ranks
from diffcodec.model.unet import UNetConfig
from diffcodec.training.objective import (
    ContinuousVlb,
    DiscreteVlb,
    Hybrid,
    Objective,
    PixelVlb,
    Simple,
    Unweighted,
    draw_latent,
    latent_nats,
    low_discrepancy_times,
    prior_nats,
)

VARIANCE = 0.05
"""Of Gaussian images: all of them between the first level and the last."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Oracle:
    """E[x | z_γ] for x ~ N(0, VARIANCE), with one interpolation for every hop's variance."""

    def __init__(
        self, interpolation: float = 0.0, learned_gamma: LearnedGamma | None = None
    ) -> None:
        self.interpolation, self.learned_gamma = interpolation, learned_gamma

    def __call__(self, z: Tensor, gamma: Tensor) -> Tensor:
        alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
        return alpha * VARIANCE * z / (alpha**2 * VARIANCE + sigma**2)

    def predict(self, z: Tensor, gamma: Tensor) -> Prediction:
        return Prediction(self(z, gamma), self.interpolation)


oracle = Oracle()


def gaussian_images(count: int = 1000) -> Tensor:
    return VARIANCE**0.5 * torch.randn((count, 3, 8, 8), generator=generator(1))


def schedule(steps: int) -> Schedule:
    return make_schedule(ScheduleConfig(kind="linear_gamma", steps=steps))


def small_denoiser(**fields: Any) -> Denoiser:
    """A network of 8 × 8 images whose weights are all away from zero."""
    unet = UNetConfig(image_size=8, channels=(8,), attention_resolutions=(), groups=4)
    denoiser = Denoiser(ModelConfig(unet=unet, **fields))
    source = generator(9)
    with torch.no_grad():
        for parameter in denoiser.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=source)
    return denoiser


def bent_gamma() -> LearnedGamma:
    """A learned schedule far from a straight line, between −12 and 5."""
    learned = LearnedGamma(-12.0, 5.0)
    with torch.no_grad():
        learned.second_bias += torch.randn(1024, generator=generator(3))
        learned.third_weight += 3.0 + torch.randn(1024, generator=generator(4))
    return learned


def gaussian_levels(count: int) -> Tensor:
    """`gaussian_images` as 8-bit levels have them."""
    levels = torch.round((gaussian_images(count).clamp(-1, 1) + 1) * 127.5)
    return levels / 127.5 - 1


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


@pytest.mark.parametrize("interpolation", [-0.3, 0.5, 1.0])
def test_discrete_bound_with_another_variance(interpolation: float) -> None:
    # Few steps, so that what the variance costs shows.
    table = schedule(20)
    losses = DiscreteVlb(table)(Oracle(interpolation), gaussian_images(), generator())
    t = np.arange(1, 21)
    hops = reverse_kl_nats(table, t - 1, t, 1 / precision(table.snr[1:]), interpolation)
    bits = float(hops.sum() / np.log(2))
    assert abs(bits / discrete_bits(20) - 1) > 0.05
    assert float(losses.mean()) == pytest.approx(bits, rel=0.02)


def test_simple_loss_is_the_mean_error_of_eps() -> None:
    table = schedule(1000)
    losses = Simple(table)(oracle, gaussian_images(), generator())
    snr = table.snr[1:]
    assert float(losses.mean()) == pytest.approx((snr / precision(snr)).mean(), rel=0.02)


@pytest.mark.parametrize("parameterization", list(Parameterization))
def test_unweighted_loss_is_the_squared_error_of_the_network(
    parameterization: Parameterization, monkeypatch: pytest.MonkeyPatch
) -> None:
    denoiser = small_denoiser(parameterization=parameterization)
    outputs: list[Tensor] = []
    network = denoiser.network.forward

    def recorded(z: Tensor, time: Tensor) -> Tensor:
        outputs.append(network(z, time))
        return outputs[-1]

    monkeypatch.setattr(denoiser.network, "forward", recorded)
    table, x = denoiser.schedule, gaussian_images(64)
    losses = Unweighted(table)(denoiser, x, generator(5))

    again = generator(5)
    step = (low_discrepancy_times(64, again) * table.steps).long() + 1
    gamma = torch.as_tensor(table.gamma[step.numpy()], dtype=torch.float32)
    z, eps = draw_latent(x, gamma, again)
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    match parameterization:
        case Parameterization.EPS:
            target = eps
        case Parameterization.X:
            target = x
        case Parameterization.V:
            target = alpha * eps - sigma * x
        case Parameterization.MU:
            weights = denoiser.posterior_weights(gamma)
            z_weight, x_weight = (weight[:, None, None, None] for weight in weights)
            target = z_weight * z + x_weight * x
    expected = (outputs[0] - target).square().mean(dim=(1, 2, 3))
    torch.testing.assert_close(losses, expected, rtol=1e-3, atol=1e-6)


def test_hybrid_trains_the_mean_as_simple_and_the_variance_as_the_bound() -> None:
    denoiser, x = small_denoiser(variance=Variance.LEARNED), gaussian_images(16)
    table = denoiser.schedule

    def gradient(objective: Objective) -> tuple[float, Tensor]:
        denoiser.zero_grad()
        loss = objective(denoiser, x, generator(2)).mean()
        loss.backward()
        assert denoiser.network.tail.weight.grad is not None
        return float(loss.detach()), denoiser.network.tail.weight.grad.clone()

    loss, hybrid = gradient(Hybrid(table))
    simple_loss, simple = gradient(Simple(table))
    bound, vlb = gradient(DiscreteVlb(table))
    assert loss == pytest.approx(simple_loss + 0.001 * bound, rel=1e-5)
    # The same seed draws the same steps and noise; the tail's first half is the mean.
    torch.testing.assert_close(hybrid[:3], simple[:3], rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(hybrid[3:], 0.001 * vlb[3:], rtol=1e-4, atol=1e-9)
    assert not simple[3:].any()
    assert bool(vlb[:3].any())
    assert bool(vlb[3:].any())


def test_hybrid_learns_the_variance_that_costs_least() -> None:
    # With x̂_0's error as it is, the best Σ of every coordinate is β̃ plus the error's share.
    table = make_schedule(ScheduleConfig(steps=12))
    x = gaussian_images(120)
    interpolation = torch.zeros((1, 3, 8, 8), requires_grad=True)
    learner = Oracle()
    optimizer = torch.optim.Adam([interpolation], lr=0.03)
    for step in range(80):
        learner.interpolation = interpolation.expand(120, -1, -1, -1)
        loss = Hybrid(table)(learner, x, generator(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    t = np.arange(1, 13)
    error = 1 / precision(table.snr[1:])

    def cost(v: float) -> float:
        return float(reverse_kl_nats(table, t - 1, t, error, v).sum())

    least = min(cost(v) for v in np.linspace(0, 1, 101))
    assert least < 0.9 * cost(0.0)
    learned = float(interpolation.detach().mean())
    assert cost(learned) < least + 0.05 * (cost(0.0) - least)


def test_prior_is_that_of_the_process() -> None:
    x = gaussian_images(3)
    nats = prior_nats(x, torch.tensor(5.0, dtype=torch.float64))
    expected = [prior_kl_nats(schedule(10), image) for image in x.double().numpy()]
    np.testing.assert_allclose(nats.numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("gamma", [-13.3, -9.0, -4.0])
def test_reconstruction_is_the_posterior_over_levels(gamma: float) -> None:
    random = np.random.default_rng(3)
    levels = random.integers(0, 256, (4, 3, 16, 16), dtype=np.uint8)
    x = torch.as_tensor(levels_to_signal(levels), dtype=torch.float32)
    nats = latent_nats(x, torch.tensor(gamma, dtype=torch.float64), generator())
    # −log Σ_k q(z|k)/q(z|x), by quadrature over the noise, for levels at and off the edges.
    deviation = np.exp(0.5 * gamma)
    noise, weights = np.polynomial.hermite_e.hermegauss(201)
    signal = levels_to_signal(np.arange(256, dtype=np.uint8))
    expected = np.empty(256)
    for level in range(256):
        away = (signal[level] - signal[:, None]) / deviation + noise
        excess = np.logaddexp.reduce(-0.5 * away**2, axis=0) + 0.5 * noise**2
        expected[level] = (weights * excess).sum() / weights.sum()
    mean = expected.mean()
    assert nats.shape == (4,)
    spread = np.sqrt(expected.std() ** 2 + 0.5) * 768 / np.sqrt(4 * 64)
    assert float(nats.mean()) == pytest.approx(768 * mean, abs=4 * spread)


def test_a_learned_schedule_gets_vdm_s_gradients() -> None:
    learned = bent_gamma()
    x = gaussian_levels(32)
    ContinuousVlb(schedule(10))(Oracle(0.0, learned), x, generator(7)).mean().backward()
    gradients = {
        name: p.grad.clone() for name, p in learned.named_parameters() if p.grad is not None
    }

    # The same draws without the trick: squared diffusion losses for the shape, the bound for ends.
    def diffusion() -> Tensor:
        again = generator(7)
        at = learned(low_discrepancy_times(32, again))
        gamma = at.gamma.float()
        z, _ = draw_latent(x, gamma, again)
        error = torch.exp(-gamma) * (oracle(z, gamma) - x).square().sum(dim=(1, 2, 3))
        losses: Tensor = 0.5 * at.slope.float() * error / np.log(2) / x[0].numel()
        return losses

    learned.zero_grad()
    diffusion().square().mean().backward()
    shape = [name for name, _ in learned.named_parameters() if name != "ends"]
    for name in shape:
        torch.testing.assert_close(
            gradients[name], learned.get_parameter(name).grad, rtol=1e-3, atol=1e-6
        )
    learned.zero_grad()
    again = generator(7)
    low_discrepancy_times(32, again)
    torch.randn(x.shape, generator=again)
    gamma_min, gamma_max = learned.ends.double()
    nats = latent_nats(x, gamma_min, again) + prior_nats(x, gamma_max)
    total = diffusion() + nats.float() / np.log(2) / x[0].numel()
    total.mean().backward()
    torch.testing.assert_close(gradients["ends"], learned.ends.grad, rtol=1e-3, atol=1e-5)


def test_a_learned_shape_lowers_the_variance_and_not_the_bound() -> None:
    learned, x = LearnedGamma(-12.0, 5.0), gaussian_levels(32)
    objective, learner = ContinuousVlb(schedule(1000)), Oracle(0.0, learned)

    def losses() -> np.ndarray:
        with torch.no_grad():
            return objective(learner, gaussian_levels(400), generator(1)).numpy()

    before = losses()
    optimizer = torch.optim.Adam(learned.shape_parameters(), lr=0.15)
    for step in range(60):
        optimizer.zero_grad()
        objective(learner, x, generator(step)).mean().backward()
        optimizer.step()
    after = losses()
    assert after.std() < 0.5 * before.std()
    assert after.mean() == pytest.approx(before.mean(), rel=0.02)


def test_learned_ends_move_to_where_the_bound_is_lower() -> None:
    # At γ = −2 the noise is as wide as the pixels' own spread: the decoder guesses.
    learned, x = LearnedGamma(-2.0, 0.5), gaussian_levels(32)
    objective, learner = ContinuousVlb(schedule(1000)), Oracle(0.0, learned)
    optimizer = torch.optim.Adam([learned.ends], lr=0.06)
    bounds = []
    for step in range(60):
        optimizer.zero_grad()
        loss = objective(learner, x, generator(step)).mean()
        loss.backward()
        optimizer.step()
        bounds.append(float(loss.detach()))
    gamma_min, gamma_max = learned.ends.tolist()
    assert gamma_min < -3.0
    assert gamma_max > 1.5
    assert np.mean(bounds[-10:]) < np.mean(bounds[:5]) - 0.05


def test_the_discrete_bound_of_a_learned_schedule() -> None:
    learned, x = bent_gamma(), gaussian_levels(400)
    losses = DiscreteVlb(schedule(20))(Oracle(0.0, learned), x, generator())
    with torch.no_grad():
        gamma = learned(torch.arange(21) / 20).gamma
        gamma_min, gamma_max = learned.ends.double()
        ends = prior_nats(x, gamma_max) + latent_nats(x, gamma_min, generator(1))
    table = Schedule(gamma.numpy())
    hops = 0.5 * (table.snr[:-1] - table.snr[1:]) / precision(table.snr[1:])
    expected = (hops.sum() + float(ends.mean()) / 192) / np.log(2)
    assert float(losses.detach().mean()) == pytest.approx(expected, rel=0.02)
    losses.mean().backward()
    assert all(bool(parameter.grad.any()) for parameter in learned.parameters())


@pytest.mark.parametrize("make", [ContinuousVlb, DiscreteVlb, Simple, Hybrid])
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


def test_pixel_bound_shows_the_back_of_the_batch_known_pixels() -> None:
    x, watched = gaussian_images(64), Watched()
    losses = PixelVlb(schedule(1000))(watched, x, generator())
    assert losses.shape == (64,)
    assert losses.isfinite().all()
    known, hops = watched.known, 32
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
    assert watched.gamma[:hops].max() > 3.0


def level_bits(error: Any) -> Any:
    """E[−log2 P(bin of one level around x)], x and P of one Gaussian of variance ``error``."""
    deviation = np.sqrt(error)[..., None]
    at = np.linspace(-6.0, 6.0, 601)
    weight = np.exp(-0.5 * at**2)
    half = 1.0 / 255.0 / deviation
    upper, lower = torch.as_tensor(at + half), torch.as_tensor(at - half)
    mass = (torch.special.ndtr(upper) - torch.special.ndtr(lower)).numpy()
    return (-np.log2(mass) * weight).sum(axis=-1) / weight.sum()


def test_pixel_bound_of_the_exact_posterior_is_its_entropy() -> None:
    x, watched = gaussian_images(4000), Watched()
    losses = PixelVlb(schedule(1000))(watched, x, generator()).double().numpy()
    hops = 2000
    gamma = watched.gamma.double().numpy()
    lowest, highest = PixelVlb.LOWEST_HANDOVER, PixelVlb.HIGHEST_HANDOVER
    bits = level_bits(1.0 / (1.0 / VARIANCE + np.exp(-gamma)))
    # Hand-overs are uniform, whatever the number of known ranks.
    assert losses[hops:].mean() / 2 == pytest.approx(bits[hops:].mean(), abs=0.03)
    grid = np.linspace(lowest, 5.0, 2001)
    error = 1.0 / (1.0 / VARIANCE + np.exp(-grid))
    in_use = ((grid - lowest) / (highest - lowest)).clip(0, 1)
    bound = np.trapezoid(in_use * 0.5 * np.exp(-grid) * error, grid) / np.log(2)
    spread = PixelVlb.SPREAD_WEIGHT * bits[:hops].mean()
    assert losses[:hops].mean() / 2 == pytest.approx(bound + spread, rel=0.02)


def test_hops_and_ranks_are_drawn_by_their_gradients_deviation() -> None:
    x, watched = gaussian_images(4000), Watched()
    PixelVlb(schedule(1000))(watched, x, generator())
    gamma = watched.gamma[:2000].numpy()
    # Most where the error of ε̂ is large and a hand-over likely below, some everywhere.
    counts, _ = np.histogram(gamma, bins=[-10.2, -8.0, -5.8, -3.6, -1.4, 0.8, 3.0])
    assert counts[1] == counts.max()
    assert list(counts[1:]) == sorted(counts[1:], reverse=True)
    assert counts.min() > 0.2 * 2000 * 2.2 / 15.2 * 0.95
    known = (watched.known[2000:] > 0).float().mean(dim=(1, 2, 3)) * RANKS
    drawn = np.bincount(known.long().numpy(), minlength=RANKS)
    left = np.arange(RANKS, 0, -1) / RANKS
    expected = 2000 * left**-0.5 / (left**-0.5).sum()
    assert np.abs(drawn - expected).max() < 5 * np.sqrt(expected.max())


def test_pixel_bound_is_a_file_s_cost_over_all_handovers() -> None:
    x, watched = gaussian_images(4000), Watched()
    losses = PixelVlb(schedule(1000))(watched, x, generator()).double()
    spread = PixelVlb.SPREAD_WEIGHT * level_bits(
        1.0 / (1.0 / VARIANCE + np.exp(-watched.gamma[:2000].double().numpy()))
    )
    lowest, highest = PixelVlb.LOWEST_HANDOVER, PixelVlb.HIGHEST_HANDOVER
    costs = []
    for handover in np.linspace(lowest, highest, 201):
        gamma = np.linspace(handover, 5.0, 2001)
        error = 1.0 / (1.0 / VARIANCE + np.exp(-gamma))
        hops = np.trapezoid(0.5 * np.exp(-gamma) * error, gamma) / np.log(2)
        costs.append(hops + level_bits(error[:1])[0])
    expected = np.mean(costs) + spread.mean()
    assert float(losses.mean()) == pytest.approx(float(expected), rel=0.02)


def losses_while_learning(objective: PixelVlb, denoiser: Denoiser, x: Tensor) -> list[float]:
    """Mean losses of sixty steps."""
    optimizer = torch.optim.Adam(denoiser.parameters(), lr=1e-2)
    losses = []
    for step in range(60):
        loss = objective(denoiser, x, generator(step)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_pixel_bound_falls_as_a_model_learns_its_images() -> None:
    torch.manual_seed(0)
    denoiser, objective = Denoiser(SMALL), PixelVlb(schedule(1000))
    x = torch.linspace(-0.9, 0.9, 64).reshape(8, 8).expand(16, 3, 8, 8).contiguous()
    losses = losses_while_learning(objective, denoiser, x)
    assert np.isfinite(losses).all()
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:5])
    # The mask channel has learned something, and so has what reads the variances.
    weight = denoiser.network.head.weight
    assert weight.grad is not None
    assert bool((weight.grad[:, 3] != 0).any())


def test_a_teacher_s_word_stands_in_place_of_the_images() -> None:
    torch.manual_seed(0)
    denoiser, teacher = Denoiser(SMALL), Denoiser(SMALL)
    with torch.no_grad():
        for parameter in teacher.network.tail.parameters():
            parameter.normal_(std=0.1)
    objective, x = PixelVlb(schedule(1000), teacher), gaussian_images(16)
    before = [parameter.detach().clone() for parameter in teacher.parameters()]
    losses = losses_while_learning(objective, denoiser, x)
    assert min(losses) > 0.0
    assert np.mean(losses[-10:]) < 0.3 * np.mean(losses[:5])
    for parameter, kept in zip(teacher.parameters(), before, strict=True):
        assert parameter.grad is None
        assert torch.equal(parameter, kept)


def test_who_says_what_the_teacher_says_has_nothing_to_learn() -> None:
    torch.manual_seed(0)
    teacher = Denoiser(SMALL)
    losses = PixelVlb(schedule(1000), teacher)(teacher, gaussian_images(16), generator())
    torch.testing.assert_close(losses, torch.zeros(16), rtol=0, atol=1e-4)


def test_the_spread_s_lesson_has_no_say_on_the_mean() -> None:
    said = PixelPosterior(
        *(torch.randn((2, 3, 4, 4), generator=generator(n)).requires_grad_() for n in range(3))
    )
    said.with_fixed_mean(1).level_nats(torch.zeros((2, 3, 4, 4))).sum().backward()
    assert said.mean.grad is not None
    assert said.mean.grad[0].count_nonzero() == 0
    assert said.mean.grad[1].count_nonzero() > 0
    assert said.log_variance.grad is not None
    assert said.mixing.grad is not None
