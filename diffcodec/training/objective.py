"""Training objectives: from images to one loss per image, in bits/dim where it is a bound."""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from diffcodec.diffusion.likelihood import LEVELS
from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.diffusion.schedule import Schedule
from diffcodec.model.denoiser import Denoiser, Parameterization, PixelPosterior, alpha_sigma
from diffcodec.model.learned_gamma import LearnedGamma
from diffcodec.model.pixel_order import RANKS, pixel_ranks
from diffcodec.units import nats_to_bits

RECONSTRUCTION_COORDINATES = 64
GOLDEN = 0.5 * (math.sqrt(5.0) - 1.0)


class Objective(Protocol):
    """Loss per image, float32 [B]; randomness comes from ``generator`` alone."""

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor: ...


class ContinuousVlb:
    """L_∞: VDM's continuous-time diffusion loss (arXiv:2107.00630, eq. 17), in bits/dim.

    ½ E_t[γ'(t) ‖ε − ε̂‖²] with t uniform and γ interpolated linearly in the schedule's table; the
    prior and reconstruction terms do not depend on the weights and are left to the evaluation.

    A learned γ takes the table's place. L_∞ depends on its ends alone, so they get the gradient of
    the whole bound, prior and reconstruction included; its shape in between gets that of the mean
    squared diffusion loss, and so of the estimate's variance (VDM, appendix I.2).
    """

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma, dtype=torch.float64)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        time = low_discrepancy_times(len(x), generator, x.device)
        if denoiser.learned_gamma is None:
            position = time * (len(self._gamma) - 1)
            table = self._gamma.to(x.device)
            lower = position.floor().long().clamp_(0, len(table) - 2)
            slope = table[lower + 1] - table[lower]
            gamma = (table[lower] + slope * (position - lower)).float()
            rate = 0.5 * slope * (len(table) - 1)
            return _bits_per_dimension(rate.float() * _eps_error(denoiser, x, gamma, generator), x)
        at = denoiser.learned_gamma(time)
        error = _eps_error(denoiser, x, at.gamma.float(), generator)
        diffusion = _bits_per_dimension(0.5 * at.slope.float() * error, x)
        if at.shape.requires_grad:
            # d(loss²) = 2 loss · d(loss): the one backward pass serves both, scaled by image.
            twice = 2.0 * diffusion.detach().double()
            at.shape.register_hook(lambda gradient: twice * gradient)
            at.shape_slope.register_hook(lambda gradient: twice * gradient)
        return diffusion + _ends_bits(denoiser.learned_gamma, x, generator)


