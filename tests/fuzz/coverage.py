"""The coverage-guided fuzz, by hand: ``python -m tests.fuzz.coverage CORPUS [libFuzzer options]``.

libFuzzer chooses bytes, `harness.file_of_bytes` makes a file of them, and `harness.outcome` holds
the decoder to its law. Runs until it is stopped (``-max_total_time=SECONDS``) or finds something.
Needs the package atheris, which is not among the project's dependencies: ``pip install atheris``.
"""

import sys
from pathlib import Path


def main() -> None:
    """The command line."""
    import atheris  # type: ignore[import-not-found, unused-ignore]

    # Imported here for the first time, so that its functions report their branches.
    with atheris.instrument_imports(include=["diffcodec"]):
        from tests.fuzz import harness

    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(harness.seeds()):
        (corpus / f"seed-{number}").write_bytes(b"\1" + seed)

    def one_input(data: bytes) -> None:
        harness.outcome(harness.file_of_bytes(data))

    with harness.measured():
        atheris.Setup(sys.argv, one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
