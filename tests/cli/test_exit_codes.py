import errno
import re
from pathlib import Path

import numpy as np
import pytest

from cli import exit_codes
from diffcodec.errors import (
    BitstreamError,
    ImageError,
    ModelMismatchError,
    NumericMismatchError,
    PixelLimitError,
    TruncatedStreamError,
    VerificationError,
)

SPECIFICATION = Path(__file__).parents[2].joinpath("docs", "format.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BitstreamError(), exit_codes.DAMAGED),
        (TruncatedStreamError(), exit_codes.DAMAGED),
        (ModelMismatchError(), exit_codes.DAMAGED),
        (NumericMismatchError(), exit_codes.NUMERIC_MISMATCH),
        (PixelLimitError(), exit_codes.FAILURE),
        (VerificationError(), exit_codes.FAILURE),
        (ImageError(), exit_codes.FAILURE),
        (OSError(), exit_codes.FAILURE),
        (MemoryError(), exit_codes.FAILURE),
        (RuntimeError("something else"), None),
        (ValueError(), None),
    ],
)
def test_each_error_has_its_code(error: Exception, code: int | None) -> None:
    assert exit_codes.of_error(error) == code


def test_numpy_and_torch_run_out_of_memory_alike() -> None:
    import torch

    with pytest.raises(MemoryError) as numpy_error:
        np.empty(1 << 60, dtype=np.uint8)
    with pytest.raises(RuntimeError) as torch_error:
        torch.empty(1 << 60, dtype=torch.uint8)
    for error in (numpy_error.value, torch_error.value):
        assert exit_codes.of_error(error) == exit_codes.FAILURE
        assert exit_codes.explain(error) == "not enough memory"


def test_explanations_name_files_and_no_numbers() -> None:
    assert exit_codes.explain(OSError(errno.ENOENT, "No such file", "a.png")) == (
        "a.png: No such file"
    )
    assert exit_codes.explain(OSError(errno.EXDEV, "odd", "a", None, "b")) == "a: b: odd"
    assert exit_codes.explain(ImageError("b.png: bad")) == "b.png: bad"


def test_the_gravest_of_several_files_decides() -> None:
    assert exit_codes.gravest([]) == exit_codes.SUCCESS
    order = [
        exit_codes.SUCCESS,
        exit_codes.TRUNCATED,
        exit_codes.NUMERIC_MISMATCH,
        exit_codes.FAILURE,
        exit_codes.DAMAGED,
    ]
    for length in range(1, len(order) + 1):
        assert exit_codes.gravest(order[:length]) == order[length - 1]


def test_the_documented_codes_are_these() -> None:
    section = SPECIFICATION.split("## Exit codes")[1].split("\n## ")[0]
    documented = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert documented == {
        value for name, value in vars(exit_codes).items() if name.isupper() and name[0] != "_"
    }
