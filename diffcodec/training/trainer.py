"""The training loop: optimiser, moving average, held-out checks, exact resumption."""

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.diffusion.schedule import make_schedule
from diffcodec.errors import CheckpointError, TrainingError
from diffcodec.model.checkpoint import model_config_from_dict
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training.evaluation import Bound, evaluate_bound
from diffcodec.training.objective import OBJECTIVES
from diffcodec.training.optimizer import MuonWithAdam

STATE_FORMAT = 1
ADAM_BETAS = (0.9, 0.99)


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a run, besides the model and the images.

    Attributes:
        objective: a key of `OBJECTIVES`.
        batch_size: images a step.
        total_images: length of the run; the learning rate falls to zero at its end.
        optimizer: ``adam``, or ``muon`` for the matrices and Adam for the rest.
        learning_rate: after the warm-up.
        warmup_images: the learning rate rises linearly over these.
        decay_fraction: part of the run over which the learning rate falls linearly at its end.
        ema_images: half-life of the weights' moving average, in images.
        clip_norm: largest norm of a gradient.
        flip: mirror half of the images.
        precision: ``float32`` or ``bfloat16`` (autocast).
        seed: of every random choice.
    """

    objective: str = "vlb"
    batch_size: int = 32
    total_images: int = 400_000
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    warmup_images: int = 8_000
    decay_fraction: float = 0.3
    ema_images: float = 8_000.0
    clip_norm: float = 1.0
    flip: bool = True
    precision: str = "bfloat16"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.objective not in OBJECTIVES:
            known = ", ".join(sorted(OBJECTIVES))
            raise ValueError(f"unknown objective {self.objective!r}, expected one of {known}")
        if self.precision not in ("float32", "bfloat16"):
            raise ValueError(f"unknown precision {self.precision!r}, expected float32 or bfloat16")
        if self.optimizer not in ("adam", "muon"):
            raise ValueError(f"unknown optimizer {self.optimizer!r}, expected adam or muon")
        if self.batch_size < 1 or self.total_images < 1:
            raise ValueError("the batch size and the number of images must be positive")
        if not 0 < self.decay_fraction <= 1:
            raise ValueError(f"decay_fraction must be in (0, 1], got {self.decay_fraction}")

    def rate_at(self, images_seen: int) -> float:
        """The learning rate after ``images_seen`` images: warm-up, plateau, linear fall to zero."""
        rise = images_seen / self.warmup_images if self.warmup_images else 1.0
        fall = (self.total_images - images_seen) / (self.decay_fraction * self.total_images)
        return self.learning_rate * max(0.0, min(1.0, rise, fall))


@dataclass(frozen=True)
class Report:
    """One line of the log.

    Attributes:
        images: images seen since the start of the run.
        seconds: training time since the start of the run, over all its sessions.
        loss: mean of the objective since the last line (bits/dim where it is a bound).
        rate: learning rate.
        bound: the held-out bound of the averaged weights, where it was measured.
    """

    images: int
    seconds: float
    loss: float
    rate: float
    bound: Bound | None = None


class Trainer:
    """A run that can be stopped anywhere and resumed as if it had not been.

    Every random choice is a function of the seed and of the number of images seen, so a checkpoint
    holds no generator's state.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        images: NDArray[np.uint8],
        device: torch.device | str = "cpu",
    ) -> None:
        """``images``: uint8 [N, H, W, C], the training part alone."""
        self.model, self.config = model, config
        self.device = torch.device(device)
        torch.manual_seed(config.seed)
        self._images = torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2)
        self.denoiser, self.averaged = (Denoiser(model).to(self.device) for _ in range(2))
        for module in (self.denoiser, self.averaged):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.load_state_dict(self.denoiser.state_dict())
        self.averaged.eval().requires_grad_(False)
        self.optimizer = _make_optimizer(config, self.denoiser)
        self.objective = OBJECTIVES[config.objective](make_schedule(model.schedule))
        self.images_seen = 0
        self.seconds = 0.0
        self._last_checkpoint: tuple[Path, int] | None = None
        self._order_epoch = -1
        self._order = np.empty(0, dtype=np.int64)

    @property
    def finished(self) -> bool:
        """Whether the run has seen all its images."""
        return self.images_seen >= self.config.total_images

    def step(self) -> Tensor:
        """One optimiser step; returns the mean loss, still on the device.

        Raises:
            TrainingError: the loss or its gradient is not finite; the weights are those before.
        """
        config = self.config
        generator = torch.Generator(device=self.device)
        generator.manual_seed(_mix(config.seed, self.images_seen))
        torch.manual_seed(_mix(config.seed + 1, self.images_seen))
        x = self._batch(generator)
        for group in self.optimizer.param_groups:
            group["lr"] = config.rate_at(self.images_seen)
        low = config.precision == "bfloat16"
        self.optimizer.zero_grad(set_to_none=True)
        with _denormals_flushed():
            with torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext():
                loss = self.objective(self.denoiser, x, generator).mean()
            loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), config.clip_norm)
        if not math.isfinite(float(loss.detach() + norm)):
            raise self._not_finite(float(loss.detach()), float(norm))
        self.optimizer.step()
        self.images_seen += len(x)
        self._average(len(x))
        return loss.detach()

    def run(
        self,
        *,
        max_seconds: float | None = None,
        report_images: int = 3_200,
        check_images: int = 0,
        held_out: NDArray[np.uint8] | None = None,
        checkpoint: Path | None = None,
        checkpoint_seconds: float = 120.0,
        on_report: Callable[[Report], None] = lambda report: None,
        on_step: Callable[[int, float], None] = lambda images, loss: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train until the run or its time is over; the state is saved on the way and at the end.

        Args:
            max_seconds: wall-clock limit of this call.
            report_images: images between two reports.
            check_images: images between two measurements of the held-out bound; 0 for none.
            held_out: uint8 [N, H, W, C].
            checkpoint: where the state is saved; nowhere if None.
            on_report: gets every `Report`.
            on_step: gets the images seen and the step's loss, for a progress display.
            stop: asked after every step; once true, the run ends as if its time were over, but
                without a last measurement, so that a signal is answered soon.

        Raises:
            TrainingError: the loss is not finite; nothing is saved then.
        """
        begun = saved = time.monotonic()
        before = self.seconds
        losses: list[Tensor] = []
        next_report = self.images_seen + report_images
        next_check = (self.images_seen // check_images + 1) * check_images if check_images else None
        while not self.finished:
            losses.append(self.step())
            now = time.monotonic()
            self.seconds = before + now - begun
            on_step(self.images_seen, float(losses[-1]))
            late = max_seconds is not None and now - begun >= max_seconds
            stopped = stop()
            over = self.finished or late or stopped
            if over or self.images_seen >= next_report:
                bound = None
                due = next_check is not None and (over or self.images_seen >= next_check)
                if due and held_out is not None and not stopped:
                    bound = evaluate_bound(self.averaged, held_out, draws=8)
                    next_check = (self.images_seen // check_images + 1) * check_images
                loss = float(torch.stack(losses).mean())
                rate = self.config.rate_at(self.images_seen)
                on_report(Report(self.images_seen, self.seconds, loss, rate, bound))
                losses.clear()
                next_report = self.images_seen + report_images
            if checkpoint is not None and (over or now - saved >= checkpoint_seconds):
                self.save(checkpoint)
                saved = now
            if over:
                return

    def save(self, path: Path) -> None:
        """Write the whole state to a temporary name and rename it."""
        state = {
            "format": STATE_FORMAT,
            "config": json.dumps(
                {
                    "model": dataclasses.asdict(self.model),
                    "training": dataclasses.asdict(self.config),
                }
            ),
            "denoiser": self.denoiser.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "images_seen": self.images_seen,
            "seconds": self.seconds,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            torch.save(state, temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
        self._last_checkpoint = (path, self.images_seen)

    @classmethod
    def resume(
        cls,
        path: Path,
        images: NDArray[np.uint8],
        device: torch.device | str = "cpu",
        **changes: Any,
    ) -> "Trainer":
        """A trainer that continues the run saved at ``path``.

        Args:
            changes: fields of `TrainingConfig` to change, such as ``total_images``.

        Raises:
            CheckpointError: the file cannot be read or is not a training state.
        """
        state = _load_state(path)
        try:
            stored = json.loads(state["config"])
            model = model_config_from_dict(stored["model"])
            config = TrainingConfig(**{**stored["training"], **changes})
            trainer = cls(model, config, images, device)
            trainer.denoiser.load_state_dict(state["denoiser"])
            trainer.averaged.load_state_dict(state["averaged"])
            trainer.optimizer.load_state_dict(state["optimizer"])
            trainer.images_seen = state["images_seen"]
            trainer.seconds = state["seconds"]
            trainer._last_checkpoint = (path, trainer.images_seen)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: not a training state: {error!r}") from error
        return trainer

    def _not_finite(self, loss: float, norm: float) -> TrainingError:
        if self._last_checkpoint is None:
            kept = "no checkpoint has been saved"
        else:
            kept = "the last checkpoint is {} at {} images".format(*self._last_checkpoint)
        return TrainingError(
            f"after {self.images_seen} images the loss is {loss} and the norm of its gradient "
            f"{norm}; {kept}: resume it with a lower learning rate"
        )

    def _batch(self, generator: torch.Generator) -> Tensor:
        """The next images of this epoch's order, float32 in [−1, 1], channels last."""
        indices = np.array(
            [self._index(self.images_seen + k) for k in range(self.config.batch_size)]
        )
        batch = self._images[torch.as_tensor(indices, device=self.device)]
        x = batch.float().div_(HALF_RANGE).sub_(1.0)
        if self.config.flip:
            mirrored = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        return x.contiguous(memory_format=torch.channels_last)

    def _index(self, position: int) -> int:
        """Which image stands at ``position`` of the run: a fresh permutation every epoch."""
        epoch, place = divmod(position, len(self._images))
        if epoch != self._order_epoch:
            random = np.random.default_rng((self.config.seed, epoch))
            self._order, self._order_epoch = random.permutation(len(self._images)), epoch
        return int(self._order[place])

    @torch.no_grad()
    def _average(self, images: int) -> None:
        """Exponential moving average; young runs average over a tenth of what they have seen."""
        half_life = min(self.config.ema_images, max(1.0, 0.1 * self.images_seen))
        weight = 1.0 - 0.5 ** (images / half_life)
        averaged: list[Tensor] = list(self.averaged.parameters())
        current: list[Tensor] = list(self.denoiser.parameters())
        torch._foreach_lerp_(averaged, current, weight)


def _make_optimizer(
    config: TrainingConfig, denoiser: Denoiser
) -> torch.optim.Optimizer | MuonWithAdam:
    rate = config.learning_rate
    if config.optimizer == "muon":
        return MuonWithAdam(denoiser, rate, ADAM_BETAS)
    return torch.optim.Adam(denoiser.parameters(), lr=rate, betas=ADAM_BETAS, fused=True)


@contextmanager
def _denormals_flushed() -> Iterator[None]:
    """Without it, a zero-initialized output layer makes a CPU's backward pass crawl on denormals.

    The setting is the process's, so it is taken back: Python's own floats would lose theirs.
    """
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def report_line(report: Report) -> str:
    """One line of JSON for a log file."""
    return json.dumps(dataclasses.asdict(report))


def _load_state(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        # torch.load raises whatever its unpickler meets; all of it means the same to the user.
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"{path}: expected a training state: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != STATE_FORMAT:
        raise CheckpointError(f"{path}: not a training state of format {STATE_FORMAT}")
    return state


def _mix(seed: int, position: int) -> int:
    """A 63-bit seed that differs for every (seed, position)."""
    words = np.random.SeedSequence((seed, position)).generate_state(1, np.uint64)
    return int(words[0] >> np.uint64(1))
