"""What the named configurations cost: python -m benchmarks.model_cost [--evaluations N]

Weights, arithmetic of one evaluation of a 32 × 32 image, and its processor time on one thread in
float32, alone and in a batch of 16; untrained weights, which take no less. Prints the table of
docs/models.md and the machine it was measured on.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from benchmarks.provenance import provenance
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training.recipes import RECIPES

BATCH = 16
HEADER = (
    "| config | objective | parameters | GFLOP | ms alone | ms in a batch of 16 |\n"
    "| --- | --- | --- | --- | --- | --- |"
)


@torch.inference_mode()
def milliseconds(config: ModelConfig, batch: int, evaluations: int) -> float:
    """Median processor time of an evaluation on the calling thread, for one image of ``batch``."""
    denoiser = Denoiser(config).eval()
    # torch's type stubs do not know this form of `to`.
    denoiser.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    z = torch.randn((batch, config.unet.image_channels, *(2 * [config.unet.image_size])))
    z = z.contiguous(memory_format=torch.channels_last)
    gamma = torch.zeros(batch)
    denoiser(z, gamma)
    times = []
    for _ in range(evaluations):
        begun = time.thread_time()
        denoiser(z, gamma)
        times.append(1e3 * (time.thread_time() - begun) / batch)
    return statistics.median(times)


def row(name: str, evaluations: int) -> str:
    """A line of the table."""
    config = MODEL_CONFIGS[name]
    cost = measure_cost(config)
    alone, together = (milliseconds(config, batch, evaluations) for batch in (1, BATCH))
    return (
        f"| `{name}` | `{RECIPES[name].objective}` | {cost.parameters / 1e6:.2f} M "
        f"| {cost.flop / 1e9:.2f} | {alone:.1f} | {together:.1f} |"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table to stdout."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--evaluations", type=int, default=5, metavar="N")
    parser.add_argument("--config", action="append", choices=sorted(MODEL_CONFIGS))
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(HEADER)
    for name in options.config or MODEL_CONFIGS:
        print(row(name, options.evaluations), flush=True)
    origin = provenance()
    print(f"\n{origin['cpu']}, torch {origin['packages']['torch']}, commit {origin['commit']}")


if __name__ == "__main__":
    main()
