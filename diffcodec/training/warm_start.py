"""Starting a network from another one's weights, where they fit."""

from collections.abc import Hashable

import torch
from torch import Tensor

from diffcodec.model.denoiser import Denoiser, ModelConfig

HEAD_WEIGHT = "network.head.weight"
TAIL = ("network.tail.weight", "network.tail.bias")


@torch.no_grad()
def warm_start(denoiser: Denoiser, source: Denoiser) -> list[str]:
    """Copy the weights of ``source`` into ``denoiser``; one note for each that is no plain copy.

    Tensors of one name and shape are copied. A first convolution that gained input channels, and a
    last one that gained output channels, get zeros there, so that the network begins as the
    function that ``source`` computes. All others keep their initial values.
    """
    notes = []
    old = source.state_dict()
    new = denoiser.state_dict()
    given_inputs = _inputs(source.config, old[HEAD_WEIGHT].shape[1])
    inputs = _inputs(denoiser.config, new[HEAD_WEIGHT].shape[1])
    known_inputs = set(given_inputs) <= set(inputs)
    for name, tensor in new.items():
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
