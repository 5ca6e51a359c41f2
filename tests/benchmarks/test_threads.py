from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.threads import check_threads

Pixels = NDArray[np.uint8]


def test_thread_counts_do_not_matter(
    smooth_image: Callable[..., Pixels], tiny_folder: Path
) -> None:
    passes: list[None] = []
    images = smooth_image(32, 32)[None]
    checked = check_threads(images, tiny_folder, 1, lambda: passes.append(None))
    assert checked == {"images": 1, "one_to_two": 1, "two_to_one": 1, "same_file": 1}
    assert len(passes) == 4
