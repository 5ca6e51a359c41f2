import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import CheckpointError, TrainingError
from diffcodec.model.denoiser import ModelConfig
from diffcodec.model.unet import UNetConfig
from diffcodec.training.trainer import Report, Trainer, TrainingConfig, report_line

Pixels = NDArray[np.uint8]

MODEL = ModelConfig(
    name="small",
    schedule=ScheduleConfig(steps=100),
    unet=UNetConfig(
        image_size=8, channels=(16,), attention_resolutions=(8,), groups=4, dropout=0.1
    ),
)
RECIPE = TrainingConfig(
    batch_size=4, total_images=24, warmup_images=4, learning_rate=1e-2, precision="float32"
)


@pytest.fixture
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    # Ten images and batches of four: epochs end inside a batch.
    return np.stack([drawn_image(8, 8, 3, seed) for seed in range(10)])


def make(images: Pixels, **changes: Any) -> Trainer:
    return Trainer(MODEL, dataclasses.replace(RECIPE, **changes), images)


def everything(trainer: Trainer) -> dict[str, Tensor]:
    """All tensors that decide how a run goes on."""
    state = {f"w.{k}": v for k, v in trainer.denoiser.state_dict().items()}
    state |= {f"a.{k}": v for k, v in trainer.averaged.state_dict().items()}
    for number, slots in trainer.optimizer.state_dict()["state"].items():
        state |= {f"o.{number}.{name}": value for name, value in slots.items()}
    return {name: tensor.clone() for name, tensor in state.items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_resumed_run_is_the_same_run(images: Pixels, tmp_path: Path, precision: str) -> None:
    straight = make(images, precision=precision)
    straight.run()
    broken = make(images, precision=precision)
    for _ in range(3):
        broken.step()
    broken.save(tmp_path / "state.pt")
    torch.manual_seed(99)
    resumed = Trainer.resume(tmp_path / "state.pt", images)
    assert resumed.images_seen == 12
    assert not differing(everything(resumed), everything(broken))
    resumed.run()
    assert straight.finished
    assert resumed.finished
    assert not differing(everything(resumed), everything(straight))
    assert resumed.config == straight.config


def test_seeds_make_runs(images: Pixels) -> None:
    runs = [make(images, seed=seed) for seed in (0, 0, 1)]
    losses = [float(run.step()) for run in runs]
    assert losses[0] == losses[1] != losses[2]
    states = [everything(run) for run in runs]
    assert not differing(states[0], states[1])
    assert differing(states[0], states[2])


def test_settings_may_change_on_resumption(images: Pixels, tmp_path: Path) -> None:
    make(images).save(tmp_path / "state.pt")
    resumed = Trainer.resume(tmp_path / "state.pt", images, total_images=48)
    assert resumed.config == dataclasses.replace(RECIPE, total_images=48)
    with pytest.raises(CheckpointError, match="not a training state"):
        Trainer.resume(tmp_path / "state.pt", images, no_such_field=1)


def test_every_epoch_shows_every_image_once(images: Pixels) -> None:
    trainer = make(images)
    orders = [[trainer._index(10 * epoch + k) for k in range(10)] for epoch in range(3)]
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert orders[0] != orders[1] != orders[2]


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = TrainingConfig(
        total_images=1000, warmup_images=100, decay_fraction=0.3, learning_rate=2.0
    )
    expected = {0: 0.0, 50: 1.0, 100: 2.0, 500: 2.0, 700: 2.0, 850: 1.0, 1000: 0.0, 1100: 0.0}
    assert {n: recipe.rate_at(n) for n in expected} == pytest.approx(expected)
    assert dataclasses.replace(recipe, warmup_images=0).rate_at(0) == 2.0


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "mse"},
        {"precision": "float8"},
        {"batch_size": 0},
        {"total_images": 0},
        {"decay_fraction": 0.0},
    ],
)
def test_recipes_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"expected|must be"):
        dataclasses.replace(RECIPE, **change)


