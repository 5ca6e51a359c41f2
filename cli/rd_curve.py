"""``diffcodec rd-curve``: error against rate, from real files."""

from contextlib import closing
from pathlib import Path

import click

from cli import files
from cli.data import data_options, device_option, locate_data, pick_device
from cli.terminal import Terminal
from cli.workers import default_jobs
from diffcodec.codec.effort import DEFAULT_EFFORT, EFFORTS

NAME = "rd-curve"
JSON_SUFFIX = ".json"
EXAMPLES = 2
"""Images whose bytes the report steps through."""


@click.command(NAME)
@click.option(
    "--images",
    "count",
    type=click.IntRange(min=1),
    default=100,
    show_default=True,
    metavar="N",
    help="The first N test images.",
)
@data_options
@click.option("--model", metavar="M", help="A packaged model's name, or a model's folder.")
@click.option(
    "--effort",
    type=click.IntRange(EFFORTS[0], EFFORTS[-1]),
    default=DEFAULT_EFFORT,
    show_default=True,
    help="More effort, more network evaluations, fewer bits.",
)
@device_option
@click.option(
    "--jobs", type=click.IntRange(min=1), metavar="N", help="Processes. Default: one a core."
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(NAME),
    show_default=True,
    metavar="DIR",
    help="Folder for rd-curve.json, .png and .svg, and for what --resume needs.",
)
@click.option(
    "--report",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="OUT.html",
    help="Also measure the other codecs installed, and write one page that opens offline.",
)
@click.option("--resume", is_flag=True, help="Go on with an interrupted run in the same folder.")
@click.option("-f", "--force", is_flag=True, help="Overwrite.")
@click.option("-q", "--quiet", is_flag=True, help="Errors only.")
def command(
    count: int,
    data: Path | None,
    download: bool,
    model: str | None,
    effort: int,
    device: str,
    jobs: int | None,
    out: Path,
    report: Path | None,
    resume: bool,
    force: bool,
    quiet: bool,
) -> None:
    """Measure error against rate with real files.

    Every image is encoded losslessly and decoded from each prefix that ends with a packet. The
    table shows, at common rates, the error of the longest prefixes that fit, beside what theory
    promises: the KL of the model's 1000 steps, evaluated on --device. Under torchrun its processes
    share the images, and the first one writes.
    """
    from benchmarks.inputs import first_images, split_digest
    from diffcodec.model.catalog import find_model

    if resume and force:
        raise click.UsageError("--resume and --force exclude each other.")
    terminal = Terminal(quiet)
    targets = {suffix: out / f"{NAME}{suffix}" for suffix in (JSON_SUFFIX, ".png", ".svg")}
    files.check_new_folder(out)
    if not resume:
        for target in targets.values():
            files.refuse_overwrite(target, force)
    if report is not None:
        files.check_target(files.STREAM, report, force)
    folder = find_model(model)
    place = locate_data(data, download, terminal)
    images = first_images(place, count)

    from benchmarks import campaign, measure
    from benchmarks.figures.rate_distortion import rate_distortion_figure
    from benchmarks.figures.style import figure_bytes
    from benchmarks.provenance import provenance
    from benchmarks.results import dumps
    from benchmarks.tables import terminal_table
    from diffcodec.training.dataset import data_name

    settings = measure.Settings(
        effort=effort,
        every_packet=True,
        device=pick_device(device),
        images=count,
        theory=count,
        peers=count if report is not None else 0,
        examples=min(EXAMPLES, count) if report is not None else 0,
        budgets=0,
        train=0,
        efforts=0,
        round_trips=0,
        speed=0,
        threads=0,
    )
    work = measure.ImageWork(data_name(place), images, images, folder, settings)
    origin = provenance(settings.device)
    with campaign.group() as group:
        journal = campaign.Journal.open(
            campaign.journal_path(targets[JSON_SUFFIX], group),
            measure.identity(origin, folder, {"test": split_digest(place)}, settings),
            origin,
            resume=resume,
            force=force,
        )
        with closing(journal):
            measured = measure.run(work, jobs or default_jobs(), journal, group, terminal)
    if measured is None:
        return
    record, examples = measured
    figure = rate_distortion_figure(record)
    for suffix, target in targets.items():
        is_json = suffix == JSON_SUFFIX
        content = dumps(record) if is_json else figure_bytes(figure, suffix[1:])
        files.write_atomically(target, content, force or resume)
    written = [*targets.values()]
    if report is not None:
        from benchmarks.report import page

        files.write_atomically(report, page(record, examples).encode(), force)
        written.append(report)
    click.echo(terminal_table(record))
    terminal.say(f"written: {', '.join(map(str, written))}")
