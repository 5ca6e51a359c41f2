"""``diffcodec train``: images to a model's folder."""

import dataclasses
import json
import math
import re
import signal
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import click

from cli import files, options
from cli.data import data_options, device_option, held_out_count, locate_data, pick_device
from cli.exit_codes import INTERRUPTED, TERMINATED
from cli.terminal import Terminal, console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from diffcodec.training.evaluation import Bound
    from diffcodec.training.parallel import Workers
    from diffcodec.training.trainer import Report, Rollback, Trainer

STATE_NAME, LOG_NAME, MODEL_NAME = "state.pt", "log.jsonl", "model"
CHECK_IMAGES = 256
CURVE_IMAGES = 128
REPORT_IMAGES = 3_200
SPIKE_DEVIATIONS = 20.0
SMOOTHING = 0.95
BAR_WIDTH = 10
FIGURE_SUFFIXES = (".svg", ".png")


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
@click.argument("logs", nargs=-1, metavar="[LOG]...", type=click.Path(path_type=Path))
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
    "--init",
    metavar="M",
    help="Start a new run from the weights of a packaged model, or of a model's folder, where they "
    "fit.",
)
@click.option(
    "--objective",
    metavar="NAME",
    help="What is minimized: vlb, the bound in continuous time; vlb_discrete, in T steps; "
    "vlb_pixels, with the pixel model; simple, DDPM's L_simple; unweighted; hybrid.",
)
@click.option(
    "--teacher",
    metavar="M",
    help="Learn what this model says of the images in place of the images: a packaged model or a "
    "model's folder, with a pixel model; with vlb_pixels.",
)
@click.option(
    "--optimizer",
    type=click.Choice(["adam", "muon"]),
    help="Adam, or Muon for the weight matrices and Adam for the rest.",
)
@click.option(
    "--images",
    type=click.IntRange(min=1),
    metavar="N",
    help="Images to train on, repeats counted; the learning rate falls to zero at the last.",
)
@click.option("--batch-size", type=click.IntRange(min=1), metavar="N", help="Images a step.")
@click.option(
    "--accumulate",
    type=click.IntRange(min=1),
    metavar="N",
    help="Parts of a batch whose gradients are added, to save memory.",
)
@click.option(
    "--learning-rate",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="X",
    help="After the warm-up.",
)
@click.option(
    "--warmup",
    type=click.IntRange(min=0),
    metavar="N",
    help="Images over which the learning rate rises.  [default: of the recipe, at most a tenth of "
    "--images]",
)
@click.option(
    "--decay",
    type=options.FiniteRange(0, 1, min_open=True),
    metavar="X",
    help="Part of the run, at its end, over which the learning rate falls.",
)
@click.option(
    "--ema",
    type=options.FiniteRange(min=0, min_open=True),
    metavar="N",
    help="Half-life of the weights' moving average, in images.",
)
@click.option("--max-time", type=Duration(), metavar="TIME", help="Stop after 45s, 9m or 1h30m.")
@click.option(
    "--anneal-by",
    type=click.Choice(["images", "time"]),
    help="What the run's length is counted in. By time, --max-time is the length of the whole run "
    "over all its sessions, and the learning rate falls to zero at its end.",
)
@click.option(
    "--spike",
    type=options.FiniteRange(min=0),
    metavar="X",
    help="A loss so many robust standard deviations above the recent ones is a spike, which rolls "
    f"the run back; 0 for none.  [default: {SPIKE_DEVIATIONS:g}]",
)
@click.option(
    "--max-rollbacks",
    type=click.IntRange(min=0),
    metavar="N",
    help="Roll-backs in a row, after spikes or losses that are no numbers.",
)
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
@click.option(
    "--compile/--no-compile",
    "compiled",
    default=None,
    help="Compile the network: faster steps after a minute or so; needs a C++ compiler, on a GPU "
    "Triton.  [default: no]",
)
@click.option("--threads", type=click.IntRange(min=1), metavar="N", help="Processor threads.")
@click.option("--seed", type=click.IntRange(min=0), metavar="N", help="Of all random choices.")
@click.option("--plot", is_flag=True, help="Train nothing; draw the curves of LOG.")
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FIG",
    help="With --plot: the figure, .svg or .png.",
)
@click.option("-f", "--force", is_flag=True, help="Start over in a folder that holds a run.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    logs: tuple[Path, ...],
    data: Path | None,
    download: bool,
    out: Path,
    config: str | None,
    init: str | None,
    objective: str | None,
    teacher: str | None,
    optimizer: str | None,
    images: int | None,
    batch_size: int | None,
    accumulate: int | None,
    learning_rate: float | None,
    warmup: int | None,
    decay: float | None,
    ema: float | None,
    max_time: float | None,
    anneal_by: str | None,
    spike: float | None,
    max_rollbacks: int | None,
    resume: bool,
    held_out: int | None,
    check_every: int,
    device: str,
    precision: str | None,
    compiled: bool | None,
    threads: int | None,
    seed: int | None,
    plot: bool,
    output: Path | None,
    force: bool,
    quiet: bool,
) -> int | None:
    """Train a model, or with --plot draw the curves of earlier runs.

    A new run starts from the recipe of its configuration; what is given here replaces it. The
    state is saved every two minutes, at the end, and on an interrupt; a resumed run keeps its
    settings except for those given anew. At the end the averaged weights become a model folder
    that every command takes with --model. Under torchrun the processes share each batch.
    """
    if plot:
        _plot(logs, output, force, Terminal(quiet))
        return None
    if logs or output is not None:
        raise click.UsageError("LOG and --output belong to --plot.")
    state = out / STATE_NAME
    if resume and force:
        raise click.UsageError("--resume and --force exclude each other.")
    if anneal_by == "time" and (max_time is None or images is not None):
        raise click.UsageError("--anneal-by time: give the run's length as --max-time alone.")
    if not (resume and state.exists()):
        for path in (state, out / LOG_NAME, out / MODEL_NAME):
            files.refuse_overwrite(path, force)
    settings: dict[str, Any] = {
        "objective": objective,
        "teacher": teacher,
        "optimizer": optimizer,
        "total_images": images,
        "batch_size": batch_size,
        "accumulate": accumulate,
        "learning_rate": learning_rate,
        "warmup_images": warmup,
        "decay_fraction": decay,
        "ema_images": ema,
        "anneal_by": anneal_by,
        # Without effect on runs that are annealed by images.
        "total_seconds": max_time,
        "spike_deviations": spike,
        "max_rollbacks": max_rollbacks,
        "compiled": compiled,
        "seed": seed,
    }
    settings = {name: value for name, value in settings.items() if value is not None}

    _check_names(config, init, settings)
    place = locate_data(data, download, Terminal(quiet))
    from diffcodec.training.dataset import held_out_split, load_images

    everything = load_images(place, "train")
    training, checking = held_out_split(everything, held_out_count(len(everything), held_out))

    import torch

    from diffcodec.training.parallel import joined_workers

    with joined_workers(pick_device(device)) as workers:
        terminal = Terminal(quiet or not workers.leads)
        if threads is not None:
            torch.set_num_threads(threads)
        continues = resume and state.exists()
        if precision is not None or not continues:
            settings["precision"] = _precision(precision or "auto", workers.device)
        if continues:
            trainer = _continued(state, config, settings, training, workers)
        else:
            trainer = _new(config, init, settings, training, workers, terminal)
        out.mkdir(parents=True, exist_ok=True)
        shared = f" in {workers.size} processes" if workers.size > 1 else ""
        terminal.say(
            f"{trainer.model.name}: {sum(p.numel() for p in trainer.denoiser.parameters())} "
            f"parameters on {workers.device}{shared}, {trainer.config.precision}, "
            f"{len(training)} training images, {len(checking)} held out, "
            f"{trainer.images_seen} images seen"
        )
        number = _train(trainer, out, max_time, checking[:CHECK_IMAGES], check_every, terminal)
        if number is not None:
            terminal.say(f"stopped; {state} holds {trainer.images_seen} images: --resume continues")
            if number == signal.SIGTERM:
                sys.exit(TERMINATED)
            return INTERRUPTED
        if workers.leads:
            _export(trainer, out / MODEL_NAME, checking[:CURVE_IMAGES], terminal)
    return None


