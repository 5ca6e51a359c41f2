"""Muon for the weight matrices, Adam for everything else.

Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's momentum by its
nearest orthogonal matrix; scaled as in Liu et al. 2025 (arXiv:2502.16982, eq. 4), its updates have
the size of Adam's, so both share one learning rate.
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_MATRIX_SIDE = 32
MOMENTUM = 0.95
UPDATE_SIZE = 0.2
"""Root mean square of an update of rate one, which is about Adam's."""
# The quintic iteration of Jordan 2024: steep at zero, singular values end between 0.7 and 1.2.
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
_ITERATIONS = 5
_SMALLEST_NORM = 1e-7


class Muon:
    """`torch.optim.Muon` without weight decay, matrices of like shapes in one product.

    `default` has 80 matrices of 19 shapes, of 3 smaller sides. A rate may be a tensor, which
    PyTorch's turns into a number, so that no CUDA graph can hold it.

    Args:
        matrices: parameters [rows, columns].
    """

    def __init__(self, matrices: Sequence[nn.Parameter], learning_rate: float) -> None:
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for matrix in matrices:
            by_shape[matrix.shape].append(matrix)
        self._stacks = list(by_shape.values())
        self._momenta = [torch.zeros_like(torch.stack(stack)) for stack in self._stacks]
        self.param_groups: list[dict[str, Any]] = [{"lr": learning_rate}]

    @torch.no_grad()
    def step(self) -> None:
        """One update; a matrix without a gradient has a gradient of zero."""
        rate = self.param_groups[0]["lr"]
        ahead = []
        for stack, momentum in zip(self._stacks, self._momenta, strict=True):
            gradient = torch.stack([_gradient(matrix) for matrix in stack])
            momentum.lerp_(gradient, 1.0 - MOMENTUM)
            ahead.append(gradient.lerp(momentum, MOMENTUM))
        directions = orthogonal(ahead, packed=ahead[0].is_cuda) if ahead else []
        for stack, direction in zip(self._stacks, directions, strict=True):
            size = UPDATE_SIZE * math.sqrt(max(direction.shape[1:]))
            torch._foreach_sub_(stack, list((direction.float() * (rate * size)).unbind()))

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"momenta": self._momenta}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``, which is copied."""
        for momentum, stored in zip(self._momenta, state["momenta"], strict=True):
            momentum.copy_(stored)


class MuonWithAdam:
    """An optimiser with torch's methods that treats a convolution's kernel as one matrix.

    Kernels and linear maps with at least `SMALLEST_MATRIX_SIDE` rows and columns go to `Muon`;
    biases, norms, and the narrow first and last layers to Adam. The module must be in channels-last
    memory format, in which a kernel [out, in, h, w] is a matrix [out, h·w·in] without a copy.
    """

    def __init__(self, module: nn.Module, learning_rate: float, betas: tuple[float, float]) -> None:
        parameters = list(module.parameters())
        self._parameters = parameters
        self._kernels = [p for p in parameters if _is_matrix(p)]
        # Aliases of the same memory.
        self._matrices = [nn.Parameter(_as_matrix(p.data)) for p in self._kernels]
        rest = [p for p in parameters if not _is_matrix(p)]
        self.muon = Muon(self._matrices, learning_rate)
        self.adam = make_adam(rest, learning_rate, betas)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Both optimisers' groups; a learning rate set here is used."""
        return self.muon.param_groups + self.adam.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget every gradient."""
        for parameter in self._parameters:
            if set_to_none:
                parameter.grad = None
            elif parameter.grad is not None:
                parameter.grad.zero_()

    def step(self) -> None:
        """One update from the gradients that the module's parameters hold."""
        for matrix, kernel in zip(self._matrices, self._kernels, strict=True):
            matrix.grad = None if kernel.grad is None else _as_matrix(kernel.grad)
        self.muon.step()
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


def make_adam(
    parameters: list[nn.Parameter], learning_rate: float, betas: tuple[float, float]
) -> torch.optim.Adam:
    """Adam in one kernel, which a CUDA graph can hold."""
    return torch.optim.Adam(parameters, lr=learning_rate, betas=betas, fused=True)


def set_rate(optimizer: torch.optim.Optimizer | MuonWithAdam, rate: float, device: str) -> None:
    """Let ``optimizer`` step at ``rate`` from now on.

    On a GPU the rate is a number in its memory that stays where it is, so that a captured step
    reads it anew; what a loaded state says of that, of another device perhaps, is replaced.

    Args:
        device: the type of the parameters' device.
    """
    on_gpu = device == "cuda"
    for group in optimizer.param_groups:
        if "capturable" in group:
            group["capturable"] = on_gpu
        held = group["lr"]
        if not on_gpu:
            group["lr"] = rate
        elif isinstance(held, Tensor) and held.device.type == device:
            held.fill_(rate)
        else:
            group["lr"] = torch.tensor(rate, device=device)


def _gradient(matrix: Tensor) -> Tensor:
    return torch.zeros_like(matrix) if matrix.grad is None else matrix.grad


def orthogonal(stacks: Sequence[Tensor], *, packed: bool) -> list[Tensor]:
    """The nearest orthogonal matrix of each, about, in bfloat16.

    Args:
        stacks: [N, rows, columns] each.
        packed: matrices of one smaller side together, the narrower ones behind columns of zeros,
            which stay zeros: more arithmetic in fewer products, whose launches are most of what a
            GPU has to do here.
    """
    wide = [stack.mT if stack.shape[1] > stack.shape[2] else stack for stack in stacks]
    together: dict[int, list[int]] = defaultdict(list)
    for number, stack in enumerate(wide):
        together[stack.shape[1] if packed else number].append(number)
    found: dict[int, Tensor] = {}
    for numbers in together.values():
        columns = [wide[number].shape[2] for number in numbers]
        padded = [
            functional.pad(wide[number].bfloat16(), (0, max(columns) - held))
            for number, held in zip(numbers, columns, strict=True)
        ]
        parts = torch.split(_newton_schulz(torch.cat(padded)), [len(stack) for stack in padded])
        for number, held, part in zip(numbers, columns, parts, strict=True):
            tall = stacks[number].shape[1] > stacks[number].shape[2]
            found[number] = part[:, :, :held].mT if tall else part[:, :, :held]
    return [found[number] for number in range(len(stacks))]


def _newton_schulz(x: Tensor) -> Tensor:
    """Matrices [N, rows, columns], no taller than wide, with singular values near 1."""
    linear, cubic, quintic = _NEWTON_SCHULZ
    # The spectral norm is at most Frobenius's.
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALLEST_NORM)
    for _ in range(_ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=cubic, alpha=quintic)
        x = torch.baddbmm(x, polynomial, x, beta=linear)
    return x


def _is_matrix(parameter: Tensor) -> bool:
    rows = parameter.shape[0]
    return (
        parameter.ndim in (2, 4)
        and rows >= SMALLEST_MATRIX_SIDE
        and parameter.numel() // rows >= SMALLEST_MATRIX_SIDE
    )


def _as_matrix(tensor: Tensor) -> Tensor:
    """[out, …] as [out, rest], the same memory where a kernel is channels-last."""
    if tensor.ndim == 4:
        tensor = tensor.permute(0, 2, 3, 1)
    return tensor.reshape(tensor.shape[0], -1)
