from pathlib import Path

import numpy as np
import pytest

from benchmarks.adapters import Png
from benchmarks.demo import PERCENTAGES, draw_scene, main
from diffcodec.codec import encoder
from diffcodec.image import read_image


def test_the_scene_is_the_same_on_every_run_and_no_flat_drawing() -> None:
    scene = draw_scene()
    np.testing.assert_array_equal(draw_scene(), scene)
    assert scene.shape == (48, 64, 3)
    assert scene.dtype == np.uint8
    # A drawing of flat areas would deflate to next to nothing; a photograph does not.
    assert 8.0 * len(Png().encode(scene)) / scene.size > 3.0


def test_the_tour_ends_with_the_picture_it_began_with(
    tiny_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # The tiny model is worse than deflate; the tour is to show hops all the same.
    monkeypatch.setattr(encoder, "pack_pixels", lambda pixels: 3 * pixels.tobytes())
    assert main(["--out", str(tmp_path), "--model", str(tiny_folder)]) == 0
    output = capsys.readouterr().out
    commands = [line for line in output.splitlines() if line.startswith("$ diffcodec ")]
    assert [line.split()[2] for line in commands] == ["encode", "decode"] + ["decode"] * 3
    restored = read_image((tmp_path / "restored.png").read_bytes(), "restored.png")
    np.testing.assert_array_equal(restored, draw_scene())
    assert (tmp_path / "frames" / "contact-sheet.png").is_file()
    for percentage in PERCENTAGES:
        assert f"{percentage} % of the bytes" in output
    for codec in ("diffcodec", "PNG", "WebP"):
        assert f"  {codec}" in output
    assert str(tmp_path) in output.splitlines()[-1]


def test_a_command_that_fails_ends_the_tour(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--out", str(tmp_path), "--model", "no-such-model"]) == 1
    assert capsys.readouterr().err.endswith("error: the command ended with 1, expected 0\n")
