"""The one console for people: standard error. Data alone goes to standard output."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

# File names are data: neither markup nor highlighting may touch them, nor wrapping break them.
console = Console(stderr=True, markup=False, highlight=False, soft_wrap=True)


@dataclass(frozen=True)
class Terminal:
    """What a command says, unless ``-q`` asks for errors only."""

    quiet: bool = False

    def say(self, message: str) -> None:
        """A result or notice, unless quiet."""
        if not self.quiet:
            console.print(message)

    def warn(self, message: str) -> None:
        """Something the user should know though the command goes on, unless quiet."""
        if not self.quiet:
            console.print(f"diffcodec: warning: {one_line(message)}")

    @contextmanager
    def progress(self, description: str, total: float | None) -> Iterator[Callable[[float], None]]:
        """A progress bar on a terminal, unless quiet; gives a function that advances it.

        ``total`` of ``None`` is unknown in advance.
        """
        if self.quiet or not console.is_terminal:
            yield _ignore
            return
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(description, total=total)
            yield lambda amount: bar.advance(task, amount)


def error(message: str) -> None:
    """The one line that a failing command ends with, however quiet it is."""
    console.print(f"diffcodec: error: {one_line(message)}")


def one_line(message: str) -> str:
    """``message`` without line breaks."""
    return " ".join(line.strip() for line in message.splitlines() if line.strip())


def _ignore(amount: float) -> None:
    """Advance nothing: there is no bar."""
