"""Starting a network from another one's weights, where they fit."""

from collections.abc import Hashable

import torch
from torch import Tensor, nn

from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import Place, UNetConfig, places

NETWORK = "network."
HEAD_WEIGHT = f"{NETWORK}head.weight"
TAIL = (f"{NETWORK}tail.weight", f"{NETWORK}tail.bias")


@torch.no_grad()
def warm_start(denoiser: Denoiser, source: Denoiser) -> list[str]:
    """Copy the weights of ``source`` into ``denoiser``; one note for each that is no plain copy.

    Tensors of one place and shape are copied. A first convolution that gained input channels, and a
    last one that gained output channels, get zeros there; the stages of a level that gained some
    pass on what they are given. The network so begins as the function that ``source`` computes.
    All others keep their initial values.
    """
    old = _renamed(source, denoiser.config.unet)
    new = denoiser.state_dict()
    given_inputs = _inputs(source.config, old[HEAD_WEIGHT].shape[1])
    inputs = _inputs(denoiser.config, new[HEAD_WEIGHT].shape[1])
    known_inputs = set(given_inputs) <= set(inputs)
    passing = _pass_on(denoiser, source.config.unet)
    notes = [f"{stage}: new, passes on what it is given" for stage in passing]
    within = tuple(f"{stage}." for stage in passing)
    for name, tensor in new.items():
        if name.startswith(within):
            continue
        if name not in old:
            notes.append(f"{name} {tuple(tensor.shape)}: new, keeps its initial values")
            continue
        given = old[name]
        same = given.shape == tensor.shape
        if same and (name != HEAD_WEIGHT or given_inputs == inputs):
            tensor.copy_(given)
            continue
        what = f"{name} {tuple(given.shape)} to {tuple(tensor.shape)}"
        if name == HEAD_WEIGHT and known_inputs and _fits(given, tensor, axis=1):
            tensor.zero_()
            tensor[:, [inputs.index(label) for label in given_inputs]] = given
            notes.append(f"{what}: padded with zeros")
        elif name in TAIL and _fits(given, tensor, axis=0):
            tensor.zero_()
            tensor[: len(given)] = given
            notes.append(f"{what}: padded with zeros")
        else:
            notes.append(f"{what}: does not fit, keeps its initial values")
    return notes


def _renamed(source: Denoiser, target: UNetConfig) -> dict[str, Tensor]:
    """Weights of ``source`` by the names that their places have in a network of ``target``."""
    config = source.config.unet
    names = {place: name for name, place in places(config).items()}
    moves = [
        (names[origin], name)
        for name, place in places(target).items()
        if (origin := _origin(place, config, target)) in names
    ]
    given = source.state_dict()
    staged = tuple(f"{NETWORK}{name}." for name in names.values())
    renamed = {name: tensor for name, tensor in given.items() if not name.startswith(staged)}
    for old, new in moves:
        prefix = f"{NETWORK}{old}."
        for name, tensor in given.items():
            if name.startswith(prefix):
                renamed[f"{NETWORK}{new}.{name.removeprefix(prefix)}"] = tensor
    return renamed


def _origin(place: Place, source: UNetConfig, target: UNetConfig) -> Place | None:
    """Where a stage of ``target`` finds its weights in ``source``; None where it has none there.

    Stages are added at a level's end on its way down. On its way up the first takes the last of
    its skip connections, which until they learn are the same.
    """
    direction, level, skip = place
    if direction == "up" and skip == target.blocks:
        return direction, level, source.blocks
    if direction == "up" and skip >= source.blocks:
        return None
    return place


def _pass_on(denoiser: Denoiser, source: UNetConfig) -> list[str]:
    """Make the stages that levels gained identities; their names.

    Their branches begin as zero in any network; a shortcut takes what the stage before gives and
    leaves the skip connection out. Where sums are rescaled there is no identity.
    """
    target = denoiser.config.unet
    if target.residual_rescaling:
        return []
    known = set(places(source).values())
    gained = []
    for name, place in places(target).items():
        _, level, skip = place
        if skip < 0 or level >= len(source.channels) or _origin(place, source, target) in known:
            continue
        shortcut = denoiser.network.get_submodule(f"{name}.block.shortcut")
        if isinstance(shortcut, nn.Conv2d) and shortcut.bias is not None:
            nn.init.dirac_(shortcut.weight)
            nn.init.zeros_(shortcut.bias)
        gained.append(f"{NETWORK}{name}")
    return gained


def _inputs(config: ModelConfig, width: int) -> list[Hashable]:
    """What each input channel of the first convolution holds: image, conditions, waves of z."""
    channels, exponents = config.unet.image_channels, config.unet.fourier_exponents
    image = [("image", channel) for channel in range(channels)]
    waves = [
        (wave, exponent, channel)
        for exponent in exponents
        for wave in ("sin", "cos")
        for channel in range(channels)
    ]
    conditions = [("condition", n) for n in range(width - len(image) - len(waves))]
    return [*image, *conditions, *waves]


def _fits(given: Tensor, tensor: Tensor, axis: int) -> bool:
    """Whether ``given`` is as large as ``tensor`` in all axes but one, and not larger there."""
    pairs = list(zip(given.shape, tensor.shape, strict=True))
    grown = pairs.pop(axis)
    return grown[0] <= grown[1] and all(old == new for old, new in pairs)
