"""The shape of the library: sizes, no hidden inputs, public docstrings. (Import direction: tests/docs/test_architecture.py.)"""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "boundlab"
REPOSITORY = ROOT.parents[1]
MODULES = [*sorted(ROOT.rglob("*.py")), *sorted((REPOSITORY / "benchmarks").glob("*.py"))]
COMMANDS = ("cli", "benchmarks")
"""Parts that print."""


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py") if path.is_relative_to(ROOT) else "benchmarks"


def functions(tree):
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def calls(tree, *names):
    """Lines that call one of the builtins `names`."""
    return [node.lineno for node in ast.walk(tree)
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in names]


def parameters(function):
    """How many parameters a caller sees; self and cls do not count."""
    listed = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    return sum(argument.arg not in ("self", "cls") for argument in listed)


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text())


def names(paths):
    return [str(path.relative_to(ROOT if path.is_relative_to(ROOT) else REPOSITORY)) for path in paths]


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{path.name} has {len(text.splitlines())} lines; split it"
    for function in functions(tree_of(path)):
        length = function.end_lineno - function.lineno + 1
        assert length <= 50, f"{function.name} has {length} lines"
        if path.name != "__main__.py":  # the benchmarks' options are their parameters
            assert parameters(function) <= 6, f"{function.name} has {parameters(function)} parameters"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_no_hidden_inputs_or_outputs(path):
    tree = tree_of(path)
    assert not calls(tree, "getattr", "hasattr", "setattr"), "structure by type, not by asking for names"
    assert not calls(tree, "eval", "exec", "globals"), "no code from text"
    if part_of(path) not in COMMANDS:
        assert not calls(tree, "print", "input"), "the library does not print"
    reads = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")]
    assert not reads, "the library reads no environment variables"
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert "*" not in imported, "imports name what they import"


SLOW = ("torch.export", "torch.fx.experimental", "torch._dynamo", "sympy", "matplotlib", "ray", "onnxruntime")
"""What takes long to import, and most calls of the library or the command never need."""


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_what_loads_slowly_is_loaded_where_it_is_used(path):
    found = [name for node in tree_of(path).body if isinstance(node, (ast.Import, ast.ImportFrom))
             for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])]
    slow = [name for name in found if name is not None and name.startswith(SLOW)]
    assert not slow or part_of(path) == "benchmarks", f"import {slow[0]} inside the function that needs it"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_public_things_say_what_they_are(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), "a module begins with one sentence"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_there_is_something_to_check():
    assert len(MODULES) > 30 and {"maps", "ops", "bounds", "capture", "testing"} <= {part_of(path) for path in MODULES}
