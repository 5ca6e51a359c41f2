"""Named configurations: model and recipe each have one word."""

from collections.abc import Mapping

from diffcodec.diffusion.schedule import ScheduleConfig
from diffcodec.model.denoiser import ModelConfig, Parameterization
from diffcodec.model.unet import UNetConfig

MODEL_CONFIGS: Mapping[str, ModelConfig] = {
    config.name: config
    for config in (
        # What the codec ships: 3.35 M parameters, VDM's bound between the noise levels that a codec
        # pays for.
        ModelConfig(
            name="default",
            parameterization=Parameterization.V,
            schedule=ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0),
            unet=UNetConfig(
                channels=(64, 64, 128),
                blocks=1,
                attention_resolutions=(16,),
                groups=16,
                adaptive_norm=True,
                fourier_exponents=(6, 7),
            ),
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
        # Small enough for tests, large enough to learn something.
        ModelConfig(
            name="tiny",
            parameterization=Parameterization.V,
            schedule=ScheduleConfig(kind="linear_gamma", gamma_min=-12.0, gamma_max=5.0),
            unet=UNetConfig(channels=(16, 16), blocks=1, attention_resolutions=(), groups=8),
        ),
    )
}
