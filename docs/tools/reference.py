"""Writes docs/reference from the source: every public name of boundlab once, with its signature, fields, and docstring.

    python docs/tools/reference.py

Nothing is imported: what stands in the source is what a page shows, so `stages=LADDER` stays that. A name's page follows
from the part of the package where it is defined (`TOPICS`), so that a new name needs no entry.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
FOLDER = ROOT / "docs" / "reference"
COMMAND = "python docs/tools/reference.py"
MARKS = re.compile(r"([*\[\]])")
CODE = re.compile(r"(`+[^`]+`+)")
EQUALS = re.compile(r"^(\w+: [^=]+)=")
Definition = ast.ClassDef | ast.FunctionDef | ast.AnnAssign | ast.Assign


@dataclass(frozen=True)
class Topic:
    """A page: its title, what it is about, and the parts of the package whose names stand on it."""

    title: str
    about: str
    parts: tuple[str, ...]


TOPICS = {
    "networks": Topic("Networks", "A network as a graph: captured, loaded, evaluated, saved, looked at before it is bounded.",
                      ("capture", "graph", "evaluate", "exchange", "check", "zoo")),
    "bounds": Topic("Bounds", "The methods, the call that runs them, and what they answer with.",
                    ("bounds", "interval", "programs")),
    "sets": Topic("Perturbation sets", "Where inputs and weights may lie.", ("perturbations",)),
    "verification": Topic("Verification", "What should hold, whether it does, and certificates of that.",
                          ("spec", "question", "verify", "attack", "certificates")),
    "data-sets": Topic("Radii, data sets and reports", "Certified radii, data sets certified, and what runs the work.",
                       ("radii", "certify", "data", "reports", "reproduce", "engines", "whole_file")),
    "training": Topic("Training", "Losses made of bounds, schedules, and the loop.", ("train", "classifier")),
    "extending": Topic("Operators of your own", "What an operator and its relaxation are made of.",
                       ("ops", "affine", "maps", "testing")),
    "errors": Topic("Errors", "One family. Each says what was asked, what was found, and what to do.", ("errors",)),
}


@dataclass(frozen=True)
class Entry:
    """A public name: the module that defines it, and its definition there."""

    name: str
    module: str
    definition: Definition
    text: str

    @property
    def kind(self) -> str:
        """What the reader is told that it is."""
        if isinstance(self.definition, ast.FunctionDef):
            return "function"
        if not isinstance(self.definition, ast.ClassDef):
            return "value"
        bases = {ast.unparse(base) for base in self.definition.bases}
        if "enum.Enum" in bases:
            return "enumeration"
        if "Protocol" in bases:
            return "protocol"
        decorated = any("dataclass" in ast.unparse(mark) for mark in self.definition.decorator_list)
        return "dataclass" if decorated else "error" if self.module == "boundlab.errors" else "class"

    @property
    def heading(self) -> str:
        """The heading of the entry, and with dashes for blanks its anchor."""
        return f"{self.name} ({self.kind})"

    @property
    def anchor(self) -> str:
        """Where links to the entry lead, on a code host and on the site."""
        return f"{self.name}-{self.kind}".lower()

    @property
    def first(self) -> str:
        """The first sentence of its docstring."""
        return re.split(r"(?<=[.]) (?=[A-Z`])|\n\n", " ".join(self.text.split("\n\n")[0].split()))[0]


def entries() -> list[Entry]:
    """The names of `boundlab.__all__`, in order of the alphabet."""
    found = [entry_of(alias.name, statement.module) for statement in parsed("boundlab").body
             if isinstance(statement, ast.ImportFrom) and statement.module for alias in statement.names]
    return sorted(found, key=lambda entry: (entry.name.lower(), entry.name))


@cache
def parsed(module: str) -> ast.Module:
    """The source of a module or package of the library; nothing of any other."""
    if module.split(".")[0] != "boundlab":
        return ast.Module([], [])
    path = SOURCE.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text())


def entry_of(name: str, module: str) -> Entry:
    """The class, function or value of that name, where it is defined; a value's docstring is the string that follows it."""
    body = parsed(module).body
    for statement, after in zip_longest(body, body[1:]):
        if isinstance(statement, ast.ImportFrom) and any(alias.name == name for alias in statement.names):
            return entry_of(name, statement.module or "")
        if isinstance(statement, ast.ClassDef | ast.FunctionDef) and statement.name == name:
            return Entry(name, module, statement, ast.get_docstring(statement) or "")
        if isinstance(statement, ast.Assign | ast.AnnAssign) and assigned(statement) == name:
            return Entry(name, module, statement, text_of(after))
    raise LookupError(f"{name} is not defined in {module}.")


