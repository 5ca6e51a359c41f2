"""Where a measured figure comes from, stored beside it in every results file."""

import hashlib
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    *("torch", "numpy", "pillow", "constriction"),
    *("pillow-jxl-plugin", "pillow-heif", "imagecodecs", "scikit-image", "bjontegaard"),
)

_ROOT = Path(__file__).resolve().parent.parent
# A run's own output is no change of what it measures.
_SOURCES = (".", ":(exclude)benchmarks/results")


def provenance(device: str = "cpu") -> dict[str, Any]:
    """Commit, versions, processor and command of the running process, ready for JSON.

    Taken when a run begins: the tree may change while it works. ``commit`` is ``None`` outside a
    git checkout and before its first commit; ``dirty`` says whether the tree, results and figures
    apart, differs from it, and ``changes`` is then a digest of the differences. A package that is
    not installed has version ``None``. Nothing is imported to learn its version.

    Args:
        device: what the networks run on: ``cpu``, or a GPU's name.
    """
    listed = _git("status", "--porcelain", "--", *_SOURCES)
    return {
        "commit": _git("rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if listed is None else bool(listed),
        "changes": _changes() if listed else None,
        "command": shlex.join(["python", *sys.orig_argv[1:]]),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_model(),
        "device": device,
    }


def _changes() -> str | None:
    """SHA-256 of tracked files' differences and untracked files' contents."""
    difference = _git("diff", "HEAD", "--", *_SOURCES)
    untracked = _git("ls-files", "--others", "--exclude-standard", "--", *_SOURCES)
    if difference is None or untracked is None:
        return None
    digest = hashlib.sha256(difference.encode(errors="surrogateescape"))
    for name in untracked.splitlines():
        digest.update(name.encode(errors="surrogateescape"))
        path = _ROOT / name
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    """What git prints in the project's checkout, or ``None`` if it fails or is not installed."""
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=_ROOT,
            capture_output=True,
            encoding="utf-8",
            # Files that are not text may differ too.
            errors="surrogateescape",
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return result.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's marketing name where the system tells it, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
