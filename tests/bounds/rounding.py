"""How far rounding alone may move a computed bound: a running error analysis over the graph, made before any comparison.

Every node gets an error e (b, *shape), in the type of the bounds:

* its own roundings, r eps S: S sums the sizes of all terms of both lines over the box (|coefficient| max|x|, |intercept|),
  r is the length of the longest sum plus 16 for what is behind one coefficient;
* what its arguments' errors become: through both lines (|coefficients| e), twice, because a line made for an interval
  that is off by e may be wrong by that much again, and through the interval rule (how far its ends move when the
  arguments' intervals are widened by e).

Rows over the output then err by |rows| e + r eps |rows| |y|. This covers bounds that are computed along any path (intervals,
forward columns, backward rows), since each is a sum of the same terms in another order.
"""

import torch

from boundlab.bounds.intermediate import relaxer
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.testing.trial import ROUNDINGS, line_size, longest_sum


def rounding(model, env, policy=None):
    """Error of the bounds of every perturbed node, (b, *shape) in double precision, by index."""
    relax, errors = relaxer(env, policy), {}
    for node in model.graph:
        value = env.get(node.index)
        if not isinstance(value, Interval):
            continue
        eps = torch.finfo(value.lower.dtype).eps
        largest = torch.maximum(value.lower.abs(), value.upper.abs()).double()
        if node.source:
            errors[node.index] = 4 * eps * largest
            continue
        arguments = [env[arg] for arg in node.args]
        perturbed = [part for part in arguments if isinstance(part, Interval)]
        below = [errors[arg] for arg in node.args if isinstance(env[arg], Interval)]
        bound, total = relax(node), largest.clone()
        for affine in {id(bound.lower): bound.lower, id(bound.upper): bound.upper}.values():
            size = line_size(affine, perturbed)
            moved = line_size(type(affine)(affine.maps), [Interval(error, error) for error in below])
            total = total + size.amax(1) + 2 * moved.amax(1) / ((ROUNDINGS + longest_sum(affine)) * eps)
        count = ROUNDINGS + max(longest_sum(bound.lower), longest_sum(bound.upper))
        error = count * eps * total + widening(node, arguments, below)
        errors[node.index] = error.nan_to_num(nan=torch.inf, posinf=torch.inf)  # beyond a domain: no allowance holds
    return errors


def widening(node, arguments, below):
    """How far the ends of the interval rule move when every argument is widened by its error."""
    op, waiting = lookup(node.op), iter(below)
    exact = [part.map(torch.Tensor.double) if isinstance(part, Interval) else doubled(part) for part in arguments]
    wide = []
    for part in exact:
        error = next(waiting) if isinstance(part, Interval) else None
        wide.append(part if error is None else Interval(part.lower - error, part.upper + error))
    before, after = op.interval(*exact, **node.attrs), op.interval(*wide, **node.attrs)
    return torch.maximum((before.lower - after.lower).abs(), (before.upper - after.upper).abs()).nan_to_num(nan=torch.inf)


def doubled(tensor):
    """A constant argument in double precision."""
    return tensor.double() if tensor.is_floating_point() else tensor


def rounding_of_rows(rows, error, interval):
    """Error of rows (b, s, *shape) over a node with this error and interval, (b, s)."""
    eps = torch.finfo(interval.lower.dtype).eps
    largest = torch.maximum(interval.lower.abs(), interval.upper.abs()).double()
    count = ROUNDINGS + interval.lower[0].numel()
    total = (rows.double().abs() * (error + count * eps * largest).unsqueeze(1)).flatten(2).sum(2)
    return total.nan_to_num(nan=torch.inf, posinf=torch.inf)
