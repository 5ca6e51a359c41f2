"""Image sets as one uint8 array: CIFAR-10 in its official layouts, or a folder of images.

CIFAR-10 is Krizhevsky, "Learning Multiple Layers of Features from Tiny Images" (2009); the layouts
read here are those of https://www.cs.toronto.edu/~kriz/cifar.html. Labels are not kept: nothing in
this package is conditional on a class.
"""

import gzip
import hashlib
import http.client
import io
import os
import pickle
import re
import tarfile
import tempfile
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diffcodec.errors import DatasetError

Split = Literal["train", "test"]
Pixels = NDArray[np.uint8]
Progress = Callable[[int, int | None], None]

CIFAR10 = "CIFAR-10"
CIFAR10_URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
CIFAR10_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
DATA_VARIABLE = "DIFFCODEC_DATA"

_SIDE = 32
_CHANNELS = 3
_PLANES_BYTES = _CHANNELS * _SIDE * _SIDE
_RECORD_BYTES = 1 + _PLANES_BYTES
_CLASSES = 10
_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")
_BATCH_NAME = re.compile(r"(?:data_batch_(?P<number>\d+)|test_batch)(?P<binary>\.bin)?")
_ARCHIVE_SUFFIXES = (".tar.gz", ".tgz")
_CHUNK_BYTES = 1 << 20
_TIMEOUT_SECONDS = 30.0


def load_images(path: Path, split: Split, *, size: int = _SIDE) -> Pixels:
    """Every image of one split, uint8 ``[N, size, size, 3]``, RGB in 0…255, in file order.

    ``path`` is one of

    - the folder of the official binary or Python batches, or the folder that holds it;
    - the official ``.tar.gz`` of either, read without unpacking it;
    - a folder of images, read recursively in the order of their relative paths. If it has a
      ``train`` or a ``test`` subfolder, ``split`` selects one; otherwise both splits are the whole
      folder. Files whose extension Pillow does not read are passed over.

    Images larger than ``size`` are cut, row by row, into as many whole tiles as fit.

    Raises:
        DatasetError: there is nothing to read, a file is damaged, or the images of a folder are
            not all RGB and of one size.
    """
    if size < 1:
        raise DatasetError(f"{path}: tile size must be at least 1, found {size}")
    if path.is_file():
        if not path.name.endswith(_ARCHIVE_SUFFIXES):
            raise DatasetError(
                f"{path}: expected a folder or a .tar.gz archive, found another file"
            )
        images = _join_batches(_read_archive(path, split), path, split)
    elif path.is_dir():
        folder = _batch_folder(path)
        batches = _read_folder(folder, split)
        if batches is None:
            return _load_image_folder(path, split, size)
        images = _join_batches(batches, folder, split)
    else:
        raise DatasetError(f"{path}: no such file or folder")
    return _cut_tiles(images, size, path)


def data_name(path: Path) -> str:
    """What the images that `load_images` finds are called: `CIFAR10`, or their folder's name."""
    if path.is_dir() and not _batch_names(_batch_folder(path)):
        return path.resolve().name
    return CIFAR10


def held_out_split(images: Pixels, count: int = 2000, seed: int = 0) -> tuple[Pixels, Pixels]:
    """``(train, held_out)``: ``count`` of the images set apart to choose between models.

    Images are ranked by a BLAKE2b digest of their pixels, keyed by ``seed``, and the lowest
    ``count`` are held out. The choice therefore follows the pictures, not their position: the
    binary layout, the Python layout and any reordering of them give the same ``held_out`` array.

    ``images`` is uint8 ``[N, H, W, C]``; ``held_out`` is in order of rank, ``train`` in file order.

    Raises:
        DatasetError: ``count`` is below 1, or leaves nothing to train on.
    """
    if len(images) < 2:
        raise DatasetError(
            f"expected at least 2 training images, of which one is held out, found {len(images)}"
        )
    if not 1 <= count < len(images):
        raise DatasetError(
            f"held-out part: expected a count from 1 to {len(images) - 1}, found {count}"
        )
    key = seed.to_bytes(8, "little", signed=True)
    digests = [
        hashlib.blake2b(image.tobytes(), digest_size=16, key=key).digest() for image in images
    ]
    ranked = sorted(range(len(images)), key=digests.__getitem__)
    held_out = np.array(ranked[:count])
    return np.delete(images, held_out, axis=0), images[held_out]


