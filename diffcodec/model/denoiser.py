"""The network as a denoiser: four scalings around it turn its output into x̂_0.

x̂_0 = c_skip · z + c_out · F(c_in · z, c_noise), EDM's form (arXiv:2206.00364, eq. 7), of which ε-,
x̂_0-, v- and μ̃-prediction are four choices of c_skip and c_out.
"""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum

import torch
from torch import Tensor, nn

from diffcodec.diffusion.likelihood import SMALLEST_SCALE
from diffcodec.diffusion.schedule import Schedule, ScheduleConfig, make_schedule, time_ends
from diffcodec.model.learned_gamma import LearnedGamma
from diffcodec.model.unet import UNet, UNetConfig

TIME_SCALE = 1000.0
SIGNAL_VARIANCE = 0.25
LOG_VARIANCE_LIMIT = 12.0
HALF_LEVEL = 1.0 / 255.0
"""Half the distance between two of the 256 levels on [−1, 1]."""
LEVEL_VARIANCE = (2.0 * HALF_LEVEL) ** 2 / 12.0
"""Of noise that is uniform over a level."""
SMALLEST_DEVIATION = SMALLEST_SCALE * 2.0 * HALF_LEVEL
RAREST_LEVEL = 2.0**-24
"""The probability that the last stage's tables give every level at least."""
# In deviations, a place beyond which no tail is left; in nats, the least difference of two tails'
# logarithms that float32 can do with.
_EDGE = 1e3
_NARROWEST_BIN = 1e-6


class Parameterization(StrEnum):
    """What the network's output stands for."""

    EPS = "eps"
    X = "x"
    V = "v"
    MU = "mu"
    """The mean of the posterior one step of the grid below, DDPM's μ̃ (its Table 2)."""


class Variance(StrEnum):
    """Σ of the model's p(z_s | z_t)."""

    POSTERIOR = "posterior"
    """β̃_t, the variance of q(z_s | z_t, x)."""
    FORWARD = "forward"
    """β_t, the variance of q(z_t | z_s)."""
    LEARNED = "learned"
    """Between the two, told by the network for every coordinate (arXiv:2102.09672, eq. 15)."""


@dataclass(frozen=True)
class ModelConfig:
    """Everything that decides what the denoiser computes, besides its weights.

    Attributes:
        name: what the model is called in listings.
        parameterization: meaning of the network's output.
        schedule: the γ table; its ends also scale the network's time input.
        unet: shape of the network.
        pixel_model: the network also tells how x lies around x̂_0 (`PixelPosterior`) and takes a
            mask of pixels that are already known.
        variance: Σ of the reverse process.
    """

    name: str = "default"
    parameterization: Parameterization = Parameterization.V
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    unet: UNetConfig = field(default_factory=UNetConfig)
    pixel_model: bool = False
    variance: Variance = Variance.POSTERIOR

    def __post_init__(self) -> None:
        if self.pixel_model and self.variance is Variance.LEARNED:
            raise ValueError("a network tells the spread of pixels or the variance of hops")
        if self.parameterization is Parameterization.MU and self.schedule.kind == "learned":
            raise ValueError("μ̃ belongs to a step of a grid: a learned schedule has none yet")


@dataclass(frozen=True)
class Prediction:
    """What the model says about x and about a hop from z_t, whatever its end s.

    Attributes:
        x_hat: x̂_0(z_t), float32 [B, C, S, S].
        interpolation: v of log Σ = v log β + (1 − v) log β̃: float32 [B, C, S, S] where it is
            learned, else 0 or 1 (`diffcodec.diffusion.process.reverse_log_variance`).
    """

    x_hat: Tensor
    interpolation: Tensor | float


