"""Every named configuration, made small: it learns a few images and codes one of them exactly."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import load_codec_model
from diffcodec.codec.plan import PlanConfig
from diffcodec.model.checkpoint import save_checkpoint
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training.error_curve import measure_error_curve
from diffcodec.training.evaluation import evaluate_bound
from diffcodec.training.recipes import RECIPES
from diffcodec.training.trainer import Trainer, TrainingConfig

Pixels = NDArray[np.uint8]

SIDE = 8
COARSE = PlanConfig(growth_index=63, parts=4, code_id=1)


def shrunk(config: ModelConfig) -> ModelConfig:
    """The same kind of network, schedule and output for tiles of 8 × 8, with 16 channels."""
    unet = config.unet
    small = dataclasses.replace(
        unet,
        image_size=SIDE,
        channels=(16,) * len(unet.channels),
        blocks=1,
        attention_resolutions=tuple(
            r * SIDE // unet.image_size for r in unet.attention_resolutions
        ),
        head_channels=None if unet.head_channels is None else 8,
        groups=8,
        # A network that is to remember has to see the same image twice.
        dropout=0.0,
    )
    return dataclasses.replace(config, unet=small)


def hurried(recipe: TrainingConfig) -> TrainingConfig:
    """The same objective in 100 steps, 200 where part of each batch goes to the last stage."""
    steps = 200 if recipe.objective == "vlb_pixels" else 100
    return TrainingConfig(
        objective=recipe.objective,
        optimizer=recipe.optimizer,
        batch_size=8,
        total_images=8 * steps,
        learning_rate=6e-3,
        warmup_images=80,
        decay_fraction=0.5,
        ema_images=80,
        flip=False,
        precision="float32",
    )


@pytest.mark.parametrize("name", sorted(MODEL_CONFIGS))
def test_it_learns_images_and_codes_one_exactly(
    name: str,
    smooth_image: Callable[..., Pixels],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images = np.stack([smooth_image(SIDE, SIDE, 3, seed=50 + n) for n in range(2)])
    others = np.stack([smooth_image(SIDE, SIDE, 3, seed=150 + n) for n in range(8)])
    config = shrunk(MODEL_CONFIGS[name])
    before = evaluate_bound(Denoiser(config).eval(), images, draws=16).total.mean

    trainer = Trainer(config, hurried(RECIPES[name]), images)
    while not trainer.finished:
        trainer.step()
    learned = evaluate_bound(trainer.averaged, images, draws=16).total.mean
    foreign = evaluate_bound(trainer.averaged, others, draws=16).total.mean
    assert learned < 0.75 * before
    assert learned < foreign - 0.5

    curve = measure_error_curve(trainer.averaged, images, points=18)
    save_checkpoint(tmp_path, trainer.averaged, curve)
    model = load_codec_model(tmp_path)
    # So few pixels may deflate to less: the model is to code them all the same.
    monkeypatch.setattr("diffcodec.codec.encoder.pack_pixels", lambda pixels: bytes(1 << 10))
    encoded = encode_image(images[0], model, EncoderSettings(COARSE))
    assert encoded.header.last_stage is not LastStage.STORED
    assert len(encoded.ledger) > 3
    # A decoder that has nothing but the folder and the file.
    *_, last = decode_frames(Container.open(encoded.data, "a.dfc"), load_codec_model(tmp_path))
    np.testing.assert_array_equal(last.pixels, images[0])
