"""Every layout gives the same pixels; whatever is missing or damaged is named in one line."""

import functools
import hashlib
import http.server
import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from diffcodec.errors import DatasetError
from diffcodec.training.dataset import (
    CIFAR10,
    cache_directory,
    data_name,
    download_cifar10,
    find_data,
    fingerprint,
    held_out_split,
    load_images,
)

Pixels = NDArray[np.uint8]


def draw(count: int, seed: int = 0, side: int = 32) -> Pixels:
    generator = np.random.Generator(np.random.Philox(seed))
    return generator.integers(0, 256, (count, side, side, 3), dtype=np.uint8)


def records(images: Pixels) -> bytes:
    """The official binary layout: a label byte, then channel-major pixels."""
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    labels = (np.arange(len(images), dtype=np.uint8) % 10)[:, np.newaxis]
    return np.concatenate([labels, planes], axis=1).tobytes()


def python2_pickle(images: Pixels) -> bytes:
    """The official Python layout, opcode by opcode as Python 2 and its NumPy wrote it."""
    raw = images.transpose(0, 3, 1, 2).tobytes()
    minus_one = b"J\xff\xff\xff\xff"
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN" + 2 * minus_one + b"K\x00tb"
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01M" + struct.pack("<H", len(images)) + b"M\x00\x0c\x86" + dtype
        + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    return (
        b"\x80\x02}(U\x0bbatch_labelU\x09batch oneU\x06labels](K\x00K\x01eU\x04data" + array + b"u."
    )


def python3_pickle(images: Pixels) -> bytes:
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    return pickle.dumps({b"data": np.ascontiguousarray(planes), b"labels": [0]}, protocol=3)


def write_binary(folder: Path, train: list[Pixels], test: Pixels) -> Path:
    folder.mkdir(parents=True)
    for number, images in enumerate(train, 1):
        (folder / f"data_batch_{number}.bin").write_bytes(records(images))
    (folder / "test_batch.bin").write_bytes(records(test))
    (folder / "batches.meta.txt").write_text("airplane\n")
    return folder


def pack_archive(folder: Path, archive: Path) -> Path:
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, arcname=folder.name)
    return archive


