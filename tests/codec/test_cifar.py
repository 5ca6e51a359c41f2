"""The model that ships, on real images."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.encoder import encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.model.catalog import DEFAULT_MODEL, packaged_models

Pixels = NDArray[np.uint8]
LARGEST_PRICE = 1.18
IMAGES = 4


@pytest.fixture(scope="module")
def default_model() -> CodecModel:
    """The packaged model, or a skip."""
    if DEFAULT_MODEL not in packaged_models():
        pytest.skip("no default model in diffcodec/weights")
    return load_codec_model(packaged_models()[DEFAULT_MODEL])


def test_cifar_images_come_back_at_a_fair_price(
    test_images: Callable[[int], Pixels], default_model: CodecModel
) -> None:
    paid_bits = kl_bits = 0.0
    for pixels in test_images(IMAGES):
        encoded = encode_image(pixels, default_model)
        container = Container.open(encoded.data, "cifar.dfc")
        (frame,) = decode_frames(container, default_model, every=False)
        assert frame.exact
        np.testing.assert_array_equal(frame.pixels, pixels)
        paid_bits += sum(entry.paid_bits for entry in encoded.ledger)
        kl_bits += sum(entry.kl_bits for entry in encoded.ledger)
    assert paid_bits / kl_bits <= LARGEST_PRICE
