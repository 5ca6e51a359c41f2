"""Where a training step's time goes: ``python -m benchmarks.training_step [--device cuda]``.

Steps of a configuration's recipe on pictures of noise: the median milliseconds of a step, of its
parts one by one where they are CUDA graphs, and the kernels, on a processor operations, that take
most of it by PyTorch's profiler. Tables go to stdout; nothing is stored.
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.provenance import provenance
from benchmarks.tables import Table
from diffcodec.errors import DiffcodecError
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.training.recipes import RECIPES
from diffcodec.training.trainer import Trainer

PICTURES = 4096
WARM_UP_STEPS = 5


def make_trainer(config: str, device: str, **changes: Any) -> Trainer:
    """A run of ``config``'s recipe with ``changes``, on pictures of noise.

    Raises:
        DiffcodecError: as of `Trainer`.
    """
    model = MODEL_CONFIGS[config]
    side, channels = model.unet.image_size, model.unet.image_channels
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (PICTURES, side, side, channels), dtype=np.uint8)
    recipe = dataclasses.replace(RECIPES[config], **changes)
    return Trainer(model, recipe, images, device)


def milliseconds(work: Callable[[], object], device: torch.device, calls: int) -> float:
    """Median time of a call, from when the device is idle until it is again."""

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    times = []
    for _ in range(calls):
        wait()
        begun = time.perf_counter()
        work()
        wait()
        times.append(1e3 * (time.perf_counter() - begun))
    return statistics.median(times)


def parts(trainer: Trainer, steps: int) -> dict[str, float]:
    """Milliseconds of a step and of its parts; the trainer goes on from them."""
    for _ in range(WARM_UP_STEPS):
        trainer.step()
    device = trainer.device
    found = {"a step": milliseconds(trainer.step, device, steps)}
    # What replays a graph alone, without the batch that it reads and what the host decides.
    if trainer._captured is not None:
        found["gradient, replayed"] = milliseconds(trainer._captured.evaluate, device, steps)
    if trainer._captured_update is not None:
        found["update, replayed"] = milliseconds(trainer._captured_update, device, steps)
    return found


def kernels(trainer: Trainer, steps: int, rows: int) -> list[tuple[str, float, float]]:
    """Names, milliseconds a step and calls a step of what takes most of the device's time."""
    on_gpu = trainer.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiled:
        for _ in range(steps):
            trainer.step()
        if on_gpu:
            torch.cuda.synchronize(trainer.device)
    found = []
    for event in profiled.key_averages():
        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        found.append((event.key, microseconds / 1e3 / steps, event.count / steps))
    return sorted(found, key=lambda row: -row[1])[:rows]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.training_step",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("--config", default="default", choices=sorted(MODEL_CONFIGS))
    parser.add_argument("--batch-size", type=int, metavar="N", help="default: the recipe's")
    parser.add_argument("--device", default="cpu", help="cpu, cuda")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--compile", action="store_true", help="torch.compile, CUDA graphs")
    parser.add_argument("--steps", type=int, default=30, metavar="N")
    parser.add_argument("--kernels", type=int, default=25, metavar="N", help="rows of the table")
    options = parser.parse_args(arguments)
    if min(options.steps, options.kernels, options.batch_size or 1) < 1:
        parser.error("expected --steps, --kernels and --batch-size of at least 1")
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error(f"--device {options.device}: expected a CUDA device, found none")
    size = {} if options.batch_size is None else {"batch_size": options.batch_size}
    try:
        trainer = make_trainer(
            options.config,
            options.device,
            precision=options.precision,
            compiled=options.compile,
            **size,
        )
        times = parts(trainer, options.steps)
        most = kernels(trainer, max(1, options.steps // 3), options.kernels)
    except DiffcodecError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    batch = trainer.config.batch_size
    print(f"{options.config}, batches of {batch}: {1e3 * batch / times['a step']:.0f} images/s")
    Table(("part", "ms"), [(name, f"{ms:.2f}") for name, ms in times.items()]).show()
    shown = [(name[:90], f"{ms:.3f}", f"{calls:.1f}") for name, ms, calls in most]
    Table(("kernel", "ms a step", "calls a step"), shown).show()
    origin = provenance(options.device)
    print(f"\n{origin['cpu']}, torch {torch.__version__}, commit {origin['commit']}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
