"""Which framework names reach which operators: what the rules of the lowering tables can build, read from their source."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from types import FunctionType, ModuleType
from typing import Any

from boundlab.capture import torch as torch_capture
from boundlab.capture.onnx_lowering import ONNX_LOWERINGS
from boundlab.capture.table import LOWERINGS
from boundlab.ops.op import REGISTRY

HOME = torch_capture.__name__.rpartition(".")[0]
"""The package whose functions build nodes."""


def reached() -> Mapping[str, tuple[list[str], list[str]]]:
    """For every operator the torch names and the ONNX names that may become it, on their own or among others."""
    found: dict[str, tuple[set[str], set[str]]] = {name: (set(), set()) for name in REGISTRY}
    for name, op in REGISTRY.items():
        for source in op.sources:
            found[name][source.startswith("onnx:")].add(short(source))
    tables: tuple[Mapping[str, Callable[..., Any]], ...] = (LOWERINGS, ONNX_LOWERINGS)
    for place, table in enumerate(tables):
        for source, rule in table.items():
            for name in built_by(rule):
                found[name][place].add(short(source))
    return {name: (namesakes_first(name, torch_names), namesakes_first(name, onnx_names))
            for name, (torch_names, onnx_names) in found.items()}


def namesakes_first(name: str, sources: set[str]) -> list[str]:
    """Framework names in alphabetical order, but those that hold the operator's own name come first."""
    bare = name.replace("_", "")
    return sorted(sources, key=lambda source: (bare not in source.replace("_", "").lower(), source))


def short(source: str) -> str:
    """A framework name without its table and overload: "aten.add.Tensor" is "add", "onnx:Add" is "Add"."""
    return source.removeprefix("onnx:") if source.startswith("onnx:") else source.removeprefix("aten.").split(".")[0]


def built_by(rule: Callable[..., Any]) -> set[str]:
    """The operators that a rule, or a function of the capture package that it calls, may write."""
    names, waiting, seen = set[str](), [rule], set[int]()
    while waiting:
        part: Any = waiting.pop()
        if isinstance(part, str):
            names |= {part} & set(REGISTRY)
        elif isinstance(part, (dict, tuple)):
            waiting.extend(part.values() if isinstance(part, dict) else part)
        elif isinstance(part, FunctionType) and part.__module__.startswith(HOME) and id(part) not in seen:
            seen.add(id(part))
            waiting.extend(cell.cell_contents for cell in part.__closure__ or ())
            waiting.extend(mentioned(part))
    return names


def mentioned(function: FunctionType) -> Iterator[Any]:
    """The words and functions of other places that the outermost function around `function` mentions."""
    definition = definitions(function.__module__).get(function.__qualname__.partition(".")[0])
    if definition is None:
        return
    yield from words_of(definition)
    for node in (part for line in definition.body for part in ast.walk(line)):
        found = None
        if isinstance(node, ast.Name):
            found = function.__globals__.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            module = function.__globals__.get(node.value.id)
            found = vars(module).get(node.attr) if isinstance(module, ModuleType) else None
        if isinstance(found, FunctionType):
            yield found


@cache
def definitions(module: str) -> Mapping[str, ast.FunctionDef]:
    """The functions of a module by name, parsed."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}


def words_of(definition: ast.FunctionDef) -> Iterator[str]:
    """String constants that may name an operator: not what is compared with, nor keys, nor text."""
    waiting: list[ast.AST] = list(definition.body)
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Dict):
            waiting.extend(node.values)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "argument":
            continue
        elif not isinstance(node, (ast.Compare, ast.JoinedStr, ast.Raise)):
            waiting.extend(ast.iter_child_nodes(node))
