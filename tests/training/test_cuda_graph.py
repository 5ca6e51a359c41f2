"""Steps that are replayed on a GPU are the steps that would have been taken."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from diffcodec.errors import InstabilityError
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.training import trainer as trainer_module
from diffcodec.training.cuda_graph import Captured
from diffcodec.training.trainer import Rollback, Trainer, TrainingConfig
from tests.conftest import Pixels

on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

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


class AtOnce(Captured[Any]):
    """Stands for a graph where there is no GPU: every call does the work."""

    def warm_up(self) -> None:
        pass

    def record(self) -> None:
        pass

    def __call__(self) -> Any:
        return self._work()


def losses(trainer: Trainer, refused_at: int | None = None) -> list[float]:
    """Of every step of the run; one after ``refused_at`` images is refused and rolled back."""
    found: list[float] = []
    step, refused = trainer.step, []

    def once_refused() -> float:
        if trainer.images_seen == refused_at and not refused:
            refused.append(trainer.images_seen)
            raise InstabilityError("refused by the test")
        return step()

    def rolled_back(rollback: Rollback) -> None:
        # What was recorded goes on with tensors that are gone.
        assert trainer._captured_update is None

    trainer.step = once_refused  # type: ignore[method-assign]
    trainer.run(on_step=lambda images, loss: found.append(loss), on_rollback=rolled_back)
    assert len(refused) == (refused_at is not None)
    return found


@pytest.mark.parametrize("refused_at", [None, 80])
def test_steps_that_are_kept_for_replay_are_the_plain_ones(
    refused_at: int | None, images: Pixels, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Trainer(MODEL, RECIPE, images)
    expected = losses(plain, refused_at)
    monkeypatch.setattr(trainer_module, "Captured", AtOnce)
    monkeypatch.setattr(Trainer, "_captures", True)
    kept = Trainer(MODEL, RECIPE, images)
    assert losses(kept, refused_at) == expected
    assert kept._captured_update is not None
    for mine, its in zip(kept.averaged.parameters(), plain.averaged.parameters(), strict=True):
        assert torch.equal(mine, its)


@on_cuda
@pytest.mark.parametrize("refused_at", [None, 80])
def test_replayed_steps_are_the_plain_ones(refused_at: int | None, images: Pixels) -> None:
    plain = losses(Trainer(MODEL, RECIPE, images, "cuda"), refused_at)
    captured = Trainer(MODEL, dataclasses.replace(RECIPE, compiled=True), images, "cuda")
    assert captured._captures
    # The same batches and noise at every step; rounding, raised by Muon, is what differs.
    assert losses(captured, refused_at) == pytest.approx(plain, rel=0.02)
