"""Where seconds go, on a clock that counts the network's and the coder's calls."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.parts import PARTS, time_parts
from benchmarks.real_files import decode_last
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.coding.ans import LevelDecoder
from diffcodec.coding.channel import TrellisCode

Pixels = NDArray[np.uint8]

pytestmark = pytest.mark.usefixtures("one_thread", "hops_always")


class HandClock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def moved_by(self, seconds: float, function: Any) -> Any:
        """``function``, which takes so long."""

        def slow(*arguments: Any, **options: Any) -> Any:
            self.now += seconds
            return function(*arguments, **options)

        return slow


def test_every_part_has_its_own_seconds(
    images: Pixels, model: CodecModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = HandClock()
    denoiser = model.checkpoint.denoiser
    for owner, name, seconds in (
        (denoiser.network, "forward", 100.0),
        (TrellisCode, "encode", 10.0),
        (TrellisCode, "decode", 10.0),
        (LevelDecoder, "pop", 10.0),
        (CodecModel, "estimate", 1.0),
    ):
        monkeypatch.setattr(owner, name, clock.moved_by(seconds, getattr(owner, name)))
    settings = EncoderSettings.for_effort(effort_level(3))
    encoded, encode = time_parts(model, lambda: encode_image(images[0], model, settings), clock)
    assert encode.evaluations >= encoded.evaluations > 0
    assert encode.network == 100.0 * encode.evaluations
    # The encoder may search, and evaluate, for more than what it tells.
    assert encode.coder >= 10.0 * len(encoded.ledger)
    assert encode.rest >= encoded.evaluations
    decoded, decode = time_parts(model, lambda: decode_last(encoded.data, model), clock)
    np.testing.assert_array_equal(decoded, images[0])
    assert decode.evaluations == encoded.evaluations
    assert decode.network == 100.0 * encoded.evaluations
    # The last stage of a model without a pixel model is one group: a run for each channel.
    assert decode.coder == 10.0 * (len(encoded.ledger) + 3)
    assert decode.rest == encoded.evaluations
    assert sum(getattr(decode, part) for part in PARTS) == decode.total


def test_nothing_is_left_replaced_and_bytes_are_the_same(images: Pixels, model: CodecModel) -> None:
    denoiser, methods = model.checkpoint.denoiser, dict(vars(TrellisCode))
    settings = EncoderSettings.for_effort(effort_level(1))
    encoded, _ = time_parts(model, lambda: encode_image(images[0], model, settings))
    assert encoded.data == encode_image(images[0], model, settings).data
    with pytest.raises(ZeroDivisionError):
        time_parts(model, lambda: 1 // 0)
    assert dict(vars(TrellisCode)) == methods
    assert not {"forward", "posterior"} & set(vars(denoiser))


def test_a_call_inside_a_timed_one_counts_once(tiny_pixel_folder: Any) -> None:
    import torch

    model = load_codec_model(tiny_pixel_folder)
    denoiser = model.checkpoint.denoiser
    z, gamma = torch.zeros((2, 3, 16, 16)), torch.zeros(2)
    # x̂_0 of a model with a pixel model is its posterior's mean.
    _, seconds = time_parts(model, lambda: denoiser(z, gamma))
    assert seconds.evaluations == 2
    assert 0.0 < seconds.network <= seconds.total


def test_groups_are_evaluations_too(images: Pixels, tiny_pixel_folder: Any) -> None:
    model = load_codec_model(tiny_pixel_folder)
    settings = EncoderSettings.for_effort(effort_level(1))
    counts = []
    for groups in (1, 3):
        grouped = replace(settings, groups=groups)
        encoded = encode_image(images[0], model, grouped)
        _, decode = time_parts(model, lambda data=encoded.data: decode_last(data, model))
        assert decode.evaluations == encoded.evaluations
        counts.append(decode.evaluations)
    assert counts[1] - counts[0] == 2
