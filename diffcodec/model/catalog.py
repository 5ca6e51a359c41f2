"""Which models there are: those that ship in the package, and folders that the user names.

Imports no torch, so that a wrong name is told at once.
"""

import json
from pathlib import Path

from diffcodec.errors import CheckpointError, ModelMismatchError

DEFAULT_MODEL = "default"
PACKAGED = Path(__file__).resolve().parent.parent / "weights"
CONFIG_NAME = "config.json"


def packaged_models() -> dict[str, Path]:
    """Name → folder of every model in the package, by name."""
    folders = sorted(path.parent for path in PACKAGED.glob(f"*/{CONFIG_NAME}"))
    return {folder.name: folder for folder in folders}


def find_model(name_or_path: str | None = None) -> Path:
    """The folder of a packaged model, or the folder itself; the default model for None.

    Raises:
        CheckpointError: there is neither a packaged model nor a model folder of that name.
    """
    models = packaged_models()
    wanted = DEFAULT_MODEL if name_or_path is None else name_or_path
    if wanted in models:
        return models[wanted]
    folder = Path(wanted)
    if (folder / CONFIG_NAME).is_file():
        return folder
    known = ", ".join(models) or "none"
    raise CheckpointError(
        f"{wanted}: expected a packaged model ({known}) or a folder that holds {CONFIG_NAME}"
    )


def find_model_by_id(model_id: bytes, file_name: str) -> Path:
    """The packaged model whose digest begins with ``model_id``, which ``file_name``'s header names.

    Raises:
        ModelMismatchError: no packaged model does.
    """
    for folder in packaged_models().values():
        if recorded_digest(folder).startswith(model_id):
            return folder
    raise ModelMismatchError(
        f"{file_name}: expected the model {model_id.hex()} that it was encoded with, found no such "
        "model in the package; name its folder with --model"
    )


def recorded_digest(folder: Path) -> bytes:
    """The digest that a model folder's configuration records, unverified.

    Raises:
        CheckpointError: the configuration cannot be read.
    """
    path = folder / CONFIG_NAME
    try:
        return bytes.fromhex(json.loads(path.read_text(encoding="utf-8"))["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path}: not a model's configuration: {error!r}") from error
