import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container, assemble
from diffcodec.codec.decoder import find_hops_end
from diffcodec.codec.encoder import Encoded
from diffcodec.codec.model import CodecModel
from diffcodec.codec.verification import verify_encoding
from diffcodec.errors import VerificationError

Pixels = NDArray[np.uint8]


def accepts(encoded: Encoded, pixels: Pixels, model: CodecModel) -> bool:
    try:
        verify_encoding(encoded, pixels, model, "a.png")
    except VerificationError:
        return False
    return True


def test_what_was_encoded_passes(
    lossless: Encoded,
    lossy: Encoded,
    stored: Encoded,
    encode_coded: Callable[..., Encoded],
    picture: Pixels,
    model: CodecModel,
) -> None:
    gray = picture[:, :, :1]
    files = (
        (lossless, picture),
        (lossy, picture),
        (stored, 0 * picture),
        (encode_coded(gray), gray),
    )
    assert [accepts(encoded, pixels, model) for encoded, pixels in files] == [True] * 4
    # What a lossy file is of, it does not tell; the others do.
    others = [accepts(encoded, 255 - pixels, model) for encoded, pixels in files]
    assert others == [False, True, False, False]


def test_another_image_is_told(lossless: Encoded, picture: Pixels, model: CodecModel) -> None:
    other = picture.copy()
    other[3, 4, 1] ^= 1
    with pytest.raises(VerificationError, match=r"^a\.png: not written: .* 1 values of 768 differ"):
        verify_encoding(lossless, other, model, "a.png")


@pytest.mark.parametrize("place", [3, 40, -3])
def test_bytes_that_do_not_decode_are_told(
    place: int, lossless: Encoded, picture: Pixels, model: CodecModel
) -> None:
    data = bytearray(lossless.data)
    data[place] ^= 1
    with pytest.raises(VerificationError, match=r"^a\.png: not written, does not decode: "):
        verify_encoding(dataclasses.replace(lossless, data=bytes(data)), picture, model, "a.png")


@pytest.mark.parametrize("missing", [1, 200])
def test_a_file_cut_short_is_told(
    missing: int, lossless: Encoded, picture: Pixels, model: CodecModel
) -> None:
    cut = dataclasses.replace(lossless, data=lossless.data[:-missing])
    with pytest.raises(VerificationError, match="expected an image at step 0, decoded one at"):
        verify_encoding(cut, picture, model, "a.png")


def test_hops_that_end_early_are_told(
    lossless: Encoded, lossy: Encoded, picture: Pixels, model: CodecModel
) -> None:
    whole = Container.open(lossless.data, "a.dfc").by_its_checks()
    data = assemble(lossless.header, whole.hops().data[:-8], whole.last_stage().data)
    with pytest.raises(VerificationError, match="damaged hops"):
        verify_encoding(dataclasses.replace(lossless, data=data), picture, model, "a.png")
    # Of a lossy file nothing but the plan tells that there is more.
    hops = find_hops_end(Container.open(lossy.data, "a.dfc"), model).hops().data
    short = dataclasses.replace(lossy, data=assemble(lossy.header, hops[:-8]))
    with pytest.raises(VerificationError, match="expected an image at step"):
        verify_encoding(short, picture, model, "a.png")
