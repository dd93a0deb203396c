"""What README and docs/ name exists: links and their anchors, commands, options, settings, names in Python, figures."""

import importlib
import re

import pytest
from typer.main import get_command

from bench.cli.app import app
from bench.grid import parse_axes, plan
from melcnn.config import SETTINGS
from tests.helpers.pages import DOCS, README, ROOT, blocks, code_spans, commands, page, prose

# Whose options they are; all others are melbench's.
OTHERS_OPTIONS = {
    "--benchmark-only": "pytest-benchmark",
    "--benchmark-json": "pytest-benchmark",
    "--benchmark-compare-fail": "pytest-benchmark",
    "--benchmark-group-by": "pytest-benchmark",
    "--benchmark-columns": "pytest-benchmark",
    "--pyargs": "pytest",
    "--logdir": "tensorboard",
    "--head": "ray",
    "--address": "ray",
}

RESULTS = sorted(str(path.relative_to(ROOT)) for path in ROOT.glob("results/**/README.md"))
# Tables of which a page shows some rows and columns, and where all of them are.
EXCERPTS = {"docs/timing.md": "results/timing/groups-melbench.md", README: "results/recipes/groups.md"}


def options():
    """The options of each command, by its name: "sweep", "data info"; "" for melbench itself."""
    root = get_command(app)
    found, waiting = {}, [("", root)]
    while waiting:
        name, command = waiting.pop()
        found[name] = {"--help", *(text for one in command.params for text in one.opts)}
        waiting += [(f"{name} {part}".strip(), each) for part, each in getattr(command, "commands", {}).items()]
    return found


def anchors(text):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    plain = (re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "") for heading in headings)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in plain}


def test_anchors_are_githubs():
    assert anchors("# A page\n## `melbench time`, [how](x.md) & why?\n```sh\n# no heading\n```\n") == {
        "a-page",
        "melbench-time-how--why",
    }


@pytest.mark.parametrize("name", [README, *DOCS, "CONTRIBUTING.md", "results/test-looks.md", *RESULTS])
def test_links_and_anchors_exist(name):
    here, missing = (ROOT / name).parent, []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(name)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (here / path).resolve() if path else ROOT / name
        if not file.exists() or (anchor and anchor not in anchors(file.read_text())):
            missing.append(target)
    assert not missing


def test_readme_or_contributing_link_every_page():
    assert set(DOCS) <= set(re.findall(r"\]\(([^)#]+)", page(README) + page("CONTRIBUTING.md")))


@pytest.mark.parametrize("name", [README, *DOCS, *RESULTS])
def test_commands_and_options_exist(name):
    known = options()
    every = set().union(*known.values())
    lines = [line for block in blocks(name) if block.language == "sh" for line in commands(block.text)]
    for text in [*code_spans(name), *lines]:
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - set(OTHERS_OPTIONS)
        if command := re.search(r"(?:^| )melbench( .*|$)", text):
            words = [word for word in command[1].split() if not word.startswith("-")]
            subject = " ".join(words[: 2 if words[:1] in (["data"], ["results"]) else 1])
            assert subject in known and named <= known[subject] | known[""], text
        elif not text.startswith("python -m"):  # programs of their own
            assert named <= every, text


@pytest.mark.parametrize("name", [README, *DOCS])
def test_settings_exist_and_take_the_values(name):
    for text in code_spans(name):
        if (setting := re.fullmatch(r"([a-z_]+)=[\w.,]+", text)) and setting[1] in {*SETTINGS, "name"}:
            assert plan(parse_axes([text]))
        elif setting:
            raise AssertionError(f"{text} is no setting")


@pytest.mark.parametrize("name", [README, *DOCS, "CONTRIBUTING.md"])
def test_modules_files_and_names_exist(name):
    for text in code_spans(name):
        for file in re.findall(r"(?:^| )((?:melcnn|bench|tests|docs|results)/[\w/.-]+)", text):
            assert (ROOT / file).exists(), file
        for dotted in re.findall(r"(?:^| )((?:melcnn|bench)(?:\.\w+)+)", text):
            assert resolved(dotted), dotted


def resolved(dotted):
    """Whether `melcnn.data.folds.held_out` and the like is a module, or a name in one."""
    module, _, rest = dotted.partition(".")
    found = importlib.import_module(module)
    for part in rest.split("."):
        if not hasattr(found, part):
            try:
                importlib.import_module(f"{found.__name__}.{part}")
            except (ImportError, AttributeError):
                return False
        found = getattr(found, part)
    return True


def rows(text):
    """The tables of a page as rows of cells by heading."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE):
        headings, _, *others = ([cell.strip() for cell in line[1:-1].split(" | ")] for line in table.splitlines())
        found += [dict(zip(headings, cells, strict=True)) for cells in others]
    return found


@pytest.mark.parametrize("name", EXCERPTS)
def test_excerpts_are_of_the_results(name):
    whole = rows(page(EXCERPTS[name]))
    shown = [row for row in rows(page(name)) if row.keys() & {"time", "epoch time"}]
    assert shown and all(any(row.items() <= each.items() for each in whole) for row in shown)
