"""The short fuzz: see harness.py for the law, __main__.py for the long one."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from diffcodec.bitstream.container import Container
from tests.fuzz import harness
from tests.fuzz.__main__ import main


@pytest.fixture(scope="module", autouse=True)
def _measured() -> Iterator[None]:
    with harness.measured():
        yield


@pytest.mark.parametrize("seed", range(len(harness.seeds())))
def test_seeds_decode(seed: int) -> None:
    data = harness.seeds()[seed]
    assert harness.outcome(data) in ("exact", "lossy")
    assert harness.outcome(data[:-1]) == "truncated"
    assert harness.outcome(data + b"\0") == "BitstreamError"


@settings(max_examples=60, deadline=None, derandomize=True)
@given(level=st.sampled_from(sorted(harness.LEVELS)), number=st.integers(0, 1 << 32))
def test_any_file_gives_an_image_or_a_bitstream_error(level: str, number: int) -> None:
    assert harness.is_allowed(harness.outcome(harness.make_file(level, number)))


@settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow],
)
@given(data=st.binary(max_size=400))
def test_any_bytes_give_an_image_or_a_bitstream_error(data: bytes) -> None:
    assert harness.is_allowed(harness.outcome(harness.file_of_bytes(data)))


def test_every_level_reaches_the_decoder() -> None:
    reached = {level: set[str]() for level in harness.LEVELS}
    for level, outcomes in reached.items():
        for number in range(20):
            outcomes.add(harness.outcome(harness.make_file(level, number)))
    for level in ("fields", "segments"):
        assert "ChecksumError" not in reached[level], "the fuzz would end at the checks"
        assert reached[level] & {"exact", "lossy", "truncated"}
    assert "NumericMismatchError" in reached["segments"]
    assert "ChecksumError" in reached["file"]


def test_what_misbehaves_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    data = harness.seeds()[0]

    def fail(error: BaseException) -> None:
        def raise_it(*arguments: object) -> None:
            raise error

        monkeypatch.setattr(Container, "open", raise_it)
        with pytest.raises(harness.Misbehaviour):
            harness.outcome(data)

    fail(IndexError("odd"))
    fail(OSError("odd"))
    monkeypatch.undo()
    monkeypatch.setattr(harness, "FIXED_BYTES", -(1 << 30))
    with pytest.raises(harness.Misbehaviour, match="allocated"):
        harness.outcome(data)


def test_the_long_fuzz_counts_its_files(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["fuzz", "--files", "8"])
    assert main() == 0
    assert "8 files, 0 misbehaved" in capsys.readouterr().out
