"""Reading and writing as a command should: ``-`` for streams, whole files or none."""

import errno
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import click

STREAM = "-"
COMPRESSED_SUFFIX = ".dfc"
IMAGE_SUFFIXES = frozenset(
    f".{name}"
    for name in (
        *("avif", "bmp", "gif", "jp2", "jpeg", "jpg", "jxl", "pbm"),
        *("pgm", "png", "pnm", "ppm", "tga", "tif", "tiff", "webp"),
    )
)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file, or of standard input for ``-``.

    Raises :class:`OSError` naming the file, and :class:`click.UsageError` where standard input is
    a terminal, which would wait for a person to type an image.
    """
    if str(path) != STREAM:
        refuse_directory(path)
        return Path(path).read_bytes()
    with _named("standard input"):
        if sys.stdin is None:
            raise OSError(errno.EBADF, "Is closed")
        if sys.stdin.isatty():
            raise click.UsageError("Standard input is a terminal: name a file, or pipe one in.")
        return sys.stdin.buffer.read()


def refuse_directory(source: str | Path) -> None:
    """Raise :class:`IsADirectoryError` where an input is one: it has no name to give an output."""
    if Path(source).is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(source))


def is_folder(output: str) -> bool:
    """Whether an output names a folder to write into, there or not, rather than a file."""
    return output != STREAM and (output.endswith(os.sep) or Path(output).is_dir())


def display_name(path: str | Path) -> str:
    """How messages call ``path``."""
    return "standard input" if str(path) == STREAM else str(path)


def compressed_path(path: str | Path) -> Path:
    """``img.png`` → ``img.dfc`` beside it; a suffix that names no image format is kept."""
    path = Path(path)
    if path.suffix.lower() in IMAGE_SUFFIXES:
        return path.with_suffix(COMPRESSED_SUFFIX)
    return path.with_name(path.name + COMPRESSED_SUFFIX)


def decoded_path(path: str | Path) -> Path:
    """``img.dfc`` → ``img.png`` beside it; any other suffix is kept."""
    path = Path(path)
    if path.suffix.lower() == COMPRESSED_SUFFIX:
        return path.with_suffix(".png")
    return path.with_name(path.name + ".png")


def refuse_overwrite(path: str | Path, force: bool) -> None:
    """Raise :class:`FileExistsError` where ``path`` is there and ``force`` is not.

    Commands ask before they work, so that nobody waits for a refusal. Devices and pipes are not
    overwritten by writing to them, so they are never refused.
    """
    path = Path(path)
    if not force and path.exists() and not _is_device_or_pipe(path):
        raise FileExistsError(errno.EEXIST, "File exists; -f overwrites it", str(path))


def check_target(source: str | Path, target: str | Path, force: bool) -> None:
    """Refuse before any work is done what `write_atomically` or `write_stdout` would refuse after.

    Raises :class:`click.UsageError` where ``target`` is a terminal or ``source`` itself, and
    :class:`OSError` where it is there and ``force`` is not, is a directory, or lies in one that is
    not there or not writable.
    """
    if str(target) == STREAM:
        _refuse_terminal(force)
        return
    path = Path(target)
    with _named(str(path)):
        both = str(source) != STREAM and path.is_file() and Path(source).exists()
        if both and path.samefile(source):
            raise click.UsageError(f"{target} is the input: name another output with -o.")
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        if _is_device_or_pipe(path):
            _require_access(path, os.W_OK)
            return
    refuse_overwrite(path, force)
    check_folder(Path(os.path.realpath(path)).parent)


def check_folder(folder: Path) -> None:
    """Raise :class:`OSError` naming ``folder`` unless it is there and files can be made in it."""
    with _named(str(folder)):
        if not folder.exists():
            raise FileNotFoundError(errno.ENOENT, "No such directory")
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "Not a directory")
        _require_access(folder, os.W_OK | os.X_OK)


def check_new_folder(folder: Path) -> None:
    """As `check_folder`, for a folder that may have to be made with the folders above it."""
    there = folder.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    check_folder(there)


def write_atomically(path: str | Path, data: bytes, force: bool) -> None:
    """Write ``data`` to ``path`` so that it holds either all of them or what it held before.

    The bytes go to a temporary name in the same directory, are flushed to the disk and renamed.
    A failure or an interrupt removes the temporary file. A symbolic link stays and its target is
    replaced; a replaced file's permissions stay. Raises :class:`OSError` naming ``path``, among
    them :class:`FileExistsError` where it exists and ``force`` is not given.
    """
    refuse_overwrite(path, force)
    with _named(str(path)):
        target = Path(os.path.realpath(path))
        if _is_device_or_pipe(target):
            target.write_bytes(data)
            return
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, "Is a directory")
        # Not derived from the target's name, which may be as long as the file system allows.
        temporary = target.with_name(f".diffcodec-{secrets.token_hex(8)}.tmp")
        try:
            with temporary.open("xb") as file:
                if target.exists():
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        # An interrupt is no Exception, and leaves nothing behind either.
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def write_stdout(data: bytes, force: bool = False) -> None:
    """Write ``data`` to standard output.

    Raises :class:`click.UsageError` where that is a terminal and ``force`` is not given, and
    :class:`OSError`.
    """
    _refuse_terminal(force)
    with _flushed_stdout():
        sys.stdout.buffer.write(data)


def flush_stdout() -> None:
    """Hand over what was printed. Raises :class:`OSError` where it cannot be written."""
    if sys.stdout is not None:
        with _flushed_stdout():
            pass


@contextmanager
def _flushed_stdout() -> Iterator[None]:
    """Flush standard output afterwards; after a failure the rest of it goes nowhere.

    Otherwise the interpreter would try the rest again at its exit and complain on its own.
    """
    try:
        with _named("standard output"):
            yield
            sys.stdout.flush()
    except OSError:
        with suppress(OSError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        raise


def _refuse_terminal(force: bool) -> None:
    if sys.stdout is None:
        raise OSError(errno.EBADF, "Is closed", "standard output")
    if sys.stdout.isatty() and not force:
        raise click.UsageError("Refusing to write binary data to a terminal: use -o, or -f.")


def _require_access(path: Path, mode: int) -> None:
    if not os.access(path, mode):
        raise PermissionError(errno.EACCES, "Permission denied")


def _is_device_or_pipe(path: Path) -> bool:
    return path.exists() and not path.is_file() and not path.is_dir()


@contextmanager
def _named(name: str) -> Iterator[None]:
    """Let an :class:`OSError` name what the user named, not a temporary file or nothing."""
    try:
        yield
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, name) from error
