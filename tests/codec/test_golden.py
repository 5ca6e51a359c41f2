"""Files of tests/golden decode for ever, or are refused by version: see its README.md."""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from diffcodec.bitstream.container import Container
from diffcodec.bitstream.header import (
    COMMON_SIDE,
    FIXED_HEADER_BYTES,
    MOST_FIELD_BYTES,
    PARTS,
    VERSION,
    LastStage,
)
from diffcodec.codec.decoder import Frame, decode_frames, last_stage_of
from diffcodec.codec.effort import effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel, load_codec_model
from diffcodec.codec.plan import PlanConfig
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.ans import LevelDecoder, LevelRun
from diffcodec.coding.channel import CHANNEL_CODES
from diffcodec.coding.tables import MIN_SCALE_OFFSET
from diffcodec.diffusion.process import signal_to_levels
from diffcodec.errors import (
    CheckpointError,
    NumericMismatchError,
    TruncatedStreamError,
    UnsupportedVersionError,
)
from diffcodec.image import png_bytes, read_image
from diffcodec.model.catalog import find_model
from diffcodec.model.checkpoint import save_checkpoint
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.pixel_order import group_starts, pixel_ranks
from diffcodec.training.error_curve import measure_error_curve
from diffcodec.training.trainer import Trainer, TrainingConfig

Pixels = NDArray[np.uint8]
FOLDER = Path(__file__).parents[1] / "golden"
OLDER = FOLDER / "older"
DIGESTS = "SHA256SUMS"
SIDE = 16
COMMON = (COMMON_SIDE, COMMON_SIDE, 3)
CUT = ".cut.png"
SHIPPED = "shipped"
"""A file of the packaged model, and its image."""
MODELS = ("model", "pixel-model")
"""Folders of the models; the second has a pixel model."""


@dataclass(frozen=True)
class Golden:
    """One file: what it shows, how it was made, and which images lie beside it.

    Attributes:
        shape: of its image, [H, W, C].
        plan: None for stored pixels.
        model: the folder of the model that it was made with.
        groups: of pixels in a lossless file's last stage.
        bpd: the budget of a lossy file; None for a lossless one.
        stop_at_step: a step at which its decoding is pinned too.
        cut: its image without the last half of the last stage is pinned too.
    """

    name: str
    shape: tuple[int, int, int]
    plan: PlanConfig | None
    model: str = "model"
    groups: int = 1
    bpd: float | None = None
    stop_at_step: int | None = None
    cut: bool = False

    def path(self, ending: str) -> Path:
        """``name`` and an ending: ``.dfc``, ``.png`` its image, ``.gaussians.npy`` (below)."""
        return FOLDER / f"{self.name}{ending}"

    @property
    def endings(self) -> tuple[str, ...]:
        """Those of all its files."""
        gaussians = (".gaussians.npy",) if self.coded and self.bpd is None else ()
        stop = (f".{self.stop_at_step}.png",) if self.stop_at_step is not None else ()
        return ".dfc", *gaussians, ".png", *stop, *((CUT,) if self.cut else ())

    @property
    def coded(self) -> bool:
        """Whether it has hops."""
        return self.plan is not None

    def open(self) -> Container:
        """The file, its segments found."""
        path = self.path(".dfc")
        return Container.open(path.read_bytes(), path.name).by_its_checks()

    def open_cut(self) -> Container:
        """The file without the last half of its last stage."""
        whole = self.open()
        kept = len(whole.content) - len(whole.last_stage().data) // 2
        return Container.open(whole.content[:kept], whole.name)

    def image(self, ending: str = ".png") -> Pixels:
        """An image beside it."""
        path = self.path(ending)
        return read_image(path.read_bytes(), path.name)


