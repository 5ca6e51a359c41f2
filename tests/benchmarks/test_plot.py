import json
import math
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest

from benchmarks.plot import figure_bytes, lossless_figure, main, rate_distortion_figure
from benchmarks.reference import PUBLISHED_CURVES

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def curve_record() -> dict[str, Any]:
    rates = [0.04 * 1.3**place for place in range(18)]
    return {
        "images": 7,
        "lossless": {"mean_bpd": 4.1},
        "curve": [
            {"rate_bpd": r, "rmse": 5 / r, "rmse_low": 4 / r, "rmse_high": 6 / r} for r in rates
        ],
        "theory": [{"step": 1, "rate_bpd": r, "rmse": 4 / r} for r in (0.0, *rates) if r],
    }


@pytest.fixture
def lossless_record() -> dict[str, Any]:
    return {
        "images": 7,
        "lossless": [
            {"name": "PNG, optimize", "mean_bpd": 5.9, "standard_error_bpd": 0.1},
            {"name": "diffcodec, effort 5", "mean_bpd": 4.1, "standard_error_bpd": 0.1},
        ],
    }


def test_a_figure_has_both_curves_and_every_published_one(curve_record: dict[str, Any]) -> None:
    figure = rate_distortion_figure(curve_record)
    assert [axes.get_xscale() for axes in figure.axes] == ["log", "linear"]
    for axes in figure.axes:
        assert len(axes.lines) == len(PUBLISHED_CURVES) + 2
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    for published in PUBLISHED_CURVES:
        assert any(published.name in label and published.citation in label for label in labels)


def test_curves_differ_without_colour(curve_record: dict[str, Any]) -> None:
    lines = rate_distortion_figure(curve_record).axes[0].lines
    looks = {(line.get_marker(), line.get_linestyle()) for line in lines}
    assert len(looks) == len(lines)


def test_a_curve_without_theory_is_drawn(curve_record: dict[str, Any]) -> None:
    figure = rate_distortion_figure({**curve_record, "theory": []})
    assert len(figure.axes[0].lines) == len(PUBLISHED_CURVES) + 1


def test_files_are_what_they_say_and_reproducible(curve_record: dict[str, Any]) -> None:
    assert figure_bytes(rate_distortion_figure(curve_record), "png").startswith(PNG_SIGNATURE)
    svg = figure_bytes(rate_distortion_figure(curve_record), "svg")
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert figure_bytes(rate_distortion_figure(curve_record), "svg") == svg


def test_the_smallest_codec_is_the_top_bar(lossless_record: dict[str, Any]) -> None:
    labels = lossless_figure(lossless_record).axes[0].get_yticklabels()
    assert [label.get_text() for label in labels] == ["PNG, optimize", "diffcodec, effort 5"]


def test_every_stored_result_becomes_a_figure(
    curve_record: dict[str, Any],
    lossless_record: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rd-curve.json").write_text(json.dumps(curve_record))
    (tmp_path / "cifar10.json").write_text(json.dumps(lossless_record))
    out = tmp_path / "figures"
    assert main(["--results", str(tmp_path), "--out", str(out)]) == 0
    names = ["lossless.png", "lossless.svg", "rd-curve.png", "rd-curve.svg"]
    assert sorted(path.name for path in out.iterdir()) == names
    assert len(capsys.readouterr().out.splitlines()) == len(names)


def test_no_results_and_wrong_results_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--results", str(tmp_path)]) == 1
    assert "expected at least one of" in capsys.readouterr().err
    (tmp_path / "rd-curve.json").write_text("{}")
    assert main(["--results", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert "rd-curve.json: not this figure's results" in capsys.readouterr().err


def test_published_points_fall_with_the_rate() -> None:
    for curve in PUBLISHED_CURVES:
        rates, errors = zip(*curve.points, strict=True)
        assert list(rates) == sorted(rates)
        assert list(errors) == sorted(errors, reverse=True)
        assert all(math.isfinite(value) and value > 0 for value in (*rates, *errors))
