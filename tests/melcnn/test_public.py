"""The public names of melcnn: imported when first used, and known to type checkers and editors."""

import importlib.metadata
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

import melcnn
from melcnn.config import SETTINGS, Settings, Trial

ROOT = Path(melcnn.__file__).parents[1]
NAMES = sorted({*melcnn.__all__} - {"__version__"})


def test_every_public_name_exists_and_others_do_not():
    assert {*NAMES} == {*melcnn._HOMES} and dir(melcnn) == melcnn.__all__
    for name in NAMES:
        assert getattr(melcnn, name).__name__ == name
    with pytest.raises(AttributeError, match="module 'melcnn' has no attribute 'configur'"):
        _ = melcnn.configur


def test_the_import_alone_is_light():
    code = "import sys, melcnn; assert not {'torch', 'numpy', 'pydantic', 'importlib.metadata'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_the_version_is_that_of_the_installed_package(monkeypatch):
    def found(name):
        assert name == "melbench"
        return "1.2.3"

    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", found)
    assert melcnn.__version__ == "1.2.3"
    monkeypatch.setattr(importlib.metadata, "version", missing)
    assert melcnn.__version__ == "0+unknown"


def test_the_types_of_settings_are_those_of_the_fields():
    fields = {name: get_type_hints(Trial.model_fields[section].annotation)[name] for name, section in SETTINGS.items()}
    assert get_type_hints(Settings) == fields


def test_the_packages_are_marked_as_typed():
    assert all((ROOT / package / "py.typed").is_file() for package in ("melcnn", "bench"))


@pytest.fixture
def errors(tmp_path, monkeypatch):
    """Gives the errors that mypy finds in a text."""
    api = pytest.importorskip("mypy.api")
    monkeypatch.setenv("MYPYPATH", str(ROOT))

    def check(text):
        (tmp_path / "user.py").write_text(text)
        # Without torch's and pydantic's types this takes a second, and no error below depends on them.
        options = ["--config-file=", "--no-site-packages", "--ignore-missing-imports", "--follow-imports=silent"]
        found, problem, _ = api.run([*options, f"--cache-dir={tmp_path / 'cache'}", str(tmp_path / "user.py")])
        assert not problem
        return [line for line in found.splitlines() if ": error: " in line]

    return check


def test_a_type_checker_finds_misspelled_names_and_settings(errors):
    first, second = errors("import melcnn\nmelcnn.configur(groups=4)\nmelcnn.configure(group=4)\n")
    assert ':2: error: Module has no attribute "configur"' in first
    assert ':3: error: Unexpected keyword argument "group" for "configure"' in second
    assert 'incompatible type "str"; expected "int"' in errors("import melcnn\nmelcnn.configure(groups='4')\n")[0]


def test_a_type_checker_knows_every_public_name(errors):
    uses = "".join(f"melcnn.{name}\n" for name in melcnn.__all__)
    assert (
        errors(f"import melcnn\n{uses}melcnn.configure(('go', 'stop'), groups=4, patience=None).training.epochs\n")
        == []
    )
