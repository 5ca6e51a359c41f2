import json
from pathlib import Path

import pytest

from diffcodec.errors import CheckpointError, ModelMismatchError
from diffcodec.model import catalog

DIGESTS = {"default": "aabb" * 16, "other": "ccdd" * 16}


@pytest.fixture(autouse=True)
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with two models in it."""
    root = tmp_path / "weights"
    for name, digest in DIGESTS.items():
        (root / name).mkdir(parents=True)
        (root / name / "config.json").write_text(json.dumps({"digest": digest}))
    (root / "not-a-model").mkdir()
    monkeypatch.setattr(catalog, "PACKAGED", root)
    return root


def test_names(packaged: Path) -> None:
    assert list(catalog.packaged_models()) == ["default", "other"]
    assert catalog.find_model() == packaged / "default"
    assert catalog.find_model("other") == packaged / "other"


def test_folders(packaged: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "config.json").write_text("{}")
    assert catalog.find_model(str(own)) == own


@pytest.mark.parametrize("name", ["absent", ""])
def test_neither(name: str) -> None:
    with pytest.raises(CheckpointError, match=r"a packaged model \(default, other\) or a folder"):
        catalog.find_model(name)


def test_no_model_in_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "PACKAGED", tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"default: expected a packaged model \(none\)"):
        catalog.find_model()


def test_identifiers(packaged: Path) -> None:
    assert catalog.find_model_by_id(b"\xcc\xdd\xcc", "a.dfc") == packaged / "other"
    with pytest.raises(ModelMismatchError, match=r"a\.dfc: expected the model 0102 "):
        catalog.find_model_by_id(b"\x01\x02", "a.dfc")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"digest": 3}', '{"digest": "no"}'])
def test_a_damaged_configuration(packaged: Path, content: str) -> None:
    path = packaged / "default" / "config.json"
    path.write_text(content)
    with pytest.raises(CheckpointError, match=str(path)):
        catalog.recorded_digest(path.parent)
