"""What networks and recipes are chosen from: ``python -m benchmarks.experiments [NAME …]``

Variants of the configuration `small` and its recipe, each trained anew on the same images in the
same order, as many for each. What a file of held-out images costs by the training objective
(hops and pixels, averaged over hand-overs), with the same noise for all, goes with each variant's
size, arithmetic and seconds to ``experiments.json`` and a table on stdout. ``--coded N`` makes real
files of the first N held-out images, too. ``--resume`` goes on with an interrupted run.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import campaign
from benchmarks.adapters.base import Pixels
from benchmarks.held_out import training_and_held_out
from benchmarks.inputs import pixels_digest
from benchmarks.model_cost import milliseconds
from benchmarks.provenance import provenance
from benchmarks.real_files import standard_error
from benchmarks.results import RESULTS, dumps, refuse_overwrite
from benchmarks.tables import ABSENT, Table
from cli import files
from cli.main import unwinding_endings
from cli.terminal import Terminal
from cli.workers import default_jobs
from diffcodec.codec.encoder import encode_image
from diffcodec.codec.model import load_codec_model
from diffcodec.diffusion.process import levels_to_signal
from diffcodec.diffusion.schedule import make_schedule
from diffcodec.errors import DiffcodecError
from diffcodec.model.checkpoint import save_checkpoint
from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import Denoiser, ModelConfig, Parameterization
from diffcodec.training.error_curve import measure_error_curve
from diffcodec.training.objective import OBJECTIVES
from diffcodec.training.recipes import RECIPES
from diffcodec.training.trainer import Trainer, TrainingConfig

RESULT = "experiments.json"
BASELINE = "small"
COST_BATCH = 64
CURVE_IMAGES = 64
EVALUATIONS = 9
"""Timed ones, of which the median is told."""


@dataclass(frozen=True)
class Variant:
    """One thing that is different.

    Attributes:
        changed: what, for people.
        unet, model, training: fields of the baseline's `UNetConfig`, `ModelConfig` and recipe.
    """

    changed: str
    unet: Mapping[str, Any] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)

    def config(self, base: ModelConfig) -> ModelConfig:
        """``base`` with the change."""
        return replace(base, unet=replace(base.unet, **self.unet), **self.model)

    def recipe(self, base: TrainingConfig) -> TrainingConfig:
        """``base`` with the change."""
        return replace(base, **self.training)


VARIANTS: Mapping[str, Variant] = {
    BASELINE: Variant("nothing"),
    # Preconditioning and input.
    "eps": Variant("ε-prediction", model=dict(parameterization=Parameterization.EPS)),
    "x": Variant("x̂_0-prediction", model=dict(parameterization=Parameterization.X)),
    "no-fourier": Variant("no Fourier features", unet=dict(fourier_exponents=())),
    # Where the channels go, at about the same arithmetic.
    "high": Variant("80, 48, 64 channels", unet=dict(channels=(80, 48, 64))),
    "low": Variant("48, 80, 160 channels", unet=dict(channels=(48, 80, 160))),
    "deep": Variant(
        "48, 64, 96 channels, two blocks a level", unet=dict(channels=(48, 64, 96), blocks=2)
    ),
    "separable": Variant(
        "depthwise and pointwise convolutions, 128, 128, 128 channels",
        unet=dict(separable=True, channels=(128, 128, 128)),
    ),
    # With one and a half times the arithmetic.
    "two-blocks": Variant("two blocks a level", unet=dict(blocks=2)),
    "wide": Variant("80, 80, 160 channels", unet=dict(channels=(80, 80, 160))),
    # Parts of the network.
    "no-attention": Variant("attention in the middle alone", unet=dict(attention_resolutions=())),
    "attention-8": Variant("attention at 8×8 too", unet=dict(attention_resolutions=(16, 8))),
    "added-time": Variant("time added, no AdaGN", unet=dict(adaptive_norm=False)),
    "biggan": Variant("resampling inside blocks", unet=dict(residual_resampling=True)),
    "rescaled": Variant("sums scaled by 1/√2", unet=dict(residual_rescaling=True)),
    "dropout": Variant("dropout 0.1", unet=dict(dropout=0.1)),
    # The recipe.
    "adam": Variant("Adam, rate 1.2e-3", training=dict(optimizer="adam", learning_rate=1.2e-3)),
    "slow": Variant("rate 5e-4", training=dict(learning_rate=5e-4)),
    "fast": Variant("rate 2e-3", training=dict(learning_rate=2e-3)),
    "batch-16": Variant("batch 16", training=dict(batch_size=16)),
    "taught": Variant("the shipped model's word", training=dict(teacher="default")),
    "batch-64": Variant("batch 64", training=dict(batch_size=64)),
    "no-flip": Variant("no mirrored images", training=dict(flip=False)),
    "short-average": Variant("EMA half-life 2,000 images", training=dict(ema_images=2_000.0)),
    "long-average": Variant("EMA half-life 32,000 images", training=dict(ema_images=32_000.0)),
}


@dataclass(frozen=True)
class Settings:
    """How long and how exactly.

    Attributes:
        images: training images seen by each variant.
        draws: noise levels and orders of pixels for each held-out image.
        coded: held-out images made into real files.
        device: of training.
        precision: ``bfloat16`` or ``float32``.
    """

    images: int
    draws: int
    coded: int
    device: str
    precision: str


@dataclass(eq=False)
class ExperimentWork:
    """Trains and measures one variant; travels to worker processes.

    Attributes:
        training, held_out: uint8 [N, S, S, 3].
        base: the configuration that variants change.
    """

    training: Pixels
    held_out: Pixels
    settings: Settings
    base: ModelConfig

    def __call__(self, item: str) -> Any:
        """The result of the variant ``item``, ready for JSON."""
        settings, variant = self.settings, VARIANTS[item]
        config = variant.config(self.base)
        recipe = RECIPES[BASELINE]
        recipe = replace(
            recipe,
            total_images=settings.images,
            warmup_images=min(recipe.warmup_images, settings.images // 10),
            precision=settings.precision,
        )
        trainer = Trainer(config, variant.recipe(recipe), self.training, settings.device)
        begun = time.monotonic()
        while not trainer.finished:
            trainer.step()
        seconds = time.monotonic() - begun
        costs = file_costs(trainer.averaged, self.held_out, settings.draws)
        cost = measure_cost(config)
        return {
            "images": trainer.images_seen,
            "seconds": seconds,
            "parameters": cost.parameters,
            "flop": cost.flop,
            "evaluation_ms": milliseconds(config, 1, EVALUATIONS),
            "cost_bpd": costs.tolist(),
            "coded_bpd": self._coded(trainer.averaged) if settings.coded else None,
        }

    def _coded(self, denoiser: Denoiser) -> list[float]:
        """bits/dim of real lossless files at the default effort."""
        curve = measure_error_curve(denoiser, self.held_out[-CURVE_IMAGES:])
        with tempfile.TemporaryDirectory() as folder:
            save_checkpoint(Path(folder), denoiser, curve)
            model = load_codec_model(Path(folder))
        return [encode_image(pixels, model).bpd for pixels in self.held_out[: self.settings.coded]]


@torch.no_grad()
def file_costs(denoiser: Denoiser, images: Pixels, draws: int) -> NDArray[np.float64]:
    """What a file of each image costs by the objective `PixelVlb`, bits/dim, float64 [N].

    Its share of the pixel model's lessons at γ of the hops, which no file pays, included.

    The noise is a function of the image's place alone, so that models are compared with the same.
    The objective weighs hops and pixels by their places in a batch; each of ``draws`` permutations
    of the images gives every image another place.
    """
    device = next(denoiser.parameters()).device
    objective = OBJECTIVES["vlb_pixels"](make_schedule(denoiser.config.schedule))
    x = torch.from_numpy(levels_to_signal(images)).permute(0, 3, 1, 2).to(device).float()
    order = np.random.Generator(np.random.Philox(0))
    total = np.zeros(len(images))
    for draw in range(draws):
        places = order.permutation(len(images))
        for start in range(0, len(images), COST_BATCH):
            chosen = places[start : start + COST_BATCH]
            generator = torch.Generator(device=device).manual_seed(draw << 32 | start)
            batch = x[chosen].contiguous(memory_format=torch.channels_last)
            total[chosen] += objective(denoiser, batch, generator).double().cpu().numpy()
    return total / draws


def rows(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row a variant in the order of `VARIANTS`, ready for JSON.

    ``difference_bpd`` is the mean over images of what the variant costs more than the baseline, if
    that was trained, and ``difference_error_bpd`` its standard error.
    """
    baseline = results.get(BASELINE)
    table = []
    for name in VARIANTS:
        if name not in results:
            continue
        result = results[name]
        costs, coded = np.array(result["cost_bpd"]), result["coded_bpd"]
        row = {
            "name": name,
            "changed": VARIANTS[name].changed,
            **{key: result[key] for key in ("images", "seconds", "parameters", "flop")},
            "evaluation_ms": result["evaluation_ms"],
            "cost_bpd": float(costs.mean()),
            "coded_bpd": None if coded is None else float(np.mean(coded)),
            "difference_bpd": None,
            "difference_error_bpd": None,
        }
        if baseline is not None and name != BASELINE:
            more = costs - np.array(baseline["cost_bpd"])
            row["difference_bpd"] = float(more.mean())
            row["difference_error_bpd"] = standard_error(more)
        table.append(row)
    return table


