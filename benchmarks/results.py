"""Where results are kept, and how they are written: one record, and pictures beside it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcodec.errors import DiffcodecError

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
RECORD, EXAMPLES = "cifar10.json", "examples.json"
CHANNEL_CODES_RECORD = "channel-codes.json"


def dumps(content: Mapping[str, Any]) -> bytes:
    """JSON with a line for each part of the top level, so that a change can be read."""
    lines = [
        f"{json.dumps(name)}: {json.dumps(value, allow_nan=False)}"
        for name, value in content.items()
    ]
    return ("{\n" + ",\n".join(lines) + "\n}\n").encode()


def refuse_overwrite(path: Path, *, force: bool) -> None:
    """Keep a record that is there, before hours are spent on another.

    Raises:
        DiffcodecError: ``path`` is there and ``force`` is not.
    """
    if path.exists() and not force:
        raise DiffcodecError(f"{path}: an earlier record; --force replaces it")


def load(path: Path) -> Any:
    """What a results file holds.

    Raises:
        DiffcodecError: there is none, or it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DiffcodecError(
            f"{path}: no such file; python -m benchmarks.measure writes it"
        ) from error
    except ValueError as error:
        raise DiffcodecError(f"{path}: expected JSON, found something else: {error}") from error


def load_folder(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A folder's record and examples, none where there is no file of them.

    Raises:
        DiffcodecError: there is no record, or a file is not JSON.
    """
    path = folder / EXAMPLES
    return load(folder / RECORD), load(path)["examples"] if path.is_file() else []


def load_channel_codes(folder: Path) -> dict[str, Any] | None:
    """A folder's comparison of channel codes, None where there is no file of it.

    Raises:
        DiffcodecError: the file is not JSON.
    """
    path = folder / CHANNEL_CODES_RECORD
    return load(path) if path.is_file() else None
