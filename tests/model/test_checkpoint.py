import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load
from torch import nn

from diffcodec.diffusion.cosine import BANDS
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.diffusion.wiener import GAINS
from diffcodec.errors import CheckpointError
from diffcodec.model import checkpoint
from diffcodec.model.checkpoint import (
    ErrorCurve,
    ErrorSpectrum,
    load_checkpoint,
    model_config_from_dict,
    save_checkpoint,
)
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser, ModelConfig, Parameterization, Variance
from diffcodec.model.unet import UNetConfig

CONFIG = ModelConfig(
    name="small",
    parameterization=Parameterization.EPS,
    schedule=ScheduleConfig(steps=20),
    unet=UNetConfig(image_size=8, channels=(8,), attention_resolutions=(), groups=4),
)
CURVE = ErrorCurve((-12.0, 0.0, 5.0), (0.001, 0.1, 0.3))
ROW = tuple(1.0 + 0.1 * band for band in range(BANDS))
SPECTRUM = ErrorSpectrum(
    gamma=(-3.0, 2.0),
    power=((ROW, ROW, ROW[::-1]), (ROW[::-1], ROW, ROW)),
    spread=((1.0,) * len(GAINS), tuple(0.5 * gain for gain in GAINS)),
)


def small_denoiser(config: ModelConfig = CONFIG) -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(config)
    for parameter in denoiser.network.parameters():
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


def test_configurations_from_before_a_field_have_its_default() -> None:
    fields = json.loads(json.dumps(dataclasses.asdict(CONFIG)))
    del fields["variance"], fields["pixel_model"], fields["schedule"]["table"]
    for name in ("head_channels", "residual_resampling", "residual_rescaling", "separable"):
        del fields["unet"][name]
    assert model_config_from_dict(fields) == CONFIG


