"""The reverse process that encoder and decoder run in step.

Everything here is a function of the header and of what the hops have told so far. Arrays are
float64 and every operation on them is elementwise, so that no order of summation has a say; the
network's evaluations are the only arithmetic that a platform could do differently.
"""

import copy
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from diffcodec.bits import BitReader, BitWriter
from diffcodec.codec.model import CodecModel, PixelEstimate
from diffcodec.codec.plan import HopPlan, Packet, PlanConfig
from diffcodec.codec.tiles import TILE_CHANNELS, TileLayout
from diffcodec.coding.channel import CodeState
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.diffusion.process import q_posterior
from diffcodec.diffusion.wiener import WienerEstimate

Float64 = NDArray[np.float64]

HOP_NOISE_DOMAIN = 0x686F70
"""Philox domain of the packets' noise, "hop" in ASCII; its index is the section's number."""
PADDING_NOISE_DOMAIN = 0x706164
"""Philox domain of c in the padding, "pad" in ASCII; its index is the packet's first section."""
PRIOR_NOISE_DOMAIN = 0x7A54
"""Philox domain of z_T, "zT" in ASCII."""


def plan_of(model: CodecModel, layout: TileLayout, config: PlanConfig, final_step: int) -> HopPlan:
    """The plan that both ends walk; it needs no evaluation of the network.

    Raises:
        BitstreamError: the channel code is not one that this release knows.
    """
    return HopPlan(
        config,
        model.schedule,
        model.error_curve,
        model.spread_curve,
        layout.image_dimensions,
        layout.vectors,
        final_step,
    )


def inverse_fft(spectra: NDArray[np.complex64], length: int) -> NDArray[np.float32]:
    """Torch's, for the channel code's search: a third of the time of NumPy's (docs/performance.md).

    Args:
        spectra: […, length // 2 + 1].

    Returns:
        float32 […, length].
    """
    vectors: NDArray[np.float32] = torch.fft.irfft(torch.from_numpy(spectra), n=length).numpy()
    return vectors


