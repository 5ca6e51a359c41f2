"""The import rule, and what a command may import before it has work to do."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]

# Layer → the layers it may import. Subpackages and lone modules of diffcodec are layers of their
# own; cli and benchmarks are one each.
BASE = {"errors", "limits", "units"}
MATHEMATICS = BASE | {"image", "diffusion"}
LIBRARY = MATHEMATICS | {"bits", "model", "training", "coding", "bitstream", "codec"}
ALLOWED: dict[str, set[str]] = {
    "diffcodec": set(),
    "errors": set(),
    "limits": set(),
    "units": {"errors"},
    "bits": {"errors"},
    "image": BASE,
    "diffusion": BASE | {"image"},
    "model": MATHEMATICS,
    "training": MATHEMATICS | {"model"},
    "coding": BASE | {"bits"},
    "bitstream": BASE | {"bits"},
    "codec": MATHEMATICS | {"bits", "model", "coding", "bitstream"},
    "cli": LIBRARY | {"diffcodec", "benchmarks"},
    "benchmarks": LIBRARY | {"diffcodec", "cli"},
}
WITHOUT_TORCH = LIBRARY - {"model", "training", "codec"} | {"diffcodec"}
OWN = ("diffcodec", "cli", "benchmarks")


def modules() -> list[Path]:
    return sorted(path for package in OWN for path in (REPOSITORY / package).rglob("*.py"))


def layer(dotted: str) -> str:
    """The layer of a module's dotted name."""
    package, *rest = dotted.split(".")
    return rest[0] if package == "diffcodec" and rest else package


def dotted_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, everywhere: bool) -> Iterator[tuple[int, str]]:
    """Line and dotted name of each import; without ``everywhere``, of those run on import."""
    pending: list[ast.AST] = [ast.parse(path.read_text("utf-8"), str(path))]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import"
            module = node.module or ""
            # `from diffcodec import units` imports the layer units.
            names = [f"{module}.{alias.name}" for alias in node.names]
            yield from ((node.lineno, name) for name in (names if module in OWN else [module]))
        function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if everywhere or not function:
            pending.extend(ast.iter_child_nodes(node))


@pytest.mark.parametrize("path", modules(), ids=dotted_name)
def test_each_package_imports_only_what_it_may(path: Path) -> None:
    own = layer(dotted_name(path))
    faults = [
        f"{path}:{line}: {own} may not import {name}"
        for line, name in imported(path, everywhere=True)
        if name.split(".")[0] in OWN
        and layer(name) != own
        # A name that diffcodec/__init__.py itself defines is no layer.
        and layer(name) in ALLOWED
        and layer(name) not in ALLOWED[own]
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    "path",
    [path for path in modules() if layer(dotted_name(path)) in WITHOUT_TORCH | {"cli"}],
    ids=dotted_name,
)
def test_torch_stays_in_its_layers(path: Path) -> None:
    # A command may use torch once it runs, so only there inside a function.
    everywhere = layer(dotted_name(path)) in WITHOUT_TORCH
    faults = [
        f"{path}:{line}: imports torch"
        for line, name in imported(path, everywhere)
        if name.split(".")[0] == "torch"
    ]
    assert not faults, "\n".join(faults)


def test_the_table_names_every_layer() -> None:
    assert {layer(dotted_name(path)) for path in modules()} <= set(ALLOWED)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        (["--help"], 0),
        (["--version"], 0),
        ([], 2),
        (["no-such-command"], 2),
        (["encode", "--help"], 0),
        (["encode", "--no-such-option"], 2),
        (["encode", "missing.png"], 1),
        (["decode", "missing.dfc"], 1),
        (["info", "missing.dfc"], 1),
        (["train", "--plot", "missing.jsonl", "--output", "curves.svg"], 1),
        (["train", "--data", "missing.tar.gz"], 1),
        (["evaluate", "--data", "missing.tar.gz"], 1),
    ],
)
def test_help_and_input_errors_do_not_import_torch(
    arguments: list[str], exit_code: int, tmp_path: Path
) -> None:
    script = (
        "import sys\n"
        f"sys.path.insert(0, {str(REPOSITORY)!r})\n"
        "from cli.main import main\n"
        f"code = main({arguments!r})\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
        "sys.exit(code)\n"
    )
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert run.returncode == exit_code, run.stderr
    if exit_code == 1:
        assert run.stderr.startswith("diffcodec: error: missing.")
        assert run.stderr.count("\n") == 1
