"""The command group; errors become exit codes.

0 success, 1 failure, 2 usage, 3 damaged stream or wrong model, 130 interrupted.
"""

import importlib
import signal
import sys
from collections.abc import Sequence
from types import FrameType

import click
from click.exceptions import NoArgsIsHelpError

from cli import terminal
from diffcodec.errors import BitstreamError, DiffcodecError, ModelMismatchError

SUCCESS, FAILURE, USAGE, DAMAGED, INTERRUPTED, TERMINATED = 0, 1, 2, 3, 130, 143

# Name → the module that holds it as `command`, and its line in the group's help. The lines are
# here so that help imports no command, and a command's module is imported when it is called.
COMMANDS = {
    "encode": ("cli.encode", "Compress images, losslessly or to a given size."),
    "decode": ("cli.decode", "Restore an image from a file or any prefix of one."),
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
    # A request to terminate unwinds as an interrupt does, so nothing half-written is left.
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        result = group(table).main(arguments, prog_name="diffcodec", standalone_mode=False)
    except NoArgsIsHelpError as error:
        error.show()
        return USAGE
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "diffcodec"
        terminal.error(f"{error.format_message()} See '{command} --help'.")
        return USAGE
    except click.ClickException as error:
        terminal.error(error.format_message())
        return error.exit_code
    except click.Abort:  # click's word for KeyboardInterrupt
        return INTERRUPTED
    except (BitstreamError, ModelMismatchError) as error:
        terminal.error(str(error))
        return DAMAGED
    except DiffcodecError as error:
        terminal.error(str(error))
        return FAILURE
    except OSError as error:
        terminal.error(_explain(error))
        return FAILURE
    except MemoryError:
        terminal.error("not enough memory")
        return FAILURE
    finally:
        signal.signal(signal.SIGTERM, previous)
    return result if isinstance(result, int) else SUCCESS


def _explain(error: OSError) -> str:
    """``file: reason``, without errno's number."""
    reason = error.strerror or str(error) or type(error).__name__
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return ": ".join([*names, reason])


def _terminate(number: int, frame: FrameType | None) -> None:
    sys.exit(TERMINATED)


if __name__ == "__main__":
    sys.exit(main())
