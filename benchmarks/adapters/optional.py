"""Libraries that only the benchmarks depend on, loaded when they are first asked for."""

import importlib
from importlib.metadata import version
from typing import Any


def installed(module: str) -> bool:
    """Whether a module can be imported."""
    try:
        importlib.import_module(module)
    except ImportError:
        return False
    return True


def imagecodecs() -> Any:
    """The module imagecodecs, which has no type information."""
    return importlib.import_module("imagecodecs")


def imagecodecs_library(version_function: str) -> str:
    """imagecodecs and the library behind one of its codecs, with their versions."""
    return f"imagecodecs {version('imagecodecs')}, {getattr(imagecodecs(), version_function)()}"
