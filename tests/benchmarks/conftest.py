"""A whole measurement of three small pictures with the tiny model, in this process."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import held_out, measure
from benchmarks.provenance import provenance
from diffcodec.codec import encoder
from diffcodec.codec.model import CodecModel, load_codec_model

Pixels = NDArray[np.uint8]

COUNT = 3
SETTINGS = measure.Settings(
    effort=1,
    every_packet=True,
    images=COUNT,
    peers=COUNT,
    budgets=2,
    theory=COUNT,
    train=2,
    draws=20,
    efforts=1,
    round_trips=2,
    examples=1,
    speed=0,
    threads=0,
    budgets_bpd=(0.5, 2.0),
)


@pytest.fixture(scope="session")
def model(tiny_folder: Path) -> CodecModel:
    return load_codec_model(tiny_folder)


@pytest.fixture(scope="session")
def images(drawn_image: Callable[..., Pixels]) -> Pixels:
    return np.stack([drawn_image(16, 16, 3, seed=seed) for seed in (3, 4, 5)])


@contextmanager
def hops_not_stored() -> Iterator[None]:
    """Files hold hops although the tiny model is worse than deflate."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoder, "pack_pixels", lambda pixels: 3 * pixels.tobytes())
        yield


@contextmanager
def on_one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def hops_always() -> Iterator[None]:
    with hops_not_stored():
        yield


@pytest.fixture
def measured_here(images: Pixels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Campaigns on held-out images are made in this process, on the small pictures."""

    def run(items: list[str], work: Any, *others: Any) -> dict[str, Any]:
        journal, _, advance = others[1:]
        for item in items:
            journal.add(item, json.loads(json.dumps(work(item))))
            advance()
        return dict(journal.results)

    monkeypatch.setattr(held_out.campaign, "run", run)
    monkeypatch.setattr(held_out, "held_out_images", lambda data, count: images[:count])


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    with on_one_thread():
        yield


@pytest.fixture(scope="session")
def work(images: Pixels, tiny_folder: Path) -> measure.ImageWork:
    return measure.ImageWork("CIFAR-10", images, images, tiny_folder, SETTINGS)


@pytest.fixture(scope="session")
def results(work: measure.ImageWork) -> dict[str, Any]:
    """Every item's result as a journal gives it back."""
    # A session's fixture must not leave its surroundings to the tests of other folders.
    with on_one_thread(), hops_not_stored():
        return {item: json.loads(json.dumps(work(item))) for item in SETTINGS.items()}


@pytest.fixture(scope="session")
def record(work: measure.ImageWork, results: dict[str, Any]) -> dict[str, Any]:
    """The record of that measurement, with timings of two codecs put in."""
    summary = measure.summarize(work, results, provenance())
    return json.loads(json.dumps({**summary, "speed": SPEED}, allow_nan=False))


@pytest.fixture(scope="session")
def examples(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [results[f"{measure.EXAMPLE}/0"]]


SPEED = [
    {
        "name": name,
        "family": family,
        "lossless": True,
        "encode_ms": 1200.0,
        "decode_ms": 800.0,
        "batch_encode_ms": 600.0,
        "batch_decode_ms": 400.0,
        "peak_mib": 300.0,
    }
    for name, family in (
        ("diffcodec lossless, effort 1", "diffcodec"),
        ("PNG, optimize", "PNG"),
    )
]
