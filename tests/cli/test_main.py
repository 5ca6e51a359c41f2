import errno
import signal
import sys
import types
from collections.abc import Callable

import click
import pytest

from cli.main import COMMANDS, main
from diffcodec.errors import (
    BadMagicError,
    BitstreamError,
    CheckpointError,
    ChecksumError,
    DiffcodecError,
    ImageError,
    ModelMismatchError,
    NumericMismatchError,
    PixelLimitError,
)

Fail = Callable[[BaseException], int]


@pytest.fixture
def fail(monkeypatch: pytest.MonkeyPatch) -> Fail:
    """A function that runs a command which raises what it is given; its exit code."""

    def run(error: BaseException) -> int:
        @click.command()
        def command() -> None:
            raise error

        module = types.ModuleType("failing_command")
        module.__dict__["command"] = command
        monkeypatch.setitem(sys.modules, "failing_command", module)
        return main(["fail"], {"fail": ("failing_command", "Fails.")})

    return run


@pytest.mark.parametrize(
    ("error", "exit_code"),
    [
        (DiffcodecError("a.png: no"), 1),
        (ImageError("a.png: no"), 1),
        (CheckpointError("a.png: no"), 1),
        (OSError(errno.ENOSPC, "no", "a.png"), 1),
        (FileNotFoundError(errno.ENOENT, "no", "a.png"), 1),
        (BitstreamError("a.png: no"), 3),
        (BadMagicError("a.png: no"), 3),
        (ChecksumError("a.png: no"), 3),
        (ModelMismatchError("a.png:\n no"), 3),
        (NumericMismatchError("a.png: no"), 4),
        (PixelLimitError("a.png: no"), 1),
        (click.ClickException("a.png: no"), 1),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    error: Exception, exit_code: int, fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(error) == exit_code
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err == "diffcodec: error: a.png: no\n"


def test_an_error_without_a_file_gives_its_reason(
    fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fail(OSError("odd")) == 1
    assert fail(MemoryError()) == 1
    assert capsys.readouterr().err == (
        "diffcodec: error: odd\ndiffcodec: error: not enough memory\n"
    )


def test_markup_in_a_file_s_name_is_kept(fail: Fail, capsys: pytest.CaptureFixture[str]) -> None:
    name = "[red]" + "long " * 40 + "[/red].png"
    assert fail(ImageError(name)) == 1
    assert capsys.readouterr().err == f"diffcodec: error: {name}\n"


def test_an_interrupt_is_130(fail: Fail) -> None:
    assert fail(KeyboardInterrupt()) == 130


def test_termination_unwinds_and_the_handler_is_restored(
    fail: Fail, capsys: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit):
        fail(SystemExit(143))
    assert signal.getsignal(signal.SIGTERM) is before
    assert capsys.readouterr().err == ""


def test_a_broken_pipe_is_quiet(
    fail: Fail, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # click replaces both streams, so that Python's last flush fails quietly too.
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(sys, "stderr", sys.stderr)
    with pytest.raises(SystemExit) as ended:
        fail(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert ended.value.code == 1
    assert capsys.readouterr().err == ""


def test_errors_of_the_program_itself_are_not_hidden(fail: Fail) -> None:
    with pytest.raises(ZeroDivisionError):
        fail(ZeroDivisionError())


def test_requested_help_goes_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for name, (_, line) in COMMANDS.items():
        assert name in output.out
        assert line in output.out


def test_no_arguments_are_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert "Usage: diffcodec" in output.err


@pytest.mark.parametrize("arguments", [["no-such-command"], ["--no-such-option"]])
def test_usage_errors_are_one_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("diffcodec: error: No such ")
    assert error.endswith("See 'diffcodec --help'.\n")
    assert error.count("\n") == 1


def test_a_command_is_imported_only_when_it_is_called(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = {"absent": ("no_such_module_at_all", "Is not there.")}
    assert main(["--help"], table) == 0
    assert "Is not there." in capsys.readouterr().out
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        main(["absent"], table)


def test_a_command_may_give_its_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("partial_command")
    module.__dict__["command"] = click.command()(lambda: 3)
    monkeypatch.setitem(sys.modules, "partial_command", module)
    assert main(["partial"], {"partial": ("partial_command", "Gives 3.")}) == 3
