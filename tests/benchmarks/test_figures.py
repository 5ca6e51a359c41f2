import json
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

from benchmarks import results
from benchmarks.figures import CHANNEL_CODES, RECORD_FIGURES, STRIPS, draw
from benchmarks.figures.channel_codes import channel_codes_figure
from benchmarks.figures.lossless import lossless_figure
from benchmarks.figures.rate_distortion import MAIN_FAMILIES, rate_distortion_figure
from benchmarks.figures.steps import bits_figure, progressive_figure
from benchmarks.figures.strips import strips_figure
from benchmarks.figures.style import figure_bytes
from benchmarks.plot import main
from benchmarks.reference import DDPM_TABLE, PUBLISHED_CURVES, PUBLISHED_LOSSLESS

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def main_figure(record: dict[str, Any]) -> Figure:
    return rate_distortion_figure(record)


def test_the_main_figure_has_every_curve(record: dict[str, Any], main_figure: Figure) -> None:
    assert [axes.get_xscale() for axes in main_figure.axes] == ["log", "linear"]
    measured = {family["family"] for family in record["peers"]["lossy"]} & {*MAIN_FAMILIES}
    for axes in main_figure.axes:
        # Cuts, stops and theory are ours.
        assert len(axes.lines) == len(PUBLISHED_CURVES) + len(measured) + 3
    labels = [text.get_text() for text in main_figure.legends[0].get_texts()]
    for published in PUBLISHED_CURVES:
        assert any(published.name in label and published.citation in label for label in labels)


@pytest.mark.parametrize("draw", [rate_distortion_figure, lossless_figure, progressive_figure])
def test_published_points_are_of_cifar10_alone(
    draw: Callable[[Mapping[str, Any]], Figure], record: dict[str, Any]
) -> None:
    def drawn(figure: Figure) -> int:
        return sum(len(axes.lines) + len(axes.patches) for axes in figure.axes)

    assert drawn(draw({**record, "data": "pictures"})) < drawn(draw(record))


def test_curves_differ_without_colour(main_figure: Figure) -> None:
    lines = main_figure.axes[0].lines
    looks = [
        (line.get_marker(), line.get_linestyle(), line.get_markerfacecolor() == "white")
        for line in lines
    ]
    assert len(set(looks)) >= len(lines) - 1


def test_a_figure_is_drawn_where_its_sections_are(
    record: dict[str, Any], examples: list[dict[str, Any]]
) -> None:
    assert list(draw(record, examples)) == [*RECORD_FIGURES, STRIPS]
    without = {**record, "theory": None, "peers": None, "efforts": None}
    assert list(draw(without, [])) == ["rd-curve", "lossless"]