def experiments_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """What was changed, what it takes and what it gives."""

    def difference(row: Mapping[str, Any]) -> str:
        if row["difference_bpd"] is None:
            return ABSENT
        error = row["difference_error_bpd"]
        return f"{row['difference_bpd']:+.3f}" + ("" if error is None else f" ± {error:.3f}")

    return Table(
        (
            *("changed", "parameters, M", "GFLOP", "ms", "images", "seconds"),
            *("cost, bits/dim", "more than the first", "coded"),
        ),
        [
            (
                row["changed"],
                f"{row['parameters'] / 1e6:.2f}",
                f"{row['flop'] / 1e9:.2f}",
                f"{row['evaluation_ms']:.1f}",
                f"{row['images']}",
                f"{row['seconds']:.0f}",
                f"{row['cost_bpd']:.3f}",
                difference(row),
                ABSENT if row["coded_bpd"] is None else f"{row['coded_bpd']:.3f}",
            )
            for row in rows
        ],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.experiments",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="of variants; all if none")
    parser.add_argument("--images", type=int, default=32_000, metavar="N", help="seen by each")
    parser.add_argument("--held-out", type=int, default=512, metavar="N", help="measured on")
    parser.add_argument("--draws", type=int, default=8, metavar="N", help="for each of those")
    parser.add_argument("--coded", type=int, default=0, metavar="N", help="real files")
    parser.add_argument("--device", default="cpu", help="of training: cpu, cuda")
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--jobs", type=int, default=default_jobs(), metavar="N", help="processes")
    parser.add_argument("--data", type=Path, metavar="PATH", help="a CIFAR-10 folder or archive")
    parser.add_argument("--out", type=Path, default=RESULTS, metavar="DIR")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--force", action="store_true", help="begin anew, replace a record")
    options = parser.parse_args(arguments)
    if unknown := set(options.names) - VARIANTS.keys():
        parser.error(f"expected names of {', '.join(VARIANTS)}, found {', '.join(sorted(unknown))}")
    if min(options.images, options.held_out, options.draws, options.jobs) < 1 or options.coded < 0:
        parser.error("expected --images, --held-out, --draws and --jobs of at least 1")
    try:
        with unwinding_endings():
            record = _measure(options)
            options.out.mkdir(parents=True, exist_ok=True)
            files.write_atomically(options.out / RESULT, dumps(record), force=True)
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    experiments_table(record["rows"]).show()
    return 0


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    origin = provenance(options.device)
    training, held_out = training_and_held_out(options.data)
    held_out = held_out[: options.held_out]
    settings = Settings(
        options.images, options.draws, options.coded, options.device, options.precision
    )
    work = ExperimentWork(training, held_out, settings, MODEL_CONFIGS[BASELINE])
    group = campaign.Group()
    identity = {
        "commit": origin["commit"],
        "changes": origin["changes"],
        "pixels": pixels_digest(held_out),
        "settings": vars(settings),
    }
    path = campaign.journal_path(options.out / RESULT, group)
    if not path.exists():
        refuse_overwrite(options.out / RESULT, force=options.force)
    journal = campaign.Journal.open(
        path, identity, origin, resume=options.resume, force=options.force
    )
    items = options.names or list(VARIANTS)
    with closing(journal), Terminal().progress("variants", len(items)) as advance:
        campaign.run(items, work, options.jobs, journal, group, lambda: advance(1))
    return {
        "provenance": journal.origin,
        "settings": vars(settings),
        "held_out": len(held_out),
        "rows": rows(journal.results),
    }


if __name__ == "__main__":
    raise SystemExit(main())
