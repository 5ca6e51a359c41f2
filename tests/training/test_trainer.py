import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import CheckpointError, TrainingError
from diffcodec.model.checkpoint import ErrorCurve, save_checkpoint
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import UNetConfig
from diffcodec.training import trainer as trainer_module
from diffcodec.training.trainer import Report, Rollback, Trainer, TrainingConfig, report_line

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
    optimizer = trainer.optimizer.state_dict()
    muon = optimizer.get("muon", {"momenta": []})
    state |= {f"o.muon.{number}": momentum for number, momentum in enumerate(muon["momenta"])}
    for number, slots in optimizer.get("adam", optimizer)["state"].items():
        state |= {f"o.adam.{number}.{name}": value for name, value in slots.items()}
    return {name: tensor.clone() for name, tensor in state.items()}


def differing(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


@pytest.mark.parametrize(
    "changes",
    [
        {"precision": "float32"},
        {"precision": "bfloat16"},
        {"optimizer": "muon"},
        {"accumulate": 2, "spike_deviations": 5.0},
    ],
)
def test_a_resumed_run_is_the_same_run(
    images: Pixels, tmp_path: Path, changes: dict[str, Any]
) -> None:
    straight = make(images, **changes)
    straight.run()
    broken = make(images, **changes)
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
    assert resumed._detector.recent == straight._detector.recent


def test_other_images_are_refused(images: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    make(images).save(path)
    for others in (images[:9], images[::-1].copy(), 255 - images):
        with pytest.raises(CheckpointError, match=r"state\.pt: expected the training images of"):
            Trainer.resume(path, others)
    assert Trainer.resume(path, images.copy()).fingerprint == make(images).fingerprint


PIXELS = dataclasses.replace(MODEL, pixel_model=True)
TAUGHT = dataclasses.replace(RECIPE, objective="vlb_pixels")


@pytest.fixture
def teacher(tmp_path: Path) -> Path:
    """The folder of a model with a pixel model that says something."""
    return taught_folder(tmp_path / "teacher", seed=5)


def taught_folder(folder: Path, seed: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    denoiser = Denoiser(dataclasses.replace(PIXELS, **changes))
    with torch.no_grad():
        denoiser.network.tail.weight.normal_(std=0.1)
    save_checkpoint(folder, denoiser, ErrorCurve((-13.0, 6.0), (0.001, 0.2)))
    return folder


def test_a_taught_run_resumes_with_its_teacher(
    images: Pixels, teacher: Path, tmp_path: Path
) -> None:
    recipe = dataclasses.replace(TAUGHT, teacher=str(teacher), accumulate=2)
    straight = Trainer(PIXELS, recipe, images)
    straight.run()
    broken = Trainer(PIXELS, recipe, images)
    broken.run(stop=lambda: True, checkpoint=tmp_path / "state.pt")
    resumed = Trainer.resume(tmp_path / "state.pt", images)
    resumed.run()
    assert not differing(everything(resumed), everything(straight))
    untaught = Trainer(PIXELS, TAUGHT, images)
    untaught.run()
    assert differing(everything(untaught), everything(straight))


def test_parts_of_a_batch_learn_the_same_from_a_teacher(images: Pixels, teacher: Path) -> None:
    model = dataclasses.replace(PIXELS, unet=dataclasses.replace(PIXELS.unet, dropout=0.0))
    losses = [
        float(
            Trainer(
                model, dataclasses.replace(TAUGHT, teacher=str(teacher), accumulate=parts), images
            ).step()
        )
        for parts in (1, 2)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_another_teacher_is_refused_unless_it_is_given_anew(
    images: Pixels, teacher: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state.pt"
    Trainer(PIXELS, dataclasses.replace(TAUGHT, teacher=str(teacher)), images).save(state)
    taught_folder(teacher, seed=6)
    with pytest.raises(CheckpointError, match=r"state\.pt: expected the teacher of digest"):
        Trainer.resume(state, images)
    assert Trainer.resume(state, images, teacher=str(teacher)).images_seen == 0
    shutil.rmtree(teacher)
    with pytest.raises(CheckpointError, match="teacher: expected a packaged model"):
        Trainer.resume(state, images)


def test_teachers_that_cannot_teach(images: Pixels, teacher: Path, tmp_path: Path) -> None:
    recipe = dataclasses.replace(TAUGHT, teacher=str(teacher))
    with pytest.raises(TrainingError, match="needs the objective vlb_pixels, found vlb"):
        Trainer(PIXELS, dataclasses.replace(recipe, objective="vlb"), images)
    mute = str(taught_folder(tmp_path / "mute", seed=5, pixel_model=False))
    with pytest.raises(TrainingError, match="mute: expected a teacher with a pixel model"):
        Trainer(PIXELS, dataclasses.replace(recipe, teacher=mute), images)


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
    orders = [trainer._indices(10 * epoch, 10).tolist() for epoch in range(3)]
    # A batch may be of the end of one epoch and the beginning of the next.
    assert trainer._indices(13, 14).tolist() == [*orders[1][3:], *orders[2][:7]]
    assert [sorted(order) for order in orders] == [list(range(10))] * 3
    assert orders[0] != orders[1] != orders[2]


def test_learning_rate_rises_stays_and_falls() -> None:
    recipe = TrainingConfig(
        total_images=1000, warmup_images=100, decay_fraction=0.3, learning_rate=2.0
    )
    expected = {0: 0.0, 50: 1.0, 100: 2.0, 500: 2.0, 700: 2.0, 850: 1.0, 1000: 0.0, 1100: 0.0}
    assert {n: recipe.rate_at(n) for n in expected} == pytest.approx(expected)
    assert dataclasses.replace(recipe, warmup_images=0).rate_at(0) == 2.0


def test_learning_rate_by_time() -> None:
    recipe = TrainingConfig(
        total_images=10,
        warmup_images=100,
        decay_fraction=0.25,
        learning_rate=2.0,
        anneal_by="time",
        total_seconds=40.0,
    )
    # Images warm up, seconds fall; the number of images is no limit.
    expected = {(50, 0): 1.0, (100, 1): 2.0, (10**6, 30): 2.0, (10**6, 35): 1.0, (50, 38): 0.4}
    assert {at: recipe.rate_at(*at) for at in expected} == pytest.approx(expected)
    assert recipe.rate_at(10**6, 40.0) == recipe.rate_at(10**6, 41.0) == 0.0
    assert not recipe.finished_at(10**6, 39.9)
    assert recipe.finished_at(0, 40.0)


class Clock:
    """Seconds that pass only when asked for: ``step`` at every look."""

    def __init__(self, step: float) -> None:
        self.now, self.step = 1000.0, step

    def __call__(self) -> float:
        self.now += self.step
        return self.now


def test_a_run_annealed_by_time_ends_with_its_time(images: Pixels, tmp_path: Path) -> None:
    trainer = make(images, warmup_images=0, anneal_by="time", total_seconds=10.0)
    reports: list[Report] = []
    clock = Clock(1.0)
    trainer.run(
        report_images=4,
        on_report=reports.append,
        clock=clock,
        stop=lambda: trainer.images_seen == 16,
        checkpoint=tmp_path / "state.pt",
    )
    assert trainer.seconds == 4.0
    resumed = Trainer.resume(tmp_path / "state.pt", images)
    # Another machine, twice as fast: the same plan in time.
    resumed.run(report_images=4, on_report=reports.append, clock=Clock(0.5))
    assert resumed.finished
    assert resumed.seconds == 10.0
    assert [report.images for report in reports] == list(range(4, 68, 4))
    rates = {report.seconds: report.rate for report in reports}
    assert rates == {s: pytest.approx(1e-2 * min(1.0, (10 - s) / 3)) for s in rates}


@pytest.mark.parametrize(
    "change",
    [
        {"objective": "mse"},
        {"precision": "float8"},
        {"batch_size": 0},
        {"total_images": 0},
        {"decay_fraction": 0.0},
        {"optimizer": "sgd"},
        {"anneal_by": "loss"},
        {"anneal_by": "time"},
        {"accumulate": 0},
        {"spike_deviations": -1.0},
        {"max_rollbacks": -1},
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
    assert line["gradient_norm"] > 0
    assert line["images_per_second"] > 0
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
    trainer = make(images, max_rollbacks=0)
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


class Poisoned:
    """An objective whose loss is changed at some steps, counted as they are taken."""

    def __init__(self, trainer: Trainer, changes: dict[int, float]) -> None:
        self.objective, self.changes, self.calls = trainer.objective, changes, 0
        trainer.objective = self

    def __call__(self, *arguments: Any) -> Tensor:
        losses = self.objective(*arguments)
        factor = self.changes.get(self.calls, 1.0)
        self.calls += 1
        return factor * losses


@pytest.fixture
def short_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer_module, "SNAPSHOT_STEPS", 3)


NAN = float("nan")


@pytest.mark.usefixtures("short_snapshots")
@pytest.mark.parametrize(("poison", "deviations"), [(NAN, 0.0), (float("inf"), 5.0), (100.0, 5.0)])
def test_a_bad_step_rolls_the_run_back_and_is_passed_over(
    images: Pixels, poison: float, deviations: float
) -> None:
    trainer = make(images, total_images=4 * 60, spike_deviations=deviations)
    Poisoned(trainer, {40: poison})
    shown: list[int] = []
    batch = trainer._batch

    def note(generator: torch.Generator) -> Tensor:
        shown.append(trainer.images_seen + trainer.images_skipped)
        return batch(generator)

    trainer._batch = note  # type: ignore[method-assign]
    rollbacks: list[Rollback] = []
    reports: list[Report] = []
    trainer.run(report_images=4, on_rollback=rollbacks.append, on_report=reports.append)
    assert trainer.finished
    (rollback,) = rollbacks
    # Snapshots are of steps 0, 3, 6, …, 39; the last but one is taken back.
    assert (rollback.images, rollback.to_images) == (4 * 40, 4 * 36)
    assert rollback.skipped == trainer.images_skipped == 4 * 5
    assert ("spike" in rollback.reason) == (poison == 100.0)
    # The batches of the order, each once, the refused one seen but not learnt from.
    assert shown == list(range(0, 4 * 65, 4))
    assert all(np.isfinite(report.loss) and report.loss < 50 for report in reports)
    line = json.loads(report_line(rollback))
    assert (line["event"], line["to_images"]) == ("rollback", 4 * 36)


@pytest.mark.usefixtures("short_snapshots")
def test_a_rolled_back_state_is_the_old_one(images: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    for optimizer in ("adam", "muon"):
        straight = make(images, total_images=4 * 16, optimizer=optimizer)
        straight.run(stop=lambda: straight.images_seen == 4 * 6)  # noqa: B023
        trainer = make(images, total_images=4 * 16, optimizer=optimizer)
        Poisoned(trainer, {10: NAN})
        seen: list[Rollback] = []
        trainer.run(
            on_rollback=seen.append,
            stop=lambda: bool(seen),  # noqa: B023
            checkpoint=path,
        )
        assert trainer.images_seen == 4 * 6
        assert not differing(everything(trainer), everything(straight))
        # A resumed run passes over the same images.
        resumed = Trainer.resume(path, images)
        assert resumed.images_skipped == trainer.images_skipped == 4 * 5
        trainer.run()
        resumed.run()
        assert not differing(everything(resumed), everything(trainer))


@pytest.mark.usefixtures("short_snapshots")
def test_roll_backs_in_a_row_are_limited(images: Pixels) -> None:
    # Good steps between bad ones are no progress as long as they are lost again …
    trainer = make(images, total_images=4 * 60, max_rollbacks=2)
    Poisoned(trainer, {9: NAN, 14: NAN, 15: NAN})
    rollbacks: list[Rollback] = []
    with pytest.raises(TrainingError, match=r"after .* the loss is nan .* 2 roll-backs in a row"):
        trainer.run(on_rollback=rollbacks.append)
    assert [rollback.to_images for rollback in rollbacks] == [4 * 6, 4 * 6]
    # … and any number is allowed with progress in between.
    trainer = make(images, total_images=4 * 60, max_rollbacks=1)
    Poisoned(trainer, {9: NAN, 30: NAN, 50: NAN})
    rollbacks.clear()
    trainer.run(on_rollback=rollbacks.append)
    assert len(rollbacks) == 3
    assert trainer.finished


@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None, reason="no C++ compiler for torch.compile"
)
@pytest.mark.filterwarnings("ignore:`torch.jit.script_method` is:DeprecationWarning")
def test_a_compiled_network_takes_the_same_steps(images: Pixels, tmp_path: Path) -> None:
    whole = dataclasses.replace(MODEL, unet=dataclasses.replace(MODEL.unet, dropout=0.0))
    plain, compiled = (
        Trainer(whole, dataclasses.replace(RECIPE, compiled=choice), images)
        for choice in (False, True)
    )
    for _ in range(2):
        assert float(compiled.step()) == pytest.approx(float(plain.step()), rel=1e-4)
    left, right = everything(plain), everything(compiled)
    assert left.keys() == right.keys()
    for name, tensor in left.items():
        torch.testing.assert_close(right[name], tensor, rtol=1e-3, atol=1e-4)
    compiled.save(tmp_path / "state.pt")
    resumed = Trainer.resume(tmp_path / "state.pt", images, compiled=False)
    assert not differing(everything(compiled), everything(resumed))


def test_no_compiler_is_told_in_one_line(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: Tensor) -> Tensor:
            raise TorchDynamoException("InvalidCxxCompiler: no g++\nand much more")

        return call

    monkeypatch.setattr(torch, "compile", refuse)
    trainer = make(images, compiled=True)
    with pytest.raises(TrainingError, match=r"cannot be compiled: InvalidCxxCompiler: no g\+\+$"):
        trainer.step()


def test_a_compiled_network_with_dropout_wants_whole_batches(images: Pixels) -> None:
    with pytest.raises(TrainingError, match="batches whole"):
        make(images, compiled=True, accumulate=2)


def test_objectives_that_the_model_cannot_serve(images: Pixels) -> None:
    with pytest.raises(TrainingError, match="vlb_pixels needs a model with a pixel model, which"):
        make(images, objective="vlb_pixels")


def test_batches_that_cannot_be_cut(images: Pixels) -> None:
    with pytest.raises(TrainingError, match="4 images does not divide by 1 processes times 3 "):
        make(images, accumulate=3)


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
        torch.save({"format": trainer_module.STATE_FORMAT, "config": "{}"}, path)
    expected = "KeyError" if content == "part" else "expected a training state|not a training state"
    with pytest.raises(CheckpointError, match=rf"state\.pt: .*({expected})"):
        Trainer.resume(path, images)


def test_a_resumed_run_keeps_its_optimizer(images: Pixels, tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    make(images).save(path)
    with pytest.raises(TrainingError, match=r"state\.pt: expected the run's own optimizer, adam"):
        Trainer.resume(path, images, optimizer="muon")


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
