import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load
from torch import nn

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.errors import CheckpointError
from diffcodec.model import checkpoint
from diffcodec.model.checkpoint import (
    ErrorCurve,
    load_checkpoint,
    model_config_from_dict,
    save_checkpoint,
)
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser, ModelConfig, Parameterization
from diffcodec.model.unet import UNetConfig

CONFIG = ModelConfig(
    name="small",
    parameterization=Parameterization.EPS,
    schedule=ScheduleConfig(steps=20),
    unet=UNetConfig(image_size=8, channels=(8,), attention_resolutions=(), groups=4),
)
CURVE = ErrorCurve((-12.0, 0.0, 5.0), (0.001, 0.1, 0.3))


def small_denoiser(config: ModelConfig = CONFIG) -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(config)
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    return denoiser


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "m", small_denoiser(), CURVE)
    return tmp_path / "m"


def edit(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = folder / "config.json"
    fields = json.loads(path.read_text("utf-8"))
    change(fields)
    path.write_text(json.dumps(fields), "utf-8")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_round_trip(tmp_path: Path, dtype: torch.dtype) -> None:
    denoiser = small_denoiser()
    digest = save_checkpoint(tmp_path, denoiser, CURVE, dtype)
    loaded = load_checkpoint(tmp_path)
    assert (loaded.digest, loaded.config, loaded.error_curve) == (digest, CONFIG, CURVE)
    assert not loaded.denoiser.training
    state = loaded.denoiser.state_dict()
    for name, tensor in denoiser.state_dict().items():
        assert state[name].dtype == torch.float32
        assert torch.equal(state[name], tensor.to(dtype).float()), name
    # What was rounded once stays as it is.
    assert save_checkpoint(tmp_path / "again", loaded.denoiser, CURVE, dtype) == digest


@pytest.mark.parametrize("name", sorted(MODEL_CONFIGS))
def test_configurations_survive_json(name: str) -> None:
    fields = json.loads(json.dumps(dataclasses.asdict(MODEL_CONFIGS[name])))
    assert model_config_from_dict(fields) == MODEL_CONFIGS[name]


def test_the_digest_follows_every_weight_and_field(tmp_path: Path) -> None:
    digests = [save_checkpoint(tmp_path, small_denoiser(), CURVE)]
    for name, _ in small_denoiser().named_parameters():
        denoiser = small_denoiser()
        with torch.no_grad():
            denoiser.get_parameter(name).flatten()[-1] += 0.25
        digests.append(save_checkpoint(tmp_path, denoiser, CURVE))
    for change in (
        {"name": "other"},
        {"parameterization": Parameterization.V},
        {"schedule": ScheduleConfig(steps=21)},
        {"schedule": ScheduleConfig(steps=20, gamma_min=-11.0)},
        {"unet": dataclasses.replace(CONFIG.unet, dropout=0.1)},
        {"pixel_model": True},
    ):
        denoiser = small_denoiser(dataclasses.replace(CONFIG, **change))
        digests.append(save_checkpoint(tmp_path, denoiser, CURVE))
    for curve in (
        ErrorCurve((-12.0, 0.0, 5.5), CURVE.error),
        ErrorCurve(CURVE.gamma, (0.001, 0.1, 0.31)),
        ErrorCurve(CURVE.gamma, CURVE.error, (1.0, 2.0, 1.5)),
    ):
        digests.append(save_checkpoint(tmp_path, small_denoiser(), curve))
    assert len(set(digests)) == len(digests)
    assert save_checkpoint(tmp_path, small_denoiser(), CURVE) == digests[0]


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{}", b"[1]", b"foreign"])
def test_missing_and_foreign_files(folder: Path, name: str, content: bytes | None) -> None:
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=str(folder / name)):
        load_checkpoint(folder)