GOLDEN = (
    Golden("lossless", (SIDE, SIDE, 3), PlanConfig(25, 4, 0), stop_at_step=300),
    Golden("lossless-tiles", (SIDE + 5, 3 * SIDE + 7, 3), PlanConfig(63, 1, 1)),
    Golden("lossless-gray", (SIDE, SIDE, 1), PlanConfig(40, 64, 2)),
    Golden("grouped", (SIDE, SIDE, 3), PlanConfig(25, 16, 2), "pixel-model", groups=4, cut=True),
    Golden("grouped-tiles", (SIDE - 3, SIDE + 7, 3), PlanConfig(40, 4, 0), "pixel-model", 4),
    Golden("grouped-gray", (SIDE, SIDE, 1), PlanConfig(40, 16, 3), "pixel-model", groups=16),
    Golden("grouped-common", COMMON, PlanConfig(16, 64, 2), "pixel-model", groups=8),
    Golden("lossy", (SIDE, SIDE, 3), PlanConfig(40, 4, 1), "pixel-model", bpd=1.0),
    Golden("lossy-code-0", COMMON, PlanConfig(20, 4, 0), bpd=2.0),
    Golden("lossy-gray-tiles", (SIDE, 4 * SIDE, 1), PlanConfig(30, 16, 3), "pixel-model", bpd=1.5),
    Golden("stored", (5, 7, 3), None),
    Golden("stored-gray", (SIDE, SIDE, 1), None),
)
LOSSLESS = [golden for golden in GOLDEN if golden.coded and golden.bpd is None]
LOSSY = [golden for golden in GOLDEN if golden.bpd is not None]
STORED = [golden for golden in GOLDEN if not golden.coded]
HALVED = [golden for golden in GOLDEN if golden.cut]
STOPPED = [golden for golden in GOLDEN if golden.stop_at_step is not None]
PINNED = (
    *(f"{folder}/{file}" for folder in MODELS for file in ("config.json", "model.safetensors")),
    *(golden.path(ending).name for golden in GOLDEN for ending in golden.endings),
    f"{SHIPPED}.dfc",
    f"{SHIPPED}.png",
)


@pytest.fixture(scope="module", autouse=True)
def _regenerated(
    request: pytest.FixtureRequest,
    smooth_image: Callable[..., Pixels],
    drawn_image: Callable[..., Pixels],
) -> None:
    if request.config.getoption("--regenerate-golden"):
        regenerate(smooth_image, drawn_image)


@pytest.fixture(scope="module")
def golden_models(_regenerated: None) -> dict[str, CodecModel]:
    """The models of tests/golden by the names of their folders."""
    return {folder: load_codec_model(FOLDER / folder) for folder in MODELS}


def test_golden_files_are_unchanged() -> None:
    lines = (FOLDER / DIGESTS).read_text("ascii").splitlines()
    assert [line.split("  ")[1] for line in lines] == list(PINNED)
    for line in lines:
        digest, name = line.split("  ")
        assert hashlib.sha256((FOLDER / name).read_bytes()).hexdigest() == digest, name


def test_every_feature_of_the_header_has_a_file(golden_models: dict[str, CodecModel]) -> None:
    headers = [golden.open().header for golden in GOLDEN]
    coded = [header for header in headers if header.last_stage is not LastStage.STORED]
    layouts = [TileLayout(header.height, header.width, header.channels, SIDE) for header in coded]
    ids = {model.model_id for model in golden_models.values()}
    assert {header.last_stage for header in headers} == set(LastStage)
    assert {(header.last_stage, header.channels) for header in headers} == {
        (stage, channels) for stage in LastStage for channels in (1, 3)
    }
    sizes = [(header.width, header.height) == (COMMON_SIDE, COMMON_SIDE) for header in coded]
    assert set(sizes) == {True, False}
    assert {header.channel_code for header in coded} == set(CHANNEL_CODES)
    assert {header.parts for header in coded} == set(PARTS)
    assert {(header.last_stage, header.model_id) for header in coded} == {
        (stage, model_id) for stage in (LastStage.NONE, LastStage.GAUSSIAN) for model_id in ids
    }
    assert {(layout.count > 1, len(layout.windows)) for layout in layouts} >= {
        (False, 1),
        (True, 1),
        (True, 2),
    }
    groups = [pixel_groups(golden.open().last_stage().data)[0] for golden in LOSSLESS]
    assert groups == [golden.groups for golden in LOSSLESS]
    assert set(groups) == {1, 4, 8, 16}
    # The smallest header names all that it can; the largest but for stored pixels names nothing.
    lengths = {len(golden.open().header_bytes) for golden in GOLDEN if golden.coded}
    assert (min(lengths), max(lengths)) == (FIXED_HEADER_BYTES + 1, MOST_FIELD_BYTES + 3)
    assert any(golden.stop_at_step is not None for golden in GOLDEN)


