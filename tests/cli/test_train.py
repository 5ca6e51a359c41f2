import dataclasses
import io
import json
import os
import re
import signal
import subprocess
import sys
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
from diffcodec.errors import InstabilityError
from diffcodec.model import configs
from diffcodec.model.checkpoint import load_checkpoint
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.training import dataset
from diffcodec.training.trainer import Trainer
from diffcodec.training.warm_start import HEAD_WEIGHT

REPOSITORY = Path(__file__).resolve().parents[2]

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

    def run(*arguments: str, config: str | None = "tiny", images: int | None = 16) -> int:
        words = ["train", "--data", str(folder), "--out", str(tmp_path / "run")]
        words += ["--images", str(images)] if images else []
        words += ["--batch-size", "4", "--held-out", "2"]
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
    (out / "state.pt").rename(tmp_path / "kept.pt")
    for resume in ([], ["--resume"]):
        assert train(*resume) == 1
        assert "log.jsonl: File exists" in capsys.readouterr().err
    (out / "log.jsonl").rename(tmp_path / "kept.jsonl")
    assert train() == 1
    assert "model: File exists" in capsys.readouterr().err
    (tmp_path / "kept.pt").rename(out / "state.pt")
    (tmp_path / "kept.jsonl").rename(out / "log.jsonl")
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
    assert torch.load(out / "state.pt")["images_seen"] == 8
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


def test_a_killed_run_s_log_goes_on_from_its_state(
    train: Callable[..., int], tmp_path: Path
) -> None:
    out = tmp_path / "run"
    assert train("--check-every", "8", "-q") == 0
    log = out / "log.jsonl"
    before = log.read_text("utf-8")
    beyond = before.splitlines()[-1].replace('"images": 16', '"images": 20')
    log.write_text(f'{before}{beyond}\n{{"event": "roll')
    assert train("--resume", "-q", config=None, images=24) == 0
    assert log.read_text("utf-8").startswith(before)
    assert [line["images"] for line in log_lines(out)] == [8, 16, 24]


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
    # By time, what is left is of the time.
    assert train("-f", "--anneal-by", "time", "--max-time", "1s", images=None) == 0
    # How far it gets in a second is the machine's affair.
    _, by_time = screen.getvalue().split("8/8", 1)
    assert re.search(r" \d+ [\d.]+ bits/dim, \d+ images/s, 0:0[01] left", by_time)


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--config", "huge"], 2, "--config huge: expected one of default, "),
        (["--objective", "least"], 2, "--objective least: expected one of vlb, "),
        (["--objective", "vlb_pixels"], 1, "needs a model with a pixel model, which tiny does not"),
        (["--accumulate", "3"], 1, "a batch of 4 images does not divide by 1 processes times 3"),
        (["--init", "nowhere"], 1, "nowhere: expected a packaged model"),
        # What is misspelt is told before images are read.
        (["--init", "nowhere", "--data", "absent"], 1, "nowhere: expected a packaged model"),
        (["--config", "huge", "--data", "absent"], 2, "--config huge: expected one of default, "),
        (["--teacher", "nobody", "--data", "absent"], 1, "nobody: expected a packaged model"),
        (["--teacher", "default"], 1, "a teacher needs the objective vlb_pixels, found vlb"),
        (["--anneal-by", "time"], 2, "--anneal-by time: give the run's length as --max-time"),
        (["log.jsonl"], 2, "LOG and --output belong to --plot"),
        (["--output", "x.svg"], 2, "LOG and --output belong to --plot"),
        (["--learning-rate", "nan"], 2, "nan is not a finite number"),
        (["--learning-rate", "inf"], 2, "inf is not a finite number"),
        (["--ema", "nan"], 2, "nan is not a finite number"),
        (["--spike", "nan"], 2, "nan is not a finite number"),
        (["--decay", "nan"], 2, "nan is not a finite number"),
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
    assert train("--resume", config=None) == 1
    assert "state.pt: expected a training state" in capsys.readouterr().err
    assert train("-f", "-q", images=4) == 0
    assert train("--resume", config="ddpm") == 2
    assert "state.pt is a run of tiny, which it keeps" in capsys.readouterr().err
    # So that one command line starts a run and continues it.
    assert train("--resume", "--init", "default", images=8) == 0
    assert "padded" not in capsys.readouterr().err
    assert [line["images"] for line in log_lines(tmp_path / "run")] == [4, 8]


