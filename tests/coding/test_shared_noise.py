"""Shared randomness: the published words, and what is made of them."""

import numpy as np
import pytest

from diffcodec.coding.gaussian import unit_variance_steps
from diffcodec.coding.shared_noise import SharedNoise

# Random123's kat_vectors, philox4x64 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    (
        "0000000000000000 0000000000000000 0000000000000000 0000000000000000",
        "0000000000000000 0000000000000000",
        "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b",
    ),
    (
        "ffffffffffffffff ffffffffffffffff ffffffffffffffff ffffffffffffffff",
        "ffffffffffffffff ffffffffffffffff",
        "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0",
    ),
    (
        "243f6a8885a308d3 13198a2e03707344 a4093822299f31d0 082efa98ec4e6c89",
        "452821e638d01377 be5466cf34e90c6c",
        "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
    ),
]


def _integers(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


def _philox_block(counter: list[int], key: list[int]) -> list[int]:
    """One block, written from the paper (Salmon et al. 2011), as the format's specification."""
    mask = (1 << 64) - 1
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        p0, p1 = c0 * 0xD2E7470EE14C6C93, c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = (p1 >> 64) ^ c1 ^ k0, p1 & mask, (p0 >> 64) ^ c3 ^ k1, p0 & mask
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) & mask, (k1 + 0xBB67AE8584CAA73B) & mask
    return [c0, c1, c2, c3]


@pytest.mark.parametrize(("counter", "key", "result"), KNOWN_ANSWERS)
def test_philox_is_the_published_one(counter: str, key: str, result: str) -> None:
    assert _philox_block(_integers(counter), _integers(key)) == _integers(result)
    # NumPy counts up before the first block.
    before = (sum(word << 64 * i for i, word in enumerate(_integers(counter))) - 1) % (1 << 256)
    words = [before >> 64 * i & (1 << 64) - 1 for i in range(4)]
    generator = np.random.Philox(
        key=np.array(_integers(key), dtype=np.uint64), counter=np.array(words, dtype=np.uint64)
    )
    assert generator.random_raw(4).tolist() == _integers(result)


def test_words_follow_the_documented_layout() -> None:
    noise = SharedNoise(domain=11, index=(1 << 64) - 1)
    expected = [
        word
        for block in (1, 2, 3)
        for word in _philox_block([block, 1 << 40, 0, 0], [11, (1 << 64) - 1])
    ]
    assert noise.words(stream=1 << 40, count=10).tolist() == expected[:10]


def test_signs_are_the_bits_of_the_words() -> None:
    noise = SharedNoise(2, 3)
    words = noise.words(5, 3).tolist()
    bits = [words[i // 64] >> i % 64 & 1 for i in range(150)]
    signs = noise.signs(5, (3, 50))
    assert signs.dtype == np.float32
    assert signs.ravel().tolist() == [1 - 2 * bit for bit in bits]


def test_normal_is_the_documented_map() -> None:
    noise = SharedNoise(2, 4)
    table = unit_variance_steps().tolist()
    expected = []
    for word in noise.words(1, 4).tolist():
        for half in (word & 0xFFFFFFFF, word >> 32):
            expected.append(table[half & 0xFFF] + table[half >> 12 & 0xFFF])
    assert noise.normal_steps(1, (7,)).tolist() == expected[:7]
    assert noise.normal(1, (7,)).tolist() == [steps / (1 << 20) for steps in expected[:7]]


def test_normal_has_the_moments_of_a_normal() -> None:
    sample = SharedNoise(1).normal(0, (1 << 19,)).astype(np.float64)
    count = sample.size
    assert abs(sample.mean()) < 4 / np.sqrt(count)
    assert abs(sample.var() - 1) < 4 * np.sqrt(2 / count)
    assert abs(np.mean(sample**3)) < 4 * np.sqrt(15 / count)
    assert abs(np.mean(sample**4) - 3) < 0.05
    assert abs(np.mean(sample[::2] * sample[1::2])) < 4 / np.sqrt(count / 2)


def test_substreams_and_streams_differ_and_a_prefix_is_a_prefix() -> None:
    noise = SharedNoise(1)
    assert noise.substream(3) == SharedNoise(1, 3)
    assert noise.words(0, 4).tolist() != noise.substream(1).words(0, 4).tolist()
    assert noise.words(0, 4).tolist() != noise.words(1, 4).tolist()
    assert noise.words(0, 100)[:7].tolist() == noise.words(0, 7).tolist()


def test_keys_and_streams_are_words() -> None:
    with pytest.raises(ValueError, match="64-bit"):
        SharedNoise(1 << 64)
    with pytest.raises(ValueError, match="64-bit"):
        SharedNoise(0).words(-1, 1)


@pytest.mark.parametrize("domain", [0, 1, 2**63 + 1, 2**64 - 1])
def test_words_are_numpys_philox_whatever_was_drawn_before(domain: int) -> None:
    noise = SharedNoise(domain, 2**64 - 1 - domain)
    for stream, count in ((2**64 - 1, 3), (0, 9), (2**63 + 5, 1), (0, 9)):
        philox = np.random.Philox(
            key=np.array([noise.domain, noise.index], dtype=np.uint64),
            counter=np.array([0, stream, 0, 0], dtype=np.uint64),
        )
        np.testing.assert_array_equal(noise.words(stream, count), philox.random_raw(count))
