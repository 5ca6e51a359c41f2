import dataclasses
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from diffcodec.model.unet import UNet, UNetConfig, group_norm_channels_last, places

SMALL = UNetConfig(image_size=16, channels=(8, 16), attention_resolutions=(8,), groups=4)


def stirred(config: UNetConfig) -> UNet:
    """A network whose weights are all away from zero."""
    torch.manual_seed(0)
    network = UNet(config)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"adaptive_norm": True},
        {"fourier_exponents": (6, 7)},
        {"heads": 2},
        {"head_channels": 4, "attention_resolutions": (16, 8)},
        {"residual_resampling": True},
        {"residual_resampling": True, "adaptive_norm": True, "channels": (8, 8, 16)},
        {"residual_rescaling": True},
        {"separable": True},
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


def test_separable_convolutions_see_as_far_for_a_ninth_of_the_arithmetic() -> None:
    plain, separable = (
        stirred(dataclasses.replace(SMALL, separable=separable)).down[0].block.convolution_in
        for separable in (False, True)
    )
    hidden = torch.zeros((1, 8, 16, 16))
    hidden[0, 3, 8, 8] = 1.0
    for convolution in (plain, separable):
        reached = (convolution(hidden) - convolution(0 * hidden)).abs().sum(dim=(0, 1)) > 0
        assert reached.sum() == 9
        assert reached[7:10, 7:10].all()
    weights = [sum(p.numel() for p in c.parameters() if p.ndim > 1) for c in (plain, separable)]
    assert weights == [8 * 8 * 9, 8 * 9 + 8 * 8]
    # A block of either kind begins as its shortcut.
    block = UNet(dataclasses.replace(SMALL, separable=True)).down[0].block
    assert torch.equal(block(hidden, torch.randn((1, 32))), hidden)


def test_images_of_a_batch_do_not_see_each_other() -> None:
    network = stirred(SMALL)
    z, time = torch.randn((3, 3, 16, 16)), torch.tensor([1.0, 500.0, 999.0])
    together = network(z, time)
    torch.testing.assert_close(network(z[1:2], time[1:2]), together[1:2], rtol=1e-4, atol=1e-4)


def test_groups_are_normalized_as_they_lie() -> None:
    random = torch.Generator().manual_seed(0)
    hidden = 5.0 + 2.0 * torch.randn((3, 12, 6, 5), generator=random, dtype=torch.float64)
    hidden = hidden.float().contiguous(memory_format=torch.channels_last)
    weight, bias = (torch.randn(12, generator=random) for _ in range(2))
    given = [part.clone().requires_grad_() for part in (hidden, weight, bias)]
    reference = [part.clone().requires_grad_() for part in (hidden, weight, bias)]
    ours = group_norm_channels_last(given[0], 4, given[1], given[2], 1e-5)
    theirs = functional.group_norm(reference[0], 4, reference[1], reference[2], 1e-5)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for output in (ours, theirs):
        (output * torch.arange(output.numel()).reshape(output.shape).cos()).sum().backward()
    for mine, its in zip(given, reference, strict=True):
        torch.testing.assert_close(mine.grad, its.grad, rtol=1e-4, atol=1e-4)


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


