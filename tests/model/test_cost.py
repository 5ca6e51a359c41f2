import dataclasses

from diffcodec.model.configs import MODEL_CONFIGS
from diffcodec.model.cost import measure_cost
from diffcodec.model.denoiser import ModelConfig, Variance
from diffcodec.model.unet import UNetConfig

BARE = ModelConfig(
    unet=UNetConfig(image_size=8, channels=(16,), attention_resolutions=(), groups=8)
)


def test_arithmetic_counted_by_hand() -> None:
    width, embedding, pixels = 16, 64, 64

    def convolution(source: int, out: int, side: int = 3) -> int:
        return 2 * side * side * source * out * pixels

    def block(source: int, out: int) -> int:
        shortcut = convolution(source, out, 1) if source != out else 0
        branch = convolution(source, out) + convolution(out, out)
        return branch + shortcut + 2 * embedding * out

    time = 2 * width * embedding + 2 * embedding * embedding
    attention = convolution(width, 3 * width, 1) + convolution(width, width, 1)
    attention += 2 * 2 * pixels * pixels * width  # queries with keys, weights with values
    blocks = 3 * block(width, width) + 2 * block(2 * width, width)
    ends = convolution(3, width) + convolution(width, 3)
    assert measure_cost(BARE).flop == time + ends + blocks + attention


def test_a_learned_variance_costs_its_outputs_alone() -> None:
    learned = measure_cost(dataclasses.replace(BARE, variance=Variance.LEARNED))
    plain = measure_cost(BARE)
    assert learned.parameters - plain.parameters == (16 * 9 + 1) * 3
    assert learned.flop - plain.flop == 2 * 9 * 16 * 3 * 64


def test_ddpm_s_evaluation() -> None:
    # 12 GFLOP an image of 32 × 32, as the size of its network has it.
    assert 12e9 < measure_cost(MODEL_CONFIGS["ddpm"]).flop < 13e9
