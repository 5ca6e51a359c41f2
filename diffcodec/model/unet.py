"""DDPM's U-Net (arXiv:2006.11239, appendix B): the network, which knows no noise convention.

ADM's changes to it (arXiv:2105.05233, §3) and VDM's Fourier features are fields of its
configuration.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_PERIOD = 10_000.0

Resampling = Literal["down", "up"]
Place = tuple[str, int, int]
"""A module's direction, level and skip connection: see `places`."""


@dataclass(frozen=True)
class UNetConfig:
    """Shape of the network.

    Attributes:
        image_size: side of the square tiles it sees.
        image_channels: channels of those tiles.
        channels: feature channels at each resolution, from ``image_size`` down by halves.
        blocks: residual blocks at each resolution on the way down (one more on the way up).
        attention_resolutions: resolutions whose blocks are followed by self-attention.
        heads: attention heads, the same number at every resolution.
        head_channels: channels of an attention head, which then decide how many there are (ADM
            has 64), instead of ``heads``.
        groups: groups of every group norm; must divide all channel counts.
        dropout: dropout probability inside residual blocks.
        adaptive_norm: the time embedding scales and shifts the second norm (ADM's AdaGN,
            arXiv:2105.05233) instead of being added before it.
        residual_resampling: half and twice the resolution inside residual blocks (BigGAN,
            arXiv:1809.11096, appendix B) instead of by strided and plain convolutions.
        residual_rescaling: every sum of a branch and its shortcut is scaled by 1/√2 (Song et al.,
            arXiv:2011.13456, appendix H), which keeps the variance of sums of equals.
        separable: a residual block's 3×3 convolutions are one for each channel by itself and a
            1×1 between channels (MobileNets, arXiv:1704.04861).
        fourier_exponents: sin and cos of 2ⁿ π z are appended to the input for each n
            (VDM, arXiv:2107.00630, appendix C).
    """

    image_size: int = 32
    image_channels: int = 3
    channels: tuple[int, ...] = (48, 96, 96)
    blocks: int = 1
    attention_resolutions: tuple[int, ...] = (16,)
    heads: int = 1
    groups: int = 16
    dropout: float = 0.0
    adaptive_norm: bool = False
    head_channels: int | None = None
    residual_resampling: bool = False
    residual_rescaling: bool = False
    separable: bool = False
    fourier_exponents: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        halvings = len(self.channels) - 1
        if halvings < 0 or self.image_size < 1 or self.image_size % (1 << halvings):
            raise ValueError(f"image size {self.image_size} cannot be halved {halvings} times")
        if any(width % self.groups or width % self.heads for width in self.channels):
            raise ValueError(
                f"channels {self.channels} must be multiples of {self.groups} groups "
                f"and of {self.heads} heads"
            )
        if self.head_channels is not None:
            if self.heads != 1:
                raise ValueError("heads and head_channels exclude each other")
            # The middle block attends at the last width whatever the resolutions.
            attending = [self.channels[-1]] + [
                width
                for level, width in enumerate(self.channels)
                if self.image_size >> level in self.attention_resolutions
            ]
            if self.head_channels < 1 or any(width % self.head_channels for width in attending):
                raise ValueError(
                    f"channels {attending} must be multiples of {self.head_channels} a head"
                )

    def heads_of(self, width: int) -> int:
        """Attention heads of a layer of ``width`` channels."""
        return self.heads if self.head_channels is None else width // self.head_channels