class DiscreteVlb:
    """L_1..T of the T-step bound (VDM, eq. 14), one hop t → t − 1 drawn per image, in bits/dim.

    Where Σ is not the posterior's, a hop's KL is that of unequal variances: L_vlb of improved DDPM
    (arXiv:2102.09672, eq. 4). A learned γ has the gradient of the whole bound, prior and
    reconstruction included.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma, dtype=torch.float64)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        steps = len(self._gamma) - 1
        time = low_discrepancy_times(len(x), generator, x.device)
        step = (time * steps).long().clamp_(0, steps - 1) + 1
        if denoiser.learned_gamma is None:
            table = self._gamma.to(x.device)
            hop = _Hop(denoiser, x, table[step - 1], table[step], generator)
            return steps * _bits_per_dimension(hop.kl_nats(), x)
        gamma = denoiser.learned_gamma(torch.cat([step - 1, step]) / steps).gamma
        gamma_s, gamma_t = gamma.chunk(2)
        hop = _Hop(denoiser, x, gamma_s, gamma_t, generator)
        ends = _ends_bits(denoiser.learned_gamma, x, generator)
        return steps * _bits_per_dimension(hop.kl_nats(), x) + ends


class Simple:
    """L_simple: ‖ε − ε̂‖² at a uniform step, per dimension (DDPM, arXiv:2006.11239, eq. 14)."""

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma[1:], dtype=torch.float32)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        table = self._gamma.to(x.device)
        time = low_discrepancy_times(len(x), generator, x.device)
        step = (time * len(table)).long().clamp_(0, len(table) - 1)
        return _eps_error(denoiser, x, table[step], generator) / x[0].numel()


class Unweighted:
    """Squared error of what the network predicts at a uniform step, per dimension.

    The plain regressions of DDPM's Table 2: ‖μ̃ − μ̃_θ‖² where the model predicts μ̃, L_simple where
    it predicts ε; likewise for x̂_0 and v.
    """

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma[1:], dtype=torch.float32)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        table = self._gamma.to(x.device)
        time = low_discrepancy_times(len(x), generator, x.device)
        gamma = table[(time * len(table)).long().clamp_(0, len(table) - 1)]
        # ε̂'s error times what an error of the output adds to ε̂.
        error = _eps_error(denoiser, x, gamma, generator) / x[0].numel()
        match denoiser.config.parameterization:
            case Parameterization.EPS:
                return error
            case Parameterization.X:
                return torch.exp(gamma) * error
            case Parameterization.V:
                return (1.0 + torch.exp(gamma)) * error
            case Parameterization.MU:
                _, x_weight = denoiser.posterior_weights(gamma)
                return x_weight.square() * torch.exp(gamma) * error


class Hybrid:
    """L_hybrid = L_simple + 0.001 L_vlb (improved DDPM, arXiv:2102.09672, eq. 16).

    L_vlb, in bits/dim, trains a learned Σ alone: the mean in it is cut from the graph.
    """

    VLB_WEIGHT = 0.001

    def __init__(self, schedule: Schedule) -> None:
        self._gamma = torch.as_tensor(schedule.gamma, dtype=torch.float64)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        steps = len(self._gamma) - 1
        time = low_discrepancy_times(len(x), generator, x.device)
        step = (time * steps).long().clamp_(0, steps - 1) + 1
        table = self._gamma.to(x.device)
        hop = _Hop(denoiser, x, table[step - 1], table[step], generator)
        vlb = steps * _bits_per_dimension(hop.kl_nats(train_mean=False), x)
        return hop.eps_error.mean(dim=(1, 2, 3)) + self.VLB_WEIGHT * vlb


class PixelVlb:
    """What a file costs, in bits/dim: hops down to a hand-over, pixels from there.

    Its mean over the batch estimates that sum, averaged over hand-overs γ_h uniform between
    ``LOWEST_HANDOVER`` and ``HIGHEST_HANDOVER``, and ``SPREAD_WEIGHT`` times what the levels would
    cost at γ of the hops, which no file pays: some 0.4 bits/dim with the shipped weights.

    Images at the front of the batch have the continuous-time bound (`ContinuousVlb`) at γ between
    the lowest hand-over and the schedule's noise, times the share of hand-overs that lie below γ;
    its errors also teach the pixel model their spread, without a say on the mean. Those at the back
    have the last stage: −log P(x | z_γ, known pixels) per unknown coordinate, in bits, at γ a
    hand-over and with the first k ranks of pixels known.

    γ of the hops and k are drawn more often where one draw's gradient has more variance, and weigh
    less there, which leaves the mean as it is (docs/training.md, Gradient noise).

    With a teacher (Hinton et al. 2015, arXiv:1503.02531) what it says of x stands in place of x:
    its mean for the hops, the divergence from its pixels' distribution for the last stage. The loss
    is then what a file costs more than the teacher's, if the teacher is right.

    Args:
        teacher: another denoiser with a pixel model, which stays as it is.
    """

    PIXEL_FRACTION = 0.5
    SPREAD_WEIGHT = 0.1
    LOWEST_HANDOVER, HIGHEST_HANDOVER = -9.2, -7.3
    UNIFORM_PART = 0.2
    """Of the hops' γ, which bounds their weights."""

    def __init__(self, schedule: Schedule, teacher: Denoiser | None = None) -> None:
        self._teacher = teacher
        self._ranks: Tensor | None = None
        self._lowest = max(self.LOWEST_HANDOVER, float(schedule.gamma[0]))
        self._pixel_span = self.HIGHEST_HANDOVER - self._lowest
        self._hops = _Importance(
            self._hop_deviation, self._lowest, float(schedule.gamma[-1]), self.UNIFORM_PART
        )
        # Of k ranks known, (16 − k)/16 of the pixels are left to take the mean of.
        deviation = (torch.arange(RANKS, 0, -1, dtype=torch.float64) / RANKS).rsqrt()
        self._rank_shares = deviation / deviation.sum()

    def _hop_deviation(self, gamma: Tensor) -> Tensor:
        """Relative deviation of a hop's gradient at ``gamma``: that of ε̂ times its weight.

        The logistic curve is √(‖ε − ε̂‖²/D) of the shipped model within 12 % from γ = −10.2 to 3.
        """
        return self._handed_over_below(gamma) * torch.sigmoid(-0.5 * (gamma + 7.2)).sqrt()

    def _handed_over_below(self, gamma: Tensor) -> Tensor:
        return ((gamma - self._lowest) / self._pixel_span).clamp(0.0, 1.0)

    def __call__(self, denoiser: Denoiser, x: Tensor, generator: torch.Generator) -> Tensor:
        hops = len(x) - int(self.PIXEL_FRACTION * len(x))
        hop_times = low_discrepancy_times(hops, generator, x.device)
        hop_gamma, hop_weight = self._hops(hop_times)
        pixel_times = low_discrepancy_times(len(x) - hops, generator, x.device)
        gamma = torch.cat([hop_gamma, self._lowest + self._pixel_span * pixel_times]).float()

        z, _ = draw_latent(x, gamma, generator)
        ranks = self._ranks_of(x)
        # Tables move to the batch's device once: a captured step cannot wait for a copy.
        self._rank_shares = self._rank_shares.to(x.device)
        rank_times = low_discrepancy_times(len(x), generator, x.device, GOLDEN)
        known_ranks = torch.searchsorted(self._rank_shares.cumsum(0), rank_times, right=True)
        known_ranks = known_ranks.clamp_(max=RANKS - 1)
        known_ranks[:hops] = 0
        known = (ranks < known_ranks[:, None, None])[:, None].to(x.dtype)
        alpha, _ = alpha_sigma(gamma)
        z = torch.where(known > 0, alpha[:, None, None, None] * x, z)
        z = z.contiguous(memory_format=torch.channels_last)

        posterior = denoiser.posterior(z, gamma, known)
        truth = self._taught(z, gamma, known)
        front, back = slice(0, hops), slice(hops, len(x))

        said = posterior.with_fixed_mean(hops)
        nats = said.level_nats(x) if truth is None else said.kl_nats(truth)
        true_mean = x if truth is None else truth.mean
        squared_error = (posterior.mean - true_mean)[front].square().sum(dim=(1, 2, 3))
        bound = _bits_per_dimension(0.5 * torch.exp(-gamma[front]) * squared_error, x)
        to_bits = nats_to_bits(1.0)
        spread = to_bits * nats[front].mean(dim=(1, 2, 3))
        unknown = 1.0 - known[back]
        pixels = to_bits * (nats[back] * unknown).mean(dim=(1, 2, 3))
        pixels = pixels / unknown.mean(dim=(1, 2, 3))
        rank_weight = (1.0 / (RANKS * self._rank_shares)).float()[known_ranks[back]]
        # The mean over the batch is then that over the hops plus that over the pixels.
        hop_share = hops / len(x)
        paid_for_hops = hop_weight.float() * self._handed_over_below(gamma[front]) * bound
        return torch.cat(
            [
                (paid_for_hops + self.SPREAD_WEIGHT * spread) / hop_share,
                rank_weight * pixels / (1.0 - hop_share),
            ]
        )

    def _ranks_of(self, x: Tensor) -> Tensor:
        """The pixels' ranks, int64 [S, S], on the device of ``x``."""
        side = x.shape[-1]
        if self._ranks is None or self._ranks.shape[-1] != side:
            self._ranks = torch.as_tensor(pixel_ranks(side))
        self._ranks = self._ranks.to(x.device)
        return self._ranks

    @torch.no_grad()
    def _taught(self, z: Tensor, gamma: Tensor, known: Tensor) -> PixelPosterior | None:
        """What the teacher says; None without one."""
        return None if self._teacher is None else self._teacher.posterior(z, gamma, known)


