"""The docs as their reader: the tutorial's commands do what it says, every command has an example, the site builds."""

import contextlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer

from earmark import cli, paths
from earmark.metrics import page
from earmark.metrics.page import as_markdown, families
from earmark.metrics.registry import METRICS, backends
from earmark.reports import allure
from earmark.tests.helpers import PATIENCE_S, ROOT

DOCS = ROOT / "docs"
TUTORIAL = (DOCS / "tutorial.md").read_text(encoding="utf-8")
BLOCK = "=== block"


def blocks(text):
    """(language, content) of each fenced block. `bash` is run, `text` is what the one before printed, `sh` is shown."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


# -- the tutorial -----------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path):
    """A home of one's own; with the report's renderer where it is here, as it would be fetched."""
    (made := tmp_path / "home").mkdir()
    with contextlib.suppress(allure.ReportError):
        allure.prewarm()
        (made / "allure").symlink_to(paths.home() / "allure")
    return made


def run(commands, folder, home):
    """What each bash block printed, all of them run in one shell as a new user would."""
    script = "".join(f"echo '{BLOCK}'\n{command}\n" for command in commands)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("EARMARK_", "PYTEST_", "CI"))}
    env |= {"EARMARK_HOME": str(home), "PATH": f"{Path(sys.executable).parent}{os.pathsep}{env['PATH']}"}
    done = subprocess.run(
        ["bash", "-e", "-c", script], cwd=folder, env=env, text=True, timeout=PATIENCE_S,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    return done.stdout.split(f"{BLOCK}\n")[1:]


def plain(line):
    """A line without its widths, which differ with the length of the numbers."""
    return " ".join(re.sub(r"([━─])+", r"\1", line).split())


def promises() -> Iterator[tuple[int, str]]:
    """(place of the bash block, line) of every line of the text blocks below it."""
    place = -1
    for language, content in blocks(TUTORIAL):
        place += language == "bash"
        if language == "text":
            yield from ((place, line) for line in content.splitlines())


def test_the_tutorial_prints_what_it_says(tmp_path, home):
    commands = [content for language, content in blocks(TUTORIAL) if language == "bash"]
    promised = [*promises()]
    if not (home / "allure").exists():  # then the Allure page is left out, and with it one line
        commands = [command.replace("earmark report\n", "earmark report --no-html\n") for command in commands]
        promised = [(place, line) for place, line in promised if not line.startswith("report:")]
    printed = run(commands, tmp_path, home)
    broken = [line for place, line in promised if not kept(line, printed[place])]
    assert not broken, "\n".join(["not printed:", *broken, "printed:", *printed])
    assert len(promised) > 15


DECIMAL = r"\d+\.\d+(?:e[+-]\d+)?"


def kept(line, printed):
    """Whether a line was printed: `...` is anything, decimals agree within 5 % (other machines round otherwise)."""
    line = plain(line)
    parts = re.split(f"({DECIMAL})", line)  # every other part is a number
    words = [".*".join(re.escape(word) for word in part.split("...")) for part in parts[::2]]
    matches = (re.fullmatch(f"({DECIMAL})".join(words), plain(found)) for found in printed.splitlines())
    wanted = [float(number) for number in parts[1::2]]
    return any(match and [float(got) for got in match.groups()] == pytest.approx(wanted, rel=0.05) for match in matches)


def test_a_promise_that_is_not_kept_is_seen():
    assert kept("│ a │ 6 │ 1.5 ±0.066 │", "┃ x\n│ a      │ 6 │  1.49 ±0.067 │\n")
    assert not kept("│ a │ 6 │ 1.5 ±0.066 │", "│ a │ 5 │ 1.5 ±0.066 │")
    assert not kept("│ a │ 6 │ 1.5 ±0.066 │", "│ a │ 6 │ 1.7 ±0.066 │")
    assert not kept("exit code 1", "exit code 0")
    assert kept("v1: ... worse by 0.5", "v1: 2 as before, 1 worse by 0.51")
    assert not kept("v1: ... worse", "v1: 2 as before")


def test_the_tutorials_codec_is_the_demos():
    assert f"<<'END'\n{(DOCS / 'demo' / 'mulaw' / '__init__.py').read_text()}END\n" in TUTORIAL


@pytest.mark.parametrize("name", [".github/workflows/codec.yml", ".gitlab-ci.yml"])
def test_the_snippets_are_the_demos(name):
    snippet = "\n".join(line for line in (DOCS / "demo" / name).read_text().splitlines() if line[:1] != "#")
    assert f"```yaml\n{snippet}\n```" in (DOCS / "gating.md").read_text()


# -- help -------------------------------------------------------------------------------------------------------------


def commands(command=None, names=()):
    """Every command of `earmark` and of its groups: its words, and what it is."""
    command = command or typer.main.get_command(cli.app)
    yield names, command
    for name, child in getattr(command, "commands", {}).items():
        yield from commands(child, (*names, name))


@pytest.mark.parametrize(
    ("names", "command"), [*commands()], ids=lambda it: " ".join(it) if isinstance(it, tuple) else ""
)
def test_every_command_has_an_example_that_parses(names, command):
    examples = re.findall(r"^ *Example: (.+)$", command.help or "", re.MULTILINE)
    assert examples, f"earmark {' '.join(names)}: its help has no example"
    for example in examples:
        words = [word for word in shlex.split(example) if not re.match(r"\w+=", word)]
        if words[0] == "earmark":  # else it is pytest's, which the tutorial runs
            parse(words[1:], names)


def parse(words, names):
    """Raises click's UsageError where the words are not a command of ours with its options."""
    assert tuple(words[: len(names)]) == names
    command, context = typer.main.get_command(cli.app), None
    while hasattr(command, "commands"):
        context = typer.Context(command, parent=context, info_name="earmark")
        command, words = command.commands[words[0]], words[1:]
    command.make_context(command.name, [*words], parent=context)


