import dataclasses
from typing import Any

import pytest
import torch
from torch import nn

from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser
from diffcodec.model.unet import UNet, UNetConfig

SMALL = UNetConfig(image_size=16, channels=(8, 16), attention_resolutions=(8,), groups=4)


def stirred(config: UNetConfig) -> UNet:
    """A network whose weights are all away from zero."""
    torch.manual_seed(0)
    network = UNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.parametrize(("name", "parameters"), [("ddpm", 35_746_307), ("default", 3_353_091)])
def test_the_size_of_named_configurations(name: str, parameters: int) -> None:
    # For "ddpm" it is the count of DDPM's own code, told as 35.7 M in its appendix B.
    with torch.device("meta"):
        denoiser = Denoiser(MODEL_CONFIGS[name])
    assert sum(parameter.numel() for parameter in denoiser.parameters()) == parameters


def test_names_are_the_configurations_own() -> None:
    assert all(config.name == name for name, config in MODEL_CONFIGS.items())


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"adaptive_norm": True},
        {"fourier_exponents": (6, 7)},
        {"heads": 2},
        {"blocks": 2},
        {"channels": (8,), "attention_resolutions": (16,)},
        {"channels": (8, 8, 16), "image_channels": 1},
    ],
)
def test_the_output_has_the_input_s_shape_and_every_weight_counts(change: dict[str, Any]) -> None:
    network = stirred(dataclasses.replace(SMALL, **change))
    z = torch.randn((2, network.config.image_channels, 16, 16))
    output = network(z, torch.tensor([3.0, 900.0]))
    assert output.shape == z.shape
    output.square().sum().backward()
    idle = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert not idle


def test_it_begins_as_zero() -> None:
    z = torch.randn((2, 3, 16, 16))
    assert not UNet(SMALL)(z, torch.tensor([0.0, 1000.0])).any()


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = stirred(SMALL)
    z, time = torch.randn((3, 3, 16, 16)), torch.tensor([1.0, 500.0, 999.0])
    together = network(z, time)
    torch.testing.assert_close(network(z[1:2], time[1:2]), together[1:2], rtol=1e-4, atol=1e-4)


def test_attention_is_softmax_of_scaled_products() -> None:
    network = stirred(dataclasses.replace(SMALL, heads=2))
    attention: Any = network.middle[1]
    hidden = torch.randn((2, 16, 8, 8))
    projected = attention.projection_in(attention.norm(hidden)).flatten(2)
    query, key, value = projected.reshape(2, 3, 2, 8, 64).unbind(1)
    weights = torch.softmax(torch.einsum("bhdq,bhdk->bhqk", query, key) / 8**0.5, dim=-1)
    mixed = torch.einsum("bhqk,bhdk->bhdq", weights, value).reshape(2, 16, 8, 8)
    expected = hidden + attention.projection_out(mixed)
    torch.testing.assert_close(attention(hidden), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 17}, "cannot be halved"),
        ({"image_size": 1}, "cannot be halved"),
        ({"channels": (8, 12), "groups": 8}, "multiples of 8 groups"),
        ({"channels": (8, 8), "heads": 3}, "of 3 heads"),
    ],
)
def test_shapes_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)