@pytest.mark.parametrize("objective", ["vlb", "simple"])
def test_a_few_images_are_learnt(images: Pixels, objective: str) -> None:
    trainer = make(
        images[:2],
        objective=objective,
        batch_size=16,
        total_images=16 * 120,
        warmup_images=160,
        flip=False,
    )
    losses: list[float] = []
    trainer.run(on_step=lambda seen, loss: losses.append(loss))
    assert np.mean(losses[-20:]) < 0.75 * np.mean(losses[:10])


def test_the_average_lags_behind_the_weights(images: Pixels) -> None:
    trainer = make(images, ema_images=8.0)
    start = [p.detach().clone() for p in trainer.averaged.parameters()]
    trainer.images_seen = 10_000  # old enough for the whole half-life
    with torch.no_grad():
        for parameter in trainer.denoiser.parameters():
            parameter += 1.0
    for _ in range(2):
        trainer._average(4)
    for old, new in zip(start, trainer.averaged.parameters(), strict=True):
        # Eight images are one half-life.
        torch.testing.assert_close(new, old + 0.5)


def test_reports_checks_and_saves(images: Pixels, tmp_path: Path) -> None:
    trainer = make(images)
    reports: list[Report] = []
    trainer.run(
        report_images=8,
        check_images=16,
        held_out=images[:3],
        checkpoint=tmp_path / "deep" / "state.pt",
        on_report=reports.append,
    )
    assert [report.images for report in reports] == [8, 16, 24]
    assert [report.bound is not None for report in reports] == [False, True, True]
    assert all(np.isfinite(report.loss) for report in reports)
    line = json.loads(report_line(reports[-1]))
    assert line["images"] == 24
    assert line["bound"]["images"] == 3
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["state.pt"]
    assert Trainer.resume(tmp_path / "deep" / "state.pt", images).finished


def test_time_limit_and_stop_end_after_a_whole_step(images: Pixels, tmp_path: Path) -> None:
    state = tmp_path / "state.pt"
    trainer = make(images)
    trainer.run(max_seconds=0.0, checkpoint=state)
    assert trainer.images_seen == 4
    trainer.run(stop=lambda: trainer.images_seen >= 12, checkpoint=state)
    assert Trainer.resume(state, images).images_seen == 12
    # The broken run goes on as the straight one.
    trainer.run()
    straight = make(images)
    straight.run()
    assert not differing(everything(trainer), everything(straight))


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number(images: Pixels, tmp_path: Path, poison: float) -> None:
    trainer = make(images)
    trainer.step()
    with torch.no_grad():
        trainer.denoiser.network.tail.bias[0] = poison
    before = everything(trainer)
    before.pop("w.network.tail.bias")
    with pytest.raises(TrainingError, match=r"after 4 images the loss is .* no checkpoint"):
        trainer.run()
    after = everything(trainer)
    after.pop("w.network.tail.bias")
    assert not differing(before, after)
    make(images).save(tmp_path / "state.pt")
    trainer = Trainer.resume(tmp_path / "state.pt", images)
    with torch.no_grad():
        trainer.denoiser.network.tail.bias[0] = poison
    with pytest.raises(TrainingError, match=r"last checkpoint is .*state\.pt at 0 images"):
        trainer.run(checkpoint=tmp_path / "state.pt")


@pytest.mark.parametrize("content", [None, b"", b"no state", "list", "format", "part"])
def test_states_that_are_none(images: Pixels, tmp_path: Path, content: object) -> None:
    path = tmp_path / "state.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "list":
        torch.save([1], path)
    elif content == "format":
        torch.save({"format": 99}, path)
    elif content == "part":
        torch.save({"format": 1, "config": "{}"}, path)
    with pytest.raises(CheckpointError, match=r"state\.pt: "):
        Trainer.resume(path, images)


def test_a_failed_save_keeps_the_old_state(
    images: Pixels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.pt"
    trainer = make(images)
    trainer.save(path)
    old = path.read_bytes()

    def fail(state: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        trainer.save(path)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