# -- the pages --------------------------------------------------------------------------------------------------------


def test_the_page_of_metrics_is_in_step_with_the_registry():
    assert (DOCS / "metrics.md").read_text(encoding="utf-8") == as_markdown(), "run `make docs`"


def test_every_metric_is_on_its_page():
    rows = families((ROOT / "metrics" / "registry.yaml").read_text(encoding="utf-8"))
    named = {name for names in rows.values() for name in names}
    assert "other" not in rows
    assert not named - set(re.findall(r"^\| `(\w+)`", as_markdown(), re.MULTILINE))
    models = [model.name for kind in ("asr", "speaker") for model in backends(kind)]
    endings = ["", "_aligned", "_native", "_original", "_increase"]
    endings += [f"_{model}{ending}" for model in models for ending in ("", "_original", "_increase")]
    assert set(METRICS) <= {name + ending for name in named for ending in endings}


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("encode|decode", "`encode`, `decode`"),
        (r"codebook_\d+|overall", "`codebook_N`, `overall`"),
        (r"(shift_-?\d+ms|noise_[\w-]+)(_codebook_\d+)?", "`(shift_Nms / noise_…)[_codebook_N]`"),
        (r"(round_\d+(_previous)?|level_\d+db)", "`(round_N[_previous] / level_Ndb)`"),
    ],
)
def test_names_go_on_in_words(pattern, words):
    assert page._in_words(pattern) == words


def test_rows_stand_below_their_heading():
    found = families("# -- rate: bits ---\na: {unit: x}\n# -- signal\nb: {unit: y}\nc: {unit: z}\n")
    assert found == {"rate: bits": {"a": {"unit": "x"}}, "signal": {"b": {"unit": "y"}, "c": {"unit": "z"}}}


def test_the_site_builds_and_asks_the_network_for_nothing(tmp_path):
    pytest.importorskip("mkdocs")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", tmp_path / "site"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    loads = r"""<(?:script|img|iframe|link)\b[^>]*\b(?:src|href)=["'](?:https?:)?//[^"']+"""
    pages = [*(tmp_path / "site").glob("*.html")]
    assert {"index.html", "tutorial.html", "reading.html", "metrics.html", "gating.html"} <= {p.name for p in pages}
    assert not {page.name: found for page in pages if (found := re.findall(loads, page.read_text(encoding="utf-8")))}


def test_the_readme_links_to_what_is_there():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert "docs/tutorial.md" in links
    assert not [link for link in links if not (ROOT / link).exists()]


def test_no_page_has_a_place_left_to_fill_in():
    pages = [*DOCS.glob("*.md"), ROOT / "README.md", ROOT / "benchmarks" / "README.md", ROOT / "CONTRIBUTING.md"]
    assert not [page.name for page in pages if re.search(r"@[A-Z]+@|TODO|FIXME", page.read_text(encoding="utf-8"))]
