"""Steps that are replayed on a GPU are the steps that would have been taken."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch

from diffcodec.errors import InstabilityError
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.training.trainer import Trainer, TrainingConfig
from tests.conftest import Pixels

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

MODEL = dataclasses.replace(MODEL_CONFIGS["tiny"], pixel_model=True)
RECIPE = TrainingConfig(
    objective="vlb_pixels",
    optimizer="muon",
    batch_size=8,
    total_images=160,
    warmup_images=16,
    learning_rate=2e-3,
    precision="float32",
)


@pytest.fixture
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(32, 32, 3, seed) for seed in range(20)])


def losses(trainer: Trainer) -> list[float]:
    found: list[float] = []
    trainer.run(on_step=lambda images, loss: found.append(loss))
    return found


def test_replayed_steps_are_the_plain_ones(images: Pixels) -> None:
    plain = losses(Trainer(MODEL, RECIPE, images, "cuda"))
    captured = Trainer(MODEL, dataclasses.replace(RECIPE, compiled=True), images, "cuda")
    assert captured._captures
    # The same batches and noise at every step; rounding, raised by Muon, is what differs.
    assert losses(captured) == pytest.approx(plain, rel=0.02)


def test_a_replayed_run_rolls_back(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = Trainer(MODEL, dataclasses.replace(RECIPE, compiled=True), images, "cuda")
    step, refused = trainer.step, []

    def once_refused() -> torch.Tensor:
        if trainer.images_seen == 80 and not refused:
            refused.append(trainer.images_seen)
            raise InstabilityError("refused by the test")
        return step()

    monkeypatch.setattr(trainer, "step", once_refused)
    trainer.run()
    assert refused
    assert trainer.finished
    assert all(bool(p.isfinite().all()) for p in trainer.denoiser.parameters())
