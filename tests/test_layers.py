"""The shape of the library: import direction, sizes, no hidden inputs, public docstrings. Tables, not opinions."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "src" / "boundlab"
MODULES = sorted(ROOT.rglob("*.py"))
BASE = {"errors", "maps", "interval", "affine"}
RULES = BASE | {"graph", "spec", "ops"}
BELOW = {
    "errors": set(),
    "maps": {"errors"},
    "interval": {"errors"},
    "affine": {"interval", "maps", "errors"},
    "graph": {"errors"},
    "spec": {"errors"},
    "ops": BASE,
    "evaluate": RULES,
    "perturbations": BASE | {"graph", "spec"},
    "capture": RULES | {"evaluate"},
    "attack": RULES | {"evaluate", "perturbations", "capture"},
    "bounds": RULES | {"evaluate", "perturbations", "capture", "attack"},
    "solve": RULES | {"evaluate", "perturbations", "capture", "attack", "bounds"},
    "verify": RULES | {"evaluate", "perturbations", "capture", "attack", "bounds", "solve"},
    "train": RULES | {"evaluate", "perturbations", "capture", "attack", "bounds", "solve"},
    "data": RULES,
    "zoo": RULES | {"data"},
}
"""What each folder (or top module) may import; what is drawn beneath it in the architecture. Cousins never meet."""
BELOW["jobs"] = {name for name in BELOW if name not in ("reports", "jobs")}
BELOW["reports"] = {name for name in BELOW if name not in ("reports", "jobs")}
ABOVE = {"cli", "testing", "reproduce", "__init__", "__main__"}
"""May import everything (testing and reproduce: everything beneath the command line)."""


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imports(tree):
    """The parts of boundlab that a module imports, wherever the import stands."""
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [f"boundlab.{alias.name}" for alias in node.names] if node.module == "boundlab" else [node.module]
        for name in names:
            if name.split(".")[0] == "boundlab":
                yield node.lineno, [*name.split("."), "__init__"][1]


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


def tree_of(path):
    return ast.parse(path.read_text())


def names(paths):
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_imports_go_downwards(path):
    part = part_of(path)
    if part in ABOVE:
        return
    assert part in BELOW, f"'{part}' is not in the table of layers; say in tests/test_layers.py what it may import"
    wrong = [(line, name) for line, name in imports(tree_of(path)) if name != part and name not in BELOW[part]]
    assert not wrong, f"{path.name} imports upwards or sideways: {wrong}"


def test_nothing_imports_the_command_line():
    wrong = [path.name for path in MODULES if part_of(path) != "cli"
             for _, name in imports(tree_of(path)) if name == "cli"]
    assert not wrong


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_sizes(path):
    text = path.read_text()
    assert len(text.splitlines()) <= 400, f"{path.name} has {len(text.splitlines())} lines; split it"
    for function in functions(ast.parse(text)):
        length = function.end_lineno - function.lineno + 1
        assert length <= 50, f"{function.name} has {length} lines"
        if part_of(path) != "cli":  # a verb's options are its parameters
            assert parameters(function) <= 6, f"{function.name} has {parameters(function)} parameters"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_no_hidden_inputs_or_outputs(path):
    tree = tree_of(path)
    assert not calls(tree, "getattr", "hasattr", "setattr"), "structure by type, not by asking for names"
    assert not calls(tree, "eval", "exec", "globals"), "no code from text"
    if part_of(path) != "cli":
        assert not calls(tree, "print", "input"), "the library does not print"
    reads = [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv")]
    assert not reads, "the library reads no environment variables"
    imported = [alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert "*" not in imported, "imports name what they import"


@pytest.mark.parametrize("path", MODULES, ids=names(MODULES))
def test_public_things_say_what_they_are(path):
    tree = tree_of(path)
    assert ast.get_docstring(tree), "a module begins with one sentence"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_there_is_something_to_check():
    assert len(MODULES) > 30 and {"maps", "ops", "bounds", "capture", "testing"} <= {part_of(path) for path in MODULES}
