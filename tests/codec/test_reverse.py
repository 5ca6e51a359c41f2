from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import Packet, PlanConfig
from diffcodec.codec.reverse import ReverseProcess
from diffcodec.codec.tiles import TileLayout

Pixels = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SIDE = 64  # 16 tiles of 768 coordinates: enough of them for tight averages


@pytest.fixture(scope="module")
def layout() -> TileLayout:
    return TileLayout(SIDE, SIDE, 3, side=16)


@pytest.fixture(scope="module")
def x(layout: TileLayout, smooth_image: Callable[..., Pixels]) -> Float64:
    return layout.split(smooth_image(SIDE, SIDE, 3, seed=5))


def sampled_hops(process: ReverseProcess, x: Float64, seed: int) -> Iterator[Packet]:
    """Advance with c drawn exactly from N(δ, I): z_s is then a sample of q(z_s | z_t, x)."""
    random = np.random.default_rng(seed)
    while not process.plan.finished:
        error = float(np.mean((x - process.x_hat()) ** 2))
        packet = process.plan.packet(process.plan.correction_for(error))
        delta = process.delta(packet, x)
        c = delta + random.standard_normal(delta.shape)
        process.advance(packet, c.astype(np.float32))
        yield packet


@pytest.mark.parametrize("parts", [1, 4])
def test_exactly_sampled_hops_stay_on_the_true_process(
    parts: int, layout: TileLayout, x: Float64, model: CodecModel
) -> None:
    process = ReverseProcess(model, layout, PlanConfig(40, parts), final_step=0)
    schedule = model.schedule
    for packet in sampled_hops(process, x, seed=parts):
        if schedule.gamma[packet.s] > 2.0:
            continue  # z_T is drawn from N(0, I), not from q(z_T | x): let that fade
        noise = (process.z - schedule.alpha[packet.s] * x) / schedule.sigma[packet.s]
        assert abs(noise.mean()) < 5 / np.sqrt(x.size)
        assert abs(noise.var() - 1.0) < 5 * np.sqrt(2 / x.size)


def test_the_wiener_update_earns_what_the_plan_expects(
    layout: TileLayout, x: Float64, model: CodecModel
) -> None:
    process = ReverseProcess(model, layout, PlanConfig(40, 4), final_step=150)
    inside = []
    for packet in sampled_hops(process, x, seed=3):
        if process.plan.at_hop:
            continue
        gain = model.schedule.snr[packet.s] - model.schedule.snr[packet.t]
        expected = packet.error / (1.0 + gain * packet.error)
        error = float(np.mean((x - process.x_hat()) ** 2))
        assert error < packet.error * 1.05
        assert process.plan.predicted_error() == pytest.approx(expected)
        inside.append(error / expected)
    assert len(inside) > 5
    assert np.mean(inside) == pytest.approx(1.0, abs=0.1)


def test_delta_is_the_hop_s_kl(layout: TileLayout, x: Float64, model: CodecModel) -> None:
    process = ReverseProcess(model, layout, PlanConfig(), final_step=0)
    packet = process.plan.packet(0)
    squared_error = float(np.sum((x - process.x_hat()) ** 2))
    delta = process.delta(packet, x).astype(np.float64)
    gain = model.schedule.snr[packet.s] - model.schedule.snr[packet.t]
    assert 0.5 * (delta**2).sum() == pytest.approx(0.5 * gain * squared_error, rel=1e-5)


def test_a_fork_goes_its_own_way(layout: TileLayout, x: Float64, model: CodecModel) -> None:
    process = ReverseProcess(model, layout, PlanConfig(20, 4), final_step=0)
    walk = sampled_hops(process, x, seed=4)
    for _ in range(3):
        next(walk)
    z, x_hat, packet = process.z.copy(), process.x_hat().copy(), process.plan.packet(0)
    twin = process.fork()
    for _ in sampled_hops(twin, x, seed=5):
        pass
    assert twin.plan.finished
    assert not process.plan.finished
    assert process.plan.packet(0) == packet
    np.testing.assert_array_equal(process.z, z)
    np.testing.assert_array_equal(process.x_hat(), x_hat)


def test_showing_an_estimate_changes_nothing(
    layout: TileLayout, x: Float64, model: CodecModel
) -> None:
    shown = ReverseProcess(model, layout, PlanConfig(40, 4), final_step=400)
    silent = ReverseProcess(model, layout, PlanConfig(40, 4), final_step=400)
    for _ in zip(sampled_hops(shown, x, seed=6), sampled_hops(silent, x, seed=6), strict=True):
        shown.estimate()
    np.testing.assert_array_equal(shown.z, silent.z)
    np.testing.assert_array_equal(shown.estimate(), silent.estimate())
    assert shown.evaluations > silent.evaluations
