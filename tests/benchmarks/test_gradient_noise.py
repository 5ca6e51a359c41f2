from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks import gradient_noise as subject
from diffcodec.diffusion.process import levels_to_signal
from diffcodec.diffusion.schedule import ScheduleConfig, make_schedule
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.model.unet import UNetConfig
from diffcodec.training.objective import PixelVlb

SMALL = ModelConfig(
    schedule=ScheduleConfig(kind="linear_gamma"),
    unet=UNetConfig(image_size=8, channels=(8,), attention_resolutions=(), groups=4),
    pixel_model=True,
)


@pytest.fixture
def denoiser() -> Denoiser:
    torch.manual_seed(0)
    return Denoiser(SMALL)


@pytest.fixture
def pictures() -> NDArray[np.uint8]:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, (12 * subject.BATCH, 8, 8, 3), dtype=np.uint8)


def test_both_parts_together_are_the_whole(denoiser: Denoiser, pictures: NDArray[np.uint8]) -> None:
    hops, pixels, both = (
        subject.gradient_noise(denoiser, pictures, part) for part in subject.PARTS.values()
    )
    assert hops.loss + pixels.loss == pytest.approx(both.loss)
    # Images and noise of the two are independent.
    assert both.variance == pytest.approx(hops.variance + pixels.variance, rel=0.5)
    assert min(hops.variance, pixels.variance) > 0


def test_mean_and_variance_are_those_of_the_batches(
    denoiser: Denoiser, pictures: NDArray[np.uint8]
) -> None:
    parameters, gradients = list(denoiser.parameters()), []
    objective = PixelVlb(make_schedule(SMALL.schedule))
    for batch in range(12):
        chosen = pictures[batch * subject.BATCH : (batch + 1) * subject.BATCH]
        x = torch.from_numpy(levels_to_signal(chosen)).permute(0, 3, 1, 2).float()
        loss = objective(denoiser, x, torch.Generator().manual_seed(batch)).mean()
        gradient = torch.autograd.grad(loss, parameters)
        gradients.append(torch.cat([part.flatten() for part in gradient]).double().numpy())
    found = subject.gradient_noise(denoiser, pictures, slice(None))
    variance = np.var(gradients, axis=0, ddof=1).sum()
    assert found.variance == pytest.approx(variance, rel=1e-4)
    mean = np.mean(gradients, axis=0)
    assert found.signal == pytest.approx((mean**2).sum() - variance / 12, rel=1e-4)


def test_one_batch_has_no_variance(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        subject.main(["--batches", "1"])
    assert "at least 2" in capsys.readouterr().err


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert subject.main(["--model", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.startswith("error: ")
