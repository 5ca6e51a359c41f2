"""What drowns a gradient: python -m benchmarks.gradient_noise [--model M] [--batches N]

The squared norm of the mean gradient of ``vlb_pixels`` at a model's weights, and the variance of
one batch's around it, by what the batch is of: its hops, its pixels, both. Training images in
batches of the recipe's size; prints a table. Where an optimiser averages B batches, the variance is
B times smaller.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from benchmarks.adapters.base import Pixels
from benchmarks.held_out import training_and_held_out
from diffcodec.diffusion.process import levels_to_signal
from diffcodec.diffusion.schedule import make_schedule
from diffcodec.errors import DiffcodecError
from diffcodec.model.catalog import find_model
from diffcodec.model.checkpoint import load_checkpoint
from diffcodec.model.denoiser import Denoiser
from diffcodec.training.objective import PixelVlb
from diffcodec.training.recipes import RECIPES

BATCH = RECIPES["default"].batch_size
HEADER = "| gradient of | loss | ‖mean‖² | variance |\n| --- | --- | --- | --- |"
HOPS = BATCH - int(PixelVlb.PIXEL_FRACTION * BATCH)
PARTS = {"hops": slice(HOPS), "pixels": slice(HOPS, None), "both": slice(None)}


@dataclass(frozen=True)
class GradientNoise:
    """Of the gradient of one batch.

    Attributes:
        loss: its mean over batches, bits/dim.
        signal: squared norm of the mean gradient, without the bias of few batches.
        variance: mean squared distance of a batch's gradient from the mean.
    """

    loss: float
    signal: float
    variance: float


def gradient_noise(denoiser: Denoiser, images: Pixels, part: slice) -> GradientNoise:
    """Of the ``part`` of every batch of uint8 ``images`` [N, S, S, 3], at least two batches.

    Noise levels, noise and known pixels are functions of a batch's number alone.
    """
    objective = PixelVlb(make_schedule(denoiser.config.schedule))
    parameters = [p for p in denoiser.parameters() if p.requires_grad]
    total: Tensor | None = None
    squares, losses = 0.0, []
    batches = len(images) // BATCH
    for batch in range(batches):
        chosen = images[batch * BATCH : (batch + 1) * BATCH]
        x = torch.from_numpy(levels_to_signal(chosen)).permute(0, 3, 1, 2).float()
        generator = torch.Generator().manual_seed(batch)
        loss = objective(denoiser, x, generator)[part].sum() / BATCH
        gradient = torch.cat([g.flatten() for g in torch.autograd.grad(loss, parameters)])
        total = gradient if total is None else total + gradient
        squares += float(gradient.square().sum())
        losses.append(float(loss.detach()))
    assert total is not None
    of_mean = float((total / batches).square().sum())
    variance = (squares - batches * of_mean) / (batches - 1)
    return GradientNoise(float(np.mean(losses)), of_mean - variance / batches, variance)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table to stdout; 0 on success, 1 on failure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--batches", type=int, default=40, metavar="N")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--model", metavar="M", help="a packaged model's name or a model's folder")
    options = parser.parse_args(arguments)
    if options.batches < 2:
        parser.error("expected --batches of at least 2")
    try:
        folder = find_model(options.model)
        denoiser = load_checkpoint(folder).denoiser
        if not denoiser.config.pixel_model:
            raise DiffcodecError(f"{folder}: expected a model with a pixel model")
        training, _ = training_and_held_out(options.data)
    except DiffcodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    denoiser.requires_grad_(True)
    chosen = np.random.default_rng(0).permutation(len(training))[: options.batches * BATCH]
    print(HEADER)
    for name, part in PARTS.items():
        noise = gradient_noise(denoiser, training[chosen], part)
        print(f"| {name} | {noise.loss:.3f} | {noise.signal:.4f} | {noise.variance:.3f} |")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
