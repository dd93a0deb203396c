"""What could run code of a file, a name or a network's answer: all places in the packages, each with its reason."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Functions and modules that take bytes or text for code, or that unpack to where an archive says.
DANGEROUS = {
    *("eval", "exec", "compile", "__import__", "importlib.import_module", "importlib.util.module_from_spec"),
    *("runpy", "tempfile.mktemp"),
    *("os.system", "os.popen", "os.execv", "os.execve", "os.execvp", "os.spawnv", "os.spawnl"),
    *("pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "pandas.read_pickle", "yaml"),
    *("numpy.load", "numpy.fromfile", "torch.load", "torch.jit.load", "torch.hub", "torch.package"),
    *("zipfile", "shutil.unpack_archive", "ctypes.CDLL", "ctypes.cdll", "torch.ops.load_library"),
}
# Of any object, as of a `tarfile.TarFile`; and keywords with which a call runs more than it is given.
METHODS = {"extractall", "allow_pickle=", "shell=", "weights_only=", "trust_remote_code="}

ALLOWED = {
    ("melcnn/__init__.py", "importlib.import_module"): "names of our own modules",
    ("melcnn/data/clips.py", "numpy.load"): "without pickles",
    ("melcnn/data/clips.py", "allow_pickle="): "is False",
    ("melcnn/data/espeak_process.py", "ctypes.CDLL"): "the library of an installed package",
    ("melcnn/kernels/log_mel.py", "ctypes.CDLL"): "a type",
    ("melcnn/kernels/trunk.py", "ctypes.CDLL"): "a type",
    ("melcnn/native/__init__.py", "ctypes.CDLL"): "what we compiled, where nobody else could have put it",
    (
        "bench/counting/cost_tables.py",
        "importlib.import_module",
    ): "--model names code that is to run, as 'python -m' does",
    ("bench/system/environment.py", "importlib.import_module"): "a fixed name",
    ("bench/studies/forked_runs.py", "ctypes.CDLL"): "the C library that is loaded already",
    ("bench/system/monitor.py", "ctypes.CDLL"): "the C library that is loaded already",
    ("bench/studies/mutators.py", "pickle"): "makes the files that must not be loaded",
    ("bench/studies/mutators.py", "numpy.load"): "of what we made, without pickles",
    ("bench/executors/processes.py", "pickle"): "between our own processes, through pipes that nobody else has",
    ("bench/counting/reconcile.py", "importlib.import_module"): "fixed names, of other counters",
}


def found(text):
    """The dangerous names that a module uses, whatever it imports them as."""
    tree = ast.parse(text)
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for each in node.names:
                whole = each.name if each.asname else each.name.partition(".")[0]
                names[each.asname or whole] = whole
        elif isinstance(node, ast.ImportFrom) and not node.level:
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    used = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            used |= {each.name for each in node.names}
        elif isinstance(node, ast.Name | ast.Attribute):
            used.add(whole_name(node, names))
        if isinstance(node, ast.Attribute):
            used.add(node.attr if node.attr in METHODS else "")
        elif isinstance(node, ast.Call):
            used |= {f"{keyword.arg}=" for keyword in node.keywords}
    used |= set(names.values())
    parts = {".".join(name.split(".")[:n]) for name in used for n in range(1, name.count(".") + 2)}
    return parts & (DANGEROUS | METHODS)


def whole_name(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    return f"{whole_name(node.value, names)}.{node.attr}" if isinstance(node, ast.Name | ast.Attribute) else ""


def test_nothing_runs_code_but_where_there_is_a_reason():
    files = [path for package in ("melcnn", "bench") for path in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 100
    uses = {(path.relative_to(ROOT).as_posix(), name) for path in files for name in found(path.read_text())}
    assert uses - set(ALLOWED) == set(), "mend it, or give the reason why it is safe"
    assert set(ALLOWED) - uses == set(), "no longer needed"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("import os\nos.system('ls')", {"os.system"}),
        ("from os import system as run\nrun('ls')", {"os.system"}),
        ("import subprocess as s\ns.run('ls', shell=True)", {"shell="}),
        ("import numpy as np\nnp.load('a', allow_pickle=True)", {"numpy.load", "allow_pickle="}),
        ("import torch\nload = torch.load", {"torch.load"}),
        ("import torch as t\nt.load('a', weights_only=False)", {"torch.load", "weights_only="}),
        ("from pickle import loads", {"pickle"}),
        ("def late():\n    import pickle as p\n    return map(p.loads, [b''])", {"pickle"}),
        ("eval('1')", {"eval"}),
        ("list(map(exec, ['1']))", {"exec"}),
        ("__import__('os')", {"__import__"}),
        ("import tarfile\ntarfile.open('a').extractall('b')", {"extractall"}),
        ("import zipfile", {"zipfile"}),
        ("network.eval()\nre.compile('a')\ntorch.compile(network)\nsafetensors.torch.load(b'')", set()),
    ],
)
def test_it_sees_what_it_looks_for(text, expected):
    assert found(text) == expected


def test_arrays_are_loaded_without_pickles():
    tree = ast.parse((ROOT / "melcnn" / "data" / "clips.py").read_text())
    keywords = [node for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "allow_pickle"]
    assert [keyword.value.value for keyword in keywords] == [False]
