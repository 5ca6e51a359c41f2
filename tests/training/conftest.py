from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import UNetConfig

Pixels = NDArray[np.uint8]


@pytest.fixture
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(16, 16, 3, seed) for seed in range(12)])


@pytest.fixture
def config() -> ModelConfig:
    """Of a small network for `images`, on a grid of 200 steps."""
    unet = UNetConfig(image_size=16, channels=(8,), attention_resolutions=(), groups=4)
    return ModelConfig(schedule=ScheduleConfig(steps=200), unet=unet)


@pytest.fixture
def denoiser(config: ModelConfig) -> Denoiser:
    # Its network begins as zero, so that x̂_0 = α z: the best estimate of unit-variance noise.
    return Denoiser(config).eval()