def _plot(logs: tuple[Path, ...], output: Path | None, force: bool, terminal: Terminal) -> None:
    """The curves of ``logs`` to ``output``; neither torch nor images are needed."""
    if not logs or output is None:
        raise click.UsageError("--plot takes one LOG or more, and --output.")
    if output.suffix not in FIGURE_SUFFIXES:
        raise click.UsageError(f"--output {output}: expected one of {', '.join(FIGURE_SUFFIXES)}.")
    files.refuse_overwrite(output, force)

    from benchmarks.figures.style import figure_bytes
    from benchmarks.figures.training import read_log, training_figure

    figure = training_figure([read_log(path) for path in logs])
    files.write_atomically(output, figure_bytes(figure, output.suffix[1:]), force)
    terminal.say(f"written: {output}")


def _continued(
    state: Path,
    config: str | None,
    settings: dict[str, Any],
    images: "NDArray[np.uint8]",
    workers: "Workers",
) -> "Trainer":
    """The run of ``state`` with ``settings`` changed."""
    from diffcodec.training.trainer import Trainer

    trainer = Trainer.resume(state, images, workers.device, workers, **settings)
    if config is not None and config != trainer.model.name:
        raise click.UsageError(
            f"--config {config}: {state} is a run of {trainer.model.name}, which it keeps."
        )
    return trainer