@dataclass(frozen=True)
class PixelPosterior:
    """p(x | z_t): Gaussian, independent between pixels, its channels in a chain.

    Channel c of a pixel has mean x̂_0,c + Σ_{j<c} a_cj (x_j − x̂_0,j), as in PixelCNN++
    (arXiv:1701.05517, eq. 3), and its own variance; together they are a pixel's covariance in its
    LDLᵀ form.

    Attributes:
        mean: x̂_0, float32 [B, C, S, S].
        log_variance: of each channel given the ones before it, float32 [B, C, S, S]; where x is
            one of 256 levels, of the Gaussian that is discretized.
        mixing: a_10, a_20, a_21, …, float32 [B, C(C − 1)/2, S, S].
    """

    mean: Tensor
    log_variance: Tensor
    mixing: Tensor

    def level_nats(self, x: Tensor) -> Tensor:
        """−ln P of the level that is ``x`` at each coordinate, float32 [B, C, S, S].

        DDPM's discretized Gaussian (arXiv:2006.11239, eq. 13) as the last stage's tables have it:
        edges ±∞ at the first and last level, and no level less probable than `RAREST_LEVEL`. A
        density in its place would pay without end for certainty about levels that are exact, and
        its gradient with it.
        """
        from_mean = x - self.conditional_mean(x)
        deviation = self.deviation()
        lower, upper = (from_mean - HALF_LEVEL) / deviation, (from_mean + HALF_LEVEL) / deviation
        lower = lower.masked_fill(x < HALF_LEVEL - 1.0, -_EDGE)
        upper = upper.masked_fill(x > 1.0 - HALF_LEVEL, _EDGE)
        # Mirrored to the mean's left: a difference of two small tails keeps its digits.
        right_of_mean = from_mean > 0
        left = torch.where(right_of_mean, -upper, lower)
        right = torch.where(right_of_mean, -lower, upper)
        log_left, log_right = torch.special.log_ndtr(left), torch.special.log_ndtr(right)
        width = (log_left - log_right).clamp(max=-_NARROWEST_BIN)
        log_mass = log_right + torch.log(-torch.expm1(width))
        floor = torch.full_like(log_mass, math.log(RAREST_LEVEL))
        return -torch.logaddexp(log_mass, floor)

    def deviation(self) -> Tensor:
        """σ of each channel's Gaussian given the channels before it, float32 [B, C, S, S]."""
        return (torch.exp(self.log_variance) + SMALLEST_DEVIATION**2).sqrt()

    def conditional_mean(self, x: Tensor) -> Tensor:
        """Each channel's mean given the channels of ``x`` before it, float32 [B, C, S, S]."""
        residual = x - self.mean
        means, first = [], 0
        for channel in range(x.shape[1]):
            weights = self.mixing[:, first : first + channel]
            means.append(self.mean[:, channel] + (weights * residual[:, :channel]).sum(dim=1))
            first += channel
        return torch.stack(means, dim=1)

    def covariance(self) -> Tensor:
        """A pixel's covariance matrix, float32 [B, C, C, S, S]."""
        factor, variance = self._factor(), torch.exp(self.log_variance)
        return torch.einsum("bikhw,bkhw,bjkhw->bijhw", factor, variance, factor)

    def kl_nats(self, truth: "PixelPosterior") -> Tensor:
        """KL(truth ‖ self) of each channel given the ones before it, float32 [B, C, S, S].

        Of Gaussians, both blurred by a level's width (`LEVEL_VARIANCE`), so that certainty about
        levels that are exact counts no more than it saves. What is left of a channel's residual
        once the channels before it are known has, if ``truth`` holds, a second moment that the two
        chains tell in closed form.
        """
        variance = torch.exp(self.log_variance) + LEVEL_VARIANCE
        true_variance = torch.exp(truth.log_variance) + LEVEL_VARIANCE
        left = self._innovation(truth.mean - self.mean).square()
        for column, spread in zip(truth._factor().unbind(2), true_variance.unbind(1), strict=True):
            left = left + spread[:, None] * self._innovation(column).square()
        return 0.5 * (torch.log(variance / true_variance) + left / variance - 1.0)

    def _innovation(self, residual: Tensor) -> Tensor:
        """L⁻¹ of x − x̂_0: what each channel's has that the channels before do not tell."""
        return residual - (self.conditional_mean(self.mean + residual) - self.mean)

    def _factor(self) -> Tensor:
        """L of a pixel's covariance L D Lᵀ, float32 [B, C, C, S, S]."""
        channels = self.mean.shape[1]
        # Row c of L: what channel c's residual is made of, in innovations.
        rows: list[Tensor] = []
        first = 0
        for channel in range(channels):
            row = torch.zeros_like(self.mean)
            row[:, channel] = 1.0
            for earlier in range(channel):
                row = row + self.mixing[:, first + earlier, None] * rows[earlier]
            first += channel
            rows.append(row)
        return torch.stack(rows, dim=1)

    def with_fixed_mean(self, count: int) -> "PixelPosterior":
        """The same distribution, the mean of the first ``count`` images cut from the graph."""
        mean = torch.cat([self.mean[:count].detach(), self.mean[count:]])
        return PixelPosterior(mean, self.log_variance, self.mixing)


