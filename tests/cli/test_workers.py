import os
import threading
import time
from pathlib import Path

import pytest

from cli.workers import in_processes


class Endless:
    """Item 1 is never done; item 0 is, once item 1 has begun and left its process's number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, item: str) -> str:
        if item == "1":
            (self.folder / str(os.getpid())).touch()
            threading.Event().wait()
        while not any(self.folder.iterdir()):
            time.sleep(0.01)
        return f"result of {item}"


def test_work_that_ends_early_waits_for_no_item(tmp_path: Path) -> None:
    results = in_processes(["0", "1"], Endless(tmp_path), 2)
    assert next(results) == ("0", "result of 0")
    results.close()
    (endless,) = tmp_path.iterdir()
    with pytest.raises(ProcessLookupError):
        os.kill(int(endless.name), 0)
