import errno
import io
import os
import sys
from pathlib import Path

import click
import pytest

from cli.files import (
    check_folder,
    check_new_folder,
    check_target,
    compressed_path,
    decoded_path,
    display_name,
    flush_stdout,
    read_bytes,
    refuse_overwrite,
    write_atomically,
    write_stdout,
)


class Stream(io.TextIOWrapper):
    """A standard stream in memory, which may claim to be a terminal."""

    def __init__(self, data: bytes = b"", terminal: bool = False) -> None:
        self.memory = io.BytesIO(data)
        super().__init__(self.memory)
        self._terminal = terminal

    def isatty(self) -> bool:
        return self._terminal


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.dfc"
    write_atomically(path, b"\0data\xff", force=False)
    assert read_bytes(path) == b"\0data\xff"
    assert os.listdir(tmp_path) == ["a.dfc"]


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(b"old")
    with pytest.raises(FileExistsError) as refused:
        write_atomically(path, b"new", force=False)
    assert refused.value.filename == str(path)
    assert path.read_bytes() == b"old"
    write_atomically(path, b"new", force=True)
    assert path.read_bytes() == b"new"


def test_permissions_follow_the_file_replaced_or_the_umask(tmp_path: Path) -> None:
    replaced, new = tmp_path / "replaced", tmp_path / "new"
    replaced.write_bytes(b"old")
    replaced.chmod(0o640)
    write_atomically(replaced, b"data", force=True)
    assert replaced.stat().st_mode & 0o777 == 0o640
    previous = os.umask(0o027)
    try:
        write_atomically(new, b"data", force=False)
    finally:
        os.umask(previous)
    assert new.stat().st_mode & 0o777 == 0o640


def test_a_symbolic_link_stays_and_its_target_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    link = tmp_path / "link"
    link.symlink_to(folder / "target")
    write_atomically(link, b"one", force=False)
    write_atomically(link, b"two", force=True)
    assert link.is_symlink()
    assert (folder / "target").read_bytes() == b"two"


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_a_failure_leaves_what_was_there_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: BaseException
) -> None:
    path = tmp_path / "a.dfc"
    path.write_bytes(b"old")

    def fail(descriptor: int) -> None:
        raise failure

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(type(failure)) as raised:
        write_atomically(path, b"new", force=True)
    assert os.listdir(tmp_path) == ["a.dfc"]
    assert path.read_bytes() == b"old"
    if isinstance(raised.value, OSError):
        assert (raised.value.errno, raised.value.filename) == (errno.ENOSPC, str(path))


def test_errors_name_what_the_user_named(tmp_path: Path) -> None:
    missing = tmp_path / "no" / "such" / "folder"
    with pytest.raises(FileNotFoundError) as raised:
        write_atomically(missing, b"data", force=False)
    assert raised.value.filename == str(missing)
    with pytest.raises(FileNotFoundError) as raised:
        read_bytes(missing)
    assert raised.value.filename == str(missing)
    with pytest.raises(IsADirectoryError):
        write_atomically(tmp_path, b"data", force=True)


def test_a_device_is_written_to_and_not_replaced() -> None:
    refuse_overwrite("/dev/null", force=False)
    write_atomically("/dev/null", b"data", force=False)
    assert not Path("/dev/null").is_file()


def test_streams_carry_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    output = Stream()
    monkeypatch.setattr(sys, "stdin", Stream(b"\0in\xff"))
    monkeypatch.setattr(sys, "stdout", output)
    write_stdout(read_bytes("-"))
    assert output.memory.getvalue() == b"\0in\xff"


def test_a_terminal_neither_gives_nor_takes_data_unless_forced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = Stream(terminal=True)
    monkeypatch.setattr(sys, "stdin", Stream(terminal=True))
    monkeypatch.setattr(sys, "stdout", output)
    with pytest.raises(click.UsageError, match="pipe one in"):
        read_bytes("-")
    with pytest.raises(click.UsageError, match="Refusing"):
        write_stdout(b"data")
    assert output.memory.getvalue() == b""
    write_stdout(b"data", force=True)
    assert output.memory.getvalue() == b"data"


@pytest.mark.parametrize(
    ("image", "compressed"),
    [
        ("a/img.png", "a/img.dfc"),
        ("IMG.JPG", "IMG.dfc"),
        ("img", "img.dfc"),
        ("holiday.v2", "holiday.v2.dfc"),
        ("a.b.png", "a.b.dfc"),
    ],
)
def test_compressed_files_lie_beside_their_images(image: str, compressed: str) -> None:
    assert compressed_path(image) == Path(compressed)


@pytest.mark.parametrize(
    ("compressed", "image"),
    [("a/img.dfc", "a/img.png"), ("img", "img.png"), ("img.bin", "img.bin.png")],
)
def test_images_lie_beside_their_compressed_files(compressed: str, image: str) -> None:
    assert decoded_path(compressed) == Path(image)


def test_messages_spell_out_the_stream() -> None:
    assert display_name("-") == "standard input"
    assert display_name("a.png") == "a.png"


def test_targets_are_looked_at_before_any_work(tmp_path: Path) -> None:
    source, there = tmp_path / "a.png", tmp_path / "a.dfc"
    source.write_bytes(b"image")
    check_target(source, there, force=False)
    assert not there.exists()
    there.write_bytes(b"old")
    check_target(source, there, force=True)
    with pytest.raises(FileExistsError):
        check_target(source, there, force=False)
    with pytest.raises(IsADirectoryError):
        check_target(source, tmp_path, force=True)
    check_target(source, "/dev/null", force=False)
    link = tmp_path / "link"
    link.symlink_to(source)
    with pytest.raises(click.UsageError, match="is the input"):
        check_target(source, link, force=True)


def test_folders_that_take_no_files_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_folder(tmp_path)
    check_new_folder(tmp_path / "a" / "b")
    (tmp_path / "file").write_bytes(b"")
    for path, error in (
        (tmp_path / "a", FileNotFoundError),
        (tmp_path / "file", NotADirectoryError),
    ):
        with pytest.raises(error) as raised:
            check_folder(path)
        assert raised.value.filename == str(path)
    with pytest.raises(NotADirectoryError):
        check_new_folder(tmp_path / "file" / "b")
    # The test may run as root, whom no permission stops.
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    for check in (check_folder, check_new_folder):
        with pytest.raises(PermissionError) as denied:
            check(tmp_path)
        assert denied.value.filename == str(tmp_path)
    with pytest.raises(PermissionError):
        check_target("-", tmp_path / "a.dfc", force=False)


def test_closed_streams_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    monkeypatch.setattr(sys, "stdout", None)
    flush_stdout()
    with pytest.raises(OSError, match="closed") as raised:
        read_bytes("-")
    assert raised.value.filename == "standard input"
    for use in (lambda: write_stdout(b"data"), lambda: check_target("a.png", "-", force=True)):
        with pytest.raises(OSError, match="closed") as raised:
            use()
        assert raised.value.filename == "standard output"
