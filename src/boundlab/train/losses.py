"""Training losses, pure functions of a model with live parameters: `loss.backward()` reaches the network."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from boundlab.bounds.intermediate import relaxer
from boundlab.bounds.methods import CROWN, IBP, interval_rows
from boundlab.bounds.problem import Problem, problem_of
from boundlab.errors import ShapeError, SpecError
from boundlab.graph import Model
from boundlab.perturbations.joint import Regions
from boundlab.perturbations.sets import PerturbationSet
from boundlab.spec import margins

Sets = PerturbationSet | Regions


def natural_loss(network: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of the network itself on x (b, *shape) with labels (b,)."""
    return cross_entropy(network(x), labels)


def robust_cross_entropy(lower: Tensor) -> Tensor:
    """Cross-entropy of the worst logits that lower bounds of the margins (b, classes - 1) allow, averaged over the batch.

    The label's logit is 0 and another class has at most minus its margin: an upper bound of the cross-entropy at every
    point of the set. Wong and Kolter 2018, Sec. 3.2.
    """
    logits = torch.cat([lower.new_zeros(len(lower), 1), -lower], dim=1)
    return cross_entropy(logits, torch.zeros(len(lower), dtype=torch.long, device=lower.device))


def margin_problem(model: Model, sets: Sets, labels: Tensor) -> Problem:
    """The question whose rows are the label's logit minus every other, for a network with one vector of logits."""
    shape = model.graph.output.shape
    if len(shape) != 1:
        raise ShapeError(f"a classification loss needs logits of shape (batch, classes), the network gives (batch, "
                         f"{', '.join(map(str, shape))}).")
    return problem_of(model, sets, margins(labels, shape[0], model.dtype))


def ibp_loss(model: Model, sets: Sets, labels: Tensor) -> Tensor:
    """Robust cross-entropy with margins from interval bound propagation; labels (b,). Gowal et al. 2018."""
    return crown_ibp_loss(model, sets, labels, crown_weight=0.0)


def crown_ibp_loss(model: Model, sets: Sets, labels: Tensor, crown_weight: float) -> Tensor:
    """Robust cross-entropy with margins w * CROWN-IBP + (1 - w) * IBP, mixed before the loss; labels (b,).

    Both are lower bounds, hence so is their mean; with weight 0 the backward pass is left out, with weight 1 the IBP
    margins are. Zhang et al. 2020 (CROWN-IBP), Eq. 9.
    """
    if not 0 <= crown_weight <= 1:
        raise SpecError(f"the weight of the CROWN-IBP margins must lie between 0 and 1, got {crown_weight}.")
    problem = margin_problem(model, sets, labels)
    env = IBP().environment(problem)
    mixed = None
    if crown_weight > 0:
        mixed = crown_weight * CROWN(intermediate=IBP()).output_rows(problem, env, relaxer(env)).lower
    if crown_weight < 1:
        plain = (1 - crown_weight) * interval_rows(problem, env).lower
        mixed = plain if mixed is None else mixed + plain
    assert mixed is not None
    return robust_cross_entropy(mixed)