def text_of(statement: ast.stmt | None) -> str:
    """The text of a statement that is nothing but a string; empty for any other."""
    value = statement.value if isinstance(statement, ast.Expr) else None
    return value.value if isinstance(value, ast.Constant) and isinstance(value.value, str) else ""


def assigned(statement: ast.Assign | ast.AnnAssign) -> str:
    """What a statement gives a value to."""
    return ast.unparse(statement.targets[0] if isinstance(statement, ast.Assign) else statement.target)


def topic_of(entry: Entry) -> str:
    """The page of a name."""
    part = entry.module.split(".")[1]
    for topic, what in TOPICS.items():
        if part in what.parts:
            return topic
    raise LookupError(f"no page takes names of boundlab.{part}; enter it in TOPICS of docs/tools/reference.py.")


def code(entry: Entry) -> str:
    """What a caller needs to see of the source: a signature, or a class with its fields and their defaults."""
    definition = entry.definition
    if isinstance(definition, ast.FunctionDef):
        return signature(definition)
    if not isinstance(definition, ast.ClassDef):
        return ast.unparse(definition)
    bases = ", ".join(ast.unparse(base) for base in definition.bases)
    head = f"class {entry.name}({bases})" if bases else f"class {entry.name}"
    body = [f"    {line}" for line in {**inherited(entry), **members(definition)}.values()]
    return "\n".join([f"{head}:", *body]) if body else head


def signature(function: ast.FunctionDef) -> str:
    """A function's head, with an argument on each line where one line is too long."""
    gives = f" -> {ast.unparse(function.returns)}" if function.returns else ""
    arguments = [EQUALS.sub(r"\1 = ", part) for part in split(ast.unparse(function.args)) if part != "self"]
    whole = f"{function.name}({', '.join(arguments)}){gives}"
    if len(whole) <= 110:
        return whole
    return "\n".join([f"{function.name}(", *(f"    {part}," for part in arguments), f"){gives}"])


