"""Networks, data and sets from what the command line names; every bad file ends in a Misuse with one sentence."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import boundlab as bl
from boundlab import zoo
from boundlab.cli.verb import Misuse, Session, sentence
from boundlab.data.arrays import ARRAYS, read_arrays
from boundlab.data.read import read_examples
from boundlab.perturbations.altered import L0Ball
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet

ZOO = "zoo:"
Net = Annotated[str, typer.Argument(
    metavar="NET", help="An ONNX file, zoo:NAME, or module:factory, where factory() gives an nn.Module.")]
Weights = Annotated[Path | None, typer.Option(help="Weights for a module: .safetensors, or .pt with tensors only.")]
InputShape = Annotated[str | None, typer.Option(help="Shape of a module's input without the batch, such as 1,28,28.")]

Norm = Annotated[str, typer.Option(help="Norm of the ball: inf, 1, 2 or another p from 1 on, or 0.")]
Clip = Annotated[tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Keep inputs between these two numbers.")]


@dataclass(frozen=True)
class NetworkChoice:
    """Which network: NET, and for a Python factory its weights and input shape."""

    net: Net
    weights: Weights = None
    input_shape: InputShape = None

    def load(self, session: Session, also: Sequence[str] = ()) -> bl.Model:
        """The network, captured, without gradients, on the session's device; `also` are an ONNX file's values as outputs."""
        found = find_network(self)
        if also and not isinstance(found.net, Path):
            raise Misuse(f"'{self.net}' is no ONNX file, and only these have values inside that a property can name.")
        model = bl.load_onnx(found.net, also=also) if isinstance(found.net, Path) else bl.capture(found.net, *found.example)
        return model.detached().to(torch.device(session.device))


Networks = Annotated[list[str] | None, typer.Option("--network", metavar="NAME=NET", help=(
    "A network that a VNN-LIB 2.0 file declares, by name; NET is the one that is left. Repeat for several."))]


@dataclass(frozen=True)
class NetworksChoice(NetworkChoice):
    """Which networks: NET, and by name the others that a VNN-LIB 2.0 file declares."""

    network: Networks = None

    def named(self, declared: Sequence[str]) -> dict[str, NetworkChoice]:
        """The networks by declared name; Misuse unless one is left for NET."""
        found: dict[str, NetworkChoice] = {}
        for text in self.network or ():
            name, equals, net = text.partition("=")
            if not equals or not net or name not in declared or name in found:
                raise Misuse(f"--network '{text}' is not NAME=NET with one of the names that the property declares, "
                             f"{', '.join(map(repr, declared))}, each at most once.")
            found[name] = NetworkChoice(net)
        left = [name for name in declared if name not in found]
        if len(left) != 1:
            raise Misuse(f"the property declares the networks {', '.join(map(repr, declared))}: name all but one by --network "
                         "NAME=NET, and give that one as NET.")
        return found | {left[0]: NetworkChoice(self.net, self.weights, self.input_shape)}


@dataclass(frozen=True)
class Network:
    """A module with an example of its input, or the path of an ONNX file."""

    net: nn.Module | Path
    example: tuple[Tensor, ...] = ()


def find_network(choice: NetworkChoice) -> Network:
    """The network that NET names, not yet captured; a module is in evaluation mode and holds its weights."""
    net, weights, input_shape = choice.net, choice.weights, choice.input_shape
    shape = None if input_shape is None else shape_of(input_shape)
    if net.startswith(ZOO):
        module, own = zoo_module(net.removeprefix(ZOO), shape)
        return prepared(net, module, weights, own)
    if is_factory(net):
        if shape is None:
            raise Misuse(f"'{net}' is a Python factory, which does not say the shape of its input; add --input-shape 1,28,28.")
        return prepared(net, made(net), weights, shape)
    if weights is not None or input_shape is not None:
        raise Misuse("--weights and --input-shape belong to a module:factory; an ONNX file holds its own.")
    if not Path(net).is_file():
        what = "is a directory" if Path(net).is_dir() else "does not exist"
        raise Misuse(f"the network '{net}' {what}; give an ONNX file, zoo:NAME or module:factory.")
    return Network(Path(net))


def zoo_module(name: str, shape: tuple[int, ...] | None) -> tuple[nn.Module, tuple[int, ...]]:
    """A network of the papers with weights drawn from seed 0, and the shape of its input."""
    own = zoo.record(name).shape if shape is None else shape
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return zoo.build(name, own), own


def is_factory(net: str) -> bool:
    """Whether NET reads module:factory."""
    module, _, factory = net.partition(":")
    return factory.isidentifier() and all(part.isidentifier() for part in module.split(".")) and not Path(net).exists()


def shape_of(text: str) -> tuple[int, ...]:
    """A shape written as 1,28,28."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise Misuse(f"--input-shape '{text}' is not a list of positive numbers such as 1,28,28.")
    return tuple(map(int, parts))


