import dataclasses
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from diffcodec.bits import BitReader, BitWriter
from diffcodec.codec.model import CodecModel
from diffcodec.codec.plan import Packet, PlanConfig
from diffcodec.codec.reverse import ReverseProcess, inverse_fft
from diffcodec.codec.tiles import TileLayout
from diffcodec.coding.channel import CHANNEL_CODES, CodeState, TrellisCode, numpy_inverse_fft
from diffcodec.coding.poisson import PoissonCode
from diffcodec.coding.shared_noise import SharedNoise
from diffcodec.diffusion.process import q_posterior
from diffcodec.model.checkpoint import ErrorSpectrum

Pixels = NDArray[np.uint8]
Float64 = NDArray[np.float64]
SIDE = 64  # 16 tiles of 768 coordinates: enough of them for tight averages


class Sampling(TrellisCode):
    """Gives c drawn exactly from N(δ, I): z_s is then a sample of q(z_s | z_t, x)."""

    def encode(
        self,
        delta: NDArray[np.float32],
        bits: int,
        noise: SharedNoise,
        state: CodeState,
        writer: BitWriter,
        *,
        runs_on: bool = True,
    ) -> tuple[NDArray[np.float32], CodeState]:
        self.deltas.append(delta)
        random = np.random.default_rng(state.sections)
        c = delta + random.standard_normal(delta.shape)
        sections = state.sections + self.sections(bits, state)
        return c.astype(np.float32), dataclasses.replace(state, sections=sections, register=0)

    @property
    def deltas(self) -> list[NDArray[np.float32]]:
        """Every δ that was coded."""
        return DELTAS


SAMPLING = 100
DELTAS: list[NDArray[np.float32]] = []


@pytest.fixture(autouse=True)
def _sampling(monkeypatch: pytest.MonkeyPatch) -> None:
    DELTAS.clear()
    monkeypatch.setitem(CHANNEL_CODES, SAMPLING, Sampling(SAMPLING, 12, 4, 7.5, 3.6))


@pytest.fixture(scope="module")
def layout() -> TileLayout:
    return TileLayout(SIDE, SIDE, 3, side=16)


@pytest.fixture(scope="module")
def x(layout: TileLayout, smooth_image: Callable[..., Pixels]) -> Float64:
    return layout.split(smooth_image(SIDE, SIDE, 3, seed=5))


def packet_for(process: ReverseProcess, x: Float64) -> Packet:
    correction = 0
    if process.plan.at_hop:
        correction = process.plan.correction_for(float(np.mean((x - process.x_hat()) ** 2)))
    return process.plan.packet(correction)


def hops(process: ReverseProcess, x: Float64, writer: BitWriter | None = None) -> Iterator[Packet]:
    """Tell packets to the end; each is given after it has been told."""
    writer = writer or BitWriter()
    while not process.plan.finished:
        packet = packet_for(process, x)
        process.tell(packet, x, writer)
        yield packet


@pytest.mark.parametrize("parts", [1, 16])
def test_exactly_sampled_hops_stay_on_the_true_process(
    parts: int, layout: TileLayout, x: Float64, chosen: CodecModel
) -> None:
    process = ReverseProcess(chosen, layout, PlanConfig(40, parts, SAMPLING), final_step=0)
    schedule = chosen.schedule
    for packet in hops(process, x):
        if schedule.gamma[packet.s] > 2.0:
            continue  # z_T is drawn from N(0, I), not from q(z_T | x): let that fade
        noise = (process.z - schedule.alpha[packet.s] * x) / schedule.sigma[packet.s]
        assert abs(noise.mean()) < 5 / np.sqrt(x.size)
        assert abs(noise.var() - 1.0) < 5 * np.sqrt(2 / x.size)


def test_the_wiener_update_earns_what_the_plan_expects(
    layout: TileLayout, x: Float64, chosen: CodecModel
) -> None:
    process = ReverseProcess(chosen, layout, PlanConfig(40, 4, SAMPLING), final_step=150)
    inside = []
    for packet in hops(process, x):
        if process.plan.at_hop:
            continue
        error = float(np.mean((x - process.x_hat()) ** 2))
        assert error < packet.error * 1.1
        inside.append(error / process.plan.predicted_error())
    assert len(inside) > 5
    assert np.mean(inside) == pytest.approx(1.0, abs=0.15)


