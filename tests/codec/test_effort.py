import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from benchmarks import measure
from cli import encode, rd_curve
from diffcodec.codec import effort
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS, effort_level
from diffcodec.codec.encoder import EncoderSettings

REPOSITORY = Path(__file__).parents[2]


def test_everyone_s_default_is_the_one() -> None:
    assert tuple(range(1, 10)) == EFFORTS
    assert DEFAULT_EFFORT in EFFORTS
    assert EncoderSettings() == EncoderSettings.for_effort(effort_level(DEFAULT_EFFORT))
    for command in (encode.command, rd_curve.command):
        (option,) = (each for each in command.params if each.name == "effort")
        assert option.default == DEFAULT_EFFORT
        assert isinstance(option.type, click.IntRange)
        assert (option.type.min, option.type.max) == (EFFORTS[0], EFFORTS[-1])
    assert measure.DEFAULT_EFFORT is effort.DEFAULT_EFFORT


@pytest.mark.parametrize("package", ["cli", "benchmarks", "diffcodec"])
def test_no_other_module_writes_a_default_effort(package: str) -> None:
    home = Path(effort.__file__)
    pattern = re.compile(r"DEFAULT_EFFORT\s*=|effort[\"']?[^\n]{0,40}default=\d", re.IGNORECASE)
    faults = [
        path
        for path in (REPOSITORY / package).rglob("*.py")
        if path != home and pattern.search(path.read_text("utf-8"))
    ]
    assert not faults


def test_levels_are_known_without_torch() -> None:
    script = (
        "import sys; import diffcodec.codec.effort as e; e.effort_level(e.DEFAULT_EFFORT); "
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, check=True)
