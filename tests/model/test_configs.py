import pytest
import torch
from safetensors.torch import load_file

from diffcodec.model.catalog import PACKAGED
from diffcodec.model.checkpoint import WEIGHTS_NAME
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import Denoiser


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # The count of DDPM's own code, told as 35.7 M in its appendix B.
        ("ddpm", 35_746_307),
        ("default", 4_812_745),
        ("small", 3_357_129),
        ("adm", 57_558_790),
        ("vdm", 30_589_319),
        ("tiny", 69_331),
    ],
)
def test_the_size_of_named_configurations(name: str, parameters: int) -> None:
    assert measure_cost(MODEL_CONFIGS[name]).parameters == parameters


def test_names_are_the_configurations_own() -> None:
    assert all(config.name == name for name, config in MODEL_CONFIGS.items())


def test_weights_of_the_default_network_keep_their_names() -> None:
    # What other models' options add must not rename what the shipped weights are called.
    with torch.device("meta"):
        names = set(Denoiser(MODEL_CONFIGS["default"]).state_dict())
    assert names == set(load_file(PACKAGED / "default" / WEIGHTS_NAME))
