"""Modules that the command line names: of the zoo, or made by a function of the user's, with weights from a file."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from boundlab import zoo
from boundlab.cli.verb import Misuse, sentence
from boundlab.data.examples import Examples
from boundlab.errors import DataError
from boundlab.train.checkpoint import weights_of
from boundlab.train.normalise import behind_normalisation

ZOO = "zoo:"
Shape = tuple[int, ...]
SHOWN = 3
"""Tensors that do not fit, of those that are named in a sentence."""


def zoo_name(net: str) -> str | None:
    """The name of a network of the zoo that NET is, with zoo: before it or, where no file has that name, alone."""
    if net.startswith(ZOO):
        return net.removeprefix(ZOO)
    return net if net in zoo.NAMES and not Path(net).exists() else None


def zoo_module(name: str, shape: Shape | None, like: Callable[[], Shape] | None) -> tuple[nn.Module, Shape]:
    """A network of the papers with weights drawn from seed 0, and its input's shape: as asked, its own, or that of the data."""
    own = zoo.record(name).shape if shape is None else shape
    if shape is None and like is not None and not fits(given := like(), own):
        own = given
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo.build(name, own), own


def fits(given: Shape, wanted: Shape) -> bool:
    """Whether examples of one shape can be fed to a network of another."""
    try:
        Examples(torch.zeros(1, *given)).fitted(wanted)
    except DataError:
        return False
    return True


def is_factory(net: str) -> bool:
    """Whether NET reads module:factory."""
    module, _, factory = net.partition(":")
    return factory.isidentifier() and all(part.isidentifier() for part in module.split(".")) and not Path(net).exists()


def made(net: str) -> nn.Module:
    """The module that a factory in an importable file makes; both are run. The working directory is looked into first."""
    name, _, attribute = net.partition(":")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        held = vars(importlib.import_module(name))
        if attribute not in held:
            raise Misuse(f"module '{name}' has no '{attribute}'.")
        module = held[attribute]()
    except Misuse:
        raise
    except (Exception, SystemExit) as problem:  # whatever the user's own file raises
        missing = problem.name if isinstance(problem, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise Misuse(f"there is no module '{missing}', here or installed; '{net}' names a function in a Python file that "
                         "can be imported.") from problem
        raise Misuse(f"'{net}' raised {type(problem).__name__}: {sentence(problem)}") from problem
    finally:
        with suppress(ValueError):  # the user's file may have taken it away
            sys.path.remove(here)
    if not isinstance(module, nn.Module):
        raise Misuse(f"'{net}' gave a {type(module).__name__}, not a torch.nn.Module.")
    return module


def filled(net: str, module: nn.Module, weights: Path | None) -> nn.Module:
    """The module with a file's tensors, in evaluation mode, and behind the normalisation that was trained with it, if one was.

    Misuse if names, shapes or precision do not fit, or if a weight is NaN.
    """
    if weights is not None:
        tensors = read_weights(weights)
        module = behind_normalisation(module, tensors)
        own = module.state_dict()
        wrong = [*misfits(own, tensors)]
        if wrong:
            more = f", and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
            raise Misuse(f"the weights in '{weights}' do not fit '{net}': {'; '.join(wrong[:SHOWN])}{more}.")
        module.load_state_dict(dict(tensors))
    refuse_nan(net, module)
    return module.eval()


def misfits(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """What keeps tensors from being the weights of a module that has `own`: a clause for each."""
    found = []
    for name, value, wanted in ((name, given[name], own[name]) for name in own if name in given):
        if value.shape != wanted.shape:
            found.append(f"'{name}' is {list(value.shape)} in the file and {list(wanted.shape)} in the network")
        elif not torch.equal(value.to(wanted.dtype).to(value.dtype).nan_to_num(), value.nan_to_num()):
            found.append(f"'{name}' is {kind(value)} in the file, which {kind(wanted)} in the network would round")
    found += [f"there is no '{name}' in the file" for name in own if name not in given]
    return found + [f"there is no '{name}' in the network" for name in given if name not in own]


def kind(value: Tensor) -> str:
    """What a tensor's numbers are called."""
    return str(value.dtype).removeprefix("torch.")


def refuse_nan(net: str, module: nn.Module) -> None:
    """Misuse if a weight is NaN; `load_onnx` sees to files."""
    bad = [name for name, value in module.state_dict().items() if bool(torch.isnan(value).any())]
    if bad:
        raise Misuse(f"the weights of '{net}' hold NaN, in '{bad[0]}'" + (f" and {len(bad) - 1} more." if bad[1:] else "."))


def read_weights(weights: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a .safetensors file, a checkpoint of `boundlab train` among them, or from one of torch.save."""
    return read_safetensors(weights) if weights.suffix == ".safetensors" else read_saved(weights)


def read_safetensors(weights: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a .safetensors file."""
    try:
        with safe_open(weights, "pt") as file:
            return weights_of(file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118 (no mapping)
    except SafetensorError as problem:
        raise Misuse(f"'{weights}' is not a readable safetensors file: {sentence(problem)}") from problem


def read_saved(weights: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a file of torch.save; what else a pickle can hold is refused, and never run."""
    try:
        held = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as problem:  # torch.load raises many kinds for a file that is not one of its own
        raise Misuse(f"'{weights}' is not a file of nothing but tensors: a pickle of other things could run code, so it is not "
                     "opened; save module.state_dict() with safetensors.torch.save_file.") from problem
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise Misuse(f"'{weights}' does not hold tensors by name; save module.state_dict().")
    return held
