"""The tiny models as the codec loads them, and files of one drawn image made with them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import Frame, decode_frames
from diffcodec.codec.encoder import Encoded, EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.codec.plan import PlanConfig

Pixels = NDArray[np.uint8]
Decode = Callable[..., Frame]

COARSE = PlanConfig(growth_index=63, parts=4, code_id=0)
"""The plan of fewest evaluations, for tests that decode hundreds of times."""


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> CodecModel:
    """The tiny model."""
    return load_codec_model(tiny_folder)


@pytest.fixture(scope="session")
def pixel_model(tiny_pixel_folder: Path) -> CodecModel:
    """The tiny model that has a pixel model."""
    return load_codec_model(tiny_pixel_folder)


@pytest.fixture(params=["model", "pixel_model"])
def chosen(request: pytest.FixtureRequest) -> CodecModel:
    """Either tiny model."""
    found: CodecModel = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="session")
def picture(smooth_image: Callable[..., Pixels]) -> Pixels:
    """One tile in colour, uint8 [16, 16, 3]."""
    return smooth_image(16, 16, 3, seed=0)


@pytest.fixture(scope="session")
def encode_coded(model: CodecModel) -> Callable[..., Encoded]:
    """A function: a lossless file with hops, even where deflated pixels would be smaller."""

    def encode(pixels: Pixels, encoder: CodecModel = model, **options: int) -> Encoded:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("diffcodec.codec.encoder.pack_pixels", lambda pixels: bytes(1 << 20))
            return encode_image(pixels, encoder, EncoderSettings(COARSE, **options))

    return encode


@pytest.fixture(scope="session")
def lossless(picture: Pixels, model: CodecModel) -> Encoded:
    """`picture`, hops and last stage."""
    return encode_image(picture, model, EncoderSettings(COARSE))


@pytest.fixture(scope="session")
def lossy(picture: Pixels, model: CodecModel) -> Encoded:
    """`picture` in at most 1.5 bits/dim."""
    return encode_image(picture, model, EncoderSettings(COARSE, bpd=1.5))


@pytest.fixture(scope="session")
def stored(model: CodecModel) -> Encoded:
    """A black picture, which deflates to almost nothing: pixels without a model."""
    return encode_image(np.zeros((16, 16, 3), np.uint8), model, EncoderSettings(COARSE))


@pytest.fixture(scope="session")
def grouped(picture: Pixels, pixel_model: CodecModel) -> Encoded:
    """`picture` by the pixel model, its pixels in four groups."""
    return encode_image(picture, pixel_model, EncoderSettings(COARSE, groups=4))


@pytest.fixture(scope="session")
def decode(model: CodecModel, pixel_model: CodecModel) -> Decode:
    """A function: the last frame of a file's bytes, without the network's other evaluations.

    It decodes with the tiny model that the file names, or with the one it is given.
    """
    models = {known.model_id: known for known in (model, pixel_model)}

    def last(data: bytes, decoder: CodecModel | None = None) -> Frame:
        # A small limit, so that a mutated header cannot ask for a large image.
        container = Container.open(data, "test.dfc", pixel_limit=1 << 14)
        if decoder is None:
            decoder = models.get(container.header.model_id, model)
        frame = None
        for frame in decode_frames(container, decoder, every=False):  # noqa: B007
            pass
        assert frame is not None
        return frame

    return last
