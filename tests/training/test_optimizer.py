"""Muon's matrices are the network's own memory, and its state survives a checkpoint."""

import copy

import torch
from torch import nn

from diffcodec.training.optimizer import Muon, MuonWithAdam, make_adam, orthogonal, set_rate


def _network() -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.GroupNorm(4, 32), nn.SiLU(), nn.Conv2d(32, 32, 3)
    )
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def _train(network: nn.Module, optimizer: MuonWithAdam, steps: int) -> list[float]:
    losses = []
    for step in range(steps):
        x = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(step))
        loss = (network(x) - x.mean(dim=1, keepdim=True)[:, :, 1:-1, 1:-1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_kernel_moves_orthogonally_in_the_networks_own_memory() -> None:
    network = _network()
    kernel = network[3].weight
    before = kernel.detach().clone()
    optimizer = MuonWithAdam(network, 1e-2, (0.9, 0.99))
    _train(network, optimizer, 1)
    moved = (kernel.detach() - before).permute(0, 2, 3, 1).reshape(32, -1)
    singular = torch.linalg.svdvals(moved)
    # Adam's first step would be a matrix of equal magnitudes; Muon's has near-equal singular
    # values, within what its Newton-Schulz iteration leaves (0.7 to 1.2 of their target).
    assert float(singular.max() / singular.min()) < 2.5


def test_it_learns() -> None:
    network = _network()
    losses = _train(network, MuonWithAdam(network, 1e-2, (0.9, 0.99)), 60)
    assert sum(losses[-10:]) < 0.2 * sum(losses[:10])


def test_state_round_trip_continues_bit_for_bit() -> None:
    network = _network()
    optimizer = MuonWithAdam(network, 1e-2, (0.9, 0.99))
    _train(network, optimizer, 5)
    twin = _network()
    twin.load_state_dict(network.state_dict())
    resumed = MuonWithAdam(twin, 1e-2, (0.9, 0.99))
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert _train(network, optimizer, 5) == _train(twin, resumed, 5)


def test_packed_matrices_are_orthogonal_as_single_ones_are() -> None:
    # Both sides are the smaller one, and two of one smaller side differ in the other.
    shapes = [(3, 32, 64), (2, 48, 32), (1, 32, 96), (2, 48, 48)]
    random = torch.Generator().manual_seed(2)
    stacks = [torch.randn(shape, generator=random) for shape in shapes]
    together, apart = (orthogonal(stacks, packed=packed) for packed in (True, False))
    for stack, packed, single in zip(stacks, together, apart, strict=True):
        assert packed.shape == single.shape == stack.shape
        # Products of other shapes add in another order, in bfloat16.
        error = (packed - single).float().norm() / single.float().norm()
        assert float(error) < 0.02


def test_muon_is_pytorchs() -> None:
    # Two of one shape, one taller than broad, one without a gradient.
    shapes = [(32, 64), (48, 32), (32, 64), (40, 40)]
    random = torch.Generator().manual_seed(1)
    ours = [nn.Parameter(torch.randn(shape, generator=random)) for shape in shapes]
    theirs = copy.deepcopy(ours)
    muon = Muon(ours, 1e-2)
    reference = torch.optim.Muon(theirs, lr=1e-2, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    before = [matrix.detach().clone() for matrix in ours]
    for _ in range(4):
        for mine, its in zip(ours[:-1], theirs[:-1], strict=True):
            mine.grad = torch.randn(mine.shape, generator=random)
            its.grad = mine.grad.clone()
        muon.step()
        reference.step()  # type: ignore[no-untyped-call]
    for mine, its, old in zip(ours[:-1], theirs[:-1], before[:-1], strict=True):
        moved = float((its - old).detach().abs().mean())
        # Both iterate in bfloat16, and products of stacks round otherwise than single ones.
        assert float((mine - its).detach().abs().mean()) < 0.02 * moved
    assert torch.equal(ours[-1], before[-1])


def test_the_rate_is_both_optimisers() -> None:
    network = _network()
    still = copy.deepcopy(network.state_dict())
    optimizer = MuonWithAdam(network, 1e-2, (0.9, 0.99))
    set_rate(optimizer, 0.0, "cpu")
    _train(network, optimizer, 2)
    assert all(torch.equal(still[name], value) for name, value in network.state_dict().items())


def test_a_state_of_a_gpu_continues_on_a_processor() -> None:
    parameter = nn.Parameter(torch.ones(3))
    parameter.grad = torch.ones(3)
    adam = make_adam([parameter], 1.0, (0.9, 0.99))
    adam.step()
    state = adam.state_dict()
    # As a captured run on a GPU leaves them.
    state["param_groups"][0] |= {"capturable": True, "lr": torch.tensor(1.0)}
    adam.load_state_dict(state)
    set_rate(adam, 0.5, "cpu")
    before = parameter.detach().clone()
    adam.step()
    assert torch.allclose(before - parameter, torch.full((3,), 0.5), rtol=1e-4)