def pixel_groups(payload: bytes) -> tuple[int, int]:
    """Groups and scale offset of a last stage's payload."""
    return (payload[0] >> 4) + 1, (payload[0] & 0xF) + MIN_SCALE_OFFSET


def settings_bytes(golden: Golden) -> int:
    """Those and two shifts for each tile."""
    return 1 + 2 * TileLayout(*golden.shape, SIDE).count


def within_a_level(frame: Frame, expected: Pixels) -> None:
    np.testing.assert_allclose(frame.pixels.astype(int), expected.astype(int), atol=1)


@pytest.mark.parametrize("golden", LOSSY, ids=lambda golden: golden.name)
def test_hops_decode_within_a_level(golden: Golden, golden_models: dict[str, CodecModel]) -> None:
    """What the hops owe on any machine: nearly the same image."""
    (frame,) = decode_frames(golden.open(), golden_models[golden.model], every=False)
    assert not frame.truncated
    within_a_level(frame, golden.image())


@pytest.mark.parametrize("golden", STOPPED, ids=lambda golden: golden.name)
def test_a_stop_decodes_within_a_level(
    golden: Golden, golden_models: dict[str, CodecModel]
) -> None:
    stop = golden.stop_at_step
    assert stop is not None
    model = golden_models[golden.model]
    (frame,) = decode_frames(golden.open(), model, stop_at_step=stop, every=False)
    assert frame.step >= stop
    within_a_level(frame, golden.image(f".{stop}.png"))


@pytest.mark.parametrize("golden", STORED, ids=lambda golden: golden.name)
def test_stored_pixels_decode_exactly(golden: Golden) -> None:
    (frame,) = decode_frames(golden.open(), None)
    assert frame.exact
    np.testing.assert_array_equal(frame.pixels, golden.image())


@pytest.mark.parametrize("golden", LOSSLESS, ids=lambda golden: golden.name)
def test_the_last_stage_decodes_exactly_from_the_pinned_gaussians(golden: Golden) -> None:
    """What the last stage owes on any machine: no network has a say here."""
    payload = golden.open().last_stage().data
    decoder = LevelDecoder(payload[settings_bytes(golden) :])
    for run, expected in pinned_runs(golden, payload):
        np.testing.assert_array_equal(decoder.pop(run), expected)
    decoder.finish()