class UNet(nn.Module):
    """float32 [B, C, H, W] and time [B] in 0…1000 to [B, outputs, H, W].

    H and W are the tiles' side that the network is trained with, or multiples of it: convolutions
    and norms then see the whole image, attention a tile's size around each position.

    Args:
        conditions: channels that follow the image's in the input and get no Fourier features.
        outputs: channels of the output; the image's number if None.
    """

    def __init__(self, config: UNetConfig, conditions: int = 0, outputs: int | None = None) -> None:
        super().__init__()
        self.config = config
        base = config.channels[0]
        embedding = 4 * base
        self.time = nn.Sequential(
            nn.Linear(base, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU()
        )
        features = config.image_channels * (1 + 2 * len(config.fourier_exponents)) + conditions
        self.head = nn.Conv2d(features, base, 3, padding=1)

        skips = [base]
        width = base
        down: list[nn.Module] = []
        for level, out in enumerate(config.channels):
            resolution = config.image_size >> level
            for _ in range(config.blocks):
                down.append(_Stage(config, width, out, embedding, resolution))
                width = out
                skips.append(width)
            if level + 1 < len(config.channels):
                down.append(_resampling(config, width, embedding, "down"))
                skips.append(width)
        self.down = nn.ModuleList(down)

        self.middle = nn.ModuleList(
            [
                _ResidualBlock(config, width, width, embedding),
                _Attention(config, width, config.image_size >> (len(config.channels) - 1)),
                _ResidualBlock(config, width, width, embedding),
            ]
        )

        up: list[nn.Module] = []
        for level, out in reversed(list(enumerate(config.channels))):
            resolution = config.image_size >> level
            for _ in range(config.blocks + 1):
                up.append(_Stage(config, width + skips.pop(), out, embedding, resolution))
                width = out
            if level:
                up.append(_resampling(config, width, embedding, "up"))
        self.up = nn.ModuleList(up)
        self.norm = _GroupNorm(config.groups, width)
        self.tail = _zeroed(nn.Conv2d(width, outputs or config.image_channels, 3, padding=1))

    def forward(self, z: Tensor, time: Tensor) -> Tensor:
        embedding = self.time(_sinusoidal(time, self.config.channels[0]))
        hidden = self.head(self._with_fourier_features(z))
        skips = [hidden]
        for stage in self.down:
            hidden = stage(hidden, embedding)
            skips.append(hidden)
        first, attention, second = self.middle
        hidden = second(attention(first(hidden, embedding)), embedding)
        for stage in self.up:
            if isinstance(stage, _Stage):
                hidden = torch.cat([hidden, skips.pop()], dim=1)
            hidden = stage(hidden, embedding)
        output: Tensor = self.tail(functional.silu(self.norm(hidden)))
        return output

    def _with_fourier_features(self, z: Tensor) -> Tensor:
        if not self.config.fourier_exponents:
            return z
        image = z[:, : self.config.image_channels]
        phases = [image * (2.0**n * math.pi) for n in self.config.fourier_exponents]
        waves = [wave for phase in phases for wave in (torch.sin(phase), torch.cos(phase))]
        return torch.cat([z, *waves], dim=1)


def places(config: UNetConfig) -> dict[str, Place]:
    """What the modules of `UNet.down` and `UNet.up` are, by their names in the network.

    A stage is ``("down", level, n)``, n from 1, where its output is the nth skip connection of its
    level, and ``("up", level, n)`` where it takes that; n = 0 is the level's input. What leads from
    a level to the next has −1 there.
    """
    levels = range(len(config.channels))
    down: list[Place] = []
    up: list[Place] = []
    for level in levels:
        down += [("down", level, n) for n in range(1, config.blocks + 1)]
        if level + 1 < len(levels):
            down.append(("down", level, -1))
    for level in reversed(levels):
        up += [("up", level, n) for n in range(config.blocks, -1, -1)]
        if level:
            up.append(("up", level, -1))
    numbered = [*enumerate(down), *enumerate(up)]
    return {f"{place[0]}.{number}": place for number, place in numbered}


class _GroupNorm(nn.GroupNorm):
    """PyTorch's, but on a GPU of pixels as they lie, channels last.

    There PyTorch's copies to channels first and leaves what follows to copy back
    (https://github.com/pytorch/pytorch/issues/111824).
    """

    def forward(self, hidden: Tensor) -> Tensor:
        if hidden.is_cuda:
            return group_norm_channels_last(
                hidden, self.num_groups, self.weight, self.bias, self.eps
            )
        return super().forward(hidden)


def group_norm_channels_last(
    hidden: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
) -> Tensor:
    """`functional.group_norm` of [B, C, H, W] in float32, its memory channels last.

    A group's moments come from its channels': each is a sum over pixels, whose channels lie side by
    side.
    """
    batch, width, height, breadth = hidden.shape
    pixels = hidden.float().permute(0, 2, 3, 1).reshape(batch, height * breadth, width)
    variance, mean = torch.var_mean(pixels, dim=1, correction=0)
    grouped = mean.view(batch, groups, -1)
    center = grouped.mean(dim=2, keepdim=True)
    spread = variance.view_as(grouped).mean(dim=2, keepdim=True)
    spread = spread + (grouped - center).square().mean(dim=2, keepdim=True)
    rate = (spread + eps).rsqrt().expand_as(grouped).reshape(batch, 1, width)
    center = center.expand_as(grouped).reshape(batch, 1, width)
    normalized = (pixels - center) * rate * weight + bias
    return normalized.view(batch, height, breadth, width).permute(0, 3, 1, 2)


class _ResidualBlock(nn.Module):
    """Norm, SiLU, convolution, twice; the time embedding enters between.

    A block that resamples does so before its first convolution, and its shortcut likewise: by the
    mean of 2 × 2 positions, or by nearest neighbours.
    """

    def __init__(
        self,
        config: UNetConfig,
        width: int,
        out: int,
        embedding: int,
        resample: Resampling | None = None,
    ) -> None:
        super().__init__()
        self.adaptive = config.adaptive_norm
        self.scale = _branch_scale(config)
        self.resample = resample
        self.norm_in = _GroupNorm(config.groups, width)
        self.convolution_in = _convolution(config, width, out)
        self.embed = nn.Linear(embedding, 2 * out if self.adaptive else out)
        self.norm_out = _GroupNorm(config.groups, out)
        self.dropout = nn.Dropout(config.dropout)
        self.convolution_out = _convolution(config, out, out, zeroed=True)
        self.shortcut = nn.Conv2d(width, out, 1) if width != out else nn.Identity()

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        inner = self.convolution_in(self._resampled(functional.silu(self.norm_in(hidden))))
        embedded = self.embed(embedding)[:, :, None, None]
        if self.adaptive:
            scale, shift = embedded.chunk(2, dim=1)
            inner = self.norm_out(inner) * (1 + scale) + shift
        else:
            inner = self.norm_out(inner + embedded)
        inner = self.convolution_out(self.dropout(functional.silu(inner)))
        output: Tensor = self.shortcut(self._resampled(hidden)) + inner
        return output if self.scale is None else output * self.scale

    def _resampled(self, hidden: Tensor) -> Tensor:
        match self.resample:
            case "down":
                return functional.avg_pool2d(hidden, 2)
            case "up":
                return functional.interpolate(hidden, scale_factor=2.0)
            case None:
                return hidden


class _Attention(nn.Module):
    """Self-attention, added to its input: over all positions of a tile.

    Of a larger image each position attends to as many as a tile has, those around it: with more
    than it was trained with attention spreads thinner, and errs more than if it saw a tile alone
    (docs/coding.md, Images of several tiles).

    Args:
        reach: side of a tile at this layer's resolution. Images are tiles, or whole numbers of
            them.
    """

    def __init__(self, config: UNetConfig, width: int, reach: int) -> None:
        super().__init__()
        self.heads = config.heads_of(width)
        self.reach = reach
        self.scale = _branch_scale(config)
        self.norm = _GroupNorm(config.groups, width)
        self.projection_in = nn.Conv2d(width, 3 * width, 1)
        self.projection_out = _zeroed(nn.Conv2d(width, width, 1))

    def forward(self, hidden: Tensor) -> Tensor:
        batch, width, height, breadth = hidden.shape
        tokens = self.projection_in(self.norm(hidden)).flatten(2).transpose(1, 2)
        tokens = tokens.reshape(batch, height, breadth, 3, self.heads, width // self.heads)
        if max(height, breadth) > self.reach:
            mixed = self._attend_nearby(tokens)
        else:
            query, key, value = tokens.flatten(1, 2).permute(2, 0, 3, 1, 4)
            mixed = functional.scaled_dot_product_attention(query, key, value)
            mixed = mixed.permute(0, 1, 3, 2).reshape(batch, width, height, breadth)
        output: Tensor = hidden + self.projection_out(mixed)
        return output if self.scale is None else output * self.scale

    def _attend_nearby(self, tokens: Tensor) -> Tensor:
        """Queries in blocks of half the reach, keys and values within half of it around a block.

        At the image's edge the keys are moved inwards, so that every query has as many.

        Args:
            tokens: [B, H, W, 3, heads, channels of a head].

        Returns:
            [B, C, H, W].
        """
        batch, height, breadth, _, heads, depth = tokens.shape
        block = self.reach // 2 if self.reach % 2 == 0 else self.reach
        rows, columns = (_nearby(side, block, self.reach) for side in (height, breadth))
        down, right = len(rows), len(columns)
        query = tokens[:, :, :, 0].reshape(batch, down, block, right, block, heads, depth)
        query = query.permute(0, 1, 3, 5, 2, 4, 6).reshape(-1, heads, block * block, depth)
        # [B, down, right, reach, reach, 2, heads, depth]
        nearby = tokens[:, rows[:, None, :, None], columns[None, :, None, :], 1:]
        nearby = nearby.permute(5, 0, 1, 2, 6, 3, 4, 7)
        key, value = nearby.reshape(2, -1, heads, self.reach * self.reach, depth)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        mixed = mixed.reshape(batch, down, right, heads, block, block, depth)
        mixed = mixed.permute(0, 1, 4, 2, 5, 3, 6).reshape(batch, height, breadth, heads * depth)
        return mixed.permute(0, 3, 1, 2)


def _nearby(side: int, block: int, reach: int) -> Tensor:
    """Of each block of a ``side`` the ``reach`` places around it, int64 [side / block, reach]."""
    starts = torch.arange(0, side, block) - (reach - block) // 2
    return starts.clamp(0, side - reach)[:, None] + torch.arange(reach)


class _Stage(nn.Module):
    """A residual block, and attention where the resolution has it."""

    def __init__(
        self, config: UNetConfig, width: int, out: int, embedding: int, resolution: int
    ) -> None:
        super().__init__()
        self.block = _ResidualBlock(config, width, out, embedding)
        attends = resolution in config.attention_resolutions
        self.attention = _Attention(config, out, resolution) if attends else nn.Identity()

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        output: Tensor = self.attention(self.block(hidden, embedding))
        return output


class _Downsample(nn.Module):
    """Strided convolution to half the resolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, stride=2, padding=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        output: Tensor = self.convolution(hidden)
        return output


class _Upsample(nn.Module):
    """Nearest neighbours to twice the resolution, then a convolution."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        output: Tensor = self.convolution(functional.interpolate(hidden, scale_factor=2.0))
        return output


def _resampling(config: UNetConfig, width: int, embedding: int, direction: Resampling) -> nn.Module:
    """The layer between two resolutions."""
    if config.residual_resampling:
        return _ResidualBlock(config, width, width, embedding, direction)
    return _Downsample(width) if direction == "down" else _Upsample(width)


def _convolution(
    config: UNetConfig, width: int, out: int, zeroed: bool = False
) -> nn.Conv2d | nn.Sequential:
    """A residual block's 3×3 convolution; ``zeroed`` where it is the block's last."""
    size = 1 if config.separable else 3
    last = nn.Conv2d(width, out, size, padding=size // 2)
    if zeroed:
        last = _zeroed(last)
    if not config.separable:
        return last
    return nn.Sequential(nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), last)


def _branch_scale(config: UNetConfig) -> float | None:
    """The factor of every sum of a branch and its shortcut; None where there is none."""
    return math.sqrt(0.5) if config.residual_rescaling else None


def _zeroed(module: nn.Conv2d) -> nn.Conv2d:
    """Zero initial weights: every residual branch begins as the identity (DDPM, appendix B)."""
    nn.init.zeros_(module.weight)
    assert module.bias is not None
    nn.init.zeros_(module.bias)
    return module


def _sinusoidal(time: Tensor, width: int) -> Tensor:
    """Transformer's sinusoidal embedding of ``time`` [B] to [B, width]."""
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / half
    angles = time[:, None].float() * torch.exp(-math.log(MAX_PERIOD) * exponents)
    return torch.cat([torch.sin(angles), torch.cos(angles)], dim=1)
