"""Muon's matrices are the network's own memory, and its state survives a checkpoint."""

import copy

import torch
from torch import nn

from diffcodec.training.optimizer import MuonWithAdam


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
