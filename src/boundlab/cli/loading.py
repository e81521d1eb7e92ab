"""Networks, data and sets from what the command line names; every bad file ends in a Misuse with one sentence."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from torch import Tensor, nn

import boundlab as bl
from boundlab.cli.modules import Shape, filled, is_factory, made, zoo_module, zoo_name
from boundlab.cli.verb import Misuse, Session, sentence
from boundlab.data.arrays import ARRAYS, read_arrays
from boundlab.data.read import read_examples
from boundlab.perturbations.altered import L0Ball
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.sets import PerturbationSet

Net = Annotated[str, typer.Argument(metavar="NET", help=(
    "An ONNX file, a name that `boundlab zoo` lists, or module:factory, where factory() gives an nn.Module. Naming a module "
    "runs its code: name only files that you trust."))]
Weights = Annotated[Path | None, typer.Option(help=(
    "Weights for a name of the zoo or a module: .safetensors, also what `boundlab train` writes, or .pt with tensors only."))]
InputShape = Annotated[str | None, typer.Option(help=(
    "Shape of a module's input without the batch, such as 1,28,28; default: the network's own, or that of the data."))]

Norm = Annotated[str, typer.Option(help="Norm of the ball: inf, 1, 2 or another p from 1 on, or 0.")]
Clip = Annotated[tuple[float, float] | None, typer.Option(metavar="LOW HIGH", help="Keep inputs between these two numbers.")]


@dataclass(frozen=True)
class NetworkChoice:
    """Which network: NET, and for a Python factory its weights and input shape."""

    net: Net
    weights: Weights = None
    input_shape: InputShape = None

    def load(self, session: Session, also: Sequence[str] = (), like: Callable[[], Shape] | None = None) -> bl.Model:
        """The network, captured, without gradients, on the session's device.

        `also` are an ONNX file's values as outputs; `like` is asked for the shape of an example where nothing else says it.
        """
        found = find_network(self, like)
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


def find_network(choice: NetworkChoice, like: Callable[[], Shape] | None = None) -> Network:
    """The network that NET names, not yet captured; a module is in evaluation mode and holds its weights.

    `like` is asked for the shape of an example if neither --input-shape nor the network says which inputs it takes.
    """
    net, name = choice.net, zoo_name(choice.net)
    shape = None if choice.input_shape is None else shape_of(choice.input_shape)
    if name is not None:
        module, shape = zoo_module(name, shape, like)
        return prepared(net, filled(net, module, choice.weights), shape)
    if is_factory(net):
        module = filled(net, made(net), choice.weights)
        if shape is None and like is None:
            raise Misuse(f"'{net}' is a Python factory, which does not say the shape of its input; add --input-shape 1,28,28.")
        return prepared(net, module, like() if shape is None and like is not None else shape or ())
    if choice.weights is not None or choice.input_shape is not None:
        raise Misuse("--weights and --input-shape belong to a name of the zoo or a module:factory; an ONNX file holds its own.")
    if not Path(net).is_file():
        what = "is a directory" if Path(net).is_dir() else "does not exist"
        raise Misuse(f"the network '{net}' {what}; give an ONNX file, a name that `boundlab zoo` lists, or module:factory.")
    return Network(Path(net))


def shape_of(text: str) -> tuple[int, ...]:
    """A shape written as 1,28,28."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdigit() and int(part) > 0 for part in parts):
        raise Misuse(f"--input-shape '{text}' is not a list of positive numbers such as 1,28,28.")
    return tuple(map(int, parts))


def prepared(net: str, module: nn.Module, shape: Shape) -> Network:
    """A module with an example of its input; Misuse if it does not take inputs of that shape."""
    dtype = next((parameter.dtype for parameter in module.parameters()), torch.float32)
    example = torch.zeros(2, *shape, dtype=dtype)
    try:
        module(example)
    except Exception as problem:
        raise Misuse(f"'{net}' does not take inputs of shape (batch, {', '.join(map(str, shape))}), see --input-shape: "
                     f"{sentence(problem)}") from problem
    return Network(module, (example,))


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


def shape_in(path: Path) -> Shape:
    """The shape of an example in a file or folder."""
    held = read_arrays(path)[0] if path.suffix in ARRAYS else None
    return tuple(read_examples(path).x.shape[1:] if held is None or held.dtype == np.uint8 else held.shape[1:])


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


def quotient(text: str) -> float:
    """A number, or as papers name radii of pixels the quotient of two; ValueError for others."""
    above, slash, below = str(text).partition("/")
    if slash and float(below) == 0:
        raise ValueError(f"'{text}' divides by 0.")
    return float(above) / float(below) if slash else float(above)


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