def test_a_learned_schedule_is_stored_as_its_table(tmp_path: Path) -> None:
    schedule = ScheduleConfig(kind="learned", steps=20)
    denoiser = small_denoiser(dataclasses.replace(CONFIG, schedule=schedule))
    save_checkpoint(tmp_path, denoiser, CURVE, torch.float32)
    loaded = load_checkpoint(tmp_path)
    np.testing.assert_array_equal(loaded.denoiser.schedule.gamma, denoiser.schedule.gamma)
    stored = loaded.config.schedule
    assert stored.kind == "table"
    np.testing.assert_array_equal(make_schedule(stored).gamma, denoiser.schedule.gamma)
    names = set(loaded.denoiser.state_dict())
    assert {name.split(".")[0] for name in names} == {"network"}
    z, gamma = torch.randn((2, 3, 8, 8)), torch.tensor([-9.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(loaded.denoiser(z, gamma), denoiser.eval()(z, gamma))


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
        {"variance": Variance.FORWARD},
        {"pixel_model": True},
    ):
        denoiser = small_denoiser(dataclasses.replace(CONFIG, **change))
        digests.append(save_checkpoint(tmp_path, denoiser, CURVE))
    for curve in (
        ErrorCurve((-12.0, 0.0, 5.5), CURVE.error),
        ErrorCurve(CURVE.gamma, (0.001, 0.1, 0.31)),
        ErrorCurve(CURVE.gamma, CURVE.error, SPECTRUM),
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
        lambda fields: fields.update(format=3),
        lambda fields: fields.pop("format"),
        lambda fields: fields.update(digest="xyz"),
        lambda fields: fields.update(digest=None),
        lambda fields: fields.pop("digest"),
        lambda fields: fields["model"].update(parameterization="score"),
        lambda fields: fields["model"]["unet"].update(depth=4),
        lambda fields: fields["model"]["unet"].update(channels=[7]),
        lambda fields: fields["model"]["unet"].update(channels="wide"),
        lambda fields: fields["model"]["schedule"].update(kind="sigmoid"),
        lambda fields: fields["model"]["schedule"].update(table=[0.0, 1.0]),
        lambda fields: fields["model"].update(variance="wide"),
        lambda fields: fields["model"].update(schedule=None),
        lambda fields: fields["error_curve"].update(error=[0.1]),
        lambda fields: fields["error_curve"].update(gamma=[1, 0, 2]),
        lambda fields: fields["error_curve"].update(error=[0.1, None, 0.3]),
        lambda fields: fields["error_curve"].update(spread=[1.0, 1.0, 1.0]),
        lambda fields: fields["error_curve"].update(spectrum=None),
        lambda fields: fields["error_curve"].pop("spectrum"),
        lambda fields: fields["error_curve"]["spectrum"].update(gamma=[]),
        lambda fields: fields["error_curve"]["spectrum"].update(power=[[[1.0]]]),
        lambda fields: fields["error_curve"]["spectrum"].update(spread=[[1.0, -1.0]]),
        lambda fields: fields["error_curve"]["spectrum"].update(bands=16),
        lambda fields: fields.update(format=1),
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


@pytest.mark.parametrize("failing", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("fault", [OSError("disk full"), KeyboardInterrupt()])
def test_a_failed_save_keeps_the_old_files(
    folder: Path, monkeypatch: pytest.MonkeyPatch, failing: str, fault: BaseException
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    opened: list[str] = []
    whole_open = Path.open

    def fail(path: Path, *arguments: Any) -> Any:
        file = whole_open(path, *arguments)
        opened.append(path.name)
        if failing in path.name:
            file.write(b"half")
            file.close()
            raise fault
        return file

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", fail)
        with pytest.raises(type(fault)):
            save_checkpoint(folder, small_denoiser(), CURVE, torch.float32)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert not before.keys() & set(opened)


def test_files_that_do_not_belong_together_are_noticed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Cut off between the two renames: the weights are new, the configuration is old.
    whole_replace = Path.replace

    def fail(path: Path, target: Path) -> Path:
        if target.name == "config.json":
            raise OSError("power cut")
        return whole_replace(path, target)

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OSError, match="power cut"):
        save_checkpoint(folder, small_denoiser(), CURVE, torch.float32)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    with pytest.raises(CheckpointError, match="damaged, the digest"):
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


def test_a_spectrum_is_read_back_and_is_flat_where_none_is_named(tmp_path: Path) -> None:
    assert CURVE.spectrum == ErrorSpectrum.flat()
    uneven = dataclasses.replace(CURVE, spectrum=SPECTRUM)
    save_checkpoint(tmp_path, small_denoiser(), uneven)
    assert load_checkpoint(tmp_path).error_curve == uneven


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": ()},
        {"gamma": (-3.0,)},
        {"gamma": (2.0, -3.0)},
        {"power": SPECTRUM.power[:1]},
        {"power": (SPECTRUM.power[0][:2], SPECTRUM.power[1])},
        {"power": ((ROW[:-1],) * 3, SPECTRUM.power[1])},
        {"power": (((0.0, *ROW[1:]),) * 3, SPECTRUM.power[1])},
        {"power": (((math.nan, *ROW[1:]),) * 3, SPECTRUM.power[1])},
        {"spread": (SPECTRUM.spread[0], SPECTRUM.spread[1][1:])},
        {"spread": (SPECTRUM.spread[0], (-0.1, *SPECTRUM.spread[1][1:]))},
    ],
)
def test_spectra_that_are_none(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="an error spectrum needs"):
        dataclasses.replace(SPECTRUM, **change)


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
    """No `pixel_model`, and the digest of what is there."""
    weights = load((folder / "model.safetensors").read_bytes())

    def older(fields: dict[str, Any]) -> None:
        del fields["model"]["pixel_model"], fields["digest"]
        fields["digest"] = checkpoint._digest(fields, weights).hex()

    edit(folder, older)
    loaded = load_checkpoint(folder)
    assert not loaded.config.pixel_model
    assert loaded.error_curve == CURVE