OBJECTIVES: Mapping[str, Callable[[Schedule], Objective]] = {
    "vlb": ContinuousVlb,
    "vlb_discrete": DiscreteVlb,
    "simple": Simple,
    "unweighted": Unweighted,
    "hybrid": Hybrid,
    "vlb_pixels": PixelVlb,
}


def low_discrepancy_times(
    count: int,
    generator: torch.Generator,
    device: torch.device | str = "cpu",
    stride: float | None = None,
) -> Tensor:
    """Times uniform on [0, 1) that form an even comb (VDM, appendix I.1), float64 [count].

    Args:
        stride: from each to the next, modulo 1; 1 / count if None. With `GOLDEN` they are spread
            evenly in any order, and beside a comb over the plane.
    """
    offset = torch.rand((), generator=generator, device=generator.device, dtype=torch.float64)
    comb = torch.arange(count, device=device, dtype=torch.float64)
    comb = comb / count if stride is None else comb * stride
    return (offset.to(device) + comb) % 1.0


class _Importance:
    """Times uniform on [0, 1) to points of [low, high] as dense as a function of them says.

    Args:
        relative_density: of points float64 [N], at least 0.
        uniform_part: of the density.
    """

    CELLS = 1024

    def __init__(
        self,
        relative_density: Callable[[Tensor], Tensor],
        low: float,
        high: float,
        uniform_part: float,
    ) -> None:
        self._low, self._cell = low, (high - low) / self.CELLS
        middles = low + (torch.arange(self.CELLS, dtype=torch.float64) + 0.5) * self._cell
        wanted = relative_density(middles)
        share = (1.0 - uniform_part) * wanted / wanted.sum() + uniform_part / self.CELLS
        self._share = share
        self._below = share.cumsum(0) - share

    def __call__(self, times: Tensor) -> tuple[Tensor, Tensor]:
        """Points, and one over their density, float64 [N] each like ``times``."""
        self._below, self._share = self._below.to(times.device), self._share.to(times.device)
        below, share = self._below, self._share
        cell = (torch.searchsorted(below, times, right=True) - 1).clamp_(0, self.CELLS - 1)
        points = self._low + (cell + (times - below[cell]) / share[cell]) * self._cell
        return points, self._cell / share[cell]


