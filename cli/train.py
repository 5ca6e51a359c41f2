"""``diffcodec train``: images to a model's folder."""

import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from cli import files
from cli.data import data_options, device_option, held_out_count, locate_data, pick_device
from cli.exit_codes import INTERRUPTED, TERMINATED
from cli.terminal import Terminal, console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffcodec.training.evaluation import Bound
    from diffcodec.training.trainer import Report, Trainer

STATE_NAME, LOG_NAME, MODEL_NAME = "state.pt", "log.jsonl", "model"
CHECK_IMAGES = 256
CURVE_IMAGES = 128
WARMUP_IMAGES = 8_000
REPORT_IMAGES = 3_200
SMOOTHING = 0.95
BAR_WIDTH = 10
OBJECTIVES = ("vlb", "vlb_discrete", "simple")


class Duration(click.ParamType):  # type: ignore[type-arg]
    """``1h30m``, ``9m``, ``45s`` to seconds."""

    name = "duration"
    _form = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds, positive; anything else is a usage error."""
        match = self._form.fullmatch(str(value))
        hours, minutes, seconds = (int(part or 0) for part in match.groups()) if match else (0,) * 3
        total = 3600.0 * hours + 60.0 * minutes + seconds
        if total <= 0:
            self.fail(f"{value!r} is no duration such as 45s, 9m or 1h30m.", param, ctx)
        return total


@click.command("train")
@data_options
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("run"),
    show_default=True,
    metavar="DIR",
    help=f"Folder for {STATE_NAME}, {LOG_NAME} and the exported {MODEL_NAME}.",
)
@click.option("--config", metavar="NAME", help="A named model configuration.  [default: default]")
@click.option(
    "--objective",
    type=click.Choice(OBJECTIVES),
    help="The bound in continuous time or in T steps, or DDPM's L_simple.  [default: vlb]",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images to train on, repeats counted; the learning rate falls to zero at the last.  "
    "[default: 400000]",
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), metavar="N", help="Images a step.  [default: 32]"
)
@click.option(
    "--learning-rate",
    type=click.FloatRange(min=0, min_open=True),
    metavar="X",
    help="Of Adam, after the warm-up.  [default: 0.001]",
)
@click.option("--max-time", type=Duration(), metavar="TIME", help="Stop after 45s, 9m or 1h30m.")
@click.option("--resume", is_flag=True, help=f"Continue the run in OUT/{STATE_NAME}, if any.")
@click.option(
    "--held-out",
    type=click.IntRange(min=1),
    metavar="N",
    help="Training images set apart for checks.  [default: 2000, at most a tenth]",
)
@click.option(
    "--check-every",
    type=click.IntRange(min=1),
    default=48_000,
    show_default=True,
    metavar="N",
    help="Images between two measurements of the held-out bound.",
)
@device_option
@click.option(
    "--precision",
    type=click.Choice(["auto", "float32", "bfloat16"]),
    help="Of the network's arithmetic; auto is bfloat16 where the processor has it.  "
    "[default: auto]",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Processor threads.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="[default: 0]")
@click.option("-f", "--force", is_flag=True, help="Start over in a folder that holds a run.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    data: Path | None,
    download: bool,
    out: Path,
    config: str | None,
    objective: str | None,
    images: int | None,
    batch_size: int | None,
    learning_rate: float | None,
    max_time: float | None,
    resume: bool,
    held_out: int | None,
    check_every: int,
    device: str,
    precision: str | None,
    threads: int | None,
    seed: int | None,
    force: bool,
    quiet: bool,
) -> int | None:
    """Train a model.

    The state is saved every two minutes, at the end, and on an interrupt; a resumed run keeps its
    settings except for those given anew. At the end the averaged weights become a model folder
    that every command takes with --model.
    """
    terminal = Terminal(quiet)
    state = out / STATE_NAME
    if resume and force:
        raise click.UsageError("--resume and --force exclude each other.")
    continues = resume and state.exists()
    if continues and config is not None:
        raise click.UsageError("--resume keeps the model of its run: leave --config out.")
    if not resume:
        files.refuse_overwrite(state, force)
    place = locate_data(data, download, terminal)
    from diffcodec.training.dataset import held_out_split, load_images

    everything = load_images(place, "train")
    training, checking = held_out_split(everything, held_out_count(len(everything), held_out))

    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    chosen = pick_device(device)
    settings: dict[str, Any] = {
        "objective": objective,
        "total_images": images,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    settings = {name: value for name, value in settings.items() if value is not None}
    if precision is not None or not continues:
        settings["precision"] = _precision(precision or "auto", chosen)
    trainer = _trainer(state if continues else None, config, settings, training, chosen)
    out.mkdir(parents=True, exist_ok=True)
    terminal.say(
        f"{trainer.model.name}: {sum(p.numel() for p in trainer.denoiser.parameters())} parameters "
        f"on {chosen}, {trainer.config.precision}, {len(training)} training images, "
        f"{len(checking)} held out, {trainer.images_seen} images seen"
    )
    number = _train(trainer, out, max_time, checking[:CHECK_IMAGES], check_every, terminal)
    if number is not None:
        terminal.say(f"stopped; {state} holds {trainer.images_seen} images: --resume continues")
        if number == signal.SIGTERM:
            sys.exit(TERMINATED)
        return INTERRUPTED
    _export(trainer, out / MODEL_NAME, checking[:CURVE_IMAGES], terminal)
    return None


def _trainer(
    state: Path | None,
    config: str | None,
    settings: dict[str, Any],
    images: "NDArray[np.uint8]",
    device: str,
) -> "Trainer":
    """The run of ``state`` with ``settings`` changed, or a new one."""
    from diffcodec.model.configs import MODEL_CONFIGS
    from diffcodec.training.trainer import Trainer, TrainingConfig

    if state is not None:
        return Trainer.resume(state, images, device, **settings)
    name = "default" if config is None else config
    if name not in MODEL_CONFIGS:
        known = ", ".join(MODEL_CONFIGS)
        raise click.UsageError(f"--config {name}: expected one of {known}.")
    total = settings.get("total_images", TrainingConfig.total_images)
    # A short run spends its first tenth warming up, not all of itself.
    warmup = min(WARMUP_IMAGES, total // 10)
    recipe = TrainingConfig(**settings, warmup_images=warmup)
    return Trainer(MODEL_CONFIGS[name], recipe, images, device)


def _precision(name: str, device: str) -> str:
    import torch

    if name != "auto":
        return name
    if device == "cuda":
        supported = torch.cuda.is_bf16_supported()
    else:
        # PyTorch has no public question for this; without the instructions bfloat16 is slower.
        supported = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if supported else "float32"


def _train(
    trainer: "Trainer",
    out: Path,
    max_time: float | None,
    held_out: "NDArray[np.uint8]",
    check_every: int,
    terminal: Terminal,
) -> int | None:
    """Run to the end; the number of the signal that stopped it earlier, if one did."""
    from diffcodec.training.trainer import report_line

    mode = "a" if trainer.images_seen else "w"
    with (
        (out / LOG_NAME).open(mode, encoding="utf-8") as log,
        _signals() as received,
        _meter(trainer, max_time, terminal) as on_step,
    ):

        def on_report(report: "Report") -> None:
            print(report_line(report), file=log, flush=True)
            if report.bound is not None:
                terminal.say(f"{report.images} images: held out {_summary(report.bound)}")

        trainer.run(
            max_seconds=max_time,
            report_images=min(REPORT_IMAGES, check_every),
            check_images=check_every,
            held_out=held_out,
            checkpoint=out / STATE_NAME,
            on_report=on_report,
            on_step=on_step,
            stop=lambda: bool(received),
        )
    return received[0] if received else None


def _export(
    trainer: "Trainer", folder: Path, held_out: "NDArray[np.uint8]", terminal: Terminal
) -> None:
    from diffcodec.model.checkpoint import save_checkpoint
    from diffcodec.training.evaluation import measure_error_curve

    curve = measure_error_curve(trainer.averaged, held_out)
    digest = save_checkpoint(folder, trainer.averaged, curve)
    terminal.say(f"{folder}: {trainer.images_seen} images seen, digest {digest.hex()[:16]}")


def _summary(bound: "Bound") -> str:
    return (
        f"{bound.total.mean:.3f} ± {bound.total.standard_error:.3f} bits/dim "
        f"(L_T {bound.prior.mean:.4f}, L_1..T-1 {bound.diffusion.mean:.3f}, "
        f"L_0 {bound.reconstruction.mean:.3f})"
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """The first interrupt or request to terminate, noted; a second one acts at once.

    A step is finished before the run stops: half a step would not resume exactly.
    """
    received: list[int] = []
    previous = {n: signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    for number in previous:
        signal.signal(number, note)
    try:
        yield received
    finally:
        restore()


@contextmanager
def _meter(
    trainer: "Trainer", max_time: float | None, terminal: Terminal
) -> Iterator[Callable[[int, float], None]]:
    """Loss, images/s and time left on a terminal, unless quiet; gives the trainer's `on_step`."""
    if terminal.quiet or not console.is_terminal:
        yield lambda images, loss: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    unit = "loss" if trainer.config.objective == "simple" else "bits/dim"
    begun, first = time.monotonic(), trainer.images_seen
    total = trainer.config.total_images
    mean: float | None = None
    columns = (
        BarColumn(BAR_WIDTH),
        MofNCompleteColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total, completed=first)

        def on_step(images: int, loss: float) -> None:
            nonlocal mean
            mean = loss if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * loss
            elapsed = time.monotonic() - begun
            speed = (images - first) / elapsed
            left = (total - images) / speed
            if max_time is not None:
                left = min(left, max_time - elapsed)
            minutes, seconds = divmod(max(0, round(left)), 60)
            text = f"{mean:.3f} {unit}, {speed:.0f} images/s, {minutes}:{seconds:02d} left"
            bar.update(task, completed=images, description=text)

        yield on_step
