"""The library runs wherever Python does: text is UTF-8, and importing needs no module of one operating system."""

import ast
import re
import sys

from tests.test_layers import MODULES, part_of, tree_of

READERS = ("read_text", "write_text", "open", "TextIOWrapper")
POSIX = {"fcntl", "grp", "posix", "pwd", "pty", "resource", "syslog", "termios", "tty"}
POSIX_NAMES = {"fork", "forkpty", "getuid", "killpg", "setsid", "statvfs", "uname", "SIGALRM", "SIGKILL", "sched_getaffinity"}
ALLOWED = {("certify/limits.py", "SIGALRM")}
"""Asked for only where the system has such alarms."""


def called(node):
    """The bare name of what a call calls."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id if isinstance(node.func, ast.Name) else ""


def as_text(node):
    """Whether a call that opens a file opens it as text; a context manager called `open` has no mode."""
    method = isinstance(node.func, ast.Attribute)
    if called(node) != "open":
        return method
    modes = [argument.value for argument in node.args if isinstance(argument, ast.Constant) and isinstance(argument.value, str)]
    return any(set(mode) <= set("rwxat+") for mode in modes) or (not method and not any("b" in mode for mode in modes))


def openings(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call) and called(node) in READERS and as_text(node)]


def test_text_files_are_utf_8():
    for path in MODULES:
        for node in openings(tree_of(path)):
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            assert "encoding" in given and ast.unparse(given["encoding"]) == "'utf-8'", (
                f"{path}, line {node.lineno}, leaves the encoding to the operating system; say encoding=\"utf-8\"")


def test_that_test_can_fail():
    bad = ("p.read_text()", "open(p)", "p.open('w', newline='')", "p.write_text('')")
    assert all(openings(ast.parse(text)) for text in bad)
    assert not any(openings(ast.parse(text)) for text in ("p.open('rb')", "open(p, 'rb')", "engines.open()"))


def test_nothing_of_one_operating_system():
    for path in (path for path in MODULES if part_of(path) != "benchmarks"):
        for node in tree_of(path).body:
            found = [alias.name for alias in node.names] if isinstance(node, ast.Import) else (
                [node.module] if isinstance(node, ast.ImportFrom) else [])
            assert not POSIX & set(found), f"{path}, line {node.lineno}: import it where it is needed, and where it is there"
        place = "/".join(path.parts[-2:])
        used = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)} & POSIX_NAMES
        assert all((place, name) in ALLOWED for name in used), f"{path}: {used} are not everywhere"


def test_the_lists_are_of_this_python():
    assert sys.stdlib_module_names >= POSIX


def test_no_pattern_has_a_possessive_group():
    """Python 3.11.0 to 3.11.4 mistakes the end of what `(...)++` matches; `(?>(...)+)` says the same."""
    for path in MODULES:
        found = re.findall(r"\)(?:\+\+|\*\+|\?\+)[^+]?", path.read_text(encoding="utf-8"))
        assert not found, f"{path} has a possessive group"