def made(net: str) -> nn.Module:
    """The module that a factory in an importable file makes."""
    name, _, attribute = net.partition(":")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = vars(importlib.import_module(name))[attribute]()
    except KeyError as problem:
        raise Misuse(f"module '{name}' has no '{attribute}'.") from problem
    except Exception as problem:  # whatever the user's own file raises
        raise Misuse(f"'{net}' raised {type(problem).__name__}: {sentence(problem)}") from problem
    finally:
        sys.path.pop(0)
    if not isinstance(module, nn.Module):
        raise Misuse(f"'{net}' gave a {type(module).__name__}, not a torch.nn.Module.")
    return module


def prepared(net: str, module: nn.Module, weights: Path | None, shape: tuple[int, ...]) -> Network:
    """A module with its weights, in evaluation mode, and an example; Misuse if it does not take inputs of that shape."""
    if weights is not None:
        fill(module, weights)
    refuse_nan(net, module)
    module.eval()
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    example = torch.zeros(2, *shape, dtype=dtype)
    try:
        module(example)
    except Exception as problem:
        raise Misuse(f"'{net}' does not take inputs of shape (batch, {', '.join(map(str, shape))}): "
                     f"{sentence(problem)}") from problem
    return Network(module, (example,))


def refuse_nan(net: str, module: nn.Module) -> None:
    """Misuse if a weight is NaN; `load_onnx` sees to files."""
    bad = [name for name, value in module.state_dict().items() if bool(torch.isnan(value).any())]
    if bad:
        raise Misuse(f"the weights of '{net}' hold NaN, in '{bad[0]}'" + (f" and {len(bad) - 1} more." if bad[1:] else "."))


def fill(module: nn.Module, weights: Path) -> None:
    """Put a file's tensors into a module; the file can hold nothing but tensors."""
    try:
        module.load_state_dict(read_weights(weights))
    except RuntimeError as problem:
        raise Misuse(f"the weights in '{weights}' do not fit the network: {sentence(problem)}") from problem