def save(images: Pixels, folder: Path, stem: str = "image", extension: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for index, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{stem}{index:03}.{extension}", lossless=True)


class TestBinaryLayout:
    def test_folder_and_its_parent(self, tmp_path: Path) -> None:
        train, test = [draw(3, 1), draw(2, 2)], draw(4, 3)
        folder = write_binary(tmp_path / "cifar-10-batches-bin", train, test)
        for path in (folder, tmp_path):
            np.testing.assert_array_equal(load_images(path, "train"), np.concatenate(train))
            np.testing.assert_array_equal(load_images(path, "test"), test)

    def test_result_is_contiguous_uint8(self, tmp_path: Path) -> None:
        images = load_images(write_binary(tmp_path / "b", [draw(3)], draw(2)), "train")
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous

    def test_batches_follow_their_numbers(self, tmp_path: Path) -> None:
        batches = [draw(1, seed) for seed in range(11)]
        folder = write_binary(tmp_path / "b", batches, draw(1))
        np.testing.assert_array_equal(load_images(folder, "train"), np.concatenate(batches))

    def test_missing_batch(self, tmp_path: Path) -> None:
        folder = write_binary(tmp_path / "b", [draw(1), draw(1), draw(1)], draw(1))
        (folder / "data_batch_2.bin").unlink()
        with pytest.raises(DatasetError, match="without a gap, found 1, 3"):
            load_images(folder, "train")

    def test_missing_split(self, tmp_path: Path) -> None:
        folder = write_binary(tmp_path / "b", [], draw(1))
        with pytest.raises(DatasetError, match="batches of the train split, found none"):
            load_images(folder, "train")

    @pytest.mark.parametrize("damage", [b"", b"\x00", b"\x00" * 3072])
    def test_truncated(self, tmp_path: Path, damage: bytes) -> None:
        folder = write_binary(tmp_path / "b", [], draw(1))
        (folder / "test_batch.bin").write_bytes(damage)
        with pytest.raises(
            DatasetError, match=rf"test_batch.bin: .*3073 bytes, found {len(damage)}"
        ):
            load_images(folder, "test")

    def test_label_out_of_range(self, tmp_path: Path) -> None:
        folder = write_binary(tmp_path / "b", [], draw(1))
        (folder / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
        with pytest.raises(DatasetError, match="labels below 10, found 10"):
            load_images(folder, "test")


class TestPythonLayout:
    @pytest.mark.parametrize("write", [python2_pickle, python3_pickle])
    def test_same_pixels(self, tmp_path: Path, write: Callable[[Pixels], bytes]) -> None:
        train, test = [draw(3, 1), draw(2, 2)], draw(4, 3)
        folder = tmp_path / "cifar-10-batches-py"
        folder.mkdir()
        for number, images in enumerate(train, 1):
            (folder / f"data_batch_{number}").write_bytes(write(images))
        (folder / "test_batch").write_bytes(write(test))
        np.testing.assert_array_equal(load_images(tmp_path, "train"), np.concatenate(train))
        np.testing.assert_array_equal(load_images(folder, "test"), test)

    def test_fortran_order(self, tmp_path: Path) -> None:
        images = draw(3)
        planes = np.asfortranarray(images.transpose(0, 3, 1, 2).reshape(3, -1))
        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": planes}, protocol=3))
        np.testing.assert_array_equal(load_images(tmp_path, "test"), images)

    def test_python2_sample_is_what_pickle_reads(self) -> None:
        images = draw(2)
        batch = pickle.loads(python2_pickle(images), encoding="bytes")
        np.testing.assert_array_equal(batch[b"data"], images.transpose(0, 3, 1, 2).reshape(2, -1))

    def test_code_is_refused(self, tmp_path: Path) -> None:
        marker = tmp_path / "executed"

        class Payload:
            def __reduce__(self) -> tuple[object, ...]:
                return Path.touch, (marker,)

        (tmp_path / "test_batch").write_bytes(pickle.dumps({b"data": Payload()}))
        with pytest.raises(DatasetError, match="is not admitted"):
            load_images(tmp_path, "test")
        assert not marker.exists()

    @pytest.mark.parametrize(
        "content",
        [
            [1, 2],
            {b"labels": [1]},
            {b"data": np.zeros((2, 3073), np.uint8)},
            {b"data": np.zeros((2, 3072), np.int16)},
            {b"data": np.zeros((0, 3072), np.uint8)},
        ],
    )
    def test_other_contents(self, tmp_path: Path, content: object) -> None:
        (tmp_path / "test_batch").write_bytes(pickle.dumps(content, protocol=3))
        with pytest.raises(DatasetError, match=r"test_batch: expected an entry 'data'"):
            load_images(tmp_path, "test")

    def test_every_truncation_is_an_error(self, tmp_path: Path) -> None:
        whole = python2_pickle(draw(1))
        for length in [*range(0, 200), len(whole) - 1]:
            (tmp_path / "test_batch").write_bytes(whole[:length])
            with pytest.raises(DatasetError, match="test_batch"):
                load_images(tmp_path, "test")


class TestArchive:
    def test_binary_and_python(self, tmp_path: Path) -> None:
        train, test = [draw(3, 1), draw(2, 2)], draw(4, 3)
        binary = write_binary(tmp_path / "cifar-10-batches-bin", train, test)
        python = tmp_path / "cifar-10-batches-py"
        python.mkdir()
        (python / "data_batch_1").write_bytes(python2_pickle(np.concatenate(train)))
        (python / "test_batch").write_bytes(python2_pickle(test))
        for folder in (binary, python):
            archive = pack_archive(folder, tmp_path / f"{folder.name}.tar.gz")
            np.testing.assert_array_equal(load_images(archive, "train"), np.concatenate(train))
            np.testing.assert_array_equal(load_images(archive, "test"), test)

    def test_damaged(self, tmp_path: Path) -> None:
        folder = write_binary(tmp_path / "cifar-10-batches-bin", [draw(4)], draw(1))
        archive = pack_archive(folder, tmp_path / "c.tar.gz")
        whole = archive.read_bytes()
        flipped = whole[:5000] + bytes([whole[5000] ^ 0xFF]) + whole[5001:]
        for damaged in (whole[: len(whole) // 2], b"no archive", flipped):
            archive.write_bytes(damaged)
            with pytest.raises(DatasetError, match=r"c\.tar\.gz"):
                load_images(archive, "train")

    def test_other_file(self, tmp_path: Path) -> None:
        (tmp_path / "data.zip").write_bytes(b"PK")
        with pytest.raises(DatasetError, match=r"expected a folder or a \.tar\.gz archive"):
            load_images(tmp_path / "data.zip", "train")


class TestImageFolder:
    @pytest.mark.parametrize("extension", ["png", "webp", "bmp"])
    def test_sorted_and_recursive(self, tmp_path: Path, extension: str) -> None:
        images = draw(5)
        save(images[3:], tmp_path / "b", extension=extension)
        save(images[:3], tmp_path / "a", extension=extension)
        (tmp_path / "README.txt").write_text("not an image")
        np.testing.assert_array_equal(load_images(tmp_path, "train"), images)
        np.testing.assert_array_equal(load_images(tmp_path, "test"), images)

    def test_split_subfolders(self, tmp_path: Path) -> None:
        train, test = draw(2, 1), draw(3, 2)
        save(train, tmp_path / "train")
        with pytest.raises(DatasetError, match="expected a subfolder test"):
            load_images(tmp_path, "test")
        save(test, tmp_path / "test")
        np.testing.assert_array_equal(load_images(tmp_path, "train"), train)
        np.testing.assert_array_equal(load_images(tmp_path, "test"), test)

    def test_tiles(self, tmp_path: Path) -> None:
        image = draw(1, side=70)
        save(image, tmp_path)
        tiles = load_images(tmp_path, "train")
        expected = [image[0, y : y + 32, x : x + 32] for y in (0, 32) for x in (0, 32)]
        np.testing.assert_array_equal(tiles, np.stack(expected))
        np.testing.assert_array_equal(load_images(tmp_path, "train", size=70), image)

    def test_two_sizes(self, tmp_path: Path) -> None:
        save(draw(1), tmp_path, "a")
        save(draw(1, side=40), tmp_path, "b")
        with pytest.raises(DatasetError, match=r"b000\.png: expected 32x32 .*, found 40x40"):
            load_images(tmp_path, "train")

    def test_too_small(self, tmp_path: Path) -> None:
        save(draw(1, side=16), tmp_path)
        with pytest.raises(DatasetError, match=r"image000\.png: .* 32x32 pixels, found 16x16"):
            load_images(tmp_path, "train")

    @pytest.mark.parametrize("mode", ["L", "RGBA", "P", "I;16"])
    def test_other_modes(self, tmp_path: Path, mode: str) -> None:
        Image.new(mode, (32, 32)).save(tmp_path / "other.png")
        with pytest.raises(
            DatasetError, match=f"other.png: expected an RGB image, found mode {mode}"
        ):
            load_images(tmp_path, "train")

    def test_animation(self, tmp_path: Path) -> None:
        frames = [Image.fromarray(image) for image in draw(2)]
        frames[0].save(tmp_path / "moving.webp", save_all=True, append_images=frames[1:])
        with pytest.raises(DatasetError, match=r"moving\.webp: .* found an animation"):
            load_images(tmp_path, "train")

    def test_damaged_image(self, tmp_path: Path) -> None:
        save(draw(1), tmp_path)
        whole = (tmp_path / "image000.png").read_bytes()
        for damaged in (whole[:500], b"", b"text"):
            (tmp_path / "image000.png").write_bytes(damaged)
            with pytest.raises(DatasetError, match=r"image000\.png: cannot be read as an image"):
                load_images(tmp_path, "train")

    def test_empty_or_absent(self, tmp_path: Path) -> None:
        with pytest.raises(
            DatasetError, match="expected CIFAR-10 batches or images, found neither"
        ):
            load_images(tmp_path, "train")
        with pytest.raises(DatasetError, match="no such file or folder"):
            load_images(tmp_path / "absent", "train")


class TestHeldOutSplit:
    def test_partition(self) -> None:
        images = draw(50)
        train, held_out = held_out_split(images, 8)
        assert len(train) == 42
        assert len(held_out) == 8
        together = np.concatenate([train, held_out]).reshape(50, -1)
        assert {row.tobytes() for row in together} == {image.tobytes() for image in images}

    def test_train_stays_in_file_order(self) -> None:
        images = draw(50)
        train, _ = held_out_split(images, 8)
        position = {image.tobytes(): index for index, image in enumerate(images)}
        positions = [position[image.tobytes()] for image in train]
        assert positions == sorted(positions)

    def test_held_out_does_not_depend_on_file_order(self) -> None:
        images = draw(50)
        np.testing.assert_array_equal(
            held_out_split(images, 8)[1], held_out_split(images[::-1], 8)[1]
        )

    def test_seed_changes_the_choice(self) -> None:
        images = draw(50)
        assert not np.array_equal(
            held_out_split(images, 8)[1], held_out_split(images, 8, seed=1)[1]
        )

    def test_one_image_cannot_be_split(self) -> None:
        with pytest.raises(DatasetError, match=r"at least 2 training images, .* found 1"):
            held_out_split(draw(1), 1)

    def test_choice_is_pinned(self) -> None:
        images = np.arange(16, dtype=np.uint8)[:, None, None, None] * np.ones((2, 2, 3), np.uint8)
        assert held_out_split(images, 4)[1][:, 0, 0, 0].tolist() == [10, 13, 4, 2]

    @pytest.mark.parametrize("count", [0, 5, 6])
    def test_count_out_of_range(self, count: int) -> None:
        with pytest.raises(DatasetError, match=f"from 1 to 4, found {count}"):
            held_out_split(draw(5), count)


class TestFindData:
    @pytest.fixture(autouse=True)
    def _own_environment(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("DIFFCODEC_DATA", raising=False)
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def test_order_of_places(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        downloaded = tmp_path / "cache" / "diffcodec" / "cifar-10-batches-bin"
        downloaded.mkdir(parents=True)
        assert find_data() == downloaded
        (tmp_path / "named").mkdir()
        monkeypatch.setenv("DIFFCODEC_DATA", str(tmp_path / "named"))
        assert find_data() == tmp_path / "named"
        assert find_data(tmp_path) == tmp_path

    def test_nowhere(self) -> None:
        with pytest.raises(DatasetError, match="--download"):
            find_data()

    def test_named_but_absent(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("DIFFCODEC_DATA", str(tmp_path / "absent"))
        with pytest.raises(DatasetError, match=r"absent: no such .* \(from DIFFCODEC_DATA\)"):
            find_data()
        with pytest.raises(DatasetError, match="other: no such file or folder"):
            find_data(tmp_path / "other")

    def test_cache_without_a_usable_variable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for value in ("", "relative/path"):
            monkeypatch.setenv("XDG_CACHE_HOME", value)
            assert cache_directory() == Path.home() / ".cache" / "diffcodec"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a test's requests are not news."""


class TestDownload:
    @pytest.fixture
    def served(self, tmp_path: Path) -> Iterator[tuple[Path, str]]:
        """A folder and the local address that serves it."""
        folder = tmp_path / "served"
        folder.mkdir()
        handler = functools.partial(QuietHandler, directory=str(folder))
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield folder, f"http://127.0.0.1:{server.server_address[1]}/c.tar.gz"
            server.shutdown()
            thread.join()

    def test_whole_path(self, tmp_path: Path, served: tuple[Path, str]) -> None:
        folder, url = served
        train, test = draw(3, 1), draw(2, 2)
        made = write_binary(tmp_path / "made" / "cifar-10-batches-bin", [train], test)
        archive = pack_archive(made, folder / "c.tar.gz").read_bytes()
        digest = hashlib.sha256(archive).hexdigest()
        calls: list[tuple[int, int | None]] = []
        destination = tmp_path / "new" / "cache"
        result = download_cifar10(
            destination, lambda *call: calls.append(call), url=url, sha256=digest
        )
        assert result == destination / "cifar-10-batches-bin"
        assert calls[-1] == (len(archive), len(archive))
        assert [entry.name for entry in destination.iterdir()] == ["cifar-10-batches-bin"]
        np.testing.assert_array_equal(load_images(result, "train"), train)
        np.testing.assert_array_equal(load_images(result, "test"), test)
        (folder / "c.tar.gz").unlink()
        assert download_cifar10(destination, url=url, sha256=digest) == result

    def test_wrong_digest(self, tmp_path: Path, served: tuple[Path, str]) -> None:
        folder, url = served
        (folder / "c.tar.gz").write_bytes(b"something else")
        with pytest.raises(DatasetError, match=r"expected SHA-256 c4a3.* in 14 bytes"):
            download_cifar10(tmp_path / "cache", url=url)
        assert list((tmp_path / "cache").iterdir()) == []

    def test_not_found(self, tmp_path: Path, served: tuple[Path, str]) -> None:
        with pytest.raises(DatasetError, match="cannot be downloaded: HTTP Error 404"):
            download_cifar10(tmp_path / "cache", url=served[1])

    @pytest.mark.parametrize("url", ["nonsense", "http://127.0.0.1:1/c.tar.gz"])
    def test_unreachable(self, tmp_path: Path, url: str) -> None:
        with pytest.raises(DatasetError, match="cannot be downloaded") as caught:
            download_cifar10(tmp_path / "cache", url=url)
        assert "\n" not in str(caught.value)

    def test_escaping_member(self, tmp_path: Path, served: tuple[Path, str]) -> None:
        folder, url = served
        with tarfile.open(folder / "c.tar.gz", "w:gz") as tar:
            member = tarfile.TarInfo("../../escaped")
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        digest = hashlib.sha256((folder / "c.tar.gz").read_bytes()).hexdigest()
        with pytest.raises(DatasetError, match="cannot be unpacked"):
            download_cifar10(tmp_path / "cache", url=url, sha256=digest)
        assert not (tmp_path / "escaped").exists()

    @pytest.mark.parametrize("content", [b"not gzip", b"\x1f\x8b\x08\x00\x00"])
    def test_not_an_archive(self, tmp_path: Path, served: tuple[Path, str], content: bytes) -> None:
        folder, url = served
        (folder / "c.tar.gz").write_bytes(content)
        digest = hashlib.sha256(content).hexdigest()
        with pytest.raises(DatasetError, match="cannot be unpacked"):
            download_cifar10(tmp_path / "cache", url=url, sha256=digest)

    def test_destination_not_writable(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"")
        with pytest.raises(DatasetError, match="cannot be written"):
            download_cifar10(tmp_path / "file" / "cache")


def test_what_images_are_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    official = write_binary(tmp_path / "cifar-10-batches-bin", [draw(2)], draw(1))
    for place in (official, official.parent, tmp_path / "cifar-10-binary.tar.gz"):
        assert data_name(place) == CIFAR10
    save(draw(1), tmp_path / "pictures")
    assert data_name(tmp_path / "pictures") == "pictures"
    monkeypatch.chdir(tmp_path / "pictures")
    assert data_name(Path()) == "pictures"


def test_fingerprints_tell_images_apart() -> None:
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    other = images.copy()
    other[1, 3, 3, 2] ^= 1
    variants = (images, other, images[::-1], images[:1], images.reshape(2, 2, 8, 3))
    assert len({fingerprint(variant) for variant in variants}) == len(variants)
    assert fingerprint(images) == fingerprint(np.asfortranarray(images))
    assert len(bytes.fromhex(fingerprint(images))) == 16
