"""The page: everything in it, nothing outside it, and a browser that runs it."""

import html
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import results
from benchmarks.figures import RECORD_FIGURES, STRIPS
from benchmarks.report import FIGURE_CAPTIONS, TABLE_CAPTIONS, main, page
from benchmarks.tables import TABLES

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@pytest.fixture(scope="module")
def text(record: dict[str, Any], examples: list[dict[str, Any]]) -> str:
    return page(record, examples)


@pytest.fixture(scope="module")
def browser() -> str:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        pytest.skip("no Chromium: apt-get install -y chromium")
    return found


def test_every_figure_and_table_has_a_caption_and_is_there(text: str) -> None:
    assert set(FIGURE_CAPTIONS) == {*RECORD_FIGURES, STRIPS}
    assert set(TABLE_CAPTIONS) == set(TABLES)
    for name in FIGURE_CAPTIONS:
        assert f'<figure id="{name}">' in text
    for name in set(TABLES) - {"bd-rates"}:
        assert f'<table id="table-{name}">' in text


def test_nothing_is_fetched(text: str) -> None:
    sources = re.findall(r'(?:src|href)="([^"]*)"', text)
    assert sources
    assert all(source.startswith("data:") for source in sources)
    assert "default-src 'none'" in text
    assert "url(" not in re.sub(r"base64,[A-Za-z0-9+/=]*", "", text)


def test_other_images_are_not_called_cifar10(record: dict[str, Any]) -> None:
    text = page({**record, "data": "holiday<s>"}, [])
    assert "<title>diffcodec on holiday&lt;s&gt;</title>" in text
    assert "first 3 holiday&lt;s&gt; test images" in text
    words = re.sub(r"<img[^>]*>", "", text)
    assert "CIFAR" not in words
    assert "DDPM: rate" not in words
    assert "DDPM, L_simple" not in words


def test_a_run_without_examples_has_no_stepper(record: dict[str, Any]) -> None:
    bare = page({**record, "theory": None}, [])
    assert "<script" not in bare
    assert 'id="progressive"' not in bare


def test_command(
    record: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / results.RECORD).write_bytes(results.dumps(record))
    out = tmp_path / "pages" / "report.html"
    assert main([str(out), "--results", str(tmp_path)]) == 0
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert main([str(out), "--results", str(tmp_path)]) == 1
    assert "File exists" in capsys.readouterr().err
    assert main([str(out), "--results", str(tmp_path), "--force"]) == 0


@pytest.mark.slow
def test_the_slider_steps_through_the_bytes(
    text: str, examples: list[dict[str, Any]], browser: str, tmp_path: Path
) -> None:
    path = tmp_path / "report.html"
    path.write_text(text, encoding="utf-8")
    example = examples[0]
    frame = example["frames"][len(example["frames"]) // 2]
    # One byte more than the frame needs, and not enough for the next.
    shown = frame["stream_bytes"]
    dom = dump_dom(browser, path, f"bytes={shown}", tmp_path)
    told = re.search(r'<output id="told"[^>]*>([^<]*)</output>', dom)
    assert told is not None
    assert told[1].startswith(f"{shown} of {example['total_bytes']} bytes, ")
    assert f"RMSE {frame['rmse']:.2f} at step {frame['step']}" in told[1]
    picture = re.search(r'<img id="shown"[^>]*src="data:image/png;base64,([^"]*)"', dom)
    assert picture is not None
    assert html.unescape(picture[1]) == frame["png"]
    whole = dump_dom(browser, path, f"bytes={example['total_bytes']}", tmp_path)
    assert "bits/dim: exact</output>" in whole


def dump_dom(browser: str, path: Path, fragment: str, folder: Path) -> str:
    """The page's elements once its scripts have run."""
    profile = folder / f"profile-{fragment}"
    command = [browser, *FLAGS, f"--user-data-dir={profile}", "--dump-dom"]
    ended = subprocess.run(
        [*command, f"{path.as_uri()}#{fragment}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return ended.stdout
