"""The numbers of docs/format.md are the code's."""

import hashlib
import importlib
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from diffcodec.bitstream.header import VERSION
from diffcodec.codec.pixels import LATENT_STEPS_BITS
from diffcodec.coding.agreement import SHIFTS
from diffcodec.coding.channel import CHANNEL_CODES
from diffcodec.coding.gaussian import normal_cdf, unit_variance_steps
from diffcodec.coding.tables import FREE_FREQUENCY, SCALE_COUNT, frequencies, sigma_levels
from diffcodec.diffusion.cosine import BAND_LIMITS, BANDS, TRANSFORM_BITS
from diffcodec.diffusion.wiener import GAINS, GRADIENT_STEPS
from diffcodec.model.pixel_order import RANKS, group_starts, pixel_ranks

SPECIFICATION = Path(__file__).parents[1].joinpath("docs", "format.md").read_text("utf-8")


def table(heading: str) -> list[list[str]]:
    """The cells of the rows below ``<!-- heading -->``, without the two lines of the head."""
    found = re.search(rf"<!-- {re.escape(heading)} -->\n((?:\|.*\n)+)", SPECIFICATION)
    assert found is not None
    lines = found[1].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def number(text: str) -> Fraction:
    """A decimal, a quotient, a power of two or a hexadecimal integer, exactly."""
    if text.startswith("0x"):
        return Fraction(int(text, 16))
    if text.startswith("2^"):
        return Fraction(2) ** int(text[2:])
    # A decimal stands for the float64 nearest to it.
    return Fraction(text) if "/" in text else Fraction(float(text))


def constants(modules: str) -> dict[str, Fraction]:
    """The upper-case numbers of some modules, by name without a leading underscore."""
    return {
        name.lstrip("_"): Fraction(value)
        for module in modules.split()
        for name, value in vars(importlib.import_module(module)).items()
        if name.isupper() and isinstance(value, int | float)
    }


@pytest.mark.parametrize("modules", re.findall(r"<!-- constants: (.*) -->", SPECIFICATION))
def test_constants_are_the_modules_own(modules: str) -> None:
    listed = {name: number(value) for name, value, *_ in table(f"constants: {modules}")}
    assert listed.items() <= constants(modules).items()


def test_no_constant_of_the_hop_plan_is_missing() -> None:
    modules = "diffcodec.codec.plan"
    assert {row[0] for row in table(f"constants: {modules}")} == constants(modules).keys()


def test_no_constant_of_the_last_stage_s_scales_is_missing() -> None:
    modules = "diffcodec.coding.tables"
    scales = {"SMALLEST_SIGMA", "OFFSET_STEPS", "MIN_SCALE_OFFSET", "MAX_SCALE_OFFSET"}
    assert {row[0] for row in table(f"constants: {modules}")} == scales


def test_channel_codes_and_their_prices() -> None:
    listed = {
        int(code_id): (int(register), int(new), float(first), float(section))
        for code_id, register, new, first, section in table("channel codes")
    }
    assert listed == {
        code_id: (code.register_bits, code.new_bits, code.first_bits, code.section_bits)
        for code_id, code in CHANNEL_CODES.items()
    }


def test_version_is_the_header_s() -> None:
    assert SPECIFICATION.startswith(f"# The diffcodec file format, version {VERSION}\n")
    assert f"| 4 | version | {VERSION}; a decoder refuses every other |" in SPECIFICATION


def test_bands_and_gains_of_the_error_spectrum() -> None:
    listed = re.search(r"<!-- bands -->([\d, ]+)<!-- bands -->", SPECIFICATION)
    assert listed is not None
    assert tuple(int(limit) for limit in listed[1].split(",")) == BAND_LIMITS
    assert tuple(Fraction(2) ** (i - 7) for i in range(1, 11)) == GAINS
    assert "x_i = 2^(i − 7),\ni = 1…10, from 1/64 to 8," in SPECIFICATION
    assert "16 powers p_jcb for each\nchannel c and ten spreads r_ji" in SPECIFICATION
    assert (BANDS, len(GAINS), GRADIENT_STEPS) == (16, 10, 3)
    assert "Three steps of conjugate gradients" in SPECIFICATION


@pytest.mark.parametrize("side", [16, 32])
def test_cosines_are_far_from_halves(side: int) -> None:
    # An entry that lies near a half of its unit would be rounded differently by another cosine.
    index = np.arange(side)
    scale = np.sqrt(np.where(index == 0, 1.0, 2.0) / side)[:, None]
    exact = 2**TRANSFORM_BITS * scale * np.cos(np.pi / side * (index + 0.5) * index[:, None])
    assert np.abs(np.abs(exact - np.rint(exact)) - 0.5).min() > 1e-6


def test_shifts_and_the_latent_s_grid_are_the_modules_own() -> None:
    assert "Number k = 0…255 is the shift d = (k + ½)/256 − ½" in SPECIFICATION
    np.testing.assert_array_equal(SHIFTS, (np.arange(256) + 0.5) / 256 - 0.5)
    assert f"h = 2^(E − {LATENT_STEPS_BITS})" in SPECIFICATION


def test_ranks_are_the_pixel_order_s_own() -> None:
    listed = [[int(cell) for cell in row] for row in table("ranks")]
    np.testing.assert_array_equal(listed, pixel_ranks(4))
    np.testing.assert_array_equal(pixel_ranks(8), np.tile(listed, (2, 2)))


@pytest.mark.parametrize("groups", range(1, RANKS + 1))
def test_first_ranks_are_sixteenths_rounded(groups: int) -> None:
    exact = [Fraction(RANKS * group, groups) + Fraction(1, 2) for group in range(groups)]
    assert group_starts(groups) == [*(start.__floor__() for start in exact), RANKS]


def test_digest_of_the_table_of_normals() -> None:
    assert (
        hashlib.sha256(unit_variance_steps().astype("<i4").tobytes()).hexdigest() in SPECIFICATION
    )


def test_digest_of_the_last_stage_s_tables() -> None:
    distance = np.arange(-4080, 4112, dtype=np.float64)
    digest = hashlib.sha256()
    for index in range(SCALE_COUNT):
        below = normal_cdf((distance - 8) / 16 / sigma_levels(index)) * FREE_FREQUENCY
        digest.update(np.rint(below).astype("<i4").tobytes())
    assert digest.hexdigest() in SPECIFICATION


@pytest.mark.parametrize(("mean", "index"), [(0, 0), (2041, 100), (4080, 255)])
def test_frequencies_follow_from_the_last_stage_s_tables(mean: int, index: int) -> None:
    edges = (16 * np.arange(257) - 8 - mean) / 16 / sigma_levels(index)
    edges[[0, -1]] = -np.inf, np.inf
    cumulative = np.rint(normal_cdf(edges) * FREE_FREQUENCY) + np.arange(257)
    expected = np.diff(cumulative).astype(np.int64)
    np.testing.assert_array_equal(frequencies(np.array([mean]), index)[0], expected)
