"""Balls around the parameters of a network, by name: each in its own, or all in one."""

from __future__ import annotations

import fnmatch
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from boundlab.errors import SpecError
from boundlab.graph import PARAMETER, Model, check_model
from boundlab.perturbations.ball import LpBall
from boundlab.perturbations.joint import Key, joint_ball

Names = str | Sequence[str]


def weight_ball(model: Model, names: Names, *, eps: Tensor | float, norm: float = 2.0, relative: bool = True,
                joint: bool = False) -> dict[Key, LpBall]:
    """Sets for parameters of a network, around the values that they have: what `bound` takes beside the inputs.

    `names` are names or patterns ("*.weight"). Each parameter w lies in its own ball of order `norm`, of radius
    eps |w| or, unless `relative`, eps (Xu et al. 2020, Sec. 4, with a ball for each). If `joint`, all lie in one ball
    together, and |w| is the norm of them all. SpecError for names that no parameter has, and radii that are no radii.
    """
    check_model(model)
    if isinstance(eps, str) or not bool(torch.as_tensor(eps >= 0)) or not math.isfinite(float(eps)):
        raise SpecError(f"the radius of a ball of weights must be finite and not negative, got eps = {eps}.")
    chosen = matching(model, names)
    centers = [model.params[name].unsqueeze(0) for name in chosen]

    def radius(values: Sequence[Tensor]) -> Tensor | float:
        whole = torch.cat([value.flatten() for value in values])
        return eps * torch.linalg.vector_norm(whole, norm) if relative else eps

    if joint:
        return {tuple(chosen): joint_ball(centers, radius(centers), norm)}
    return {name: LpBall(center, radius([center]), norm) for name, center in zip(chosen, centers, strict=True)}


def matching(model: Model, names: Names) -> list[str]:
    """The parameters that bear one of the names or match one of the patterns, in the network's order.

    Patterns leave out what is not of floating type, and numbers that are written in the network.
    """
    held = [node.name for node in model.graph if node.op == PARAMETER]
    floating = [name for name in held if model.params[name].is_floating_point()]
    named = [name for name in floating if not name.startswith("constant.")]
    found = set[str]()
    for name in [names] if isinstance(names, str) else names:
        alike = [name] if name in floating else fnmatch.filter(named, name)
        if name in held and not alike:
            raise SpecError(f"'{name}' holds {model.params[name].dtype}; only parameters of floating type can vary.")
        if not alike:
            raise SpecError(f"the network has no parameter '{name}'; it has {', '.join(repr(one) for one in named)}.")
        found |= set(alike)
    if not found:
        raise SpecError("a ball of weights needs the name of at least one parameter.")
    return [name for name in floating if name in found]
