"""One page that opens offline: figures, tables, and an image byte by byte.

``python -m benchmarks.report OUT.html [--results DIR]``
"""

import argparse
import base64
import json
import sys
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from benchmarks import results
from benchmarks.figures import draw
from benchmarks.figures.style import figure_bytes
from benchmarks.tables import TABLES, Table, origin, table
from cli import files
from diffcodec.errors import DiffcodecError

Record = Mapping[str, Any]

FIGURE_CAPTIONS = {
    "rd-curve": "Error against rate: ours, other codecs on the same images, published points.",
    "rd-peers": "PSNR against rate beside every codec measured.",
    "strips": "Pictures at equal bytes.",
    "lossless": "Lossless sizes.",
    "progressive": "Distortion and rate against reverse steps, as DDPM's Figure 5.",
    "bits-by-step": "Where the bits go.",
    "efforts": "Lossless size against time.",
}
TABLE_CAPTIONS = {
    "facts": "Counts and prices",
    "lossless": "Lossless, one file an image",
    "stops": "Every file stopped at one noise level",
    "cuts": "Every file cut at one length",
    "budgets": "Files made for a budget",
    "bd-rates": "Bjøntegaard's delta rate: our rate against a codec's at equal PSNR",
    "progressive": "Theoretical rate and error, beside DDPM's Table 4",
    "codelength": "Codelength: the bound by part",
    "speed": "Speed and memory",
    "efforts": "Efforts",
    "shares": "What takes the time of every effort",
    "parts": "Where the bits of a lossless file go",
    "excess": "Hops beside the finest grid's",
}
# Nothing is fetched: a browser that honours the policy refuses every request.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_STYLE = """
body { font: 15px/1.5 sans-serif; color: #222; max-width: 62rem;
  margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.2rem }
figure { margin: 1.5rem 0 } figure img { max-width: 100% } figcaption { color: #555 }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: .2rem .7rem; border-bottom: 1px solid #ddd; text-align: right }
th:first-child, td:first-child { text-align: left }
tr.ours { font-weight: bold }
#stepper { display: flex; gap: 1.5rem; flex-wrap: wrap; align-items: flex-start }
#stepper img { width: 256px; height: 256px; image-rendering: pixelated; border: 1px solid #ccc }
#bytes { width: 100%; max-width: 40rem } code { overflow-wrap: anywhere }
"""
_SCRIPT = """
const examples = JSON.parse(document.getElementById("examples").textContent);
const choice = document.getElementById("example"), slider = document.getElementById("bytes");
const shown = document.getElementById("shown"), original = document.getElementById("original");
const told = document.getElementById("told");
function picture(png) { return "data:image/png;base64," + png; }
function show() {
  const example = examples[choice.value], bytes = Number(slider.value);
  let frame = example.frames[0];
  for (const next of example.frames) if (next.stream_bytes <= bytes) frame = next;
  shown.src = picture(frame.png);
  const bpd = (8 * bytes / example.dimensions).toFixed(3);
  const error = "RMSE " + frame.rmse.toFixed(2) + " at step " + frame.step +
    (frame.exact_values ? ", " + frame.exact_values + " values exact" : "");
  told.textContent = bytes + " of " + example.total_bytes + " bytes, " + bpd + " bits/dim: " +
    (frame.rmse === 0 ? "exact" : error);
}
function choose() {
  const example = examples[choice.value];
  original.src = picture(example.original);
  slider.min = example.frames[0].stream_bytes;
  slider.max = example.total_bytes;
  show();
}
examples.forEach((_, number) => choice.add(new Option("image " + number, number)));
choice.addEventListener("change", choose);
slider.addEventListener("input", show);
const asked = new URLSearchParams(location.hash.slice(1));
choice.value = asked.get("image") || 0;
choose();
slider.value = asked.get("bytes") || Math.round(slider.max / 10);
show();
"""
_STEPPER = """
<h2>Every prefix of a file is an image</h2>
<p><label>Example: <select id="example"></select></label></p>
<p><label>Bytes: <input id="bytes" type="range" min="0" max="1" step="1"></label><br>
<output id="told" for="bytes"></output></p>
<div id="stepper">
<figure><img id="shown" alt="the image that these bytes decode to"><figcaption>decoded</figcaption>
</figure>
<figure><img id="original" alt="the original image"><figcaption>original</figcaption></figure>
</div>
"""


def page(record: Record, examples: Sequence[Mapping[str, Any]]) -> str:
    """The whole page; figures and tables of what was measured, and no others."""
    title = escape(f"diffcodec on {record['data']}")
    parts = [f"<h1>{title}</h1>", f"<p>{_code(origin(record))}</p>"]
    if examples:
        parts.append(_STEPPER)
    figures = draw(record, examples)
    for name, caption in FIGURE_CAPTIONS.items():
        if name in figures:
            data = base64.b64encode(figure_bytes(figures[name], "svg")).decode("ascii")
            parts.append(
                f'<figure id="{name}"><img src="data:image/svg+xml;base64,{data}" '
                f'alt="{escape(caption)}"><figcaption>{escape(caption)}</figcaption></figure>'
            )
    for name in TABLES:
        if (found := table(name, record)) is not None:
            parts += [f"<h2>{escape(TABLE_CAPTIONS[name])}</h2>", _html(name, found)]
    if examples:
        # A script's text ends at its first "</".
        data = json.dumps([_stepped(example) for example in examples]).replace("<", "\\u003c")
        parts.append(f'<script type="application/json" id="examples">{data}</script>')
        parts.append(f"<script>{_SCRIPT}</script>")
    body = "\n".join(parts)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        f'<meta name="viewport" content="width=device-width">\n'
        f"<title>{title}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page; 0 on success, 1 on failure, 2 on misuse."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.report", description=__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.html")
    parser.add_argument("--results", type=Path, default=results.RESULTS, metavar="DIR")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite")
    options = parser.parse_args(arguments)
    try:
        files.refuse_overwrite(options.out, options.force)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        written = page(*results.load_folder(options.results)).encode()
        files.write_atomically(options.out, written, options.force)
    except (DiffcodecError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _stepped(example: Mapping[str, Any]) -> dict[str, Any]:
    """What the slider needs of an example."""
    return {key: example[key] for key in ("original", "total_bytes", "dimensions", "frames")}


def _html(name: str, found: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in found.head)
    rows = []
    for row in found.rows:
        ours = ' class="ours"' if any(cell.startswith("**") for cell in row) else ""
        cells = "".join(f"<td>{escape(cell.strip('*'))}</td>" for cell in row)
        rows.append(f"<tr{ours}>{cells}</tr>")
    return (
        f'<table id="table-{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _code(text: str) -> str:
    """HTML of text with one stretch between backticks."""
    before, _, rest = text.partition("`")
    code, _, after = rest.partition("`")
    return f"{escape(before)}<code>{escape(code)}</code>{escape(after)}"


if __name__ == "__main__":
    raise SystemExit(main())
