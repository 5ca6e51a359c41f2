"""How each named configuration is trained: one recipe for each key of `MODEL_CONFIGS`.

Those of papers are the papers' own as far as the trainer's options reach: its optimiser has no
weight decay, and its learning rate falls to zero at the end of a run.
"""

from collections.abc import Mapping

from diffcodec.training.trainer import TrainingConfig

# A moving average that keeps 0.9999 a step of 128 images, as all three papers have it.
_PAPERS_EMA_IMAGES = 128 * 6931.0

# What the experiments of docs/training.md ended at.
_DEFAULT = TrainingConfig(
    objective="vlb_pixels", optimizer="muon", learning_rate=1e-3, decay_fraction=0.36
)

RECIPES: Mapping[str, TrainingConfig] = {
    "default": _DEFAULT,
    "small": _DEFAULT,
    "tiny": TrainingConfig(),
    # arXiv:2006.11239, appendix B.
    "ddpm": TrainingConfig(
        objective="simple",
        batch_size=128,
        total_images=128 * 800_000,
        learning_rate=2e-4,
        warmup_images=128 * 5_000,
        decay_fraction=0.05,
        ema_images=_PAPERS_EMA_IMAGES,
    ),
    # arXiv:2102.09672, appendix A: L_hybrid.
    "adm": TrainingConfig(
        objective="hybrid",
        batch_size=128,
        total_images=128 * 500_000,
        learning_rate=1e-4,
        warmup_images=0,
        decay_fraction=0.05,
        ema_images=_PAPERS_EMA_IMAGES,
    ),
    # arXiv:2107.00630, appendix B: L_∞, no flips.
    "vdm": TrainingConfig(
        objective="vlb",
        batch_size=128,
        total_images=128 * 10_000_000,
        learning_rate=2e-4,
        warmup_images=128 * 100,
        decay_fraction=0.05,
        ema_images=_PAPERS_EMA_IMAGES,
        flip=False,
    ),
}