class Denoiser(nn.Module):
    """z_t float32 [B, C, S, S] and γ_t float32 [B] to x̂_0 of the shape of z_t.

    Attributes:
        learned_gamma: γ(t) of a ``learned`` schedule, None of a fixed one.
    """

    _ladder: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.unet.image_channels
        if config.pixel_model:
            outputs = 2 * channels + channels * (channels - 1) // 2
            self.network = UNet(config.unet, conditions=1, outputs=outputs)
        elif config.variance is Variance.LEARNED:
            self.network = UNet(config.unet, outputs=2 * channels)
        else:
            self.network = UNet(config.unet)
        self._gamma_min, self._gamma_max = time_ends(config.schedule)
        self._fixed_schedule = make_schedule(config.schedule)
        self.learned_gamma: LearnedGamma | None = None
        if config.schedule.kind == "learned":
            self.learned_gamma = LearnedGamma(self._gamma_min, self._gamma_max)
        if config.parameterization is Parameterization.MU:
            # One step longer at the data's end, so that its last level has one below it, too.
            gamma = self._fixed_schedule.gamma
            ladder = torch.as_tensor([2 * gamma[0] - gamma[1], *gamma], dtype=torch.float64)
            self.register_buffer("_ladder", ladder, persistent=False)

    @property
    def schedule(self) -> Schedule:
        """The table of γ: the configuration's, or what has been learned so far."""
        if self.learned_gamma is None:
            return self._fixed_schedule
        steps = self.config.schedule.steps
        device = self.learned_gamma.ends.device
        with torch.no_grad():
            time = torch.arange(steps + 1, dtype=torch.float64, device=device) / steps
            return Schedule(self.learned_gamma(time).gamma.cpu().numpy())

    def frozen(self) -> "Denoiser":
        """This denoiser with its learned γ frozen into a table; itself if nothing is learned."""
        if self.learned_gamma is None:
            return self
        table = tuple(float(gamma) for gamma in self.schedule.gamma)
        schedule = replace(self.config.schedule, kind="table", table=table)
        twin = Denoiser(replace(self.config, schedule=schedule))
        twin.network.load_state_dict(self.network.state_dict())
        return twin.to(self.learned_gamma.ends.device).train(self.training)

    def forward(self, z: Tensor, gamma: Tensor) -> Tensor:
        """x̂_0(z_t) in [−1, 1] nominally, not clipped."""
        return self.predict(z, gamma).x_hat

    def predict(self, z: Tensor, gamma: Tensor) -> Prediction:
        """x̂_0(z_t), not clipped, and the variance of the hops from z_t."""
        if self.config.pixel_model:
            x_hat = self.posterior(z, gamma).mean
        else:
            output = self.network(z, self._time(gamma)).float()
            if self.config.variance is Variance.LEARNED:
                output, spread = output.chunk(2, dim=1)
                # A network that begins as zero begins halfway between the two variances.
                return Prediction(self._mean(z, gamma, output), 0.5 * (1.0 + spread))
            x_hat = self._mean(z, gamma, output)
        return Prediction(x_hat, 1.0 if self.config.variance is Variance.FORWARD else 0.0)

    def posterior(self, z: Tensor, gamma: Tensor, known: Tensor | None = None) -> PixelPosterior:
        """p(x | z_t, known pixels), of a model that has a pixel model.

        Args:
            z: z_t, float32 [B, C, S, S], but α_t x itself where a pixel is known.
            gamma: γ_t, float32 [B].
            known: float32 [B, 1, S, S], 1 where a pixel is known, else 0; none is if None.
        """
        if known is None:
            known = torch.zeros_like(z[:, :1])
        output = self.network(torch.cat([z, known], dim=1), self._time(gamma)).float()
        channels = self.config.unet.image_channels
        mean, spread, mixing = output.tensor_split((channels, 2 * channels), dim=1)
        # Of a signal of variance ¼ seen through z_t alone: what the network says is relative to it.
        prior = -torch.log(torch.exp(-gamma) + 1.0 / SIGNAL_VARIANCE)[:, None, None, None]
        log_variance = prior + spread.clamp(-LOG_VARIANCE_LIMIT, LOG_VARIANCE_LIMIT)
        return PixelPosterior(self._mean(z, gamma, mean), log_variance, mixing)

    def _mean(self, z: Tensor, gamma: Tensor, output: Tensor) -> Tensor:
        alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
        match self.config.parameterization:
            case Parameterization.EPS:
                return (z - sigma * output) / alpha
            case Parameterization.V:
                return alpha * z - sigma * output
            case Parameterization.X:
                return output
            case Parameterization.MU:
                z_weight, x_weight = (w[:, None, None, None] for w in self.posterior_weights(gamma))
                return (output - z_weight * z) / x_weight

    def posterior_weights(self, gamma: Tensor) -> tuple[Tensor, Tensor]:
        """What μ̃ one step of the grid below γ [B] is made of: the weights of z_t and of x.

        The grid is continued by one step of the size of its last one; levels between its own are
        interpolated. For a model that predicts μ̃.
        """
        ladder = self._ladder
        level = gamma.double()
        upper = torch.searchsorted(ladder[1:], level).clamp(1, len(ladder) - 2)
        fraction = (level - ladder[upper]) / (ladder[upper + 1] - ladder[upper])
        below = ladder[upper - 1] + fraction * (ladder[upper] - ladder[upper - 1])
        alpha_t, alpha_s = torch.sigmoid(-level).sqrt(), torch.sigmoid(-below).sqrt()
        snr_ratio = torch.exp(below - level)
        z_weight, x_weight = snr_ratio * alpha_s / alpha_t, -alpha_s * torch.expm1(below - level)
        return z_weight.float(), x_weight.float()

    def _time(self, gamma: Tensor) -> Tensor:
        """c_noise: γ mapped linearly so that the schedule's ends are 0 and 1000.

        A function of γ, not of t: the same network serves every grid between the same ends.
        """
        return TIME_SCALE * (gamma - self._gamma_min) / (self._gamma_max - self._gamma_min)


def alpha_sigma(gamma: Tensor) -> tuple[Tensor, Tensor]:
    """α = √sigmoid(−γ), σ = √sigmoid(γ), of the shape of ``gamma``."""
    return torch.sigmoid(-gamma).sqrt(), torch.sigmoid(gamma).sqrt()