def fingerprint(images: Pixels) -> str:
    """32 hexadecimal digits that differ where the images, their order or their shape do.

    ``images`` is uint8 of any shape; the digest is BLAKE2b's of the shape and the bytes.
    """
    digest = hashlib.blake2b(repr(images.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(images).data)
    return digest.hexdigest()


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/diffcodec``, or ``~/.cache/diffcodec`` where that is unset or relative."""
    base = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (base if base.is_absolute() else Path.home() / ".cache") / "diffcodec"


def find_data(explicit: Path | None = None) -> Path:
    """Where the images are: ``explicit``, else ``$DIFFCODEC_DATA``, else an earlier download.

    Raises:
        DatasetError: the place named does not exist, or none is named and nothing was downloaded.
    """
    if explicit is not None:
        if not explicit.exists():
            raise DatasetError(f"{explicit}: no such file or folder")
        return explicit
    if named := os.environ.get(DATA_VARIABLE):
        if not Path(named).exists():
            raise DatasetError(f"{named}: no such file or folder (from {DATA_VARIABLE})")
        return Path(named)
    downloaded = cache_directory() / _FOLDERS[0]
    if downloaded.is_dir():
        return downloaded
    raise DatasetError(
        f"no image data: name it with --data or {DATA_VARIABLE},"
        f" or fetch CIFAR-10 into {cache_directory()} with --download"
    )


def download_cifar10(
    destination: Path,
    progress: Progress | None = None,
    *,
    url: str = CIFAR10_URL,
    sha256: str = CIFAR10_SHA256,
) -> Path:
    """Fetch CIFAR-10 and return ``destination/cifar-10-batches-bin``; at once if it is there.

    ``progress(received_bytes, total_bytes)`` is called as data arrives, with a total of ``None``
    where the server does not state one. The folder appears under its name only once the archive's
    SHA-256 has been checked and it is unpacked in full; an interruption leaves nothing behind.

    Raises:
        DatasetError: the address cannot be read, the digest differs, or the disk cannot be written.
    """
    folder = destination / _FOLDERS[0]
    if folder.is_dir():
        return folder
    try:
        destination.mkdir(parents=True, exist_ok=True)
        # Beside the target, so that the final rename stays within one file system.
        with tempfile.TemporaryDirectory(prefix=".download-", dir=destination) as temporary:
            archive = Path(temporary) / "archive.tar.gz"
            received, digest = _fetch(url, archive, progress)
            if digest != sha256:
                raise DatasetError(
                    f"{url}: expected SHA-256 {sha256}, found {digest} in {received:,} bytes"
                )
            with tarfile.open(archive, "r:gz") as tar:
                tar.extractall(temporary, filter="data")
            unpacked = Path(temporary) / _FOLDERS[0]
            if not unpacked.is_dir():
                raise DatasetError(f"{url}: expected a folder {_FOLDERS[0]} in it, found none")
            unpacked.rename(folder)
    except (tarfile.TarError, zlib.error, EOFError) as error:
        raise DatasetError(f"{url}: cannot be unpacked: {error}") from error
    except OSError as error:
        raise DatasetError(f"{destination}: cannot be written: {error}") from error
    return folder


def _fetch(url: str, target: Path, progress: Progress | None) -> tuple[int, str]:
    """Write what ``url`` serves to ``target``; its length in bytes and SHA-256 in hexadecimal."""
    digest = hashlib.sha256()
    received = 0
    with target.open("wb") as output:
        for chunk, total in _receive(url):
            output.write(chunk)
            digest.update(chunk)
            received += len(chunk)
            if progress is not None:
                progress(received, total)
    return received, digest.hexdigest()


def _receive(url: str) -> Iterator[tuple[bytes, int | None]]:
    """Chunks of what ``url`` serves, each with the total length in bytes where that is known."""
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_SECONDS) as response:
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdecimal() else None
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk, total
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DatasetError(f"{url}: cannot be downloaded: {error}") from error


def _is_wanted(name: str, split: Split) -> bool:
    match = _BATCH_NAME.fullmatch(name)
    return match is not None and (match["number"] is None) == (split == "test")


def _batch_folder(path: Path) -> Path:
    return next((path / name for name in _FOLDERS if (path / name).is_dir()), path)


def _batch_names(folder: Path) -> list[str]:
    return [entry.name for entry in folder.iterdir() if _BATCH_NAME.fullmatch(entry.name)]


def _read_folder(folder: Path, split: Split) -> dict[str, bytes] | None:
    """The batch files of one split by name; ``None`` if the folder has no batch files at all."""
    names = _batch_names(folder)
    if not names:
        return None
    try:
        return {name: (folder / name).read_bytes() for name in names if _is_wanted(name, split)}
    except OSError as error:
        raise DatasetError(f"{folder}: cannot be read: {error}") from error


def _read_archive(path: Path, split: Split) -> dict[str, bytes]:
    """The batch files of one split by name, from a compressed archive."""
    batches: dict[str, bytes] = {}
    try:
        with gzip.open(path) as stream:
            with tarfile.open(fileobj=stream, mode="r:") as tar:
                for member in tar:
                    name = member.name.rsplit("/", 1)[-1]
                    if _is_wanted(name, split) and (content := tar.extractfile(member)) is not None:
                        batches[name] = content.read()
            # gzip keeps its checksum at the very end, beyond where tar stops reading.
            while stream.read(_CHUNK_BYTES):
                pass
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise DatasetError(f"{path}: damaged archive: {error}") from error
    return batches


def _join_batches(batches: dict[str, bytes], place: Path, split: Split) -> Pixels:
    """uint8 ``[N, 32, 32, 3]``, batches in the order of their numbers."""
    # Both layouts in one folder hold the same images; the binary one needs no unpickling.
    binary = {name: data for name, data in batches.items() if name.endswith(".bin")}
    chosen = binary or batches
    if not chosen:
        raise DatasetError(f"{place}: expected CIFAR-10 batches of the {split} split, found none")
    numbers = sorted(_batch_number(name) for name in chosen)
    if split == "train" and numbers != list(range(1, len(numbers) + 1)):
        found = ", ".join(map(str, numbers))
        raise DatasetError(
            f"{place}: expected batches numbered from 1 without a gap, found {found}"
        )
    read = _planes_of_records if binary else _planes_of_pickle
    planes = [read(chosen[name], place / name) for name in sorted(chosen, key=_batch_number)]
    return np.concatenate(
        [part.reshape(-1, _CHANNELS, _SIDE, _SIDE).transpose(0, 2, 3, 1) for part in planes]
    )


def _batch_number(name: str) -> int:
    match = _BATCH_NAME.fullmatch(name)
    return int(match["number"] or 0) if match else 0


def _planes_of_records(data: bytes, source: Path) -> Pixels:
    """uint8 ``[N, 3072]``, channel by channel, of records of a label byte and 3072 pixel bytes."""
    if not data or len(data) % _RECORD_BYTES:
        raise DatasetError(
            f"{source}: expected a positive multiple of {_RECORD_BYTES} bytes, found {len(data)}"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, _RECORD_BYTES)
    # The only redundancy of the layout: a label out of range betrays records out of step.
    if (highest := int(records[:, 0].max())) >= _CLASSES:
        raise DatasetError(f"{source}: expected labels below {_CLASSES}, found {highest}")
    return records[:, 1:]


class _ArrayRecord:
    """What a pickled NumPy array says of itself, kept as it is: NumPy builds nothing from it."""

    def __init__(self, *_: object) -> None:
        self.state: Any = None

    def __setstate__(self, state: object) -> None:
        self.state = state


class _TypeRecord:
    """What a pickled NumPy dtype says of itself."""

    def __init__(self, name: object = None, *_: object) -> None:
        self.name = name.decode("latin-1") if isinstance(name, bytes) else name

    def __setstate__(self, state: object) -> None:
        """Byte order and field layout, which uint8 does not have."""


class _BatchUnpickler(pickle.Unpickler):
    """Admits the three names in the official batches, each replaced by an inert record."""

    _ADMITTED: ClassVar[dict[tuple[str, str], type]] = {
        ("numpy.core.multiarray", "_reconstruct"): _ArrayRecord,
        ("numpy._core.multiarray", "_reconstruct"): _ArrayRecord,
        ("numpy", "ndarray"): _ArrayRecord,
        ("numpy", "dtype"): _TypeRecord,
    }

    def find_class(self, module: str, name: str) -> type:
        admitted = self._ADMITTED.get((module, name))
        if admitted is None:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return admitted


def _planes_of_pickle(data: bytes, source: Path) -> Pixels:
    """uint8 ``[N, 3072]``, channel by channel, of a Python batch's ``data`` entry."""
    try:
        # The official files were written by Python 2, whose strings are bytes here.
        batch = _BatchUnpickler(io.BytesIO(data), encoding="bytes").load()
    except Exception as error:  # unpickling damaged bytes can raise almost anything
        raise DatasetError(f"{source}: not a CIFAR-10 batch: {error}") from error
    array = batch.get(b"data", batch.get("data")) if isinstance(batch, dict) else None
    match array:
        case _ArrayRecord(
            state=(_, (int(count), 3072), _TypeRecord(name="u1"), bool(fortran), bytes(raw))
        ) if count > 0 and len(raw) == count * _PLANES_BYTES:
            order: Literal["C", "F"] = "F" if fortran else "C"
            return np.frombuffer(raw, np.uint8).reshape((count, _PLANES_BYTES), order=order)
    raise DatasetError(f"{source}: expected an entry 'data' of uint8 [N, {_PLANES_BYTES}]")


def _load_image_folder(path: Path, split: Split, size: int) -> Pixels:
    """Tiles uint8 ``[N, size, size, 3]`` of every image below ``path``, or below its split."""
    divided = any((path / name).is_dir() for name in ("train", "test"))
    folder = path / split if divided else path
    if not folder.is_dir():
        raise DatasetError(f"{path}: expected a subfolder {split}, found none")
    extensions = {
        extension for extension, kind in Image.registered_extensions().items() if kind in Image.OPEN
    }
    files = sorted(
        (
            file
            for file in folder.rglob("*")
            if file.suffix.lower() in extensions and not file.name.startswith(".")
        ),
        key=lambda file: file.relative_to(folder).parts,
    )
    if not files:
        raise DatasetError(f"{folder}: expected CIFAR-10 batches or images, found neither")
    tiles: list[Pixels] = []
    first_shape: tuple[int, ...] | None = None
    for file in files:
        image = _read_rgb(file)
        first_shape = first_shape or image.shape
        if image.shape != first_shape:
            raise DatasetError(
                f"{file}: expected {first_shape[1]}x{first_shape[0]} pixels as in {files[0].name},"
                f" found {image.shape[1]}x{image.shape[0]}"
            )
        tiles.append(_cut_tiles(image[np.newaxis], size, file))
    return np.concatenate(tiles)


def _read_rgb(file: Path) -> Pixels:
    """uint8 ``[H, W, 3]`` of an image file that is RGB as it stands."""
    try:
        with Image.open(file) as image:
            if image.mode != "RGB":
                raise DatasetError(f"{file}: expected an RGB image, found mode {image.mode}")
            if getattr(image, "n_frames", 1) != 1:
                raise DatasetError(f"{file}: expected a still image, found an animation")
            return np.array(image, dtype=np.uint8)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{file}: cannot be read as an image: {error}") from error


def _cut_tiles(images: Pixels, size: int, source: Path) -> Pixels:
    """Whole tiles uint8 ``[N·rows·columns, size, size, 3]``, image by image, row by row."""
    count, height, width, channels = images.shape
    rows, columns = height // size, width // size
    if not rows or not columns:
        raise DatasetError(
            f"{source}: expected at least {size}x{size} pixels, found {width}x{height}"
        )
    whole = images[:, : rows * size, : columns * size]
    grid = whole.reshape(count, rows, size, columns, size, channels).transpose(0, 1, 3, 2, 4, 5)
    return np.ascontiguousarray(grid.reshape(-1, size, size, channels))