def read_weights(weights: Path) -> Mapping[str, Tensor]:
    """Tensors by name from a .safetensors file or a checkpoint of torch.save."""
    if weights.suffix == ".safetensors":
        try:
            return dict(load_file(weights))
        except SafetensorError as problem:
            raise Misuse(f"'{weights}' is not a readable safetensors file: {sentence(problem)}") from problem
    try:
        held = torch.load(weights, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as problem:  # torch.load raises many kinds for a file that is not one of its own
        raise Misuse(f"'{weights}' is not a file of tensors written by torch.save.") from problem
    if not isinstance(held, dict) or not all(isinstance(value, Tensor) for value in held.values()):
        raise Misuse(f"'{weights}' does not hold tensors by name; save module.state_dict().")
    return held


@dataclass(frozen=True)
class Examples:
    """Inputs x (b, *shape) in the network's own type, and their labels (b,) if they are known."""

    x: Tensor
    labels: Tensor | None


def load_examples(path: Path, model: bl.Model, labels: list[int] | None) -> Examples:
    """The examples of a file or folder that `read_examples` reads, floats in their own type; --label wins over its labels."""
    shape = only_input(model).shape
    values, found = stored(path, shape)
    x = torch.as_tensor(np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))).to(model.dtype).to(model.device)
    if tuple(x.shape) == shape:
        raise Misuse(f"'{path}' has shape {list(x.shape)}, one input without its batch axis; save x[None] instead.")
    if tuple(x.shape[1:]) != shape:
        raise Misuse(f"'{path}' has shape {list(x.shape)}; the network takes (batch, {', '.join(map(str, shape))}).")
    if not bool(torch.isfinite(x).all()):
        raise Misuse(f"'{path}' holds NaN or infinite numbers.")
    return Examples(x, label_tensor(labels or (None if found is None else found.tolist()), len(x), model))


def stored(path: Path, shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray | None]:
    """The inputs and labels of a file or folder: arrays as stored, but bytes as pixels that fit the network's input."""
    if path.suffix in ARRAYS:
        values, found = read_arrays(path)
        if values.dtype != np.uint8:
            return values, found
    examples = read_examples(path).fitted(shape)
    return examples.x.numpy(), None if examples.labels is None else examples.labels.numpy()


def only_input(model: bl.Model) -> bl.Node:
    """The network's input; Misuse if it has several."""
    inputs = model.graph.inputs
    if len(inputs) != 1:
        names = ", ".join(f"'{node.name}'" for node in inputs)
        raise Misuse(f"the network has {len(inputs)} inputs ({names}); --data feeds networks with one. Use a VNN-LIB file.")
    return inputs[0]


def label_tensor(labels: list[int] | None, count: int, model: bl.Model) -> Tensor | None:
    """Labels as a tensor (b,), one for all or one for each; Misuse if their number does not fit."""
    if labels is None:
        return None
    if len(labels) not in (1, count):
        raise Misuse(f"there are {count} inputs and {len(labels)} labels; give one for all or one for each.")
    return torch.tensor(labels * (count if len(labels) == 1 else 1), device=model.device)


def margins_of(model: bl.Model, labels: Tensor) -> bl.Specification:
    """Every other class stays below the label; Misuse if the output is not one vector of logits."""
    shape = model.graph.output.shape
    if len(shape) != 1 or shape[0] < 2:
        raise Misuse("labels need an output of shape (batch, classes); the network gives (batch, "
                     f"{', '.join(map(str, shape))}).")
    return bl.margins(labels, shape[0], model.dtype)


def norm_of(text: str) -> float:
    """The p of --norm: inf, 1, 2 or any number from 1 on, or 0."""
    try:
        p = float(text)
    except ValueError:
        p = float("nan")
    if not (p >= 1 or p == 0):
        raise Misuse(f"--norm '{text}' is not a norm; use inf, 1, 2 or another number from 1 on, or 0.")
    return p


def ball_of(x: Tensor, eps: float, norm: str, clip: tuple[float, float] | None) -> PerturbationSet:
    """The ball around each input that --eps, --norm and --clip name; of norm 0, eps coordinates may be anything in --clip."""
    p = norm_of(norm)
    if p > 0:
        return LpBall(x, eps, p, clip)
    domain = domain_of(clip)
    if not eps.is_integer():
        raise Misuse(f"with --norm 0, --eps is how many coordinates may be altered, a whole number; got {eps:g}.")
    return L0Ball(x, int(eps), *domain)


def domain_of(clip: tuple[float, float] | None) -> tuple[float, float]:
    """What a coordinate may become with --norm 0; Misuse if --clip does not say."""
    if clip is None:
        raise Misuse("--norm 0 alters some coordinates to anything within --clip; say which numbers, such as --clip 0 1.")
    return clip
