"""The training loop: optimiser, moving average, held-out checks, exact resumption, roll-backs."""

import copy
import dataclasses
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diffcodec.diffusion.process import HALF_RANGE
from diffcodec.diffusion.schedule import make_schedule
from diffcodec.errors import CheckpointError, InstabilityError, TrainingError
from diffcodec.model.catalog import find_model
from diffcodec.model.checkpoint import load_checkpoint, model_config_from_dict
from diffcodec.model.denoiser import Denoiser, ModelConfig
from diffcodec.training.cuda_graph import Captured
from diffcodec.training.dataset import fingerprint
from diffcodec.training.evaluation import Bound, evaluate_bound
from diffcodec.training.objective import OBJECTIVES, Objective, PixelVlb
from diffcodec.training.optimizer import MuonWithAdam, make_adam, set_rate
from diffcodec.training.parallel import Workers, only_rows
from diffcodec.training.stability import SpikeDetector

STATE_FORMAT = 2
ADAM_BETAS = (0.9, 0.99)
SNAPSHOT_STEPS = 100


@dataclass(frozen=True)
class TrainingConfig:
    """What decides a run, besides the model and the images.

    Attributes:
        objective: a key of `OBJECTIVES`.
        teacher: a packaged model's name or a model's folder, whose word the objective `PixelVlb`
            takes in place of the images'; None for none.
        batch_size: images a step.
        total_images: length of the run, where that is counted in images.
        optimizer: ``adam``, or ``muon`` for the matrices and Adam for the rest.
        learning_rate: after the warm-up.
        warmup_images: the learning rate rises linearly over these.
        decay_fraction: part of the run over which the learning rate falls linearly to zero at its
            end.
        ema_images: half-life of the weights' moving average, in images.
        clip_norm: largest norm of a gradient.
        flip: mirror half of the images.
        precision: ``float32`` or ``bfloat16`` (autocast).
        compiled: the network is compiled by `torch.compile`, which needs a C++ compiler on a
            processor and Triton on a GPU; its results differ from the plain ones by rounding.
        seed: of every random choice.
        anneal_by: what the length of the run is counted in, ``images`` or ``time``.
        total_seconds: length of the run in seconds of training, where that is ``time``.
        accumulate: parts that a batch is cut into, their gradients added, to save memory.
        spike_deviations: how far above the recent losses a loss is a spike (`SpikeDetector`); 0
            for no such rule.
        max_rollbacks: roll-backs in a row, without progress between them, before the run fails.
    """

    objective: str = "vlb"
    teacher: str | None = None
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
    compiled: bool = False
    seed: int = 0
    anneal_by: str = "images"
    total_seconds: float = 0.0
    accumulate: int = 1
    spike_deviations: float = 0.0
    max_rollbacks: int = 3

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
        if self.anneal_by not in ("images", "time"):
            raise ValueError(f"unknown anneal_by {self.anneal_by!r}, expected images or time")
        if self.anneal_by == "time" and not self.total_seconds > 0:
            raise ValueError("a run that is annealed by time needs total_seconds: must be positive")
        if self.accumulate < 1:
            raise ValueError(f"accumulate must be at least 1, got {self.accumulate}")
        if self.spike_deviations < 0 or self.max_rollbacks < 0:
            raise ValueError("spike_deviations and max_rollbacks must be zero or more")

    def finished_at(self, images_seen: int, seconds: float) -> bool:
        """Whether the run is over after so many images and seconds of training."""
        done, length = self._progress(images_seen, seconds)
        return done >= length

    def rate_at(self, images_seen: int, seconds: float = 0.0) -> float:
        """The learning rate there: warm-up by images, plateau, linear fall to zero."""
        done, length = self._progress(images_seen, seconds)
        rise = images_seen / self.warmup_images if self.warmup_images else 1.0
        fall = (length - done) / (self.decay_fraction * length)
        return self.learning_rate * max(0.0, min(1.0, rise, fall))

    def _progress(self, images_seen: int, seconds: float) -> tuple[float, float]:
        """What is done of the run, and its length, in the unit that it is counted in."""
        if self.anneal_by == "time":
            return seconds, self.total_seconds
        return images_seen, self.total_images


