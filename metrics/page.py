"""The page of all metrics, docs/metrics.md, made from the registry: `earmark metrics --markdown`.

What a row means is the first sentence of its function; of a procedure, which has none, what its row says.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from earmark import yamls
from earmark.metrics.registry import ANY_AUDIO, METRICS, Metric, backends

ROWS = Path(__file__).parent / "registry.yaml"
INTRODUCTION = """# The meaning of each score

Made by `earmark metrics --markdown` from `metrics/registry.yaml`; edit the rows there and run `make docs`.

Every score has a unit, a direction (↑ more is better, ↓ less is better) and, where its definition has one, the value of
a perfect match (*best*). *For* is the audio that the metric was validated on: elsewhere it runs, its scores carry a †,
and only a threshold that you write can fail them. Every score stands beside its number of clips, its failures and its
95 % interval: [how to read them](reading.md).

What a name may go on with:

| ending | meaning |
|---|---|
| `_aligned` | measured after the codec's delay is removed: eight samples of delay cost over 10 dB |
| `_native` | at the codec's own sample rate, for codecs of 32 kHz and more, beside the papers' rate |
| `_original` | of the recording itself: what the metric makes of it before any codec |
| `_increase` | the reconstruction's value minus the recording's: what the codec did |
| `_codebook_0` | of one codebook, counted from 0 as in `codes[:, 0]`; AudioCodecBench prints perplexities from 1 |
| a model, as in `wer_whisper_base` | the model it was measured with; scores of two models never share a column |
"""
HEADER = ("| metric | unit | best | for | meaning | source |", "|---|---|---|---|---|---|")
NO_TABLE = str.maketrans({"|": "\\|", "<": "&lt;"})


def as_markdown() -> str:
    """The whole page: a table a family, in the registry's order."""
    parts = [INTRODUCTION]
    for heading, names in families(ROWS.read_text(encoding="utf-8")).items():
        title, _, about = heading.partition(": ")
        if len(about.split()) <= 3:  # a word or two tell families of one title apart
            title, about = heading, ""
        parts += [f"## {title[:1].upper()}{title[1:]}\n", *([f"{_sentence(about)}\n"] if about else [])]
        parts.append("\n".join([*HEADER, *(_row(name, raw) for name, raw in names.items())]) + "\n")
    return "\n".join(parts)


def families(text: str) -> dict[str, dict[str, dict]]:
    """The rows of a registry under the `# -- heading ---` that each stands below: {heading: {name: row}}.

    >>> families("# -- rate: bits ---\\na: {unit: x}\\n# -- signal --\\nb: {unit: y}\\n")
    {'rate: bits': {'a': {'unit': 'x'}}, 'signal': {'b': {'unit': 'y'}}}
    """
    rows, heading = yamls.read(text), "other"
    found: dict[str, dict[str, dict]] = {}
    for line in text.splitlines():
        if said := re.match(r"# -- (.+?)(?: -+)?$", line):
            heading = said[1]
        elif (key := re.match(r"(\w+):", line)) and key[1] in rows:
            found.setdefault(heading, {})[key[1]] = rows[key[1]]
    return found


def _row(name: str, raw: dict) -> str:
    metric = _any_of(name, raw)
    best = "" if metric.best is None else f"{metric.best:.4g}".replace("inf", "∞")
    heard = "any audio" if metric.domains == ANY_AUDIO else ", ".join(metric.domains)
    meaning, source = (_meaning(metric), metric.source) if metric.function else (metric.source, metric.library)
    cells = [_names(name, raw), metric.unit, best, heard, f"{_sentence(meaning)}{_ending(raw)}", source]
    cells[0] += " ↑" if metric.higher_is_better else " ↓"
    return f"| {' | '.join(cell.translate(NO_TABLE) for cell in cells)} |"


def _any_of(name: str, raw: dict) -> Metric:
    """One of the metrics that a row stands for; what the page says is the same for all of them."""
    models = (f"{name}_{model.name}" for model in backends(raw["backends"])) if "backends" in raw else (name,)
    return METRICS[next(model for model in models)]


def _names(name: str, raw: dict) -> str:
    """The name, and the endings that this row has."""
    endings = [*raw.get("twins", ()), *(of for of in raw.get("of", ()) if of != "estimate")]
    return " ".join([f"`{name}`", *(f"`_{ending}`" for ending in endings)])


def _ending(raw: dict) -> str:
    """What else the name goes on with, in words rather than as the regular expression of the row."""
    if "backends" in raw:
        return f" Models: {', '.join(f'`{model.name}`' for model in backends(raw['backends']))}."
    if raw.get("kind") == "embedding":
        return " The encoder follows, as in `_logmel`."
    return f" Goes on with {_in_words(raw['variants'])}." if raw.get("variants") else ""


def _in_words(pattern: str) -> str:
    """A regular expression of names for a reader: N a number, … any text, ( / ) a choice, [ ] what may be absent.

    >>> _in_words(r"overall|(shift_\\d+ms|noise_[\\w-]+)(_codebook_\\d+)?")
    '`overall`, `(shift_Nms / noise_…)[_codebook_N]`'
    """
    plain = re.sub(r"-\?|\\[-.]", "", pattern.replace(r"\d+", "N").replace(r"[\d.]+", "N"))
    plain = re.sub(r"\[[^]]*\]\+", "…", plain)
    plain = re.sub(r"\(([^()]*)\)\?", r"[\1]", plain)
    parts, depth = [""], 0
    for char in plain:
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            parts.append("")
        else:
            parts[-1] += " / " if char == "|" else char
    return ", ".join(f"`{part}`" for part in parts)


def _meaning(metric: Metric) -> str:
    """The first sentence of the function's docstring, read without importing what the function needs."""
    tree = ast.parse(Path(metric.source_file()).read_text(encoding="utf-8"))
    name = metric.function.partition(":")[2]
    found = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    return " ".join((ast.get_docstring(found) or metric.source).partition("\n\n")[0].split())


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:].rstrip('.')}."