def test_delta_is_the_hop_s_kl(layout: TileLayout, x: Float64, model: CodecModel) -> None:
    process = ReverseProcess(model, layout, PlanConfig(8, 16, SAMPLING), final_step=0)
    squared_error = float(np.sum((x - process.x_hat()) ** 2))
    packet = next(hops(process, x))
    (delta,) = DELTAS
    gain = model.schedule.snr[packet.s] - model.schedule.snr[packet.t]
    wanted = pytest.approx(0.5 * gain * squared_error, rel=1e-5)
    assert 0.5 * (delta.astype(np.float64) ** 2).sum() == wanted


def test_padding_costs_nothing_and_follows_the_model(
    chosen: CodecModel, smooth_image: Callable[..., Pixels]
) -> None:
    layout = TileLayout(20, 16, 3, side=16)
    x, inside = layout.split(smooth_image(20, 16, 3, seed=5)), layout.inside()[:, None]
    other = np.where(inside, x, -x)
    config = PlanConfig(40, 16, SAMPLING)
    processes = [ReverseProcess(chosen, layout, config, final_step=200) for _ in range(2)]
    for process, signal in zip(processes, (x, other), strict=True):
        while not process.plan.finished:
            correction = 0
            if process.plan.at_hop:
                error = process.squared_error(signal) / layout.image_dimensions
                correction = process.plan.correction_for(error)
            packet = process.plan.packet(correction)
            told = process.squared_error(signal)
            process.tell(packet, signal, BitWriter())
            gain = chosen.schedule.snr[packet.s] - chosen.schedule.snr[packet.t]
            wanted = pytest.approx(gain * told, rel=1e-5)
            assert (DELTAS[-1].astype(np.float64) ** 2).sum() == wanted
    # Whatever is taken to be there, nobody tells it: both ends of both are the same.
    np.testing.assert_array_equal(processes[0].z, processes[1].z)
    noise = (processes[0].z - chosen.schedule.alpha[200] * x) / chosen.schedule.sigma[200]
    assert np.mean(noise[np.broadcast_to(inside, x.shape)] ** 2) == pytest.approx(1.0, abs=0.2)
    # z is near what the network says there, as near as a latent of an image.
    residual = processes[0].z - chosen.schedule.alpha[200] * processes[0].x_hat()
    beyond = residual[np.broadcast_to(~inside, x.shape)]
    assert np.mean(beyond**2) < chosen.schedule.sigma[200] ** 2


def test_no_packet_tells_the_noise_in_the_padding(
    chosen: CodecModel, smooth_image: Callable[..., Pixels]
) -> None:
    layout = TileLayout(20, 16, 3, side=16)
    x = layout.split(smooth_image(20, 16, 3, seed=5))
    beyond = np.broadcast_to(~layout.inside()[:, None], x.shape)
    process = ReverseProcess(chosen, layout, PlanConfig(40, 16, 0), final_step=600)
    sections = []
    while not process.plan.finished:
        packet, before, x_hat = packet_for(process, x), process.z, process.x_hat()
        sections.append(process.plan.code_state.sections)
        process.tell(packet, x, BitWriter())
        transition = q_posterior(chosen.schedule, packet.s, packet.t)
        c = (process.z - transition.mean(before, x_hat)) / np.sqrt(transition.variance)
        expected = SharedNoise(0x706164, sections[-1]).normal(0, (beyond.sum(),))
        np.testing.assert_allclose(c[beyond], expected, atol=1e-9)
    assert len(set(sections)) == len(sections) > 3


def test_x_hat_inside_a_hop_is_the_posterior_mean_given_all_its_packets(
    layout: TileLayout, x: Float64, model: CodecModel
) -> None:
    """Of one variance everywhere and a flat spectrum, so that the formula is a scalar one."""
    curve = dataclasses.replace(model.checkpoint.error_curve, spectrum=ErrorSpectrum.flat())
    flat = CodecModel(dataclasses.replace(model.checkpoint, error_curve=curve))
    process = ReverseProcess(flat, layout, PlanConfig(63, 16, SAMPLING), final_step=0)
    schedule, checked = model.schedule, 0
    while not process.plan.finished:
        z = process.z
        packet = packet_for(process, x)
        if packet.begins_hop:
            start, z_start, said, error = packet.t, z, process.x_hat(), packet.error
        process.tell(packet, x, BitWriter())
        if process.plan.at_hop:
            continue
        snr_s, snr_u = schedule.snr[packet.s], schedule.snr[start]
        shown = (
            snr_s / schedule.alpha[packet.s] * process.z - snr_u / schedule.alpha[start] * z_start
        )
        expected = (said / error + shown) / (1.0 / error + snr_s - snr_u)
        np.testing.assert_allclose(process.x_hat(), np.clip(expected, -1.0, 1.0), atol=1e-6)
        checked += 1
    assert checked > 5