def draw_latent(x: Tensor, gamma: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """z_γ ~ q(z_γ | x) and the ε it was made with; x float32 [B, C, H, W], gamma float32 [B]."""
    alpha, sigma = (part[:, None, None, None] for part in alpha_sigma(gamma))
    eps = torch.randn(x.shape, generator=generator, device=generator.device).to(x.device)
    return alpha * x + sigma * eps, eps


class _Hop:
    """One hop z_t → z_s of every image, γ_s < γ_t float64 [B]: a prediction, and what it costs."""

    def __init__(
        self,
        denoiser: Denoiser,
        x: Tensor,
        gamma_s: Tensor,
        gamma_t: Tensor,
        generator: torch.Generator,
    ) -> None:
        self._gamma_s, self._gamma_t = gamma_s, gamma_t
        gamma = gamma_t.float()
        z, _ = draw_latent(x, gamma, generator)
        prediction = denoiser.predict(z, gamma)
        self._interpolation = prediction.interpolation
        squared_error = (prediction.x_hat - x).float().square()
        self.eps_error = torch.exp(-gamma)[:, None, None, None] * squared_error

    def kl_nats(self, train_mean: bool = True) -> Tensor:
        """KL(q ‖ p) float32 [B], as `diffcodec.diffusion.process.reverse_kl_nats` has it."""
        # SNR(s) − SNR(t) = SNR(t) · expm1(γ_t − γ_s); SNR(t) turns x's error into ε's.
        gain = torch.expm1(self._gamma_t - self._gamma_s).float()[:, None, None, None]
        error = gain * (self.eps_error if train_mean else self.eps_error.detach())
        ratio = functional.logsigmoid(self._gamma_t) - functional.logsigmoid(self._gamma_s)
        excess = self._interpolation * ratio.float()[:, None, None, None]
        nats = torch.expm1(-excess) + excess + torch.exp(-excess) * error
        return 0.5 * nats.sum(dim=(1, 2, 3))


def _ends_bits(learned: LearnedGamma, x: Tensor, generator: torch.Generator) -> Tensor:
    """Prior and reconstruction loss of VDM's bound at a learned γ's ends, bits/dim [B]."""
    gamma_min, gamma_max = learned.ends.double()
    nats = latent_nats(x, gamma_min, generator) + prior_nats(x, gamma_max)
    return _bits_per_dimension(nats.float(), x)


def prior_nats(x: Tensor, gamma: Tensor) -> Tensor:
    """KL(q(z_1 | x) ‖ N(0, I)) in nats at γ_1 = ``gamma``, a number; float64 [B]."""
    # log σ² = logsigmoid(γ) keeps the digits of a variance near one.
    excess = torch.sigmoid(-gamma) * (x.double().square() - 1.0) - functional.logsigmoid(gamma)
    return 0.5 * excess.sum(dim=(1, 2, 3))


def latent_nats(x: Tensor, gamma: Tensor, generator: torch.Generator) -> Tensor:
    """−log p(x | z_0) of VDM's decoder in nats, z_0 drawn at γ_0 = ``gamma``, a number; [B].

    p(x_i | z_0) ∝ q(z_0,i | x_i) over the 256 levels of a coordinate (VDM, §3.3). It knows nothing
    but z_0,i: its loss tells where a schedule may end, whatever the network. Estimated from
    `RECONSTRUCTION_COORDINATES` coordinates drawn for the batch, to bound its memory.
    """
    flat = x.flatten(1)
    order = torch.randperm(flat.shape[1], generator=generator, device=generator.device)
    drawn = flat[:, order[:RECONSTRUCTION_COORDINATES].to(x.device)]
    noise = torch.randn(drawn.shape, generator=generator, device=generator.device).to(x.device)
    deviation = torch.exp(0.5 * gamma).float()
    levels = torch.arange(LEVELS, device=x.device) / HALF_RANGE - 1.0
    # z_0/α_0 against every level, in deviations; against the true one it is the noise itself.
    away = (drawn[..., None] - levels) / deviation + noise[..., None]
    nats = (-0.5 * away.square()).logsumexp(dim=-1) + 0.5 * noise.square()
    return nats.mean(dim=1) * flat.shape[1]


def _eps_error(
    denoiser: Denoiser,
    x: Tensor,
    gamma: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """‖ε − ε̂‖² = SNR ‖x − x̂_0‖², float32 [B]."""
    z, _ = draw_latent(x, gamma, generator)
    estimate: Tensor = denoiser(z, gamma)
    squared_error = (estimate - x).float().square().sum(dim=(1, 2, 3))
    return torch.exp(-gamma) * squared_error


def _bits_per_dimension(nats: Tensor, x: Tensor) -> Tensor:
    return nats * (nats_to_bits(1.0) / x[0].numel())
