"""The command group; errors become one line and an exit code (`cli.exit_codes`)."""

import importlib
import io
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

import click
from click.exceptions import NoArgsIsHelpError

from cli import exit_codes, files, terminal

# A request to end, and the exit code that shells give a process that ends on that signal.
_ENDINGS = {
    signal.SIGTERM: exit_codes.TERMINATED,
    signal.SIGHUP: exit_codes.HUNG_UP,
}

# Name → the module that holds it as `command`, and its line in the group's help. The lines are
# here so that help imports no command, and a command's module is imported when it is called.
COMMANDS = {
    "encode": ("cli.encode", "Compress images, losslessly or to a given size."),
    "decode": ("cli.decode", "Restore an image from a file or any prefix of one."),
    "verify": ("cli.verify", "Check files without writing images."),
    "info": ("cli.info", "Show what a file holds and where its bits went."),
    "rd-curve": ("cli.rd_curve", "Measure error against rate with real files."),
    "train": ("cli.train", "Train a model."),
    "evaluate": ("cli.evaluate", "Measure a model's bound in bits per dimension."),
}


class LazyGroup(click.Group):
    """A group of the commands of a table, each imported when it is asked for by name."""

    def __init__(self, table: dict[str, tuple[str, str]], **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self._table = table

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The table's names in its order."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or ``None`` where the table does not have it."""
        if cmd_name not in self._table:
            return None
        module, _ = self._table[cmd_name]
        command = importlib.import_module(module).command
        if not isinstance(command, click.Command):
            raise TypeError(f"{module}.command is no click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the table's help lines; no module is imported."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in self._table.items()])


def group(table: dict[str, tuple[str, str]]) -> click.Group:
    """The ``diffcodec`` group over a table of commands."""
    commands = LazyGroup(
        table,
        name="diffcodec",
        context_settings={"help_option_names": ["-h", "--help"]},
        help="An image codec made of a diffusion model: every prefix of a file is an image, "
        "and the whole file is lossless.",
    )
    return click.version_option(package_name="diffcodec", message="%(prog)s %(version)s")(commands)


def main(
    arguments: Sequence[str] | None = None, table: dict[str, tuple[str, str]] = COMMANDS
) -> int:
    """Run the command line on ``arguments`` (default: the process's own); gives the exit code.

    A command's own integer result is its exit code, where it returns one.
    """
    _print_any_name()
    with unwinding_endings():
        try:
            try:
                result = group(table).main(arguments, prog_name="diffcodec", standalone_mode=False)
            finally:
                # Here, where a full disk is an error that can be told; at exit it no longer is.
                files.flush_stdout()
        except NoArgsIsHelpError as error:
            error.show()
            return exit_codes.USAGE
        except click.UsageError as error:
            command = error.ctx.command_path if error.ctx is not None else "diffcodec"
            terminal.error(f"{error.format_message()} See '{command} --help'.")
            return exit_codes.USAGE
        except click.ClickException as error:
            terminal.error(error.format_message())
            return error.exit_code
        except click.Abort:  # click's word for KeyboardInterrupt
            return exit_codes.INTERRUPTED
        except BrokenPipeError:
            # Who reads has had enough: no error to tell anyone.
            return exit_codes.FAILURE
        except Exception as error:
            code = exit_codes.of_error(error)
            if code is None:
                raise
            terminal.error(exit_codes.explain(error))
            return code
    return result if isinstance(result, int) else exit_codes.SUCCESS


def _print_any_name() -> None:
    """Let what the locale's encoding lacks, a file's odd name, be printed escaped."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def unwinding_endings() -> Iterator[None]:
    """Requests to end unwind as an interrupt does, so that nothing half-written is left.

    What is ignored, as SIGHUP under nohup, stays so.
    """
    previous = {
        number: signal.signal(number, _end)
        for number in _ENDINGS
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(_ENDINGS[signal.Signals(number)])


if __name__ == "__main__":
    sys.exit(main())
