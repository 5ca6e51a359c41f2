"""The reverse process that encoder and decoder run in step.

Everything here is a function of the header and of what the hops have told so far. Arrays are
float64 and every operation on them is elementwise, so that no order of summation has a say; the
network's evaluations are the only arithmetic that a platform could do differently.
"""

import copy

import numpy as np
from numpy.typing import NDArray

from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import HopPlan, Packet, PlanConfig
from diffcodec.codec.tiles import TileLayout, deinterleave, interleave
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.diffusion.process import q_posterior

Float64 = NDArray[np.float64]

HOP_NOISE_DOMAIN = 0x686F70
"""Philox domain of the packets' noise, "hop" in ASCII; its index is the packet's number."""
PRIOR_NOISE_DOMAIN = 0x7A54
"""Philox domain of z_T, "zT" in ASCII."""


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
        self._model = model
        self._shape = (layout.count, 3, layout.side, layout.side)
        self._code = config.code
        self._packets = 0
        self._x_hat: Float64 | None = None
        self._x_hat_step: int | None = None
        self.evaluations = 0
        self.z: Float64 = SharedNoise(PRIOR_NOISE_DOMAIN).normal(0, self._shape).astype(np.float64)
        self.plan = HopPlan(
            config, model.schedule, model.error_curve, layout.tile_dimensions, final_step
        )

    def fork(self) -> "ReverseProcess":
        """A process that goes on by itself from here; arrays are never changed in place."""
        twin = copy.copy(self)
        twin.plan = copy.copy(self.plan)
        return twin

    @property
    def vectors(self) -> tuple[int, int]:
        """Shape [G, n] of what the channel code sees."""
        return self._shape[0], int(np.prod(self._shape[1:]))

    def x_hat(self) -> Float64:
        """The x̂_0 that the next packet starts from: the network's at a hop, else the updated."""
        if self.plan.at_hop:
            return self.estimate()
        assert self._x_hat is not None
        return self._x_hat

    def estimate(self) -> Float64:
        """The network's x̂_0(z_t), the best image that what was told so far allows."""
        if self._x_hat is None or self._x_hat_step != self.plan.t:
            estimate = self._model.estimate(self.z, self.plan.t)
            self.evaluations += 1
            if not self.plan.at_hop:
                # Only for show: the process itself goes on from the updated x̂_0.
                return estimate
            self._x_hat, self._x_hat_step = estimate, self.plan.t
        return self._x_hat

    def noise(self) -> SharedNoise:
        """The next packet's shared noise."""
        return SharedNoise(HOP_NOISE_DOMAIN, self._packets)

    def delta(self, packet: Packet, x: Float64) -> NDArray[np.float32]:
        """δ = (μ_Q − μ_P)/σ_Q for the channel code, float32 [G, n]; ``x`` is the image's signal."""
        transition = q_posterior(self._model.schedule, packet.s, packet.t)
        scale = transition.x_coefficient / np.sqrt(transition.variance)
        delta = interleave(scale * (x - self.x_hat()))
        return np.ascontiguousarray(delta, dtype=np.float32)

    def advance(self, packet: Packet, c: NDArray[np.float32]) -> None:
        """z_t → z_s = μ_P + σ_Q c, and x̂_0 updated with what z_s says about x.

        Between z_t and z_s the hop shows y = (SNR(s) z_s/α_s − SNR(t) z_t/α_t)/ΔSNR = x + noise of
        variance 1/ΔSNR; the update weighs it against x̂_0 by their error variances (Wiener).
        """
        schedule = self._model.schedule
        x_hat = self.x_hat()
        transition = q_posterior(schedule, packet.s, packet.t)
        noise = deinterleave(c.astype(np.float64), self._shape)
        z_s = transition.mean(self.z, x_hat) + np.sqrt(transition.variance) * noise
        snr_s, snr_t = schedule.snr[packet.s], schedule.snr[packet.t]
        gain = snr_s - snr_t
        weighted = (snr_s / schedule.alpha[packet.s]) * z_s
        weighted = weighted - (snr_t / schedule.alpha[packet.t]) * self.z
        updated = (x_hat / packet.error + weighted) / (1.0 / packet.error + gain)
        self._x_hat = np.clip(updated, -1.0, 1.0)
        self._x_hat_step = None
        self.z = z_s
        self._packets += 1
        self.plan.advance(packet)
