import io
import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console

from cli import data as cli_data
from cli import train as cli_train
from cli.main import main
from cli.train import Duration
from diffcodec.model.checkpoint import load_checkpoint
from diffcodec.training import dataset
from diffcodec.training.trainer import Trainer

Pixels = NDArray[np.uint8]


@pytest.fixture
def folder(tmp_path: Path, drawn_image: Callable[..., Pixels]) -> Path:
    """A folder of drawn images."""
    place = tmp_path / "images"
    place.mkdir()
    for seed in range(12):
        Image.fromarray(drawn_image(seed=seed)).save(place / f"{seed:02d}.png")
    return place


@pytest.fixture
def train(folder: Path, tmp_path: Path) -> Callable[..., int]:
    """A function: ``diffcodec train`` of the tiny model into ``run``; its exit code."""

    def run(*arguments: str, config: str | None = "tiny", images: int = 16) -> int:
        words = ["train", "--data", str(folder), "--out", str(tmp_path / "run")]
        words += ["--images", str(images), "--batch-size", "4", "--held-out", "2"]
        words += ["--device", "cpu", *(["--config", config] if config else []), *arguments]
        return main(words)

    return run


def log_lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text("utf-8").splitlines()]


def weights(out: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = load_checkpoint(out / "model").denoiser.state_dict()
    return state


def test_a_run_leaves_state_log_and_model(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--check-every", "8", "--threads", "1") == 0
    out = tmp_path / "run"
    assert sorted(path.name for path in out.iterdir()) == ["log.jsonl", "model", "state.pt"]
    lines = log_lines(out)
    assert [line["images"] for line in lines] == [8, 16]
    assert all(line["bound"]["images"] == 2 for line in lines)
    assert load_checkpoint(out / "model").config.name == "tiny"
    output = capsys.readouterr()
    assert output.out == ""
    assert "tiny: 69331 parameters on cpu" in output.err
    assert "16 images: held out " in output.err

    # It is not started over by accident …
    assert train() == 1
    assert "state.pt: File exists" in capsys.readouterr().err
    # … but continued where that is asked for, with what is given anew …
    assert train("--resume", "--learning-rate", "0.002", "-q", config=None, images=24) == 0
    assert capsys.readouterr().err == ""
    assert [line["images"] for line in log_lines(out)] == [8, 16, 24]
    # … or replaced.
    assert train("-f", "-q", images=4) == 0
    assert [line["images"] for line in log_lines(out)] == [4]


def test_interrupted_and_resumed_is_the_same_run(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = tmp_path / "run"
    arguments = ("--precision", "float32")
    assert train(*arguments, images=24) == 0
    straight = weights(out)
    whole_step = Trainer.step

    def step_under(number: int) -> Callable[[Trainer], torch.Tensor]:
        def step(trainer: Trainer) -> torch.Tensor:
            # The signal comes in the middle of the second step of each session.
            if trainer.images_seen % 8 == 4:
                signal.raise_signal(number)
            return whole_step(trainer)

        return step

    handlers = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setattr(Trainer, "step", step_under(signal.SIGINT))
    assert train("-f", *arguments, images=24) == 130
    assert Trainer.resume(out / "state.pt", np.zeros((1, 32, 32, 3), np.uint8)).images_seen == 8
    assert "holds 8 images: --resume continues" in capsys.readouterr().err
    monkeypatch.setattr(Trainer, "step", step_under(signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        train("--resume", *arguments, config=None, images=24)
    assert ended.value.code == 143
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers
    monkeypatch.setattr(Trainer, "step", whole_step)
    assert train("--resume", "--max-time", "1h", *arguments, config=None, images=24) == 0
    resumed = weights(out)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)


def test_time_limit_still_exports(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("--max-time", "1s", "--objective", "simple", "-q", images=10**9) == 0
    assert log_lines(tmp_path / "run")[-1]["images"] < 10**6
    load_checkpoint(tmp_path / "run" / "model")


def test_resume_without_a_state_starts(train: Callable[..., int], tmp_path: Path) -> None:
    assert train("--resume", "-q", images=4) == 0
    assert (tmp_path / "run" / "state.pt").exists()


def test_progress_on_a_terminal(train: Callable[..., int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    monkeypatch.setattr(cli_train, "console", console)
    assert train(images=8) == 0
    for part in ("8/8", "bits/dim", "images/s", "0:00 left"):
        assert part in screen.getvalue()


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--config", "huge"], 2, "--config huge: expected one of default, ddpm, tiny"),
        (["--max-time", "soon"], 2, "'soon' is no duration such as 45s, 9m or 1h30m"),
        (["--resume", "-f"], 2, "--resume and --force exclude each other"),
        (["--download"], 2, "--download fetches into the cache"),
        (["--data", "absent"], 1, "absent: no such file or folder"),
        (["--held-out", "12"], 1, "expected a count from 1 to 11, found 12"),
    ],
)
def test_refusals(
    train: Callable[..., int],
    arguments: list[str],
    exit_code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train(*arguments) == exit_code
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_resumed_run_keeps_its_model(
    train: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "state.pt").write_bytes(b"no state")
    assert train("--resume") == 2
    assert "leave --config out" in capsys.readouterr().err
    assert train("--resume", config=None) == 1
    assert "state.pt: expected a training state" in capsys.readouterr().err


def test_download_goes_to_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path
) -> None:
    def download(destination: Path, progress: Callable[[int, int | None], None]) -> Path:
        assert destination == tmp_path / "cache" / "diffcodec"
        for received in (1_000_000, 2_000_000):
            progress(received, None)
        return folder

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(dataset, "download_cifar10", download)
    assert cli_data.locate_data(None, True, cli_data.Terminal()) == folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there() -> None:
    assert cli_data.pick_device("auto") == "cpu"
    with pytest.raises(click.UsageError, match="finds no CUDA device"):
        cli_data.pick_device("cuda")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("9m", 540), ("1h30m", 5400), ("2h0m1s", 7201)]
)
def test_durations(text: str, seconds: float) -> None:
    assert Duration().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["", "0s", "9", "m", "1m1h", "-1s", "1.5h", "1 h"])
def test_durations_that_are_none(text: str) -> None:
    with pytest.raises(click.BadParameter, match="is no duration"):
        Duration().convert(text, None, None)