def split(text: str) -> list[str]:
    """Arguments apart, at commas outside brackets."""
    parts, depth = [""], 0
    for sign in text:
        depth += (sign in "([{") - (sign in ")]}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts]


def members(definition: ast.ClassDef) -> dict[str, str]:
    """The fields of a class with types and defaults, the values of an enumeration, the arguments of a constructor, by name."""
    found = {}
    for statement in definition.body:
        if isinstance(statement, ast.AnnAssign) and not ast.unparse(statement.annotation).startswith("ClassVar"):
            default = "" if statement.value is None else default_of(statement.value)
            found[assigned(statement)] = f"{assigned(statement)}: {ast.unparse(statement.annotation)}{default}"
        elif isinstance(statement, ast.Assign):
            found[assigned(statement)] = ast.unparse(statement)
        elif isinstance(statement, ast.FunctionDef) and statement.name == "__init__":
            found["__init__"] = signature(statement)
    return found


def inherited(entry: Entry) -> dict[str, str]:
    """The fields that a dataclass has from those that it inherits from."""
    found: dict[str, str] = {}
    for base in entry.definition.bases if isinstance(entry.definition, ast.ClassDef) else []:
        try:
            above = entry_of(ast.unparse(base), entry.module)
        except LookupError:  # not one of the library
            continue
        if above.kind == "dataclass" and isinstance(above.definition, ast.ClassDef):
            found |= {**inherited(above), **members(above.definition)}
    return found


def default_of(value: ast.expr) -> str:
    """A field's default as a reader writes it: `field(default_factory=CROWN)` is `CROWN()`."""
    if isinstance(value, ast.Call) and ast.unparse(value.func) == "field":
        options = {word.arg: word.value for word in value.keywords}
        if "default_factory" in options:
            factory = options["default_factory"]
            return f" = {ast.unparse(factory.body)}" if isinstance(factory, ast.Lambda) else f" = {ast.unparse(factory)}()"
        return f" = {ast.unparse(options['default'])}" if "default" in options else ""
    return f" = {ast.unparse(value)}"


def offered(definition: Definition) -> Iterator[str]:
    """A line for each public method and property that has a docstring."""
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    for function in (part for part in body if isinstance(part, ast.FunctionDef) and not part.name.startswith("_")):
        text = ast.get_docstring(function)
        if text:
            named = [argument.arg for argument in (*function.args.args, *function.args.kwonlyargs)][1:]
            is_property = any(ast.unparse(mark) == "property" for mark in function.decorator_list)
            called = function.name if is_property else f"{function.name}({', '.join(named)})"
            yield f"* `{called}`: {escaped(' '.join(text.split()))}"


def escaped(text: str) -> str:
    """Text that Markdown shows as it stands: marks outside code are none."""
    return "".join(part if part.startswith("`") else MARKS.sub(r"\\\1", part) for part in CODE.split(text))


def in_table(text: str) -> str:
    """Text for a cell of a table."""
    return escaped(text).replace("|", r"\|")


def page(topic: Topic, on_it: list[Entry]) -> str:
    """A page of entries."""
    parts = [f"# {topic.title}", topic.about, f"Written by `{COMMAND}` from the docstrings; [all names](README.md)."]
    for entry in on_it:
        place = "/".join(entry.module.split(".")[1:])
        file = f"{place}.py" if (SOURCE / "boundlab" / f"{place}.py").exists() else f"{place}/__init__.py"
        parts += [f"## {entry.heading}", f"```py\n{code(entry)}\n```", escaped(entry.text),
                  "\n".join(offered(entry.definition)), f"Defined in `{file}`."]
    return "\n\n".join(part for part in parts if part) + "\n"


def index(pages: dict[str, list[Entry]]) -> str:
    """The first page: every name with its first sentence."""
    parts = ["# Reference", "Every public name of `boundlab`, usually imported as `bl`. In shapes, `b` counts problems and `s` "
             "rows, `n` rows of all problems, and `*shape` is a node's shape without the batch: see "
             "[the architecture](../architecture.md#shapes).\nWords are in the [glossary](../glossary.md), operators "
             "[on a page of their own](../operators.md). `boundlab --help` says what the command line can.",
             f"Written by `{COMMAND}` from the docstrings."]
    for topic, on_it in pages.items():
        lines = [f"| [{entry.name}]({topic}.md#{entry.anchor}) | {in_table(entry.first)} |" for entry in on_it]
        parts += [f"## {TOPICS[topic].title}", "\n".join(["| name | what it is |", "|---|---|", *lines])]
    return "\n\n".join(parts) + "\n"


def files() -> dict[str, str]:
    """The text of each file of docs/reference, by its name."""
    pages: dict[str, list[Entry]] = {topic: [] for topic in TOPICS}
    for entry in entries():
        pages[topic_of(entry)].append(entry)
    return {"README.md": index(pages), **{f"{topic}.md": page(TOPICS[topic], on_it) for topic, on_it in pages.items()}}


def write() -> None:
    """Replaces docs/reference."""
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.md"):
        old.unlink()
    for name, text in files().items():
        (FOLDER / name).write_text(text)


if __name__ == "__main__":
    write()
