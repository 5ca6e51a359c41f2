import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diffcodec.errors import TrainingError
from diffcodec.training.parallel import Workers, joined_workers, only_rows

Pixels = NDArray[np.uint8]
REPOSITORY = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("data_parallel_worker.py")


@pytest.fixture
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(8, 8, 3, seed) for seed in range(12)])


@pytest.fixture(scope="module")
def worker() -> dict[str, Any]:
    """The module that torchrun starts."""
    return runpy.run_path(str(WORKER))


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Euclidean distance of two sets of weights."""
    return float(sum((a[name] - b[name]).double().square().sum() for name in a)) ** 0.5


def assert_same_run(
    run: dict[str, Any], expected: dict[str, Any], start: dict[str, Tensor], name: str
) -> None:
    """The same steps, up to the order in which gradients were added."""
    # Muon raises every direction of a gradient to one size, those of mere rounding, too.
    loss_error, weight_error = (1e-3, 0.3) if name == "muon" else (1e-5, 1e-3)
    assert run["losses"] == pytest.approx(expected["losses"], rel=loss_error)
    moved = distance(start, expected["weights"])
    assert distance(run["weights"], expected["weights"]) < weight_error * moved


def start_of(worker: dict[str, Any], name: str, images: Pixels) -> dict[str, Tensor]:
    """The weights before the first step of a recipe."""
    model, recipe = worker["RECIPES"][name]
    weights: dict[str, Tensor] = worker["Trainer"](model, recipe, images).denoiser.state_dict()
    return weights


@pytest.mark.slow
def test_two_processes_take_the_steps_of_one(
    images: Pixels, tmp_path: Path, worker: dict[str, Any]
) -> None:
    np.save(tmp_path / "images.npy", images)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*launch, str(WORKER), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1))
    for name in worker["RECIPES"]:
        shared = first[name]
        # The processes never part …
        assert shared["losses"] == second[name]["losses"]
        assert distance(shared["weights"], second[name]["weights"]) == 0.0
        # … and take the steps that one takes, dropout's included.
        alone = worker["train"](name, images, accumulate=1)
        assert_same_run(shared, alone, start_of(worker, name, images), name)
    for results in (first, second):
        assert results["disagreement"] == "the 2 processes do not have the same weather"
        assert results["largest"] == [1.0, 0.0]


@pytest.mark.parametrize("name", ["plain", "pixels", "hybrid", "learned", "muon"])
def test_parts_of_a_batch_are_the_batch(images: Pixels, worker: dict[str, Any], name: str) -> None:
    whole = worker["train"](name, images, accumulate=1)
    for parts in (2, 8):
        cut = worker["train"](name, images, accumulate=parts)
        assert_same_run(cut, whole, start_of(worker, name, images), name)


def test_rows_cover_the_batch() -> None:
    workers = [Workers(rank, 3) for rank in range(3)]
    rows = [part for one in workers for part in one.rows(24, 2)]
    assert np.concatenate([np.arange(24)[part] for part in rows]).tolist() == list(range(24))
    assert Workers().rows(5) == [slice(0, 5)]
    assert [one.leads for one in workers] == [True, False, False]


def test_batches_that_do_not_divide() -> None:
    with pytest.raises(TrainingError, match="32 images does not divide by 3 processes times 1 "):
        Workers(0, 3).rows(32)
    with pytest.raises(TrainingError, match="32 images does not divide by 2 processes times 3 "):
        Workers(1, 2).rows(32, 3)


def test_one_process_is_alone() -> None:
    with joined_workers("cpu") as workers:
        assert (workers.rank, workers.size, workers.leads) == (0, 1, True)
        tensor = torch.ones(3)
        workers.add([tensor])
        assert tensor.tolist() == [1.0, 1.0, 1.0]
        assert workers.largest([2.0, 3.0]) == [2.0, 3.0]
        workers.require_agreement("weather", "fine")


class Layer(nn.Module):
    """A convolution and dropout that note the sizes of the batches they see."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.seen: list[int] = []

    def forward(self, x: Tensor, scale: float, *, shift: Tensor | None = None) -> Tensor:
        hidden = self.convolution(x)
        self.seen.append(len(hidden))
        hidden = self.dropout(hidden) * scale
        return hidden if shift is None else hidden + shift[:, None, None, None]


def evaluated(layer: Layer, x: Tensor, rows: slice | None, shift: Tensor | None = None) -> Tensor:
    torch.manual_seed(5)
    with only_rows(layer, rows or slice(0, 8), 8):
        output: Tensor = layer(x, 2.0, shift=shift)
    return output


@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_rows_alone_are_evaluated_with_the_batch_s_masks(memory: torch.memory_format) -> None:
    layer = Layer().to(memory_format=memory)
    x = torch.randn(8, 3, 5, 5).contiguous(memory_format=memory)
    shift = torch.arange(8.0)
    whole = evaluated(layer, x, None, shift)
    part = evaluated(layer, x, slice(2, 5), shift)
    torch.testing.assert_close(part[2:5], whole[2:5])
    assert not part[:2].any()
    assert not part[5:].any()
    assert layer.seen == [8, 3]
    part.sum().backward()
    gradient = layer.convolution.weight.grad
    layer.zero_grad()
    evaluated(layer, x, None)[2:5].sum().backward()
    torch.testing.assert_close(gradient, layer.convolution.weight.grad)


def test_other_batches_and_evaluation_are_left_alone() -> None:
    layer = Layer()
    x = torch.randn(6, 3, 5, 5)
    torch.testing.assert_close(evaluated(layer, x, slice(2, 5)), evaluated(layer, x, None))
    layer.eval()
    x = torch.randn(8, 3, 5, 5)
    whole = evaluated(layer, x, None)
    torch.testing.assert_close(evaluated(layer, x, slice(2, 5))[2:5], whole[2:5])
    # Nothing of it stays behind.
    assert not layer._forward_hooks
    assert not layer.dropout._forward_pre_hooks
