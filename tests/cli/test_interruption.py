"""Whatever ends a command, what it leaves is a whole file, the one that was there, or nothing."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main

REPOSITORY = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[bytes]"]

# Says when half of a file lies on the disk, and waits there for the signal.
WAITING = """
import os, sys, time
from cli.main import main

def fsync(descriptor):
    print("half-written", file=sys.stderr, flush=True)
    time.sleep(60)

os.fsync = fsync
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(autouse=True)
def _signals_as_at_a_prompt() -> Iterator[None]:
    """A test run in the background, or under nohup, ignores some; here and in processes."""
    usual = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in usual.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(REPOSITORY)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("old", [True, False])
@pytest.mark.parametrize(
    ("command", "number", "exit_code"),
    [
        ("encode", signal.SIGINT, 130),
        ("encode", signal.SIGTERM, 143),
        ("decode", signal.SIGINT, 130),
        ("decode", signal.SIGHUP, 129),
    ],
)
def test_a_signal_in_the_middle_of_a_write(
    command: str,
    number: signal.Signals,
    exit_code: int,
    old: bool,
    image: Path,
    file_bytes: bytes,
    tiny_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process: the signal comes when the bytes are written and not yet renamed."""
    source = image
    if command == "decode":
        source = image.with_suffix(".dfc")
        image.unlink()
        source.write_bytes(file_bytes)
    target = source.with_name("target")
    if old:
        target.write_bytes(b"old")
    before = names(source.parent)

    def signalled(descriptor: int) -> None:
        assert len(names(source.parent)) == len(before) + 1
        os.kill(os.getpid(), number)

    monkeypatch.setattr(os, "fsync", signalled)
    arguments = [command, "-f", "--model", str(tiny_folder), str(source), "-o", str(target)]
    if number is signal.SIGINT:
        assert main(arguments) == exit_code
    else:
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == exit_code
    assert names(source.parent) == before
    if old:
        assert target.read_bytes() == b"old"


def test_an_interrupted_process_leaves_nothing(image: Path, tiny_folder: Path) -> None:
    command = [sys.executable, "-c", WAITING, "encode", "--effort", "1"]
    process = subprocess.Popen(
        [*command, "--model", str(tiny_folder), str(image)],
        env=environment(),
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"half-written\n"
    assert len(names(image.parent)) == 2
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in error
    assert names(image.parent) == ["img.png"]


def test_what_nohup_ignores_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        seen: list[object] = []
        monkeypatch.setattr(
            "cli.files.flush_stdout", lambda: seen.append(signal.getsignal(signal.SIGHUP))
        )
        assert main(["--version"]) == 0
        assert seen == [signal.SIG_IGN]
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """A function: a command line in a process of its own, its output going where it is told."""

    def start(
        *arguments: str | Path, stdout: int | None = subprocess.PIPE, limit: int = 0
    ) -> "subprocess.CompletedProcess[bytes]":
        def lower() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        return subprocess.run(
            [sys.executable, "-m", "cli.main", *map(str, arguments)],
            env=environment(),
            stdout=stdout,
            stderr=subprocess.PIPE,
            preexec_fn=lower if limit else None,
            timeout=120,
            check=False,
        )

    return start


def one_line(error: bytes) -> str:
    assert error.startswith(b"diffcodec: error: ")
    assert error.count(b"\n") == 1
    return error.decode()


def test_a_file_larger_than_the_disk_allows(run: Run, image: Path, tiny_folder: Path) -> None:
    """The limit on a file's size stands for a full disk: the write fails half-way."""
    ended = run("encode", "--effort", "1", "--model", tiny_folder, image, limit=100)
    assert ended.returncode == 1
    assert f"{image.with_suffix('.dfc')}: File too large" in one_line(ended.stderr)
    assert names(image.parent) == ["img.png"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_full_standard_output(run: Run, file: Path, tiny_folder: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        decoded = run("decode", "--model", tiny_folder, file, "-o", "-", stdout=full.fileno())
        listed = run("info", file, stdout=full.fileno())
    assert decoded.returncode == listed.returncode == 1
    assert "standard output: No space left" in one_line(decoded.stderr)
    assert "No space left" in one_line(listed.stderr)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device(image: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["encode", "--effort", "1", "--model", str(tiny_folder), str(image)]
    assert main([*arguments, "-o", "/dev/full"]) == 1
    assert "/dev/full: No space left" in one_line(capsys.readouterr().err.encode())


def test_a_reader_that_has_had_enough(file: Path) -> None:
    """``diffcodec info img.dfc | head -c 0``: no complaint, and none at exit."""
    reading, writing = os.pipe()
    os.close(reading)
    ended = subprocess.run(
        [sys.executable, "-m", "cli.main", "info", str(file)],
        env=environment(),
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, b"")


def test_closed_streams(file: Path, image: Path) -> None:
    for arguments, number, name in (
        (["info", str(file)], 1, None),
        (["decode", "--model", "default", str(file), "-o", "-"], 1, "standard output"),
        (["encode", "-", "-o", str(image.with_name("a.dfc"))], 0, "standard input"),
    ):
        ended = subprocess.run(
            [sys.executable, "-m", "cli.main", *arguments],
            env=environment(),
            stderr=subprocess.PIPE,
            preexec_fn=lambda number=number: os.close(number),
            timeout=120,
            check=False,
        )
        if name is None:
            assert (ended.returncode, ended.stderr) == (0, b"")
        else:
            assert ended.returncode == 1
            assert f"{name}: Is closed" in one_line(ended.stderr)
