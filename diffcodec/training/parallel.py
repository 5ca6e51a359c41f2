"""Data-parallel training: what the processes that ``torchrun`` starts tell each other.

Every process draws the random numbers of the whole batch from the same seeds, evaluates the network
on its own rows of it, and adds its gradients to the others'. A step is therefore the one that a
single process takes, up to the order of its sums. The same rows serve gradient accumulation.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, distributed, nn

from diffcodec.errors import TrainingError


@dataclass(frozen=True)
class Workers:
    """The processes that train together, as one of them sees them; by default it is alone.

    Attributes:
        rank: this process's number, 0 … size − 1.
        size: how many there are.
        device: where this process computes.
    """

    rank: int = 0
    size: int = 1
    device: str = "cpu"

    @property
    def leads(self) -> bool:
        """Whether this is the one process that logs, checks and saves."""
        return self.rank == 0

    def rows(self, batch_size: int, parts: int = 1) -> list[slice]:
        """This process's rows of a batch, in ``parts`` equal slices.

        Raises:
            TrainingError: the batch does not divide by the processes and parts.
        """
        count, rest = divmod(batch_size, self.size * parts)
        if rest:
            raise TrainingError(
                f"a batch of {batch_size} images does not divide by {self.size} processes "
                f"times {parts} parts"
            )
        first = self.rank * parts * count
        return [slice(first + part * count, first + (part + 1) * count) for part in range(parts)]

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Each tensor becomes its sum over all processes, the same bits in every one."""
        if self.size == 1:
            return
        total = torch.cat([tensor.detach().flatten() for tensor in tensors])
        distributed.all_reduce(total)
        parts = torch.split(total, [tensor.numel() for tensor in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.detach().copy_(part.view(tensor.shape))

    def largest(self, values: Sequence[float]) -> list[float]:
        """Each value's maximum over all processes: how they come to decisions in common."""
        if self.size == 1:
            return list(values)
        gathered = torch.tensor(values, dtype=torch.float64, device=self.device)
        distributed.all_reduce(gathered, distributed.ReduceOp.MAX)
        return [float(value) for value in gathered]

    def require_agreement(self, what: str, value: str) -> None:
        """Check that every process gives the same ``value``.

        Raises:
            TrainingError: they do not; raised in all of them.
        """
        if self.size == 1:
            return
        values: list[Any] = [None] * self.size
        distributed.all_gather_object(values, value)
        if len(set(values)) > 1:
            raise TrainingError(f"the {self.size} processes do not have the same {what}")


@contextmanager
def joined_workers(device: str) -> Iterator[Workers]:
    """The processes that ``torchrun`` started, connected; this one alone where it did not.

    gloo connects processors, NCCL GPUs, of which every process takes the one of its local rank.

    Args:
        device: ``cpu`` or ``cuda``.
    """
    if not distributed.is_torchelastic_launched():
        yield Workers(device=device)
        return
    if device == "cuda":
        local = int(os.environ["LOCAL_RANK"])
        torch.cuda.set_device(local)
        device = f"cuda:{local}"
    distributed.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        yield Workers(distributed.get_rank(), distributed.get_world_size(), device)
        # A process that leaves gloo while another one still works ends, now and then, with
        # SIGABRT ("terminate called without an active exception").
        distributed.barrier()
    finally:
        distributed.destroy_process_group()


@contextmanager
def only_rows(network: nn.Module, rows: slice, batch_size: int) -> Iterator[None]:
    """Let ``network`` evaluate ``rows`` alone of batches of ``batch_size``; others become zero.

    What is computed around it, an objective's losses for one, keeps its shapes and draws the random
    numbers of the whole batch; of a loss per image, those of ``rows`` are right. Dropout draws the
    whole batch's masks too. A batch of another size is evaluated whole.

    Args:
        network: tensors with a batch dimension in, one tensor out; other arguments pass unchanged.
    """
    if rows == slice(0, batch_size):
        yield
        return
    count = rows.stop - rows.start
    evaluating = False

    def cut(
        module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        nonlocal evaluating
        tensors = [a for a in (*arguments, *named.values()) if isinstance(a, Tensor) and a.ndim]
        evaluating = all(len(tensor) == batch_size for tensor in tensors)
        if not evaluating:
            return None

        def part(argument: Any) -> Any:
            return argument[rows] if isinstance(argument, Tensor) and argument.ndim else argument

        return tuple(map(part, arguments)), {name: part(value) for name, value in named.items()}

    def spread(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        nonlocal evaluating
        whole, evaluating = evaluating, False
        return _spread(output, rows, batch_size) if whole else None

    def spread_input(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        wanted = evaluating and module.training and len(arguments[0]) == count
        return (_spread(arguments[0], rows, batch_size), *arguments[1:]) if wanted else None

    def cut_output(module: nn.Module, arguments: tuple[Any, ...], output: Tensor) -> Tensor | None:
        return output[rows] if len(output) == batch_size and evaluating else None

    handles = [
        network.register_forward_pre_hook(cut, with_kwargs=True),
        network.register_forward_hook(spread),
    ]
    for module in network.modules():
        if isinstance(module, nn.Dropout) and module.p > 0:
            handles.append(module.register_forward_pre_hook(spread_input))
            handles.append(module.register_forward_hook(cut_output))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _spread(tensor: Tensor, rows: slice, batch_size: int) -> Tensor:
    """``tensor`` as the rows of a batch that is zero elsewhere, in its own memory format."""
    # Random numbers are drawn in the order of memory, so the format decides which mask is whose.
    memory = torch.contiguous_format
    if tensor.ndim == 4 and not tensor.is_contiguous():
        memory = torch.channels_last
    batch = torch.zeros(
        (batch_size, *tensor.shape[1:]), dtype=tensor.dtype, device=tensor.device
    ).contiguous(memory_format=memory)
    batch[rows] = tensor
    return batch
