import dataclasses

import pytest
import torch
from torch import nn

from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import UNetConfig
from diffcodec.training.warm_start import HEAD_WEIGHT, warm_start

UNET = UNetConfig(image_size=8, channels=(8, 8), attention_resolutions=(), groups=4)
PLAIN = ModelConfig(name="plain", unet=UNET)


def with_waves(*exponents: int) -> ModelConfig:
    return ModelConfig(unet=dataclasses.replace(UNET, fourier_exponents=exponents))


def random_denoiser(config: ModelConfig) -> Denoiser:
    torch.manual_seed(0)
    denoiser = Denoiser(config).eval()
    for parameter in denoiser.parameters():
        nn.init.normal_(parameter, std=0.2)
    return denoiser


@pytest.mark.parametrize(
    ("source", "target", "padded"),
    [
        (PLAIN, PLAIN, 0),
        (PLAIN, dataclasses.replace(PLAIN, pixel_model=True), 3),
        # The mask of known pixels comes before the waves, whose weights must move.
        (with_waves(6, 7), dataclasses.replace(with_waves(6, 7), pixel_model=True), 3),
        (PLAIN, with_waves(6), 1),
        (with_waves(7), with_waves(6, 7), 1),
        # The same shape in another order.
        (with_waves(6, 7), with_waves(7, 6), 1),
    ],
)
def test_the_function_is_the_source_s(
    source: ModelConfig, target: ModelConfig, padded: int
) -> None:
    given, denoiser = random_denoiser(source), Denoiser(target).eval()
    notes = warm_start(denoiser, given)
    assert len(notes) == padded
    assert all(note.endswith("padded with zeros") for note in notes)
    z, gamma = torch.randn(2, 3, 8, 8), torch.tensor([-6.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(denoiser(z, gamma), given(z, gamma), rtol=1e-4, atol=1e-5)
        if target.pixel_model:
            posterior = denoiser.posterior(z, gamma, torch.ones(2, 1, 8, 8))
            torch.testing.assert_close(posterior.mean, given(z, gamma), rtol=1e-4, atol=1e-5)
            assert not posterior.mixing.any()


@pytest.mark.parametrize(("had", "has", "gained"), [(1, 2, 4), (1, 3, 8), (2, 3, 4)])
def test_a_level_that_gains_stages_begins_as_the_same_function(
    had: int, has: int, gained: int
) -> None:
    unet = dataclasses.replace(UNET, channels=(8, 16), attention_resolutions=(4,))
    config = ModelConfig(unet=dataclasses.replace(unet, blocks=had), pixel_model=True)
    deeper = dataclasses.replace(config, unet=dataclasses.replace(unet, blocks=has))
    given, denoiser = random_denoiser(config), Denoiser(deeper).eval()
    notes = warm_start(denoiser, given)
    assert len(notes) == gained
    assert all(note.endswith("new, passes on what it is given") for note in notes)
    z, gamma = torch.randn(2, 3, 8, 8), torch.tensor([-6.0, 2.0])
    with torch.no_grad():
        torch.testing.assert_close(denoiser(z, gamma), given(z, gamma), rtol=1e-4, atol=1e-5)
    for name in {note.split(":")[0] for note in notes}:
        branch = f"{name}.block.convolution_in.weight"
        assert denoiser.state_dict()[branch].any(), "a branch of zeros alone would never learn"


def test_what_does_not_fit_keeps_its_initial_values() -> None:
    wider = dataclasses.replace(PLAIN, unet=dataclasses.replace(UNET, channels=(8, 16)))
    denoiser = Denoiser(wider)
    before = {name: tensor.clone() for name, tensor in denoiser.state_dict().items()}
    source = random_denoiser(PLAIN)
    given = source.state_dict()
    notes = warm_start(denoiser, source)
    kept = {note.split()[0] for note in notes}
    assert kept
    for name, tensor in denoiser.state_dict().items():
        fits = name in given and given[name].shape == tensor.shape
        assert (name in kept) != fits
        assert torch.equal(tensor, given[name] if fits else before[name])
    assert any(note.endswith("does not fit, keeps its initial values") for note in notes)
    deeper = Denoiser(
        dataclasses.replace(PLAIN, unet=dataclasses.replace(UNET, channels=(8, 8, 8)))
    )
    assert any("new, keeps" in note for note in warm_start(deeper, source))


def test_lost_inputs_do_not_fit() -> None:
    source, denoiser = random_denoiser(with_waves(6)), Denoiser(with_waves(7))
    before = denoiser.state_dict()[HEAD_WEIGHT].clone()
    (note,) = warm_start(denoiser, source)
    assert note.startswith(f"{HEAD_WEIGHT} (8, 9, 3, 3) to (8, 9, 3, 3): does not fit")
    assert torch.equal(denoiser.state_dict()[HEAD_WEIGHT], before)
