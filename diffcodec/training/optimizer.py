"""Muon for the weight matrices, Adam for everything else.

Muon (Jordan 2024, https://kellerjordan.github.io/posts/muon) replaces a matrix's momentum by its
nearest orthogonal matrix; scaled as in Liu et al. 2025 (arXiv:2502.16982, eq. 4), its updates have
the size of Adam's, so both share one learning rate.
"""

from typing import Any

import torch
from torch import Tensor, nn

SMALLEST_MATRIX_SIDE = 32


class MuonWithAdam:
    """An optimiser with torch's methods that treats a convolution's kernel as one matrix.

    Kernels and linear maps with at least `SMALLEST_MATRIX_SIDE` rows and columns go to
    `torch.optim.Muon`; biases, norms, and the narrow first and last layers to `torch.optim.Adam`.
    The module must be in channels-last memory format, in which a kernel [out, in, h, w] is a matrix
    [out, h·w·in] without a copy.
    """

    def __init__(self, module: nn.Module, learning_rate: float, betas: tuple[float, float]) -> None:
        parameters = list(module.parameters())
        self._parameters = parameters
        self._kernels = [p for p in parameters if _is_matrix(p)]
        # Aliases of the same memory, two-dimensional as torch's Muon wants them.
        self._matrices = [nn.Parameter(_as_matrix(p.data)) for p in self._kernels]
        rest = [p for p in parameters if not _is_matrix(p)]
        self.muon = torch.optim.Muon(
            self._matrices, lr=learning_rate, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"
        )
        self.adam = torch.optim.Adam(rest, lr=learning_rate, betas=betas, fused=True)

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
        self.muon.step()  # type: ignore[no-untyped-call]
        self.adam.step()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` takes."""
        return {"muon": self.muon.state_dict(), "adam": self.adam.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.muon.load_state_dict(state["muon"])
        self.adam.load_state_dict(state["adam"])


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
