"""Whether a file just encoded decodes to what it was made from."""

import numpy as np
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import LastStage
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.encoder import Encoded
from diffcodec.codec.model import CodecModel
from diffcodec.errors import BitstreamError, VerificationError


def verify_encoding(
    encoded: Encoded, pixels: NDArray[np.uint8], model: CodecModel, name: str
) -> None:
    """Decode ``encoded`` whole and compare a lossless file's image with ``pixels`` [H, W, C].

    Args:
        name: the image's, for messages.

    Raises:
        VerificationError: a check disagrees, the hops do not end at the header's final step, or a
            pixel differs.
    """
    try:
        container = Container.open(encoded.data, "the encoded file", pixel_limit=None)
        *_, frame = decode_frames(container, model, every=False)
    except BitstreamError as error:
        raise VerificationError(f"{name}: not written, does not decode: {error}") from error
    lossless = encoded.header.last_stage is not LastStage.NONE
    last_step = 0 if lossless else encoded.header.final_step
    if frame.truncated or frame.exact != lossless or frame.step != last_step:
        raise VerificationError(
            f"{name}: not written: expected an image at step {last_step}, decoded one at step "
            f"{frame.step}"
        )
    if lossless and not np.array_equal(frame.pixels, pixels):
        differing = int(np.count_nonzero(frame.pixels != pixels))
        raise VerificationError(
            f"{name}: not written: expected the image back, {differing} values of {pixels.size} "
            "differ"
        )
