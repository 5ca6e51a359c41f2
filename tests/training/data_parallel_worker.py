"""What each process of tests/training/test_parallel.py does; ``torchrun`` starts it as a file.

``data_parallel_worker.py FOLDER``: train by every recipe on FOLDER/images.npy and leave the losses
and weights of each in FOLDER, one file a process.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import TrainingError
from diffcodec.model.denoiser import ModelConfig, Variance
from diffcodec.model.unet import UNetConfig
from diffcodec.training.parallel import Workers, joined_workers
from diffcodec.training.trainer import Trainer, TrainingConfig

PLAIN = ModelConfig(
    schedule=ScheduleConfig(steps=50),
    unet=UNetConfig(
        image_size=8, channels=(32,), attention_resolutions=(8,), groups=4, dropout=0.2
    ),
)
SHORT = TrainingConfig(
    batch_size=8, total_images=32, warmup_images=0, learning_rate=1e-2, precision="float32"
)
RECIPES = {
    "plain": (PLAIN, SHORT),
    "pixels": (
        dataclasses.replace(PLAIN, pixel_model=True),
        dataclasses.replace(SHORT, objective="vlb_pixels", accumulate=2),
    ),
    "hybrid": (
        dataclasses.replace(PLAIN, variance=Variance.LEARNED),
        dataclasses.replace(SHORT, objective="hybrid"),
    ),
    "learned": (
        dataclasses.replace(PLAIN, schedule=ScheduleConfig(kind="learned", steps=50)),
        dataclasses.replace(SHORT, objective="vlb"),
    ),
    "muon": (PLAIN, dataclasses.replace(SHORT, optimizer="muon")),
}


def train(
    name: str, images: NDArray[np.uint8], workers: Workers | None = None, **changes: Any
) -> dict[str, Any]:
    """A whole run: the losses and final weights."""
    model, recipe = RECIPES[name]
    trainer = Trainer(model, dataclasses.replace(recipe, **changes), images, workers=workers)
    losses: list[float] = []
    trainer.run(
        on_step=lambda seen, loss: losses.append(loss),
    )
    return {"losses": losses, "weights": trainer.denoiser.state_dict()}


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    images = np.load(folder / "images.npy")
    with joined_workers("cpu") as workers:
        results: dict[str, Any] = {name: train(name, images, workers) for name in RECIPES}
        try:
            workers.require_agreement("weather", str(workers.rank))
        except TrainingError as error:
            results["disagreement"] = str(error)
        results["largest"] = workers.largest([workers.rank, -workers.rank])
    torch.save(results, folder / f"{workers.rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