class ReverseProcess:
    """z_t and x̂_0 on their way from shared noise to the image.

    Attributes:
        z: the latent z_t, float64 [G, 3, S, S].
        plan: where the process stands on the grid, and the next packet.
        evaluations: evaluations of the network so far.
    """

    def __init__(
        self, model: CodecModel, layout: TileLayout, config: PlanConfig, final_step: int
    ) -> None:
        self._model, self._layout = model, layout
        self._inside = layout.inside()
        self._code = config.code.searching_with(inverse_fft)
        self._estimate: PixelEstimate | None = None
        self._estimate_step: int | None = None
        self._wiener: WienerEstimate | None = None
        self._hop_z: Float64 | None = None
        self._x_hat: Float64 | None = None
        self.evaluations = 0
        shape = (layout.count, TILE_CHANNELS, layout.side, layout.side)
        self.z: Float64 = SharedNoise(PRIOR_NOISE_DOMAIN).normal(0, shape).astype(np.float64)
        self.plan = plan_of(model, layout, config, final_step)

    def fork(self) -> "ReverseProcess":
        """A process that goes on by itself from here; arrays are never changed in place."""
        twin = copy.copy(self)
        twin.plan = copy.copy(self.plan)
        return twin

    def x_hat(self) -> Float64:
        """The x̂_0 that the next packet starts from: the network's at a hop, else the updated."""
        if self.plan.at_hop:
            return self.estimate().mean
        assert self._x_hat is not None
        return self._x_hat

    def estimate(self) -> PixelEstimate:
        """p(x | z_t) by the network, window by window."""
        if self._estimate is None or self._estimate_step != self.plan.t:
            estimate = self._model.estimate(self.z, self.plan.t, self._layout)
            self.evaluations += 1
            if not self.plan.at_hop:
                # Only for show: the process itself goes on from the updated x̂_0.
                return estimate
            self._estimate, self._estimate_step = estimate, self.plan.t
        return self._estimate

    def shown(self) -> Float64:
        """The best image that what was told allows, float64 [G, 3, S, S].

        The network's x̂_0, of several windows without their seams: up to three evaluations more.
        The process itself goes on from the windows as they are.
        """

        def denoise(windows: Sequence[Float64]) -> Iterator[Float64]:
            self.evaluations += 1
            said = self._model.evaluate(windows, self.plan.t)
            return (parts[:TILE_CHANNELS] for parts in said)

        return self._layout.without_seams(self.estimate().mean, self.z, denoise)

    def squared_error(self, x: Float64) -> float:
        """Σ (x − x̂_0)² over the image's own coordinates, x its signal float64 [G, 3, S, S]."""
        return float(np.sum(self._difference(x) ** 2))

    def _difference(self, x: Float64) -> Float64:
        """x − x̂_0, but 0 in the padding, which nobody will see and no packet tells."""
        return np.where(self._inside[:, None], x - self.x_hat(), 0.0)

    def tell(self, packet: Packet, x: Float64, writer: BitWriter) -> None:
        """Write the channel code of ``packet`` for the image's signal ``x``, and advance."""
        transition = q_posterior(self._model.schedule, packet.s, packet.t)
        scale = transition.x_coefficient / np.sqrt(transition.variance)
        delta = self._layout.deal((scale * self._difference(x)).astype(np.float32))
        noise, state = SharedNoise(HOP_NOISE_DOMAIN), self.plan.code_state
        c, state = self._code.encode(
            delta, packet.bits, noise, state, writer, runs_on=packet.runs_on
        )
        self._advance(packet, c, state)

    def hear(self, packet: Packet, reader: BitReader) -> None:
        """Read what `tell` wrote, and advance."""
        noise, state = SharedNoise(HOP_NOISE_DOMAIN), self.plan.code_state
        dimension = self._layout.tile_dimensions
        c, state = self._code.decode(dimension, packet.bits, noise, state, reader)
        self._advance(packet, c, state)

    def _advance(self, packet: Packet, c: NDArray[np.float32], state: CodeState) -> None:
        """z_t → z_s = μ_P + σ_Q c, and x̂_0 updated with what the hop has shown of x.

        Since the hop's step u it has shown y = ((SNR(s)/α_s) z_s − (SNR(u)/α_u) z_u)/Δ = x + noise
        of variance 1/Δ, Δ = SNR(s) − SNR(u).
        """
        schedule, hop_step = self._model.schedule, self.plan.hop_step
        x_hat, said = self.x_hat(), self._estimate
        transition = q_posterior(schedule, packet.s, packet.t)
        noise = self._layout.collect(c, self._padding_noise()).astype(np.float64)
        if packet.begins_hop:
            self._hop_z = self.z
        self.z = transition.mean(self.z, x_hat) + np.sqrt(transition.variance) * noise
        self.plan.advance(packet, state)
        if self.plan.at_hop:
            # The network's word follows: nobody would look at an update.
            return
        assert said is not None
        assert self._hop_z is not None
        if packet.begins_hop:
            power = 1.0 + packet.trust * (self._model.error_power(packet.t) - 1.0)
            self._wiener = WienerEstimate.of(
                said.mean, said.variance, said.mixing, power, packet.error, self._inside
            )
        assert self._wiener is not None
        snr_s, snr_u = schedule.snr[packet.s], schedule.snr[hop_step]
        weighted = (snr_s / schedule.alpha[packet.s]) * self.z
        weighted = weighted - (snr_u / schedule.alpha[hop_step]) * self._hop_z
        self._x_hat = self._wiener.updated(float(snr_s - snr_u), weighted)

    def _padding_noise(self) -> NDArray[np.float32]:
        """c in the padding, which no packet tells: so z becomes a sample of the model there."""
        noise = SharedNoise(PADDING_NOISE_DOMAIN, self.plan.code_state.sections)
        return noise.normal(0, (self._layout.padding_dimensions,))