def test_files_are_what_they_say_and_reproducible(
    record: dict[str, Any], main_figure: Figure
) -> None:
    assert figure_bytes(main_figure, "png").startswith(PNG_SIGNATURE)
    svg = figure_bytes(rate_distortion_figure(record), "svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert figure_bytes(rate_distortion_figure(record), "svg") == svg


def test_the_smallest_size_is_the_top_bar(record: dict[str, Any]) -> None:
    axes = lossless_figure(record).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert len(labels) == len(record["peers"]["lossless"]) + 1 + len(PUBLISHED_LOSSLESS)
    sizes = [float(text.get_text()) for text in axes.texts]
    assert sizes == sorted(sizes, reverse=True)


def test_the_parts_of_the_bar_are_the_file(record: dict[str, Any]) -> None:
    whole = bits_figure(record).axes[1]
    top = max(bar.get_y() + bar.get_height() for bar in whole.patches)
    assert top == pytest.approx(record["lossless"]["mean_bpd"])


def test_strips_have_a_row_a_codec_and_the_original(examples: list[dict[str, Any]]) -> None:
    figure = strips_figure(examples)
    pictures = [axes for axes in figure.axes if axes.images]
    columns = len(examples[0]["strip"])
    codecs = [name for name in ("diffcodec", "JPEG", "AVIF") if name in examples[0]["strip"][0]]
    assert len(pictures) == columns * len(codecs) + 1


def test_a_column_is_a_rate_even_where_an_image_has_none(examples: list[dict[str, Any]]) -> None:
    (example,) = examples
    late = {**example, "strip": example["strip"][1:]}
    figure = strips_figure([example, late])
    grid = figure.axes[0].get_gridspec()
    assert grid.ncols == len(example["strip"]) + 1
    row = [axes for axes in figure.axes if axes.get_subplotspec().rowspan.start == grid.nrows // 2]
    assert [bool(axes.images) for axes in row] == [False] + [True] * (grid.ncols - 1)


def test_images_without_strips_have_no_figure_of_them(
    record: dict[str, Any], examples: list[dict[str, Any]]
) -> None:
    assert STRIPS not in draw(record, [{**examples[0], "strip": []}])


@pytest.fixture
def channel_codes() -> dict[str, Any]:
    names = ("trellis-12-4", "trellis-16-4", "exact PFR", "random codebook of 2^6 (DDCM)")
    measured = {"price": 1.1, "standard_error": 0.01, "milliseconds": 2.0}
    return {
        "images": 2,
        "vectors": 8,
        "rows": [
            {"code": name, "budget_bits": bits, "paid_bits": float(bits), **measured}
            for name in names
            for bits in (32, 64)
        ],
    }


def test_every_channel_code_is_drawn_against_bits_and_time(channel_codes: dict[str, Any]) -> None:
    figure = channel_codes_figure(channel_codes)
    names = list(dict.fromkeys(row["code"] for row in channel_codes["rows"]))
    assert [len(axes.containers) for axes in figure.axes] == [len(names)] * 2
    assert [text.get_text() for text in figure.legends[0].get_texts()] == names
    looks = {
        (lines[0].get_marker(), lines[0].get_color(), lines[0].get_linestyle())
        for lines in figure.axes[0].containers
    }
    assert len(looks) == len(names)


def test_a_comparison_of_channel_codes_is_drawn_where_there_is_one(
    record: dict[str, Any], channel_codes: dict[str, Any], tmp_path: Path
) -> None:
    assert results.load_channel_codes(tmp_path) is None
    (tmp_path / results.CHANNEL_CODES_RECORD).write_bytes(results.dumps(channel_codes))
    loaded = results.load_channel_codes(tmp_path)
    assert loaded == channel_codes
    assert CHANNEL_CODES in draw(record, [], loaded)
    assert CHANNEL_CODES not in draw(record, [])


def test_stored_results_become_figures(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / results.RECORD).write_bytes(results.dumps(record))
    assert results.load_folder(tmp_path) == (record, [])
    out = tmp_path / "figures"
    assert main(["--results", str(tmp_path), "--out", str(out)]) == 0
    names = sorted(f"{name}.{form}" for name in RECORD_FIGURES for form in ("png", "svg"))
    assert sorted(path.name for path in out.iterdir()) == names
    assert len(capsys.readouterr().out.splitlines()) == len(names)


def test_no_results_and_wrong_results_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(tmp_path)]) == 1
    assert "no such file; python -m benchmarks.measure writes it" in capsys.readouterr().err
    (tmp_path / results.RECORD).write_text(json.dumps({"lossless": {}}))
    assert main(["--results", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "not the results of a measurement" in capsys.readouterr().err
    (tmp_path / results.RECORD).write_text("[")
    assert main(["--results", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "expected JSON" in capsys.readouterr().err


def test_published_points_fall_with_the_rate() -> None:
    for curve in PUBLISHED_CURVES:
        rates, errors = zip(*curve.points, strict=True)
        assert list(rates) == sorted(rates)
        assert list(errors) == sorted(errors, reverse=True)
        assert all(math.isfinite(value) and value > 0 for value in (*rates, *errors))
    steps, rates, errors = zip(*DDPM_TABLE, strict=True)
    assert list(steps) == sorted(steps, reverse=True)
    assert list(rates) == sorted(rates, reverse=True)
    assert list(errors) == sorted(errors)
