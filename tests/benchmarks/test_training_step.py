import pytest
import torch

from benchmarks import training_step
from benchmarks.training_step import kernels, main, make_trainer, parts
from diffcodec.training import trainer as trainer_module
from diffcodec.training.trainer import Trainer
from tests.training.test_cuda_graph import AtOnce

COMMAND = ["--config", "tiny", "--batch-size", "4", "--steps", "3", "--precision", "float32"]


def test_tables_are_printed(capsys: pytest.CaptureFixture[str], one_thread: None) -> None:
    assert main([*COMMAND, "--kernels", "4"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("tiny, batches of 4: ")
    assert any(line.split()[:2] == ["a", "step"] for line in lines)
    assert torch.__version__ in lines[-1]


def test_what_takes_most_comes_first(one_thread: None) -> None:
    trainer = make_trainer("tiny", "cpu", batch_size=4, precision="float32")
    rows = kernels(trainer, 2, 6)
    assert trainer.images_seen == 8
    assert len(rows) == 6
    times = [ms for _, ms, _ in rows]
    assert times == sorted(times, reverse=True)
    assert times[-1] > 0
    assert any("conv" in name for name, _, _ in rows)


def test_replayed_parts_are_told_apart(monkeypatch: pytest.MonkeyPatch, one_thread: None) -> None:
    monkeypatch.setattr(trainer_module, "Captured", AtOnce)
    monkeypatch.setattr(Trainer, "_captures", True)
    monkeypatch.setattr(training_step, "WARM_UP_STEPS", 2)
    trainer = make_trainer("tiny", "cpu", batch_size=4, precision="float32")
    found = parts(trainer, 3)
    assert list(found) == ["a step", "gradient, replayed", "update, replayed"]
    assert all(ms > 0 for ms in found.values())


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--kernels", "0"], "expected --steps, --kernels and --batch-size of at least 1"),
        (["--device", "cuda"], "--device cuda: expected a CUDA device, found none"),
    ],
)
def test_misuse(
    arguments: list[str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as caught:
        main([*COMMAND, *arguments])
    assert caught.value.code == 2
    assert complaint in capsys.readouterr().err
