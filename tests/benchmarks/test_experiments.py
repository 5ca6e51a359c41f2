import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import experiments
from benchmarks.experiments import (
    BASELINE,
    VARIANTS,
    ExperimentWork,
    Settings,
    experiments_table,
    file_costs,
    main,
    rows,
)
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training.recipes import RECIPES

Pixels = NDArray[np.uint8]

SETTINGS = Settings(images=64, draws=2, coded=0, device="cpu", precision="float32")


@pytest.fixture
def tiny() -> ModelConfig:
    """A base of 16 × 16 images that every variant of the network can change."""
    base = MODEL_CONFIGS[BASELINE]
    unet = dataclasses.replace(
        base.unet, image_size=16, channels=(16, 16), groups=8, attention_resolutions=(8,)
    )
    return dataclasses.replace(base, unet=unet)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_changes_what_it_says(name: str) -> None:
    base, recipe = MODEL_CONFIGS[BASELINE], RECIPES[BASELINE]
    variant = VARIANTS[name]
    changed = variant.config(base), variant.recipe(recipe)
    assert (changed == (base, recipe)) == (name == BASELINE)
    # A network of another make takes about the same arithmetic, but for those that say so.
    flop = measure_cost(changed[0]).flop / measure_cost(base).flop
    assert flop == pytest.approx(1.5 if name in ("two-blocks", "wide") else 1.0, rel=0.15)


def test_a_variant_is_trained_and_measured(tiny: ModelConfig, images: Pixels) -> None:
    settings = dataclasses.replace(SETTINGS, coded=1)
    work = ExperimentWork(images, images, settings, tiny)
    result = json.loads(json.dumps(work("dropout")))
    assert result["images"] == 64
    assert len(result["cost_bpd"]) == len(images)
    assert all(cost > 0.0 for cost in result["cost_bpd"])
    assert len(result["coded_bpd"]) == 1
    assert result["parameters"] == measure_cost(tiny).parameters


def test_costs_are_the_same_twice_and_fall_with_training(tiny: ModelConfig, images: Pixels) -> None:
    torch.manual_seed(0)
    untrained = Denoiser(tiny).eval()
    first, second = (file_costs(untrained, images, 3) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    longer = dataclasses.replace(SETTINGS, images=3200)
    work = ExperimentWork(images, images, longer, tiny)
    assert np.mean(work(BASELINE)["cost_bpd"]) < first.mean()


def result(costs: list[float]) -> dict[str, Any]:
    numbers = {"images": 9, "seconds": 3.0, "parameters": 10, "flop": 20, "evaluation_ms": 1.5}
    return {**numbers, "cost_bpd": costs, "coded_bpd": None}


def test_differences_are_paired_by_image() -> None:
    found = rows({"adam": result([4.1, 5.1, 6.1]), BASELINE: result([4.0, 5.0, 6.0])})
    assert [row["name"] for row in found] == [BASELINE, "adam"]
    assert found[0]["difference_bpd"] is None
    assert found[1]["difference_bpd"] == pytest.approx(0.1)
    assert found[1]["difference_error_bpd"] == pytest.approx(0.0, abs=1e-9)
    head, cells = experiments_table(found)
    assert all(len(row) == len(head) for row in cells)
    assert cells[1][-2] == "+0.100 ± 0.000"
    assert rows({"adam": result([4.1])})[0]["difference_bpd"] is None


def test_one_command_writes_the_record(
    tiny: ModelConfig,
    images: Pixels,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_this_process(items: list[str], work: Any, *others: Any) -> None:
        journal, _, advance = others[1:]
        for item in items:
            journal.add(item, dataclasses.replace(work, base=tiny)(item))
            advance()

    monkeypatch.setattr(experiments.campaign, "run", in_this_process)
    monkeypatch.setattr(experiments, "training_and_held_out", lambda data: (images, images))
    command = ["--images", "32", "--held-out", "2", "--draws", "1", "--jobs", "1"]
    command += ["--precision", "float32", "--out", str(tmp_path)]
    assert main([BASELINE, "eps", *command]) == 0
    record = json.loads((tmp_path / experiments.RESULT).read_text())
    assert [row["name"] for row in record["rows"]] == [BASELINE, "eps"]
    assert record["settings"]["images"] == 32
    assert "ε-prediction" in capsys.readouterr().out
    assert main([BASELINE, *command]) == 1
    assert "--resume goes on with it" in capsys.readouterr().err


@pytest.mark.parametrize("arguments", [["no-such-variant"], ["--images", "0"], ["--coded", "-1"]])
def test_misuse_is_told_before_work(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "expected" in capsys.readouterr().err
