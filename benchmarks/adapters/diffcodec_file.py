"""This project's own codec behind the peers' interface, for what all are asked alike."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.adapters.base import Pixels
from diffcodec.bitstream.container import Container
from diffcodec.codec.decoder import decode_frames
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model


@dataclass(frozen=True)
class Diffcodec:
    """diffcodec with one model and effort: lossless, or within a budget in bits/dim."""

    model_folder: Path
    effort: int
    bpd: float | None = None
    family: str = "diffcodec"

    @property
    def name(self) -> str:
        """The codec and its setting."""
        setting = "lossless" if self.bpd is None else f"{self.bpd:g} bits/dim"
        return f"diffcodec {setting}, effort {self.effort}"

    @property
    def library(self) -> str:
        """The model that files depend on."""
        return f"model {self._model.checkpoint.digest.hex()[:12]}"

    @property
    def lossless(self) -> bool:
        """Whether the exact pixels come back."""
        return self.bpd is None

    @cached_property
    def _model(self) -> CodecModel:
        return load_codec_model(self.model_folder)

    def encode(self, pixels: Pixels) -> bytes:
        """The complete file for uint8 ``[H, W, 3]``."""
        settings = EncoderSettings.for_effort(effort_level(self.effort), bpd=self.bpd)
        return encode_image(pixels, self._model, settings).data

    def decode(self, data: bytes) -> Pixels:
        """uint8 ``[H, W, 3]`` of a complete file."""
        container = Container.open(data, self.name)
        *_, frame = decode_frames(container, self._model, every=False)
        return frame.pixels