@pytest.mark.parametrize("change", [{"heads": 2}, {"image_size": 12, "channels": (8, 16, 16)}])
def test_a_larger_image_attends_to_a_tile_around_each_block(change: dict[str, Any]) -> None:
    """By full attention with a mask of what is near."""
    config = dataclasses.replace(SMALL, **change)
    attention: Any = stirred(config).middle[1]
    reach = config.image_size >> (len(config.channels) - 1)
    height, width = 3 * reach, 2 * reach
    hidden = torch.randn((2, 16, height, width))
    block = reach // 2 if reach % 2 == 0 else reach

    def near(side: int) -> torch.Tensor:
        """Whether a place in a row may look at another, bool [side, side]."""
        place = torch.arange(side)
        first = (place // block * block - (reach - block) // 2).clamp(0, side - reach)[:, None]
        return (first <= place) & (place < first + reach)

    mask = near(height)[:, None, :, None] & near(width)[None, :, None, :]
    assert (mask.sum(dim=(2, 3)) == reach * reach).all()
    projected = attention.projection_in(attention.norm(hidden)).flatten(2)
    heads = config.heads
    query, key, value = projected.reshape(2, 3, heads, 16 // heads, height * width).unbind(1)
    products = torch.einsum("bhdq,bhdk->bhqk", query, key) / (16 // heads) ** 0.5
    products = products.masked_fill(~mask.reshape(height * width, -1), -torch.inf)
    mixed = torch.einsum("bhqk,bhdk->bhdq", products.softmax(dim=-1), value)
    expected = hidden + attention.projection_out(mixed.reshape(hidden.shape))
    torch.testing.assert_close(attention(hidden), expected, rtol=1e-4, atol=1e-4)


def test_a_larger_image_is_taken_whole() -> None:
    network = stirred(dataclasses.replace(SMALL, attention_resolutions=(16, 8)))
    z, time = torch.randn((1, 3, 48, 32)), torch.tensor([500.0])
    output = network(z, time)
    assert output.shape == z.shape
    # What lies beyond a tile's edge has a say inside.
    changed = z.clone()
    changed[:, :, 16:18] += 1.0
    assert (network(changed, time) - output)[:, :, 14:16].abs().max() > 1e-3


def test_head_channels_decide_the_heads_of_every_width() -> None:
    change = {"head_channels": 4, "attention_resolutions": (16, 8)}
    network = stirred(dataclasses.replace(SMALL, **change))
    layers = [stage.attention for stage in network.down if hasattr(stage, "attention")]
    assert [layer.heads for layer in layers] == [2, 4]
    # Names and shapes of weights are those of any number of heads.
    plain = UNet(dataclasses.replace(SMALL, attention_resolutions=(16, 8)))
    network.load_state_dict(plain.state_dict())


def test_blocks_that_resample_begin_as_plain_resampling() -> None:
    network = UNet(dataclasses.replace(SMALL, residual_resampling=True))
    hidden, embedding = torch.randn((2, 8, 16, 16)), torch.randn((2, 32))
    down = next(m for m in network.down if getattr(m, "resample", None) == "down")
    pooled = hidden.reshape(2, 8, 8, 2, 8, 2).mean(dim=(3, 5))
    torch.testing.assert_close(down(hidden, embedding), pooled)
    up = next(m for m in network.up if getattr(m, "resample", None) == "up")
    hidden = torch.randn((2, 16, 8, 8))
    repeated = hidden.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(up(hidden, embedding), repeated)


def test_rescaling_keeps_the_variance_of_sums_of_equals() -> None:
    config = dataclasses.replace(SMALL, residual_rescaling=True)
    plain, rescaled = stirred(SMALL), stirred(config)
    hidden, embedding = torch.randn((2, 8, 16, 16)), torch.randn((2, 32))
    block, scaled_block = plain.down[0].block, rescaled.down[0].block
    expected = block(hidden, embedding) / 2**0.5
    torch.testing.assert_close(scaled_block(hidden, embedding), expected)
    hidden = torch.randn((2, 16, 8, 8))
    expected = plain.middle[1](hidden) / 2**0.5
    torch.testing.assert_close(rescaled.middle[1](hidden), expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 17}, "cannot be halved"),
        ({"image_size": 1}, "cannot be halved"),
        ({"channels": (8, 12), "groups": 8}, "multiples of 8 groups"),
        ({"channels": (8, 8), "heads": 3}, "of 3 heads"),
        ({"heads": 2, "head_channels": 4}, "exclude each other"),
        ({"head_channels": 3}, r"\[16, 16\] must be multiples of 3 a head"),
        ({"head_channels": 0}, "multiples of 0 a head"),
        ({"head_channels": 16, "attention_resolutions": (16,)}, r"\[16, 8\] must be multiples"),
    ],
)
def test_shapes_that_are_none(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **change)


@pytest.mark.parametrize("blocks", [1, 3])
def test_places_are_those_of_the_modules(blocks: int) -> None:
    config = UNetConfig(image_size=16, channels=(16, 32, 48), blocks=blocks)
    network = UNet(config)
    modules = {
        f"{direction}.{number}": module
        for direction in ("down", "up")
        for number, module in network.get_submodule(direction).named_children()
    }
    found = places(config)
    assert found.keys() == modules.keys()
    width = config.channels[-1]
    for name, (direction, level, skip) in found.items():
        assert hasattr(modules[name], "block") == (skip >= 0)
        if skip < 0:
            continue
        block = modules[name].block
        assert block.convolution_out.out_channels == config.channels[level]
        if direction == "up":
            # Widths differ between levels, so that a stage's own tells which connection it takes.
            connection = config.channels[level if skip else max(0, level - 1)]
            assert block.convolution_in.in_channels == width + connection
            width = config.channels[level]
