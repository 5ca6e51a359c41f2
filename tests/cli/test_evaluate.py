import ast
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
    reports: dict[str, dict[str, Any]] = {}
    for split in ("test", "train", "held-out"):
        assert evaluate("--split", split, "--json") == 0
        output = capsys.readouterr()
        assert output.err == ""
        reports[split] = json.loads(output.out)
    # A tenth of twelve, at least one.
    assert {split: r["images"] for split, r in reports.items()} == {
        "test": 4,
        "train": 11,
        "held-out": 1,
    }
    for report in reports.values():
        parts = report["bits_per_dimension"]
        three = sum(parts[name]["mean"] for name in ("prior", "diffusion", "reconstruction"))
        assert parts["total"]["mean"] == pytest.approx(three)
        assert (report["draws"], report["final_step"], report["steps"]) == (2, 0, 1000)
        assert len(bytes.fromhex(report["digest"])) == 32


def test_table(evaluate: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("--images", "2", "--final-step", "100") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "tiny: 2 test images, 2 draws of t, final step 100" in " ".join(output.out.split())
    for part in ("L_T, prior", "L_1..T-1, diffusion", "L_0, pixels", "total", "standard error"):
        assert part in output.out


@pytest.mark.parametrize(
    ("arguments", "exit_code", "message"),
    [
        (["--model", "absent"], 1, "absent: expected a packaged model"),
        (["--data", "absent"], 1, "absent: no such file or folder"),
        (["--final-step", "1000"], 2, "--final-step 1000: expected less than 1000 steps"),
        (["--split", "validation"], 2, "'validation' is not one of"),
        (["--images", "0"], 2, "--images"),
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
