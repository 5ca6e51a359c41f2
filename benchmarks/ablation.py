"""What the codec's choices are worth: ``python -m benchmarks.ablation [--only LABEL]``.

Held-out CIFAR-10 images are coded without loss at the default effort as it is, then with one choice
changed at a time, in encoder and decoder alike. Beside each: the difference in bits/dim, the ratio
of RMSE where files are cut at `RATES_BPD`, both paired by image and with twice their standard
errors, and the encoder's evaluations. Results go to ``ablation.json``, a table to stdout.
"""

import argparse
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any
from unittest import mock

import numpy as np
from numpy.typing import NDArray

from benchmarks import campaign, held_out
from benchmarks.held_out import Subject
from benchmarks.metrics import mean_squared_error
from benchmarks.real_files import decode_last, standard_error
from benchmarks.tables import Table
from diffcodec.codec import pixels as pixel_stage
from diffcodec.codec import plan
from diffcodec.codec.effort import DEFAULT_EFFORT, effort_level
from diffcodec.codec.encoder import EncoderSettings, encode_image
from diffcodec.codec.model import CodecModel
from diffcodec.coding.channel import CHANNEL_CODES, TrellisCode
from diffcodec.diffusion import wiener
from diffcodec.model.checkpoint import ErrorSpectrum

RESULT = "ablation.json"
RATES_BPD = (0.1, 0.5)
SHIPPED = "as it is"


def same_model(model: CodecModel) -> CodecModel:
    """The model itself."""
    return model


@dataclass(frozen=True)
class Change:
    """What is other than in the codec that ships.

    Attributes:
        constants: of modules, by name.
        settings: of the encoder's `EncoderSettings`.
        model: what takes the model's place.
    """

    constants: Sequence[tuple[Any, Mapping[str, Any]]] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    model: Callable[[CodecModel], CodecModel] = same_model

    @contextmanager
    def made(self) -> Iterator[None]:
        """Within it the constants have their other values.

        Raises:
            AttributeError: a module has no such constant.
        """
        with ExitStack() as stack:
            for owner, values in self.constants:
                for name, value in values.items():
                    stack.enter_context(mock.patch.object(owner, name, value))
            yield


def of_plan(**values: Any) -> Change:
    """Other constants of `diffcodec.codec.plan`."""
    return Change([(plan, values)])


def with_codes(change: Callable[[TrellisCode], TrellisCode]) -> Change:
    """All channel codes changed."""
    return of_plan(CHANNEL_CODES={key: change(code) for key, code in CHANNEL_CODES.items()})


def with_spectrum(change: Callable[[ErrorSpectrum], ErrorSpectrum]) -> Change:
    """Another error spectrum in the model."""

    def changed(model: CodecModel) -> CodecModel:
        curve = model.checkpoint.error_curve
        curve = replace(curve, spectrum=change(curve.spectrum))
        return CodecModel(replace(model.checkpoint, error_curve=curve))

    return Change(model=changed)


def times_spread(factor: float) -> Callable[[ErrorSpectrum], ErrorSpectrum]:
    """What updates of x̂_0 are reckoned to gain, multiplied."""

    def changed(spectrum: ErrorSpectrum) -> ErrorSpectrum:
        rows = (tuple(factor * value for value in row) for row in spectrum.spread)
        return replace(spectrum, spread=tuple(rows))

    return changed


def times_bought(factor: float) -> Callable[[TrellisCode], TrellisCode]:
    """What a section is reckoned to buy, multiplied."""
    return lambda code: replace(code, section_bits=factor * code.section_bits)


CHANGES: Mapping[str, Change] = {
    SHIPPED: Change(),
    "hops of 14 bits and more": of_plan(SMALLEST_HOP_BITS=14),
    "hops of 56 bits and more": of_plan(SMALLEST_HOP_BITS=56),
    "packets of 20 bits and more": of_plan(SMALLEST_PART_BITS=20),
    "packets of 56 bits and more": of_plan(SMALLEST_PART_BITS=56),
    "hops grow from 0 bits on": of_plan(HOP_OFFSET_BITS=0),
    "hops grow from 128 bits on": of_plan(HOP_OFFSET_BITS=128),
    "a correction at every hop": of_plan(CORRECTION_INTERVAL_BITS=0),
    "corrections after 160 bits": of_plan(CORRECTION_INTERVAL_BITS=160),
    "no lag of first hops": of_plan(LAG_BITS=2.0**-20),
    "twice the lag of first hops": of_plan(LAG_BITS=56),
    "a section buys 0.97 of it": with_codes(times_bought(0.97)),
    "a section buys 1.03 of it": with_codes(times_bought(1.03)),
    "8 sections ahead": with_codes(lambda code: replace(code, lookahead=8)),
    "32 sections ahead": with_codes(lambda code: replace(code, lookahead=32)),
    "updates by single pixels": with_spectrum(lambda spectrum: ErrorSpectrum.flat()),
    "updates gain 0.7 of it": with_spectrum(times_spread(0.7)),
    "updates gain 1.3 of it": with_spectrum(times_spread(1.3)),
    "two steps of gradients": Change([(wiener, {"GRADIENT_STEPS": 2})]),
    "six steps of gradients": Change([(wiener, {"GRADIENT_STEPS": 6})]),
    "hand-over at γ = −7.2": Change(settings={"handover_gamma": -7.2}),
    "hand-over at γ = −8.4": Change(settings={"handover_gamma": -8.4}),
    "4 groups of pixels": Change(settings={"groups": 4}),
    "16 groups of pixels": Change(settings={"groups": 16}),
    "latents in steps twice as large": Change([(pixel_stage, {"LATENT_STEPS_BITS": 3})]),
}