def test_damaged_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    for place in (0, 9, 60, len(whole) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 0x10
        path.write_bytes(bytes(flipped))
        with pytest.raises(CheckpointError, match=str(folder)):
            load_checkpoint(folder)
    for length in (4, 100, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            load_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields.update(format=2),
        lambda fields: fields.pop("format"),
        lambda fields: fields.update(digest="xyz"),
        lambda fields: fields.update(digest=None),
        lambda fields: fields.pop("digest"),
        lambda fields: fields["model"].update(parameterization="mu"),
        lambda fields: fields["model"]["unet"].update(depth=4),
        lambda fields: fields["model"]["unet"].update(channels=[7]),
        lambda fields: fields["model"]["unet"].update(channels="wide"),
        lambda fields: fields["model"]["schedule"].update(kind="sigmoid"),
        lambda fields: fields["model"].update(schedule=None),
        lambda fields: fields["error_curve"].update(error=[0.1]),
        lambda fields: fields["error_curve"].update(gamma=[1, 0, 2]),
        lambda fields: fields["error_curve"].update(spread=[1.0, 2.0]),
        lambda fields: fields["error_curve"].update(spread=[1.0, 2.0, 0.9]),
        lambda fields: fields["error_curve"].update(spread=None),
        lambda fields: fields.pop("model"),
    ],
)
def test_other_configurations(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=r"config\.json: not a model's configuration"):
        load_checkpoint(folder)


@pytest.mark.parametrize(
    "change",
    [
        lambda fields: fields["model"]["schedule"].update(gamma_max=4.5),
        lambda fields: fields["model"].update(name="renamed"),
        lambda fields: fields["error_curve"].update(error=[0.001, 0.1, 0.4]),
        lambda fields: fields.update(digest="00" * 32),
    ],
)
def test_edits_are_noticed(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    edit(folder, change)
    with pytest.raises(CheckpointError, match=f"{folder}: damaged, the digest"):
        load_checkpoint(folder)


def test_weights_of_another_shape(tmp_path: Path) -> None:
    denoiser = small_denoiser()
    denoiser.config = dataclasses.replace(
        CONFIG, unet=dataclasses.replace(CONFIG.unet, channels=(16,))
    )
    save_checkpoint(tmp_path, denoiser, CURVE)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: weights do not fit") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("gamma", "error"),
    [((0.0,), (1.0,)), ((0.0, 1.0), (1.0,)), ((1.0, 0.0), (1.0, 1.0)), ((0.0, 1.0), (0.0, 1.0))],
)
def test_error_curves_that_are_none(gamma: tuple[float, ...], error: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="error"):
        ErrorCurve(gamma, error)


def test_a_spread_is_read_back_and_is_one_where_none_is_named(tmp_path: Path) -> None:
    assert CURVE.spread == (1.0, 1.0, 1.0)
    uneven = dataclasses.replace(CURVE, spread=(1.0, 2.5, 4.0))
    save_checkpoint(tmp_path, small_denoiser(), uneven)
    assert load_checkpoint(tmp_path).error_curve == uneven


@pytest.mark.parametrize("spread", [(1.0, 2.0), (1.0, 2.0, 0.99), (1.0, 1.0, 1.0, 1.0)])
def test_spreads_that_are_none(spread: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="spread"):
        dataclasses.replace(CURVE, spread=spread)


def test_a_pixel_model_survives_the_disk(tmp_path: Path) -> None:
    denoiser = small_denoiser(dataclasses.replace(CONFIG, pixel_model=True))
    save_checkpoint(tmp_path, denoiser, CURVE, torch.float32)
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == denoiser.config
    z, gamma = torch.zeros((1, 3, 8, 8)), torch.zeros(1)
    with torch.no_grad():
        found, expected = loaded.denoiser.posterior(z, gamma), denoiser.eval().posterior(z, gamma)
    torch.testing.assert_close(found.log_variance, expected.log_variance)


def test_a_configuration_from_before_pixel_models_is_read(folder: Path) -> None:
    """Neither `pixel_model` nor `spread`, and the digest of what is there."""
    weights = load((folder / "model.safetensors").read_bytes())

    def older(fields: dict[str, Any]) -> None:
        del fields["model"]["pixel_model"], fields["error_curve"]["spread"], fields["digest"]
        fields["digest"] = checkpoint._digest(fields, weights).hex()

    edit(folder, older)
    loaded = load_checkpoint(folder)
    assert not loaded.config.pixel_model
    assert loaded.error_curve == CURVE