@dataclass(frozen=True)
class Report:
    """One line of the log.

    Attributes:
        images: images seen since the start of the run.
        seconds: training time since the start of the run, over all its sessions.
        loss: mean of the objective since the last line (bits/dim where it is a bound).
        rate: learning rate.
        bound: the held-out bound of the averaged weights, where it was measured.
        gradient_norm: mean norm of the gradient before clipping, since the last line.
        images_per_second: since the last line, held-out checks included.
    """

    images: int
    seconds: float
    loss: float
    rate: float
    bound: Bound | None = None
    gradient_norm: float | None = None
    images_per_second: float | None = None


@dataclass(frozen=True)
class Rollback:
    """A line of the log that says that the run went back to an earlier state.

    Attributes:
        images: images seen when the step was refused.
        seconds: training time then.
        to_images: images seen in the state that was taken back.
        skipped: places in the order of images that the run has passed over so far.
        reason: why the step was refused.
    """

    images: int
    seconds: float
    to_images: int
    skipped: int
    reason: str


@dataclass(frozen=True)
class _CapturedGradient:
    """A recorded evaluation, and what it reads: a batch's images and random numbers."""

    x: Tensor
    generator: torch.Generator
    evaluate: Captured[tuple[Tensor, Tensor]]


class Trainer:
    """A run that can be stopped anywhere and resumed as if it had not been.

    Every random choice is a function of the seed and of the place in the order of images, so a
    checkpoint holds no generator's state. A run annealed by time depends on the clock besides.

    A step whose loss is no number or a spike (`SpikeDetector`) is not taken: the run returns to a
    state in memory, `SNAPSHOT_STEPS` to twice as many steps old, and passes over the images from
    there to the refused batch, as PaLM's training did (Chowdhery et al. 2022, arXiv:2204.02311,
    §5.1). A session's first such state is the one that it starts from.
    """

    def __init__(
        self,
        model: ModelConfig,
        config: TrainingConfig,
        images: NDArray[np.uint8],
        device: torch.device | str = "cpu",
        workers: Workers | None = None,
    ) -> None:
        """A run at its beginning.

        Args:
            images: uint8 [N, H, W, C], the training part alone.
            workers: the processes that share each batch; this one alone if None.

        Raises:
            CheckpointError: there is no such teacher.
            TrainingError: the batch does not divide among the processes and parts, the objective
                or a teacher asks for what a model does not have, or a compiled network has dropout
                and evaluates batches in parts, whose masks would then be others than the whole's.
        """
        self.model, self.config = model, config
        self.device = torch.device(device)
        self.workers = workers or Workers()
        self._parts = self.workers.rows(config.batch_size, config.accumulate)
        self.fingerprint = fingerprint(images)
        torch.manual_seed(config.seed)
        self._images = torch.as_tensor(images, device=self.device).permute(0, 3, 1, 2)
        self.denoiser, self.averaged = (Denoiser(model).to(self.device) for _ in range(2))
        for module in (self.denoiser, self.averaged):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged.load_state_dict(self.denoiser.state_dict())
        self.averaged.eval().requires_grad_(False)
        self._weights: list[Tensor] = list(self.denoiser.parameters())
        self._averages: list[Tensor] = list(self.averaged.parameters())
        if config.compiled:
            if model.unet.dropout and self._parts != [slice(0, config.batch_size)]:
                raise TrainingError("a compiled network with dropout needs its batches whole")
            # Its forward alone: the hooks that cut a batch into parts stay outside.
            network = self.denoiser.network
            network.forward = _compiled(network.forward)  # type: ignore[method-assign]
        self.optimizer = _make_optimizer(config, self.denoiser)
        self._networks = [self.denoiser.network]
        self.teacher_digest = ""
        self.objective = self._objective()
        self.images_seen = 0
        self.images_skipped = 0
        self.seconds = 0.0
        self._detector = SpikeDetector(config.spike_deviations)
        self._gradient_norm = math.nan
        self._snapshots: deque[dict[str, Any]] = deque(maxlen=2)
        self._rollbacks, self._progress_needed = 0, 0
        self._last_checkpoint: tuple[Path, int] | None = None
        self._order_epoch = -1
        self._order = np.empty(0, dtype=np.int64)
        self._captured: _CapturedGradient | None = None
        self._captured_update: Captured[None] | None = None
        if self.device.type == "cuda":
            # Every step has the same shapes: the search for the fastest convolution pays, among
            # all that there are.
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.benchmark_limit = 0

    @property
    def finished(self) -> bool:
        """Whether the run has seen all its images, or had all its time."""
        return self.config.finished_at(self.images_seen, self.seconds)

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return self.config.rate_at(self.images_seen, self.seconds)

    def step(self) -> float:
        """One optimiser step; returns the mean loss over the whole batch.

        Raises:
            InstabilityError: the loss or its gradient is not finite, or the loss is a spike; the
                weights are those before.
        """
        set_rate(self.optimizer, self.rate, self.device.type)
        loss, norm = self._captured_gradient() if self._captures else self._gradient()
        mean, self._gradient_norm = float(loss), float(norm)
        if (objection := self._detector.objection(mean, self._gradient_norm)) is not None:
            raise InstabilityError(objection)
        self._detector.accept(mean)
        self._update()
        self.images_seen += self.config.batch_size
        self._average(self.config.batch_size)
        return mean

    @property
    def _captures(self) -> bool:
        """Whether steps are CUDA graphs: of batches that are whole, of an objective that can."""
        return (
            self.config.compiled
            and self.device.type == "cuda"
            and self.workers.size == len(self._parts) == 1
            and isinstance(self.objective, PixelVlb)
        )

    def _gradient(self) -> tuple[Tensor, Tensor]:
        """Loss of the next batch and the norm of its gradient, which the weights then hold."""
        config = self.config
        generator = torch.Generator(device=self.device)
        generator.manual_seed(self._batch_seed())
        x = self._batch(generator)
        drawn = generator.get_state()
        self.optimizer.zero_grad(set_to_none=True)
        loss = torch.zeros((), device=self.device)
        for rows in self._parts:
            # Every part, in every process, draws what the whole batch draws.
            generator.set_state(drawn)
            self._seed_dropout()
            with ExitStack() as cut:
                for network in self._networks:
                    cut.enter_context(only_rows(network, rows, len(x)))
                share = self._backward(x, generator, rows)
            loss += share
        parameters = list(self.denoiser.parameters())
        self.workers.add([loss, *(p.grad for p in parameters if p.grad is not None)])
        return loss, torch.nn.utils.clip_grad_norm_(parameters, config.clip_norm)

    def _captured_gradient(self) -> tuple[Tensor, Tensor]:
        """As `_gradient`, of a batch that is whole, replayed."""
        if self._captured is None:
            generator = torch.Generator(device=self.device)
            x = self._batch(generator)

            def evaluate() -> tuple[Tensor, Tensor]:
                # Gradients of the graph's own, which every replay writes anew.
                self.optimizer.zero_grad(set_to_none=True)
                loss = self._backward(x, generator, self._parts[0])
                parameters = list(self.denoiser.parameters())
                return loss, torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)

            evaluation = Captured(evaluate, generator)
            evaluation.warm_up()
            evaluation.record()
            self._captured = _CapturedGradient(x, generator, evaluation)
        captured = self._captured
        captured.generator.manual_seed(self._batch_seed())
        captured.x.copy_(self._batch(captured.generator))
        self._seed_dropout()
        return captured.evaluate()

    def _update(self) -> None:
        """Let the weights take a step along the gradient that they hold."""
        if self._captured_update is not None:
            self._captured_update()
            return
        self.optimizer.step()
        if self._captures:
            # The first step, or the first after a roll-back, has made the optimiser's state.
            self._captured_update = Captured(self.optimizer.step)

    def _backward(self, x: Tensor, generator: torch.Generator, rows: slice) -> Tensor:
        """Add the gradient of the rows' share of the batch's mean loss, which is returned."""
        low = self.config.precision == "bfloat16"
        with (
            _denormals_flushed(),
            torch.autocast(self.device.type, torch.bfloat16) if low else nullcontext(),
        ):
            losses = self.objective(self.denoiser, x, generator)
        share: Tensor = losses[rows].mean() * ((rows.stop - rows.start) / len(x))
        with _denormals_flushed():
            share.backward()  # type: ignore[no-untyped-call]
        return share.detach()

    def _batch_seed(self) -> int:
        return _mix(self.config.seed, self.images_seen + self.images_skipped)

    def _seed_dropout(self) -> None:
        torch.manual_seed(_mix(self.config.seed + 1, self.images_seen + self.images_skipped))

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
        on_rollback: Callable[[Rollback], None] = lambda rollback: None,
        stop: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Train until the run or its time is over; the state is saved on the way and at the end.

        Of several processes the leader alone reports, checks and saves.

        Args:
            max_seconds: wall-clock limit of this call.
            report_images: images between two reports.
            check_images: images between two measurements of the held-out bound; 0 for none.
            held_out: uint8 [N, H, W, C].
            checkpoint: where the state is saved; nowhere if None.
            on_report: gets every `Report`.
            on_step: gets the images seen and the step's loss, for a progress display.
            on_rollback: gets every `Rollback`.
            stop: asked after every step; once true, in any process, the run ends as if its time
                were over, but without a last measurement, so that a signal is answered soon.
            clock: seconds, from any zero.

        Raises:
            TrainingError: more than ``max_rollbacks`` steps were refused without progress between
                them, and nothing is saved then; or processes disagree on the run.
        """
        self.workers.require_agreement("model, settings, images and state", self._identity())
        leads = self.workers.leads
        begun = clock()
        next_save = checkpoint_seconds
        before = reported = self.seconds
        reported_images = self.images_seen
        losses: list[float] = []
        norms: list[float] = []
        next_report = self.images_seen + report_images
        next_check = (self.images_seen // check_images + 1) * check_images if check_images else None
        self._snapshots.clear()
        self._take_snapshot()
        while not self.finished:
            try:
                losses.append(self.step())
            except InstabilityError as fault:
                rollback = self._roll_back(str(fault))
                losses.clear()
                norms.clear()
                reported, reported_images = self.seconds, self.images_seen
                if leads:
                    on_rollback(rollback)
            else:
                norms.append(self._gradient_norm)
                on_step(self.images_seen, losses[-1])
            elapsed, stopping = self.workers.largest([clock() - begun, float(stop())])
            self.seconds = before + elapsed
            late = max_seconds is not None and elapsed >= max_seconds
            over = self.finished or late or bool(stopping)
            if losses and (over or self.images_seen >= next_report):
                bound = None
                due = next_check is not None and (over or self.images_seen >= next_check)
                if due and held_out is not None and not stopping:
                    if leads:
                        bound = evaluate_bound(self.averaged, held_out, draws=8)
                    next_check = (self.images_seen // check_images + 1) * check_images
                speed = (self.images_seen - reported_images) / max(1e-9, self.seconds - reported)
                if leads:
                    report = Report(
                        images=self.images_seen,
                        seconds=self.seconds,
                        loss=sum(losses) / len(losses),
                        rate=self.rate,
                        bound=bound,
                        gradient_norm=sum(norms) / len(norms),
                        images_per_second=speed,
                    )
                    on_report(report)
                losses.clear()
                norms.clear()
                reported, reported_images = self.seconds, self.images_seen
                next_report = self.images_seen + report_images
            if checkpoint is not None and leads and (over or elapsed >= next_save):
                self.save(checkpoint)
                next_save = elapsed + checkpoint_seconds
            self._take_snapshot()
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
            "data": self.fingerprint,
            "teacher": self.teacher_digest,
            "seconds": self.seconds,
            **self._state(),
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
        workers: Workers | None = None,
        **changes: Any,
    ) -> "Trainer":
        """A trainer that continues the run saved at ``path``.

        Args:
            workers: as of the constructor; their number may be another than before.
            changes: fields of `TrainingConfig` to change, such as ``total_images``.

        Raises:
            CheckpointError: the file cannot be read, is not a training state, or saw other images
                or another teacher.
            TrainingError: as of the constructor, or another optimiser.
        """
        state = _load_state(path)
        try:
            stored = json.loads(state["config"])
            kept = stored["training"]["optimizer"]
            if (wanted := changes.get("optimizer", kept)) != kept:
                raise TrainingError(
                    f"{path}: expected the run's own optimizer, {kept}, found {wanted}"
                )
            model = model_config_from_dict(stored["model"])
            config = TrainingConfig(**{**stored["training"], **changes})
            trainer = cls(model, config, images, device, workers)
            trainer._restore(state)
            trainer.seconds = state["seconds"]
            trainer._last_checkpoint = (path, trainer.images_seen)
        except torch.OutOfMemoryError:
            raise
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{path}: not a training state: {error!r}") from error
        if "teacher" not in changes and state["teacher"] != trainer.teacher_digest:
            raise CheckpointError(
                f"{path}: expected the teacher of digest {state['teacher']}, found "
                f"{trainer.teacher_digest} in {config.teacher}: give the run's own"
            )
        if state["data"] != trainer.fingerprint:
            raise CheckpointError(
                f"{path}: expected the training images of fingerprint {state['data']}, found "
                f"{len(images)} of {trainer.fingerprint}: give the run's own data and held-out part"
            )
        return trainer

    def _objective(self) -> Objective:
        """What the run minimizes; a teacher's network joins those that evaluate a batch."""
        config, schedule = self.config, make_schedule(self.model.schedule)
        objective = OBJECTIVES[config.objective]
        if objective is PixelVlb and not self.model.pixel_model:
            raise TrainingError(
                f"the objective {config.objective} needs a model with a pixel model, "
                f"which {self.model.name} does not have"
            )
        if config.teacher is None:
            return objective(schedule)
        if objective is not PixelVlb:
            raise TrainingError(
                f"a teacher needs the objective vlb_pixels, found {config.objective}"
            )
        checkpoint = load_checkpoint(find_model(config.teacher))
        theirs, ours = checkpoint.config, self.model
        if not theirs.pixel_model or theirs.unet.image_size != ours.unet.image_size:
            raise TrainingError(
                f"{config.teacher}: expected a teacher with a pixel model and tiles of "
                f"{ours.unet.image_size} pixels, found {theirs.name}"
            )
        teacher = checkpoint.denoiser.to(self.device).requires_grad_(False)
        teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if config.compiled:
            teacher.network.forward = _compiled(teacher.network.forward)  # type: ignore[method-assign]
        self._networks.append(teacher.network)
        self.teacher_digest = checkpoint.digest.hex()
        return PixelVlb(schedule, teacher)

    def _identity(self) -> str:
        """What processes that train together must have in common."""
        places = (self.images_seen, self.images_skipped)
        return repr((self.model, self.config, self.teacher_digest, self.fingerprint, places))

    def _state(self) -> dict[str, Any]:
        """Everything that the next steps depend on, the clock apart; tensors are not copied."""
        return {
            "denoiser": self.denoiser.state_dict(),
            "averaged": self.averaged.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "images_seen": self.images_seen,
            "images_skipped": self.images_skipped,
            "recent_losses": self._detector.recent,
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.denoiser.load_state_dict(state["denoiser"])
        self.averaged.load_state_dict(state["averaged"])
        self.optimizer.load_state_dict(state["optimizer"])
        # It replaces tensors that a recorded update would go on using.
        self._captured_update = None
        self.images_seen = state["images_seen"]
        self.images_skipped = state["images_skipped"]
        self._detector = SpikeDetector(self.config.spike_deviations, state["recent_losses"])

    def _take_snapshot(self) -> None:
        """Keep a copy of the state in memory if the last one is old enough."""
        if not self.config.max_rollbacks:
            return
        if self._snapshots:
            age = self.images_seen - self._snapshots[-1]["images_seen"]
            if age < SNAPSHOT_STEPS * self.config.batch_size:
                return
        self._snapshots.append(copy.deepcopy(self._state()))
        # Roll-backs to the same state are in a row, however many good steps lie between them.
        if self._snapshots[0]["images_seen"] > self._progress_needed:
            self._rollbacks = 0

    def _roll_back(self, reason: str) -> Rollback:
        """Return to the oldest state in memory, its next batch the one after the refused one.

        Raises:
            TrainingError: there have been too many in a row.
        """
        failed = self.images_seen
        if self._rollbacks >= self.config.max_rollbacks:
            if self._last_checkpoint is None:
                kept = "no checkpoint has been saved"
            else:
                kept = "the last checkpoint is {} at {} images".format(*self._last_checkpoint)
            raise TrainingError(
                f"after {failed} images {reason}, after {self._rollbacks} roll-backs in a row; "
                f"{kept}: resume it with a lower learning rate"
            )
        next_place = failed + self.images_skipped + self.config.batch_size
        oldest = self._snapshots[0]
        # Optimisers keep the tensors that they are given.
        self._restore(copy.deepcopy(oldest))
        self._snapshots = deque([oldest], maxlen=2)
        self.images_skipped = next_place - self.images_seen
        self._rollbacks += 1
        self._progress_needed = self.images_seen
        return Rollback(failed, self.seconds, self.images_seen, self.images_skipped, reason)

    def _batch(self, generator: torch.Generator) -> Tensor:
        """The next images of this epoch's order, float32 in [−1, 1], channels last."""
        place = self.images_seen + self.images_skipped
        indices = self._indices(place, self.config.batch_size)
        batch = self._images[torch.as_tensor(indices, device=self.device)]
        x = batch.float().div_(HALF_RANGE).sub_(1.0)
        if self.config.flip:
            mirrored = torch.rand(len(x), generator=generator, device=self.device) < 0.5
            x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        return x.contiguous(memory_format=torch.channels_last)

    def _indices(self, position: int, count: int) -> NDArray[np.int64]:
        """Which images stand at ``position`` of the run and after: a permutation every epoch."""
        epoch, place = divmod(position, len(self._images))
        if epoch != self._order_epoch:
            random = np.random.default_rng((self.config.seed, epoch))
            self._order, self._order_epoch = random.permutation(len(self._images)), epoch
        here = self._order[place : place + count]
        if len(here) == count:
            return here
        rest = self._indices(position + len(here), count - len(here))
        return np.concatenate([here, rest])

    @torch.no_grad()
    def _average(self, images: int) -> None:
        """Exponential moving average; young runs average over a tenth of what they have seen."""
        half_life = min(self.config.ema_images, max(1.0, 0.1 * self.images_seen))
        weight = 1.0 - 0.5 ** (images / half_life)
        torch._foreach_lerp_(self._averages, self._weights, weight)


def _compiled(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``forward`` compiled at its first call.

    A call raises `TrainingError` where there is no compiler, or none that works.
    """
    # Seconds to import, and for compiled runs alone.
    from torch._dynamo.exc import TorchDynamoException

    compiled = torch.compile(forward)

    def call(*arguments: Tensor) -> Tensor:
        try:
            return compiled(*arguments)
        except TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            raise TrainingError(f"the network cannot be compiled: {reason}") from error

    return call


def _make_optimizer(
    config: TrainingConfig, denoiser: Denoiser
) -> torch.optim.Optimizer | MuonWithAdam:
    rate = config.learning_rate
    if config.optimizer == "muon":
        return MuonWithAdam(denoiser, rate, ADAM_BETAS)
    return make_adam(list(denoiser.parameters()), rate, ADAM_BETAS)


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


def report_line(report: Report | Rollback) -> str:
    """One line of JSON for a log file; a roll-back's has ``"event": "rollback"``."""
    event = {"event": "rollback"} if isinstance(report, Rollback) else {}
    return json.dumps({**event, **dataclasses.asdict(report)})


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
