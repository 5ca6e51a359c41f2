"""Named configurations; each one's recipe is in `diffcodec.training.recipes`."""

from collections.abc import Mapping
from dataclasses import replace

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.model.denoiser import ModelConfig, Parameterization, Variance
from diffcodec.model.unet import UNetConfig

_SMALL = UNetConfig(
    channels=(64, 64, 128),
    blocks=1,
    attention_resolutions=(16,),
    groups=16,
    adaptive_norm=True,
    fourier_exponents=(6, 7),
)

MODEL_CONFIGS: Mapping[str, ModelConfig] = {
    config.name: config
    for config in (
        # What the codec ships: VDM's bound between the noise levels that a codec pays for, and a
        # pixel model for the last stage; 4.8 M parameters, 2.0 GFLOP an evaluation.
        ModelConfig(
            name="default",
            parameterization=Parameterization.V,
            schedule=ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0),
            unet=replace(_SMALL, blocks=2),
            pixel_model=True,
        ),
        # What it began as, and the ground of experiments: two thirds of the arithmetic.
        ModelConfig(
            name="small",
            parameterization=Parameterization.V,
            schedule=ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0),
            unet=_SMALL,
            pixel_model=True,
        ),
        # DDPM's CIFAR-10 model (arXiv:2006.11239, appendix B).
        ModelConfig(
            name="ddpm",
            parameterization=Parameterization.EPS,
            schedule=ScheduleConfig(kind="linear_beta"),
            unet=UNetConfig(
                channels=(128, 256, 256, 256),
                blocks=2,
                attention_resolutions=(16,),
                groups=32,
                dropout=0.1,
            ),
        ),
        # ADM (arXiv:2105.05233, §3) at the size of improved DDPM's CIFAR-10 model (2102.09672,
        # appendix A), on the codec's 1000 steps. ADM leaves 1/√2 rescaling out: it made things
        # worse (its Table 1).
        ModelConfig(
            name="adm",
            parameterization=Parameterization.EPS,
            schedule=ScheduleConfig(kind="cosine"),
            unet=UNetConfig(
                channels=(128, 256, 256, 256),
                blocks=3,
                attention_resolutions=(32, 16, 8),
                groups=32,
                dropout=0.3,
                adaptive_norm=True,
                head_channels=64,
                residual_resampling=True,
            ),
            variance=Variance.LEARNED,
        ),
        # VDM's CIFAR-10 model without data augmentation (arXiv:2107.00630, appendices B and C):
        # one resolution, 32 blocks deep, attention in the middle alone.
        ModelConfig(
            name="vdm",
            parameterization=Parameterization.EPS,
            schedule=ScheduleConfig(kind="learned", gamma_min=-13.3, gamma_max=5.0),
            unet=UNetConfig(
                channels=(128,),
                blocks=32,
                attention_resolutions=(),
                groups=32,
                dropout=0.1,
                fourier_exponents=(7, 8),
            ),
        ),
        # Small enough for tests, large enough to learn something.
        ModelConfig(
            name="tiny",
            parameterization=Parameterization.V,
            schedule=ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0),
            unet=UNetConfig(channels=(16, 16), blocks=1, attention_resolutions=(), groups=8),
        ),
    )
}