@pytest.mark.parametrize("golden", LOSSLESS, ids=lambda golden: golden.name)
def test_a_last_stage_cut_in_half_decodes_exactly_as_far_as_it_goes(golden: Golden) -> None:
    payload = golden.open().last_stage().data
    before = settings_bytes(golden)
    decoder = LevelDecoder(payload[before : len(payload) // 2], len(payload) - before)
    runs, told = list(pinned_runs(golden, payload)), 0
    with pytest.raises(TruncatedStreamError):  # noqa: PT012
        for run, expected in runs:
            np.testing.assert_array_equal(decoder.pop(run), expected)
            told += 1
    # Nothing of a single run.
    assert len(runs) // 4 <= told < len(runs)


def pinned_runs(golden: Golden, payload: bytes) -> Iterator[tuple[LevelRun, Pixels]]:
    """Means, scales and levels of every run of a lossless file, from what is kept of it."""
    groups, offset = pixel_groups(payload)
    means, scales = np.load(golden.path(".gaussians.npy"))
    layout = TileLayout(*golden.shape, SIDE)
    tiles, ranks = signal_to_levels(layout.split(golden.image())), pixel_ranks(SIDE)
    start = 0
    for first, end in pairwise(group_starts(groups)):
        place = layout.inside() & (first <= ranks) & (ranks < end)
        for channel in range(layout.channels):
            run = slice(start, start + int(place.sum()))
            yield LevelRun(means[run], scales[run]).with_offset(offset), tiles[:, channel][place]
            start = run.stop
    assert start == len(means)


@pytest.mark.parametrize("golden", LOSSLESS, ids=lambda golden: golden.name)
def test_a_lossless_file_decodes_exactly_or_says_why_not(
    golden: Golden, golden_models: dict[str, CodecModel]
) -> None:
    """Exact wherever this machine's Gaussians are the pinned ones, else they are next to them."""
    model = golden_models[golden.model]
    frames = decode_frames(golden.open(), model, every=False)
    if not (differing := differing_gaussians(golden, model)):
        (frame,) = frames
        assert frame.exact
        np.testing.assert_array_equal(frame.pixels, golden.image())
        return
    assert not next(frames).exact
    with pytest.raises(NumericMismatchError):
        next(frames)
    pytest.skip(f"{differing}; the mismatch was told, as docs/format.md has it")


@pytest.mark.parametrize("golden", HALVED, ids=lambda golden: golden.name)
def test_a_lossless_file_cut_in_its_last_stage_decodes_to_its_image(
    golden: Golden, golden_models: dict[str, CodecModel]
) -> None:
    """Whole runs exactly, the network's mean of the rest; docs/format.md, Prefixes."""
    model = golden_models[golden.model]
    (frame,) = decode_frames(golden.open_cut(), model, every=False)
    assert frame.truncated
    assert 0 < frame.exact_values < frame.pixels.size
    if differing := differing_gaussians(golden, model):
        pytest.skip(f"{differing}; of a cut file nothing tells that")
    within_a_level(frame, golden.image(CUT))
    assert (frame.pixels == golden.image()).sum() >= frame.exact_values


def differing_gaussians(golden: Golden, model: CodecModel) -> str:
    """How this machine's means and scales differ from the pinned ones; empty where they agree."""
    pinned = np.load(golden.path(".gaussians.npy")).astype(int)
    found = gaussians(golden.open(), model, golden.image()).astype(int)
    np.testing.assert_allclose(found, pinned, atol=1)
    count = int((found != pinned).sum())
    if not count:
        return ""
    return (
        f"this machine's float32 network rounds {count} of {found.size} means and scales "
        "differently from the one that made tests/golden"
    )


def test_a_file_of_the_shipped_model_decodes_exactly_on_every_machine() -> None:
    """Made on one machine with AVX-512: its network is large enough for last digits to differ."""
    container = Container.open((FOLDER / f"{SHIPPED}.dfc").read_bytes(), SHIPPED)
    model = load_codec_model(find_model())
    if container.header.model_id != model.model_id:
        pytest.skip(
            "made with weights that are no longer shipped: --regenerate-golden makes another"
        )
    (frame,) = decode_frames(container, model, every=False)
    assert frame.exact
    image = read_image((FOLDER / f"{SHIPPED}.png").read_bytes(), SHIPPED)
    np.testing.assert_array_equal(frame.pixels, image)


def test_files_of_older_versions_are_refused_by_version() -> None:
    """``lossless.dfc`` with other version numbers, and whatever older releases have left."""
    data = GOLDEN[0].path(".dfc").read_bytes()
    versions = [n for n in range(16) if n != VERSION]
    files = {f"version-{n}": bytes([data[0], data[1] & 0xF0 | n]) + data[2:] for n in versions}
    files |= {path.name: path.read_bytes() for path in OLDER.glob("*.dfc")}
    for name, content in files.items():
        with pytest.raises(UnsupportedVersionError, match=f"^{name}: expected format version"):
            Container.open(content, name)


def gaussians(container: Container, model: CodecModel, image: Pixels) -> NDArray[np.int16]:
    """Mean and scale of every level in the file's order as this machine has them: int16 [2, N].

    In sixteenths of a level and as scale indices without the file's offset. The hops are decoded
    once more, and the network is shown ``image`` as the groups go on.
    """
    stage = last_stage_of(container, model)
    kept: list[NDArray[np.integer]] = []

    def keep(levels: Pixels, means: NDArray[np.integer], scales: NDArray[np.integer]) -> float:
        kept.extend((means, scales))
        return 0.0

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("diffcodec.codec.pixels.ideal_bits", keep)
        patch.setattr("diffcodec.codec.pixels.shifted", lambda scales, offset: scales)
        stage.ideal_bits(container.last_stage().data, image)
    return np.stack(kept).astype(np.int16)


def regenerate(smooth_image: Callable[..., Pixels], drawn_image: Callable[..., Pixels]) -> None:
    """Write every file anew; a model too where it no longer loads. Seconds."""
    keep_files_of_older_versions()
    for golden in GOLDEN:
        write(golden, model_of(golden.model, smooth_image), smooth_image(*golden.shape, seed=0))
    image = drawn_image(COMMON_SIDE, 4 * COMMON_SIDE, 3, seed=0)
    settings = EncoderSettings.for_effort(effort_level(1))
    encoded = encode_image(image, load_codec_model(find_model()), settings)
    assert encoded.ledger
    (FOLDER / f"{SHIPPED}.dfc").write_bytes(encoded.data)
    (FOLDER / f"{SHIPPED}.png").write_bytes(png_bytes(image))
    sums = [
        f"{hashlib.sha256((FOLDER / name).read_bytes()).hexdigest()}  {name}\n" for name in PINNED
    ]
    (FOLDER / DIGESTS).write_text("".join(sums), encoding="ascii")


def model_of(folder: str, smooth_image: Callable[..., Pixels]) -> CodecModel:
    """A model of tests/golden, trained anew where it no longer loads."""
    try:
        return load_codec_model(FOLDER / folder)
    except CheckpointError:
        train_model(folder, smooth_image)
        return load_codec_model(FOLDER / folder)


def keep_files_of_older_versions() -> None:
    """Of a version that this release no longer writes, files remain so that they stay refused."""
    for path in FOLDER.glob("*.dfc"):
        version = path.read_bytes()[1] & 0xF
        if version != VERSION:
            OLDER.mkdir(exist_ok=True)
            path.rename(OLDER / f"{path.stem}-version-{version}.dfc")


def write(golden: Golden, model: CodecModel, image: Pixels) -> None:
    """The files of one of `GOLDEN`."""
    with pytest.MonkeyPatch.context() as patch:
        if golden.plan is None:
            image = 16 * (image // 128)  # two levels: deflate wins
            settings = EncoderSettings()
        else:
            # Where deflated pixels would be smaller the file with hops is wanted all the same.
            patch.setattr("diffcodec.codec.encoder.pack_pixels", lambda pixels: bytes(1 << 20))
            settings = EncoderSettings(golden.plan, golden.bpd, groups=golden.groups)
        encoded = encode_image(image, model, settings)
    assert golden.coded == (encoded.header.last_stage is not LastStage.STORED), golden.name
    golden.path(".dfc").write_bytes(encoded.data)
    container = golden.open()
    *_, frame = decode_frames(container, model, every=False)
    assert frame.exact == (golden.bpd is None), golden.name
    golden.path(".png").write_bytes(png_bytes(frame.pixels))
    if golden in LOSSLESS:
        np.save(golden.path(".gaussians.npy"), gaussians(container, model, image))
    if golden.stop_at_step is not None:
        *_, frame = decode_frames(container, model, stop_at_step=golden.stop_at_step, every=False)
        golden.path(f".{golden.stop_at_step}.png").write_bytes(png_bytes(frame.pixels))
    if golden.cut:
        *_, frame = decode_frames(golden.open_cut(), model, every=False)
        golden.path(CUT).write_bytes(png_bytes(frame.pixels))


def train_model(folder: str, smooth_image: Callable[..., Pixels]) -> None:
    """A model of 16 × 16 tiles with one level of 8 channels, into a folder of tests/golden."""
    tiny, pixel_model = MODEL_CONFIGS["tiny"], folder == "pixel-model"
    unet = dataclasses.replace(tiny.unet, image_size=SIDE, channels=(8,), groups=4)
    config = dataclasses.replace(tiny, name=f"golden-{folder}", unet=unet, pixel_model=pixel_model)
    images = np.stack([smooth_image(SIDE, SIDE, seed=99 + n) for n in range(48)])
    training = TrainingConfig(
        objective="vlb_pixels" if pixel_model else "vlb",
        batch_size=16,
        total_images=16 * 400,
        learning_rate=3e-3,
        warmup_images=160,
        ema_images=800,
        precision="float32",
    )
    torch.manual_seed(0)
    trainer = Trainer(config, training, images)
    while not trainer.finished:
        trainer.step()
    curve = measure_error_curve(trainer.averaged, images[:16], points=18)
    save_checkpoint(FOLDER / folder, trainer.averaged, curve)