def test_a_fork_goes_its_own_way(layout: TileLayout, x: Float64, chosen: CodecModel) -> None:
    process = ReverseProcess(chosen, layout, PlanConfig(20, 4, SAMPLING), final_step=0)
    walk = hops(process, x)
    while process.plan.at_hop:
        next(walk)
    z, x_hat, packet = process.z.copy(), process.x_hat().copy(), process.plan.packet(0)
    twin = process.fork()
    for _ in hops(twin, x):
        pass
    assert twin.plan.finished
    assert not process.plan.finished
    assert process.plan.packet(0) == packet
    np.testing.assert_array_equal(process.z, z)
    np.testing.assert_array_equal(process.x_hat(), x_hat)
    # What it does from here is what the twin did.
    for _ in walk:
        pass
    np.testing.assert_array_equal(process.z, twin.z)


def test_showing_an_estimate_changes_nothing(
    layout: TileLayout, x: Float64, chosen: CodecModel
) -> None:
    config = PlanConfig(40, 4, SAMPLING)
    shown = ReverseProcess(chosen, layout, config, final_step=400)
    silent = ReverseProcess(chosen, layout, config, final_step=400)
    for _ in zip(hops(shown, x), hops(silent, x), strict=True):
        shown.estimate()
        shown.shown()
    np.testing.assert_array_equal(shown.z, silent.z)
    np.testing.assert_array_equal(shown.estimate().mean, silent.estimate().mean)
    assert shown.evaluations > silent.evaluations


@pytest.mark.parametrize("size", [(SIDE, SIDE), (33, 20), (5, 7)], ids=str)
def test_a_decoder_hears_what_an_encoder_tells(
    size: tuple[int, int], chosen: CodecModel, smooth_image: Callable[..., Pixels]
) -> None:
    layout = TileLayout(*size, 3, side=16)
    x = layout.split(smooth_image(*size, 3, seed=5))
    config = PlanConfig(63, 16, 0)
    told, writer = ReverseProcess(chosen, layout, config, final_step=500), BitWriter()
    packets = list(hops(told, x, writer))
    heard, reader = (
        ReverseProcess(chosen, layout, config, final_step=500),
        BitReader(writer.to_bytes()),
    )
    for packet in packets:
        start = reader.position
        heard.hear(packet, reader)
        assert reader.position - start == packet.bits
        assert heard.plan.t == packet.s
    assert heard.plan.finished
    assert heard.plan.code_state == told.plan.code_state
    assert reader.position == writer.bit_length
    np.testing.assert_array_equal(heard.z, told.z)


@pytest.mark.parametrize("length", [300, 768, 3072])
def test_both_ffts_give_the_same_vectors(length: int) -> None:
    vectors = np.random.default_rng(1).standard_normal((2, 5, length)).astype(np.float32)
    spectra = np.fft.rfft(vectors)
    assert spectra.dtype == np.complex64
    for transform in (numpy_inverse_fft, inverse_fft):
        found = transform(spectra, length)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, vectors, atol=1e-5)


def test_a_search_with_another_fft_is_the_same_code_s() -> None:
    code = CHANNEL_CODES[2]
    other = code.searching_with(inverse_fft)
    assert other == code
    delta = np.random.default_rng(2).standard_normal((2, 3072)).astype(np.float32) / 10
    noise, written = SharedNoise(domain=5), []
    for each in (code, other):
        writer = BitWriter()
        c, state = each.encode(delta, 60, noise, CodeState(2), writer)
        written.append((c, state, writer.to_bytes()))
    (c, state, data), (other_c, _, _) = written
    decoded, _ = other.decode(delta.shape[1], 60, noise, CodeState(2), BitReader(data))
    np.testing.assert_array_equal(decoded, c)
    # Roundings may choose among paths that are as good.
    gains = [float((delta * found).sum()) for found in (c, other_c)]
    assert gains[0] == pytest.approx(gains[1], rel=1e-4)
    assert PoissonCode().searching_with(inverse_fft) == PoissonCode()
