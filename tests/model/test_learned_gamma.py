import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from diffcodec.model.learned_gamma import LearnedGamma

TIME = np.linspace(0, 1, 257)


def stirred(seed: int, spread: float = 3.0) -> LearnedGamma:
    """A schedule whose shape is anything but straight."""
    generator = torch.Generator().manual_seed(seed)
    learned = LearnedGamma(-13.3, 5.0)
    with torch.no_grad():
        for parameter in learned.shape_parameters():
            parameter += spread * torch.randn(parameter.shape, generator=generator)
    return learned


def values(learned: LearnedGamma, time: NDArray[np.float64]) -> NDArray[np.float64]:
    with torch.no_grad():
        gamma: NDArray[np.float64] = learned(torch.from_numpy(time)).gamma.numpy()
    return gamma


@settings(max_examples=25, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), spread=st.floats(0.0, 4.0))
def test_it_rises_from_end_to_end(seed: int, spread: float) -> None:
    gamma = values(stirred(seed, spread), TIME)
    assert np.all(np.diff(gamma) > 0)
    np.testing.assert_allclose(gamma[[0, -1]], [-13.3, 5.0], rtol=1e-6)


def test_it_begins_close_to_the_straight_line() -> None:
    gamma = values(LearnedGamma(-12.0, 5.0), TIME)
    assert np.max(np.abs(gamma - (-12.0 + 17.0 * TIME))) < 0.2


def test_the_shape_is_vdm_s_monotone_network() -> None:
    learned = stirred(1)
    state = {name: tensor.double().numpy() for name, tensor in learned.state_dict().items()}

    def softplus(values: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.logaddexp(0.0, values)

    def unscaled(time: NDArray[np.float64]) -> NDArray[np.float64]:
        first = softplus(state["first_weight"]) * time + state["first_bias"]
        inner = np.outer(first, softplus(state["second_weight"])) + state["second_bias"]
        return first + (softplus(state["third_weight"]) / (1 + np.exp(-inner))).sum(axis=1)

    shape = (unscaled(TIME) - unscaled(TIME[:1])) / (unscaled(TIME[-1:]) - unscaled(TIME[:1]))
    gamma_min, gamma_max = state["ends"]
    expected = gamma_min + (gamma_max - gamma_min) * shape
    np.testing.assert_allclose(values(learned, TIME), expected, rtol=1e-12)


@pytest.mark.parametrize("seed", [0, 2, 3])
def test_the_slope_is_the_derivative(seed: int) -> None:
    learned = stirred(seed)
    inside = TIME[1:-1]
    step = 1e-5
    slope = (values(learned, inside + step) - values(learned, inside - step)) / (2 * step)
    with torch.no_grad():
        at = learned(torch.from_numpy(inside))
    np.testing.assert_allclose(at.slope.numpy(), slope, rtol=1e-5)
    gamma_min, gamma_max = learned.ends.detach().double().numpy()
    span = gamma_max - gamma_min
    np.testing.assert_allclose(at.slope.numpy(), span * at.shape_slope.numpy(), rtol=1e-12)


def test_every_parameter_bends_the_middle_and_only_the_ends_move_the_ends() -> None:
    learned = stirred(4, spread=0.1)
    learned(torch.tensor([0.3])).gamma.sum().backward()
    assert all(parameter.grad is not None for parameter in learned.parameters())
    assert all(bool(parameter.grad.any()) for parameter in learned.shape_parameters())
    learned.zero_grad()
    learned(torch.tensor([0.0, 1.0])).gamma.sum().backward()
    torch.testing.assert_close(learned.ends.grad, torch.ones(2))
    for parameter in learned.shape_parameters():
        torch.testing.assert_close(parameter.grad, torch.zeros_like(parameter))


def test_autocast_does_not_round_it() -> None:
    learned, time = stirred(5), torch.from_numpy(TIME)
    with torch.autocast("cpu", torch.bfloat16):
        gamma = learned(time).gamma
    assert torch.equal(gamma, learned(time).gamma)