def test_a_resumed_run_keeps_its_images(
    train: Callable[..., int], tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("-q", images=4) == 0
    state = tmp_path / "run" / "state.pt"
    (folder / "00.png").unlink()
    assert train("--resume") == 1
    error = capsys.readouterr().err
    assert f"{state}: expected the training images of fingerprint" in error
    assert error.count("\n") == 1


def test_every_setting_reaches_the_run(
    train: Callable[..., int],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda forward: forward)
    words = "--objective simple --optimizer muon --accumulate 2 --learning-rate 0.002 --warmup 4 "
    words += "--decay 0.5 --ema 50 --spike 7 --max-rollbacks 1 --precision float32 --seed 3 "
    words += "--compile"
    assert train("-q", *words.split(), images=8) == 0
    stored = json.loads(torch.load(tmp_path / "run" / "state.pt")["config"])["training"]
    assert stored == {
        "objective": "simple",
        "teacher": None,
        "batch_size": 4,
        "total_images": 8,
        "optimizer": "muon",
        "learning_rate": 0.002,
        "warmup_images": 4,
        "decay_fraction": 0.5,
        "ema_images": 50.0,
        "clip_norm": 1.0,
        "flip": True,
        "precision": "float32",
        "compiled": True,
        "seed": 3,
        "anneal_by": "images",
        "total_seconds": 0.0,
        "accumulate": 2,
        "spike_deviations": 7.0,
        "max_rollbacks": 1,
    }


def test_time_anneals(train: Callable[..., int], tmp_path: Path) -> None:
    arguments = ("--anneal-by", "time", "-q")
    assert train(*arguments, "--max-time", "2s", images=None) == 0
    out = tmp_path / "run"
    last = log_lines(out)[-1]
    assert last["seconds"] >= 2
    assert last["rate"] == 0.0
    load_checkpoint(out / "model")
    # The time is the whole run's: none is left …
    assert train("--resume", *arguments, "--max-time", "1s", images=None) == 0
    assert log_lines(out)[-1] == last
    # … unless more is given.
    assert train("--resume", "-q", "--max-time", "4s", images=None) == 0
    assert log_lines(out)[-1]["seconds"] >= 4


def test_a_model_s_weights_are_a_start(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert train("-q", images=16) == 0
    given = tmp_path / "given"
    (tmp_path / "run" / "model").rename(given)
    source = load_checkpoint(given).denoiser.state_dict()
    small = ("-f", "--init", str(given), "--learning-rate", "1e-30", "--precision", "float32")
    assert train(*small, "-q", images=4) == 0
    assert all(
        torch.equal(source[name], tensor) for name, tensor in weights(tmp_path / "run").items()
    )
    # A model that gained channels says so.
    grown = dataclasses.replace(MODEL_CONFIGS["tiny"], pixel_model=True)
    monkeypatch.setattr(configs, "MODEL_CONFIGS", {"tiny": grown})
    capsys.readouterr()
    assert train(*small, "--objective", "vlb_pixels", images=4) == 0
    error = capsys.readouterr().err
    assert (
        f"{given}: network.head.weight (16, 3, 3, 3) to (16, 4, 3, 3): padded with zeros" in error
    )
    assert "network.tail.bias (3,) to (9,): padded with zeros" in error
    assert torch.equal(weights(tmp_path / "run")["network.head.weight"][:, :3], source[HEAD_WEIGHT])


def test_a_teacher_teaches(
    train: Callable[..., int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grown = dataclasses.replace(MODEL_CONFIGS["tiny"], pixel_model=True)
    monkeypatch.setattr(configs, "MODEL_CONFIGS", {"tiny": grown})
    assert train("-q", "--objective", "vlb_pixels", images=8) == 0
    teacher, log = tmp_path / "teacher", tmp_path / "run" / "log.jsonl"
    (tmp_path / "run" / "model").rename(teacher)
    alone = json.loads(log.read_text().splitlines()[-1])["loss"]
    taught = ("-f", "-q", "--objective", "vlb_pixels", "--teacher", str(teacher))
    assert train(*taught, "--init", str(teacher), "--learning-rate", "1e-30", images=8) == 0
    # Its own weights, but for their rounding, leave nothing to learn.
    assert 0 <= json.loads(log.read_text().splitlines()[-1])["loss"] < 0.01 * alone


def test_a_spike_is_told_and_logged(
    train: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    whole_step = Trainer.step
    failed: list[int] = []

    def step(trainer: Trainer) -> torch.Tensor:
        if trainer.images_seen == 8 and not failed:
            failed.append(8)
            raise InstabilityError("the loss is a test")
        return whole_step(trainer)

    monkeypatch.setattr(Trainer, "step", step)
    assert train() == 0
    assert "warning: after 8 images the loss is a test: back to 0 images" in capsys.readouterr().err
    event, report = log_lines(tmp_path / "run")
    assert (event["event"], event["images"], event["to_images"]) == ("rollback", 8, 0)
    assert (event["skipped"], report["images"]) == (12, 16)
    figure = tmp_path / "curve.svg"
    log = str(tmp_path / "run" / "log.jsonl")
    assert main(["train", "--plot", log, "-q", "--output", str(figure)]) == 0


@pytest.mark.slow
def test_torchrun_shares_the_batches(
    train: Callable[..., int], folder: Path, tmp_path: Path
) -> None:
    arguments = ["--precision", "float32", "--accumulate", "2", "--learning-rate", "0.01"]
    assert train("-q", *arguments) == 0
    words = ["train", "--data", str(folder), "--out", str(tmp_path / "shared"), "--images", "16"]
    words += ["--batch-size", "4", "--held-out", "2", "--device", "cpu", "--config", "tiny"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    ended = subprocess.run(
        [*launch, "-m", "cli.main", *words, "--precision", "float32", "--learning-rate", "0.01"],
        cwd=REPOSITORY,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    # One process talks.
    assert ended.stderr.count("tiny: 69331 parameters on cpu in 2 processes") == 1
    assert ended.stderr.count("16 images seen, digest") == 1
    alone, shared = (log_lines(tmp_path / name) for name in ("run", "shared"))
    assert [line["images"] for line in shared] == [line["images"] for line in alone]
    assert shared[0]["loss"] == pytest.approx(alone[0]["loss"], rel=1e-4)
    assert shared[0]["bound"]["total"]["mean"] == pytest.approx(
        alone[0]["bound"]["total"]["mean"], rel=1e-3
    )
    a, b = weights(tmp_path / "run"), weights(tmp_path / "shared")
    assert all(torch.allclose(a[name], b[name], atol=2e-3) for name in a)


def test_training_needs_no_coder(folder: Path, tmp_path: Path) -> None:
    # Machines that train need not have constriction.
    script = (
        "import sys\n"
        "sys.modules['constriction'] = None\n"
        "from cli.main import main\n"
        "for arguments in sys.argv[1].split(';'):\n"
        "    assert main(arguments.split()) == 0, arguments\n"
    )
    out = tmp_path / "run"
    train = f"train -q --data {folder} --out {out} --images 4 --batch-size 4 --config tiny"
    plot = f"train -q --plot {out}/log.jsonl -o {tmp_path}/curve.png"
    evaluate = f"evaluate -q --data {folder} --model {out}/model --images 1 --draws 1"
    ended = subprocess.run(
        [sys.executable, "-c", script, ";".join([train, plot, evaluate])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_curves_are_drawn_without_training(
    suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "log.jsonl"
    bound = {"total": {"mean": 4.0, "standard_error": 0.1}}
    lines = [
        {"images": n, "seconds": n / 2.0, "loss": 9.0 / n, "bound": bound} for n in (10, 20, 30)
    ]
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    figure = tmp_path / f"curves{suffix}"
    arguments = ["train", "--plot", str(log), str(log), "--output", str(figure)]
    assert main(arguments) == 0
    assert capsys.readouterr().err == f"written: {figure}\n"
    assert figure.read_bytes()[:4] == {".svg": b"<?xm", ".png": b"\x89PNG"}[suffix]
    assert main(arguments) == 1
    assert f"curves{suffix}: File exists" in capsys.readouterr().err
    assert main([*arguments, "-f", "-q"]) == 0


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--plot"], 2, "--plot takes one LOG or more, and --output"),
        (["--plot", "{log}"], 2, "--plot takes one LOG or more, and --output"),
        (["--plot", "-o", "x.svg"], 2, "--plot takes one LOG or more, and --output"),
        (["--plot", "{log}", "-o", "x.pdf"], 2, "--output x.pdf: expected one of .svg, .png"),
        (["--plot", "absent", "-o", "x.svg"], 1, "absent: No such file or directory"),
        (["--plot", "{log}", "-o", "x.svg"], 1, "expected a line of a training log in line 1"),
    ],
)
def test_curves_that_cannot_be_drawn(
    arguments: list[str],
    exit_code: int,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text("no JSON\n", "utf-8")
    assert main(["train", *(word.format(log=log) for word in arguments)]) == exit_code
    output = capsys.readouterr()
    assert message in output.err
    assert output.err.count("\n") == 1


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
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(click.UsageError, match="fetch before torchrun"):
        cli_data.locate_data(None, True, cli_data.Terminal())


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