def _new(
    config: str | None,
    init: str | None,
    settings: dict[str, Any],
    images: "NDArray[np.uint8]",
    workers: "Workers",
    terminal: Terminal,
) -> "Trainer":
    """A run at its beginning, from the weights of the model ``init`` where one is named."""
    from diffcodec.model.catalog import find_model
    from diffcodec.model.checkpoint import load_checkpoint
    from diffcodec.model.configs import MODEL_CONFIGS
    from diffcodec.training.recipes import RECIPES
    from diffcodec.training.trainer import Trainer
    from diffcodec.training.warm_start import warm_start

    name = "default" if config is None else config
    source = None if init is None else load_checkpoint(find_model(init))
    recipe = RECIPES[name]
    total = settings.get("total_images", recipe.total_images)
    defaults = {
        # A short run spends its first tenth warming up, not all of itself.
        "warmup_images": min(recipe.warmup_images, total // 10),
        "spike_deviations": SPIKE_DEVIATIONS,
    }
    recipe = dataclasses.replace(recipe, **{**defaults, **settings})
    trainer = Trainer(MODEL_CONFIGS[name], recipe, images, workers.device, workers)
    if source is not None:
        notes = warm_start(trainer.denoiser, source.denoiser)
        trainer.averaged.load_state_dict(trainer.denoiser.state_dict())
        for note in notes:
            terminal.say(f"{init}: {note}")
    return trainer


def _check_names(config: str | None, init: str | None, settings: dict[str, Any]) -> None:
    """Refuse configurations, models and objectives that there are none of."""
    from diffcodec.model.catalog import find_model

    for model in (init, settings.get("teacher")):
        if model is not None:
            find_model(model)

    # What knows the names imports torch: a run without them is refused sooner for lack of images.
    if config is not None:
        from diffcodec.model.configs import MODEL_CONFIGS

        _refuse_unknown("--config", config, MODEL_CONFIGS)
    if (objective := settings.get("objective")) is not None:
        from diffcodec.training.objective import OBJECTIVES

        _refuse_unknown("--objective", objective, OBJECTIVES)


def _refuse_unknown(option: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise click.UsageError(f"{option} {name}: expected one of {', '.join(known)}.")


def _cut_log(path: Path, images: int) -> None:
    """Drop what a log tells of beyond ``images``: a run that was killed has not saved that."""
    if not path.exists():
        return
    lines = path.read_text("utf-8").splitlines(keepends=True)
    kept = [line for line in lines if _logged_images(line) <= images] if images else []
    if kept != lines:
        files.write_atomically(path, "".join(kept).encode(), force=True)


def _logged_images(line: str) -> float:
    """How far the run was; beyond all measure where a line is none."""
    try:
        return float(json.loads(line)["images"])
    except (ValueError, KeyError, TypeError):
        return math.inf


def _precision(name: str, device: str) -> str:
    import torch

    if name != "auto":
        return name
    if device.startswith("cuda"):
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

    log_path = out / LOG_NAME
    if trainer.workers.leads:
        _cut_log(log_path, trainer.images_seen)
    with (
        log_path.open("a", encoding="utf-8") if trainer.workers.leads else nullcontext() as log,
        _signals() as received,
        _meter(trainer, max_time, terminal) as on_step,
    ):

        def on_report(report: "Report") -> None:
            print(report_line(report), file=log, flush=True)
            if report.bound is not None:
                terminal.say(f"{report.images} images: held out {_summary(report.bound)}")

        def on_rollback(rollback: "Rollback") -> None:
            print(report_line(rollback), file=log, flush=True)
            terminal.warn(
                f"after {rollback.images} images {rollback.reason}: "
                f"back to {rollback.to_images} images, past the batch"
            )

        trainer.run(
            # The length of a run that is annealed by time is in its settings.
            max_seconds=None if trainer.config.anneal_by == "time" else max_time,
            report_images=min(REPORT_IMAGES, check_every),
            check_images=check_every,
            held_out=held_out,
            checkpoint=out / STATE_NAME,
            on_report=on_report,
            on_step=on_step,
            on_rollback=on_rollback,
            stop=lambda: bool(received),
        )
    return received[0] if received else None


def _export(
    trainer: "Trainer", folder: Path, held_out: "NDArray[np.uint8]", terminal: Terminal
) -> None:
    from diffcodec.model.checkpoint import save_checkpoint
    from diffcodec.training.error_curve import measure_error_curve

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
    from rich.progress import BarColumn, Progress, TextColumn

    config = trainer.config
    by_time = config.anneal_by == "time"
    unit = "bits/dim" if config.objective.startswith("vlb") else "loss"
    begun, first = time.monotonic(), trainer.images_seen
    total = config.total_seconds if by_time else config.total_images
    mean: float | None = None
    columns = (BarColumn(BAR_WIDTH), TextColumn("{task.description}", markup=False))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=total)

        def on_step(images: int, loss: float) -> None:
            nonlocal mean
            mean = loss if mean is None else SMOOTHING * mean + (1 - SMOOTHING) * loss
            elapsed = time.monotonic() - begun
            speed = (images - first) / elapsed
            if by_time:
                count, left = f"{images}", total - trainer.seconds
            else:
                count, left = f"{images}/{total}", (total - images) / max(speed, 1e-9)
                if max_time is not None:
                    left = min(left, max_time - elapsed)
            minutes, seconds = divmod(max(0, round(left)), 60)
            text = f"{count} {mean:.3f} {unit}, {speed:.0f} images/s, {minutes}:{seconds:02d} left"
            bar.update(task, completed=trainer.seconds if by_time else images, description=text)

        yield on_step