@dataclass(eq=False)
class ChangeWork:
    """One image with one change; travels to worker processes, each of which loads the model."""

    subject: Subject

    @cached_property
    def models(self) -> dict[str, CodecModel]:
        """The model as each change has it, as far as asked for."""
        return {}

    def __call__(self, item: str) -> Any:
        """Size, errors of cuts and evaluations of ``label/image``, ready for JSON."""
        label, _, image = item.rpartition("/")
        pixels, change = self.subject.images[int(image)], CHANGES[label]
        if label not in self.models:
            self.models[label] = change.model(self.subject.model)
        model = self.models[label]
        settings = EncoderSettings.for_effort(effort_level(DEFAULT_EFFORT))
        settings = replace(settings, **change.settings)
        with change.made():
            encoded = encode_image(pixels, model, settings)
            cuts = (encoded.data[: math.floor(rate * pixels.size / 8)] for rate in RATES_BPD)
            errors = [mean_squared_error(decode_last(cut, model), pixels) for cut in cuts]
        return {"bpd": encoded.bpd, "mse": errors, "evaluations": encoded.evaluations}


def summarize(results: campaign.Results, labels: Sequence[str], images: int) -> dict[str, Any]:
    """Each change beside the codec as it is, image by image."""

    def column(label: str, key: str) -> NDArray[np.float64]:
        found = [results[f"{label}/{image}"][key] for image in range(images)]
        return np.array(found, dtype=np.float64)

    rows = []
    for label in labels:
        more = column(label, "bpd") - column(SHIPPED, "bpd")
        ratios = np.log(column(label, "mse") / column(SHIPPED, "mse")) / 2
        rows.append(
            {
                "change": label,
                "bpd": float(column(label, "bpd").mean()),
                "rmse": np.sqrt(column(label, "mse").mean(axis=0)).tolist(),
                "evaluations": float(column(label, "evaluations").mean()),
                "more_bpd": float(more.mean()),
                "more_bpd_error": standard_error(more),
                "log_rmse_ratio": ratios.mean(axis=0).tolist(),
                "log_rmse_ratio_error": [standard_error(ratio) for ratio in ratios.T],
            }
        )
    return {"rates_bpd": list(RATES_BPD), "effort": DEFAULT_EFFORT, "rows": rows}


def ablation_table(record: Mapping[str, Any]) -> Table:
    """A row for each change, differences with twice their standard errors."""

    def difference(mean: float, error: float, scale: float, digits: int) -> str:
        shown = f"{scale * mean:+.{digits}f}".replace("-", "−")
        return f"{shown} ± {2 * scale * error:.{digits}f}"

    rows = []
    for row in record["rows"]:
        cells = [row["change"], f"{row['bpd']:.4f}"]
        changed = row["change"] != SHIPPED
        pairs = zip(row["log_rmse_ratio"], row["log_rmse_ratio_error"], strict=True)
        if changed:
            cells.append(difference(row["more_bpd"], row["more_bpd_error"], 1.0, 4))
            cells += [difference(mean, error, 100.0, 1) for mean, error in pairs]
        else:
            cells += ["", *(f"{rmse:.2f}" for rmse in row["rmse"])]
        rows.append([*cells, f"{row['evaluations']:.1f}"])
    errors = [f"RMSE at {rate:g} bits/dim, %" for rate in record["rates_bpd"]]
    head = ["", "bits/dim, lossless", "more than as it is", *errors, "evaluations"]
    return Table(head, rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write and print; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.ablation",
        description=__doc__.splitlines()[0] if __doc__ else None,
    )
    parser.add_argument(
        "--only", action="append", choices=[*CHANGES][1:], metavar="LABEL", help="default: all"
    )
    held_out.add_options(parser, images=24)
    held_out.add_run_options(parser)
    options = parser.parse_args(arguments)
    if options.images < 2 or options.jobs < 1:
        parser.error("expected --images of at least 2 and --jobs of at least 1")
    labels = [SHIPPED, *(options.only or [*CHANGES][1:])]

    def measure(subject: Subject) -> dict[str, Any]:
        count = len(subject.images)
        items = [f"{label}/{image}" for label in labels for image in range(count)]
        work = ChangeWork(subject)
        origin, results = held_out.run_items(options, RESULT, subject, work, items, labels)
        return {"provenance": origin, **summarize(results, labels, count)}

    return held_out.run(options, RESULT, measure, lambda record: ablation_table(record).show())


if __name__ == "__main__":
    raise SystemExit(main())
