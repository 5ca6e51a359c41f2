import ast
import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import cli.data
import cli.evaluate
import cli.train
from cli.main import main
from diffcodec.model.checkpoint import ErrorCurve, save_checkpoint
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser
from diffcodec.training import evaluation

Pixels = NDArray[np.uint8]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    curve = ErrorCurve((-12.0, 5.0), (0.001, 0.3))
    save_checkpoint(tmp_path / "model", Denoiser(MODEL_CONFIGS["tiny"]), curve)
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path: Path, drawn_image: Callable[..., Pixels]) -> Path:
    """Twelve drawn training images and four test images."""
    for split, seeds in {"train": range(12), "test": range(20, 24)}.items():
        place = tmp_path / "images" / split
        place.mkdir(parents=True)
        for seed in seeds:
            Image.fromarray(drawn_image(seed=seed)).save(place / f"{seed}.png")
    return tmp_path / "images"


@pytest.fixture
def evaluate(model: Path, folder: Path) -> Callable[..., int]:
    """A function: ``diffcodec evaluate`` with two draws; its exit code."""

    def run(*arguments: str) -> int:
        words = ["evaluate", "--model", str(model), "--data", str(folder), "--draws", "2"]
        return main([*words, *arguments])

    return run


def test_json(evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--split", "test", "--split", "held-out", "--split", "train", "--json") == 0
    output = capsys.readouterr()
    assert output.err == ""
    report = json.loads(output.out)
    # A tenth of twelve, at least one, is held out.
    assert {split: part["images"] for split, part in report["splits"].items()} == {
        "test": 4,
        "held-out": 1,
        "train": 11,
    }
    for part in report["splits"].values():
        three = sum(part[name]["mean"] for name in ("prior", "diffusion", "reconstruction"))
        assert part["total"]["mean"] == pytest.approx(three)
        assert part["draws"] == 2
    test, train, gap = report["splits"]["test"], report["splits"]["train"], report["gap"]
    for name in ("prior", "diffusion", "reconstruction", "total"):
        assert gap[name]["mean"] == pytest.approx(test[name]["mean"] - train[name]["mean"])
        assert gap[name]["standard_error"] == pytest.approx(
            np.hypot(test[name]["standard_error"], train[name]["standard_error"])
        )
    assert (report["final_step"], report["steps"], report["exact"]) == (0, 1000, False)
    assert len(bytes.fromhex(report["digest"])) == 32


def test_one_split_has_no_gap(
    evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--split", "test", "--images", "2", "--json") == 0
    report = json.loads(capsys.readouterr().out)
    assert list(report["splits"]) == ["test"]
    assert "gap" not in report


def test_a_folder_of_one_set_is_told(
    evaluate: Callable[..., int], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate("--data", str(folder / "test"), "--images", "2") == 0
    error = capsys.readouterr().err
    assert "train and test are the same images" in error
    assert error.count("\n") == 1


def test_table(evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "2", "--final-step", "100") == 0
    output = capsys.readouterr()
    assert output.err == ""
    title = "tiny: 2 train images, 2 test images, 2 draws of t, final step 100; bits/dim"
    assert title in " ".join(output.out.split())
    for part in ("L_T, prior", "L_1..T-1, diffusion", "L_0, pixels", "total", "gap", "±"):
        assert part in output.out


def test_every_step(
    model: Path, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "steps.json"
    words = ["evaluate", "--model", str(model), "--data", str(folder), "--images", "1", "--exact"]
    words += ["--split", "test", "--final-step", "990", "--per-step", str(target)]
    assert main(words) == 0
    assert "1 test images, every t, final step 990" in " ".join(capsys.readouterr().out.split())
    steps = json.loads(target.read_text("utf-8"))["per_step"]["test"]
    assert [(step["first_step"], step["last_step"]) for step in steps] == [
        (t, t) for t in range(991, 1001)
    ]


def test_steps_as_json_and_figure(
    evaluate: Callable[..., int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target, figure = tmp_path / "steps.json", tmp_path / "steps.svg"
    arguments = ("--images", "3", "--per-step", str(target), "--figure", str(figure), "--json")
    assert evaluate(*arguments) == 0
    report = json.loads(capsys.readouterr().out)
    record = json.loads(target.read_text("utf-8"))
    assert record["digest"] == report["digest"]
    for split, part in report["splits"].items():
        steps = record["per_step"][split]
        assert [(s["first_step"], s["last_step"]) for s in steps] == [(1, 500), (501, 1000)]
        # The strata's means, times their 500 hops, are the bound's middle part.
        hops = sum(500 * step["rate"]["mean"] for step in steps)
        assert hops == pytest.approx(part["diffusion"]["mean"])
        assert 0 < steps[0]["rmse"]["mean"] < steps[1]["rmse"]["mean"] < 256
    assert figure.read_bytes().startswith(b"<?xml")
    assert evaluate(*arguments) == 1
    assert "steps.json: File exists" in capsys.readouterr().err
    assert evaluate(*arguments, "-f") == 0


def test_pixels(
    evaluate: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(evaluation, "PIXEL_GROUPS", (1, 2))
    monkeypatch.setattr(evaluation, "HANDOVER_POINTS", 2)
    assert evaluate("--pixels") == 2
    assert "model has no pixel model" in capsys.readouterr().err
    torch.manual_seed(0)
    config = dataclasses.replace(MODEL_CONFIGS["tiny"], pixel_model=True)
    curve = ErrorCurve((-12.0, 5.0), (0.001, 0.3))
    save_checkpoint(tmp_path / "model", Denoiser(config), curve)
    arguments = ("--split", "test", "--images", "2", "--pixels")
    assert evaluate(*arguments, "--json") == 0
    costs = json.loads(capsys.readouterr().out)["codec"]["test"]
    assert [cost["groups"] for cost in costs] == [1, 1, 2, 2]
    for cost in costs:
        assert cost["total"]["mean"] == pytest.approx(cost["hops"]["mean"] + cost["pixels"]["mean"])
    assert evaluate(*arguments) == 0
    table = capsys.readouterr().out
    assert "lossless files of test images in theory" in table
    best = min((c for c in costs if c["groups"] == 2), key=lambda cost: cost["total"]["mean"])
    assert f"{best['total']['mean']:.4f}" in table


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--model", "absent"], 1, "absent: expected a packaged model"),
        (["--data", "absent"], 1, "absent: no such file or folder"),
        (["--final-step", "1000"], 2, "--final-step 1000: expected less than 1000 steps"),
        (["--split", "validation"], 2, "'validation' is not one of"),
        (["--images", "0"], 2, "--images"),
        (["--exact"], 2, "--exact and --draws exclude each other"),
        (["--pixels", "--final-step", "5"], 2, "--pixels chooses the hand-over itself"),
        (["--figure", "steps.pdf"], 2, "--figure steps.pdf: expected one of .svg, .png"),
        (["--per-step", "no/steps.json"], 1, "no: No such directory"),
    ],
)
def test_refusals(
    evaluate: Callable[..., int],
    arguments: list[str],
    exit_code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(*arguments) == exit_code
    output = capsys.readouterr()
    assert message in output.err
    assert output.out == ""


def test_a_damaged_model(
    evaluate: Callable[..., int], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (model / "model.safetensors").write_bytes(b"")
    assert evaluate() == 1
    assert "model.safetensors: expected safetensors weights" in capsys.readouterr().err


@pytest.mark.parametrize("module", [cli.data, cli.train, cli.evaluate])
def test_training_needs_no_coder(module: Any) -> None:
    # Machines that train need not have constriction.
    imported = {
        node.module or ""
        for node in ast.walk(ast.parse(Path(module.__file__).read_text("utf-8")))
        if isinstance(node, ast.ImportFrom)
    }
    coder = ("diffcodec.coding", "diffcodec.codec", "diffcodec.bitstream")
    assert not [name for name in imported if name.startswith(coder)]
