"""Images for tests: drawn ones always, CIFAR-10 where it is found; and a tiny trained model."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.uint8]
REPOSITORY = Path(__file__).resolve().parents[1]
SIDE = 32
RECORD_BYTES = 1 + 3 * SIDE * SIDE  # the official binary layout: a label, then three planes
SHEETS = ("test-00.webp", "test-01.webp")
TINY_SIDE = 16


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--regenerate-golden``: the only way in which the files of tests/golden change."""
    parser.addoption(
        "--regenerate-golden",
        action="store_true",
        help="rewrite tests/golden from this checkout; see its README.md first",
    )


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model of 16 × 16 tiles, trained for seconds on smooth drawn images."""
    return train_tiny(tmp_path_factory.mktemp("models") / "tiny", pixel_model=False)


@pytest.fixture(scope="session")
def tiny_pixel_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with a pixel model."""
    return train_tiny(tmp_path_factory.mktemp("models") / "tiny-pixel", pixel_model=True)


def train_tiny(folder: Path, pixel_model: bool) -> Path:
    """A checkpoint in ``folder``."""
    # Torch is imported where it is needed alone: tests of light modules start without it.
    import torch

    from diffcodec.model.checkpoint import save_checkpoint
    from diffcodec.model.configs import MODEL_CONFIGS
    from diffcodec.training.error_curve import measure_error_curve
    from diffcodec.training.trainer import Trainer, TrainingConfig

    tiny = MODEL_CONFIGS["tiny"]
    unet = dataclasses.replace(tiny.unet, image_size=TINY_SIDE)
    config = dataclasses.replace(tiny, unet=unet, pixel_model=pixel_model)
    images = np.stack([draw_smooth(TINY_SIDE, TINY_SIDE, seed=99 + n) for n in range(48)])
    training = TrainingConfig(
        objective="vlb_pixels" if pixel_model else "vlb",
        batch_size=16,
        total_images=16 * 80,
        learning_rate=3e-3,
        warmup_images=160,
        ema_images=100,
        precision="float32",
    )
    torch.manual_seed(0)
    trainer = Trainer(config, training, images)
    while not trainer.finished:
        trainer.step()
    curve = measure_error_curve(trainer.averaged, images[:16], points=18)
    save_checkpoint(folder, trainer.averaged, curve)
    return folder


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder that holds CIFAR-10 in one of two layouts, or a skip.

    ``DIFFCODEC_DATA`` names it, else it is ``../shared``. It holds ``cifar-10-batches-bin`` (the
    official binary layout) or the folder of sheets ``cifar10``, or is one of the two itself.
    """
    variable = os.environ.get("DIFFCODEC_DATA")
    root = Path(variable) if variable else REPOSITORY.parent / "shared"
    if _batches(root) is None and _sheets(root) is None:
        pytest.skip(f"no CIFAR-10 in {root}; name its folder in DIFFCODEC_DATA")
    return root


@pytest.fixture(scope="session")
def test_images(data_root: Path) -> Callable[[int], Pixels]:
    """A function: the first ``count`` CIFAR-10 test images, uint8 [count, 32, 32, 3]."""

    def first(count: int) -> Pixels:
        batches = _batches(data_root)
        if batches is not None:
            with (batches / "test_batch.bin").open("rb") as file:
                records = np.frombuffer(file.read(count * RECORD_BYTES), dtype=np.uint8)
            planes = records.reshape(-1, RECORD_BYTES)[:, 1:].reshape(-1, 3, SIDE, SIDE)
            images = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
        else:
            sheets = _sheets(data_root)
            assert sheets is not None
            images = np.empty((0, SIDE, SIDE, 3), dtype=np.uint8)
            for name in SHEETS:
                if len(images) < count:
                    images = np.concatenate([images, _tiles(sheets / name)[: count - len(images)]])
        if len(images) < count:
            pytest.skip(f"{count} test images wanted, {len(images)} found in {data_root}")
        return images

    return first


@pytest.fixture(scope="session")
def drawn_image() -> Callable[..., Pixels]:
    """The function :func:`draw`: ``drawn_image(height, width, channels, seed)``."""
    return draw


def draw(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> Pixels:
    """A deterministic picture, uint8 [H, W, C]: a gradient, three discs, stripes, a little grain.

    Made of integers alone, so it is the same on every platform.
    """
    numbers = np.random.Philox(seed).random_raw(64).astype(np.int64) & 0xFFFF
    rows, columns = np.mgrid[0:height, 0:width].astype(np.int64)
    picture = np.empty((height, width, channels), dtype=np.int64)
    for channel in range(channels):
        start, down, across = (int(n) % 256 for n in numbers[3 * channel : 3 * channel + 3])
        slope = (down - 128) * rows // max(height, 1) + (across - 128) * columns // max(width, 1)
        picture[:, :, channel] = start + slope
    for disc in range(3):
        row, column, radius, *colour = (int(n) for n in numbers[16 + 6 * disc : 22 + 6 * disc])
        away = (rows - row % height) ** 2 + (columns - column % width) ** 2
        inside = away <= (1 + radius % max(1, min(height, width) // 3)) ** 2
        picture[inside] = np.array([c % 256 for c in colour[:channels]])
    period = 2 + int(numbers[40]) % 5
    striped = (rows + columns) % period == 0
    picture[striped & (rows > 2 * height // 3)] -= 40
    grain = np.random.Philox(seed + 1).random_raw(picture.size).astype(np.int64) & 7
    pixels: Pixels = np.clip(picture + grain.reshape(picture.shape) - 4, 0, 255).astype(np.uint8)
    return pixels


@pytest.fixture(scope="session")
def smooth_image() -> Callable[..., Pixels]:
    """The function :func:`draw_smooth`: ``smooth_image(height, width, channels, seed)``."""
    return draw_smooth


def draw_smooth(height: int = 32, width: int = 32, channels: int = 3, seed: int = 0) -> Pixels:
    """A drawn picture out of focus, uint8 [H, W, C]: deflate finds little in it, a model much."""
    large = draw(4 * height + 16, 4 * width + 16, channels, seed).astype(np.int64)
    # Means over squares of 20, four apart, by differences of running sums.
    sums = np.pad(large, ((1, 0), (1, 0), (0, 0))).cumsum(axis=0).cumsum(axis=1)
    sums = sums[20::4] - sums[:-20:4]
    sums = sums[:, 20::4] - sums[:, :-20:4]
    pixels: Pixels = ((sums + 200) // 400).astype(np.uint8)
    return pixels


def _batches(root: Path) -> Path | None:
    for folder in (root, root / "cifar-10-batches-bin"):
        if (folder / "test_batch.bin").is_file():
            return folder
    return None


def _sheets(root: Path) -> Path | None:
    for folder in (root, root / "cifar10"):
        if (folder / SHEETS[0]).is_file():
            return folder
    return None


def _tiles(path: Path) -> Pixels:
    """A sheet's 32×32 tiles, row by row, uint8 [N, 32, 32, 3]."""
    with Image.open(path) as image:
        sheet = np.asarray(image.convert("RGB"))
    height, width = sheet.shape[0] // SIDE, sheet.shape[1] // SIDE
    tiles = sheet.reshape(height, SIDE, width, SIDE, 3).swapaxes(1, 2)
    return np.ascontiguousarray(tiles.reshape(-1, SIDE, SIDE, 3))
