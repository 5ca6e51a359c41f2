"""Other ways to send a sample near a posterior, to compare the channel codes with.

Each is given the benefit of the doubt: codebooks are drawn once and refreshed by shared random
signs, as ours are, and a truncated search's index is charged the ideal length of its Zipf code.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from diffcodec.coding.channel import Float32
from diffcodec.coding.shared_noise import SharedNoise

BANK_DOMAIN = 0x726976616C
"""Philox domain of the rivals' codebooks, "rival" in ASCII."""


@lru_cache(maxsize=2)
def _bank(size: int, dimension: int) -> Float32:
    return SharedNoise(BANK_DOMAIN, dimension).normal(0, (size, dimension))


@dataclass(frozen=True)
class RandomCodebook:
    """DDCM (Ohayon et al. 2025): the best of 2^b Gaussian vectors, L times on the same δ.

    ``index_bits``: b. c = Σ_j c_j/√L.
    """

    index_bits: int

    @property
    def name(self) -> str:
        """For people."""
        return f"random codebook of 2^{self.index_bits} (DDCM)"

    def sample(self, delta: Float32, bits: int, noise: SharedNoise) -> tuple[Float32, float]:
        """c, float32[n], for ``delta``, float32[n], and the bits it costs: at most ``bits``."""
        sections = max(1, bits // self.index_bits)
        bank = _bank(1 << self.index_bits, len(delta))
        total = np.zeros_like(delta)
        for signs in noise.signs(0, (sections, len(delta))):
            total += signs * bank[np.argmax(bank @ (signs * delta))]
        return total / np.sqrt(np.float32(sections)), float(sections * self.index_bits)


@dataclass(frozen=True)
class TruncatedPoisson:
    """DiffC (Theis et al. 2022; Vonderfecht and Liu 2025): Poisson functional representation, cut.

    δ is cut into chunks of interleaved coordinates of ``chunk_bits`` bits of KL. Of each chunk's
    Poisson process only the first 2^(chunk_bits + extra_bits) points are looked at, which biases
    the sample; the winner's index is charged its Zipf code's ideal length (Li and El Gamal 2018,
    arXiv:1701.02827), λ = 1 + 1/(I + 1/(e ln 2) + 1), I the chunk's bits.
    """

    chunk_bits: float
    extra_bits: int = 2

    @property
    def name(self) -> str:
        """For people."""
        return f"truncated PFR, chunks of {self.chunk_bits:g} bits (DiffC)"

    def sample(self, delta: Float32, bits: int, noise: SharedNoise) -> tuple[Float32, float]:
        """c, float32[n], and its bits. ``bits`` is the KL of ``delta``, float32[n]: ‖δ‖²/(2 ln 2).

        Raises ValueError where that is less than half a chunk.
        """
        chunks = round(bits / self.chunk_bits)
        if chunks < 1:
            raise ValueError(f"{self.name}: {bits} bits of KL fill no chunk")
        size = 1 << round(self.chunk_bits + self.extra_bits)
        exponent = 1.0 + 1.0 / (self.chunk_bits + 1.0 / (math.e * math.log(2.0)) + 1.0)
        normalizer = float((np.arange(1, size + 1) ** -exponent).sum())
        code, paid = np.empty_like(delta), 0.0
        for chunk in range(chunks):
            part = delta[chunk::chunks]
            bank = _bank(size, -(-len(delta) // chunks))[:, : len(part)]
            signs = noise.signs(2 * chunk, (len(part),))
            words = noise.words(2 * chunk + 1, size)
            uniform = ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
            arrivals = np.cumsum(-np.log(uniform))
            scores = np.log(arrivals) - bank @ (signs * part)
            index = int(np.argmin(scores))
            code[chunk::chunks] = signs * bank[index]
            paid += exponent * math.log2(index + 1) + math.log2(normalizer)
        return code, paid
