"""VDM's two claims (arXiv:2107.00630, §4) on a trained network."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.schedule import Schedule, ScheduleConfig
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.learned_gamma import LearnedGamma
from diffcodec.model.unet import UNetConfig
from diffcodec.training.objective import ContinuousVlb, DiscreteVlb, Objective
from diffcodec.training.trainer import Trainer, TrainingConfig

GAMMA_MIN, GAMMA_MAX = -10.0, 5.0
SEEDS = 8
LEVELS = np.linspace(0.0, 1.0, 1001)


@pytest.fixture(scope="module")
def denoiser(smooth_image: Callable[..., NDArray[np.uint8]]) -> Denoiser:
    """A network that has learned something of eight drawn images."""
    model = ModelConfig(
        schedule=ScheduleConfig(gamma_min=GAMMA_MIN, gamma_max=GAMMA_MAX),
        unet=UNetConfig(image_size=8, channels=(16,), attention_resolutions=(), groups=8),
    )
    images = np.stack([smooth_image(8, 8, 3, seed=seed) for seed in range(8)])
    config = TrainingConfig(
        batch_size=16,
        total_images=16 * 150,
        learning_rate=5e-3,
        warmup_images=160,
        ema_images=320,
        precision="float32",
    )
    trainer = Trainer(model, config, images)
    losses = []
    while not trainer.finished:
        losses.append(float(trainer.step()))
    assert np.mean(losses[-10:]) < 0.75 * np.mean(losses[:5])
    return trainer.averaged


@pytest.fixture(scope="module")
def x(smooth_image: Callable[..., NDArray[np.uint8]]) -> Tensor:
    """The images, 20 times each, so that a batch sees every noise level."""
    images = np.stack([smooth_image(8, 8, 3, seed=seed) for seed in range(8)])
    signal = torch.as_tensor(images).permute(0, 3, 1, 2).float() / 127.5 - 1.0
    return signal.repeat(20, 1, 1, 1)


@torch.no_grad()
def measured(objective: Objective, denoiser: Denoiser, x: Tensor) -> tuple[float, float]:
    """The loss in bits/dim and its standard error, from `SEEDS` independent batches."""
    means = [
        float(objective(denoiser, x, torch.Generator().manual_seed(seed)).mean())
        for seed in range(SEEDS)
    ]
    return float(np.mean(means)), float(np.std(means, ddof=1) / SEEDS**0.5)


def between(shape: NDArray[np.float64]) -> Schedule:
    """γ of ``shape`` 0 … 1 between the ends."""
    return Schedule(GAMMA_MIN + (GAMMA_MAX - GAMMA_MIN) * shape)


def test_twice_the_steps_cost_less_down_to_continuous_time(denoiser: Denoiser, x: Tensor) -> None:
    bounds = [
        measured(DiscreteVlb(between(np.linspace(0, 1, steps + 1))), denoiser, x)
        for steps in (5, 10, 20, 40, 80)
    ]
    bounds.append(measured(ContinuousVlb(between(LEVELS)), denoiser, x))
    for (coarse, coarse_error), (fine, fine_error) in itertools.pairwise(bounds):
        assert fine < coarse - 3 * np.hypot(coarse_error, fine_error)


def bent(seed: int) -> NDArray[np.float64]:
    """The shape of a learned schedule before it has learned anything sensible."""
    learned = LearnedGamma(0.0, 1.0)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        # Sigmoids of growing heights: mostly late.
        learned.third_weight += torch.linspace(-2.0, 8.0, 1024)
        learned.third_weight += torch.randn(1024, generator=generator)
        shape: NDArray[np.float64] = learned(torch.from_numpy(LEVELS)).gamma.numpy()
    return shape


SHAPES = {
    "early": 0.1 * LEVELS + 0.9 * LEVELS * (2 - LEVELS),
    "late": 0.1 * LEVELS + 0.9 * LEVELS**2,
    "steep in the middle": 0.5 + np.arctan(6 * (LEVELS - 0.5)) / (2 * np.arctan(3.0)),
    "a monotone network": bent(1),
}


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_continuous_time_does_not_see_the_schedule_between_equal_ends(
    denoiser: Denoiser, x: Tensor, name: str
) -> None:
    assert np.max(np.abs(SHAPES[name] - LEVELS)) > 0.1
    linear, linear_error = measured(ContinuousVlb(between(LEVELS)), denoiser, x)
    other, other_error = measured(ContinuousVlb(between(SHAPES[name])), denoiser, x)
    error = float(np.hypot(linear_error, other_error))
    assert abs(other - linear) < 4 * error
    # What the agreement is worth: one part in fifty, and other ends are told apart.
    assert error < 0.02 * linear
    ends = Schedule(np.linspace(GAMMA_MIN + 1.5, GAMMA_MAX, 1001))
    assert measured(ContinuousVlb(ends), denoiser, x)[0] < linear - 4 * error
