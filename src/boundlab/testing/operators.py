"""check_operator: whether an operator's rules are sound, exact where they should be, finite and differentiable.

What a rule computes in floating point is held against the function in double precision, at points of boxes of many widths
and places. A violation counts only beyond the rounding of the rule itself: r eps S, with S the sum of the sizes of all
terms of the line on the box and r the roundings behind each term (Higham 2002, Sec. 3.1), plus what the function itself
loses when it is evaluated in the boxes' type.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from boundlab.affine import LinearBound
from boundlab.errors import ConformanceError
from boundlab.interval import Interval
from boundlab.ops import lookup
from boundlab.testing.cases import Case, cases_of
from boundlab.testing.trial import ROUNDINGS, Setting, Trial, line_at, line_size, longest_sum, settings, trial_of


def check_operator(name: str, cases: Sequence[Case] | None = None, *, compiled: bool = False, seed: int = 0) -> None:
    """Raise ConformanceError unless the registered operator `name` keeps every law of an operator, in float32 and float64.

    `cases` are example calls; left out, those known to boundlab, else one perturbed argument (3, 4) anywhere on the real
    line. `compiled` also captures the relaxation with torch.compile(fullgraph=True), which takes seconds.
    """
    op = lookup(name)
    for case in cases_of(name) if cases is None else cases:
        for dtype in (torch.float64, torch.float32):
            generator = torch.Generator().manual_seed(seed)
            trial = trial_of(op, case, dtype, generator)
            check_interval(trial)
            plain = op.lines(*trial.arguments, **trial.attributes)
            for setting in settings(trial, generator):
                check_lines(trial, setting, plain)
            check_exactness(trial, plain)
            check_batching(trial, plain)
            check_derivative(trial)
            check_gradients(trial)
            check_guide(trial)
            if compiled:
                check_compiled(trial)


def allowance(trial: Trial, bound: LinearBound) -> Tensor:
    """How far rounding alone may move a line (or an affine operator's interval) on its box, (b, s, *out)."""
    size = torch.maximum(line_size(bound.lower, trial.perturbed), line_size(bound.upper, trial.perturbed))
    count = ROUNDINGS + max(longest_sum(bound.lower), longest_sum(bound.upper))
    values = trial.values.abs().amax(0).unsqueeze(1)
    return count * trial.eps * (size + values) + trial.noise.unsqueeze(1)


def check_interval(trial: Trial) -> None:
    """The interval is finite, in order, of the operator's shape, and holds every value."""
    interval = trial.op.interval(*trial.arguments, **trial.attributes)
    expected = trial.values.shape[1:]
    for side, end in (("lower", interval.lower), ("upper", interval.upper)):
        if end.shape != expected:
            raise ConformanceError(f"{title(trial)}: the interval's {side} end has shape {list(end.shape)}, the values "
                                   f"{list(expected)}.")
        if not bool(torch.isfinite(end).all()):
            place = worst(~torch.isfinite(end))
            raise ConformanceError(f"{title(trial)}: the interval's {side} end is NaN or infinite on {box_text(trial, place)}.")
    lower, upper = interval.lower.double(), interval.upper.double()
    slack = ROUNDINGS * trial.eps * (lower.abs() + upper.abs() + trial.values.abs().amax(0)) + trial.noise
    if is_affine(trial) or len(trial.perturbed) > 1 or trial.perturbed[0].shape != expected:
        slack = slack + allowance(trial, trial.op.lines(*trial.arguments, **trial.attributes)).amax(1)
    refuse(trial, "the function falls below the interval", lower - trial.values - slack)
    refuse(trial, "the function rises above the interval", trial.values - upper - slack)
    refuse(trial, "the interval's lower end lies above its upper end", lower - upper - slack)


def check_lines(trial: Trial, setting: Setting, plain: LinearBound) -> None:
    """Both lines are finite and on their side of the function at every point; at their start they are the plain ones."""
    label, alpha = setting
    bound = trial.op.lines(*trial.arguments, **({} if alpha is None else {"alpha": alpha}), **trial.attributes)
    lower, upper = line_at(bound.lower, trial.points), line_at(bound.upper, trial.points)
    slack, values = allowance(trial, bound), trial.values.unsqueeze(2)
    for side, line in (("lower", lower), ("upper", upper)):
        if not bool(torch.isfinite(line).all()):
            box = box_text(trial, worst((~torch.isfinite(line)).any(0).any(1)))
            raise ConformanceError(f"{title(trial)}: the {side} line is NaN or infinite with {label} on {box}.")
    refuse(trial, f"the lower line lies above the function with {label}", (lower - values - slack).amax(2))
    refuse(trial, f"the upper line lies below the function with {label}", (values - upper - slack).amax(2))
    if label == "free variables at their start":
        for first, second in ((lower, line_at(plain.lower, trial.points)), (upper, line_at(plain.upper, trial.points))):
            refuse(trial, "lines with free variables at their start differ from the plain ones",
                   ((first - second).abs() - slack).amax(2))


def check_exactness(trial: Trial, bound: LinearBound) -> None:
    """Exact where structure says affine, at boxes of width 0, and where a piecewise operator has no break in the box."""
    if is_affine(trial) != bound.exact:
        raise ConformanceError(f"{title(trial)}: Op.affine says {is_affine(trial)}, but its relaxation is "
                               f"{'' if bound.exact else 'not '}exact (lower is upper).")
    if trial.op.relax is None:
        return  # its lines are its interval, which need not be tight
    lower, upper = line_at(bound.lower, trial.points), line_at(bound.upper, trial.points)
    if bound.exact:
        settled = torch.ones_like(trial.noise, dtype=torch.bool)
    elif trial.op.piecewise and len(trial.perturbed) == 1 and trial.perturbed[0].shape == trial.noise.shape:
        x, settled = trial.perturbed[0], torch.ones_like(trial.noise, dtype=torch.bool)
        for place in trial.op.breaks_of(trial.attributes) or ():
            settled = settled & ((x.upper < place) | (x.lower > place))
    else:
        rigid = torch.stack([x.width.flatten(1).amax(1) == 0 for x in trial.perturbed]).all(0)
        settled = rigid.reshape(-1, *[1] * (trial.noise.dim() - 1)).expand(trial.noise.shape)
    slack = allowance(trial, bound) + trial.eps
    for side, line in (("lower", lower), ("upper", upper)):
        gap = ((line - trial.values.unsqueeze(2)).abs() - slack).amax(2)
        refuse(trial, f"the {side} line is not exact where it should be", torch.where(settled, gap, -1.0))


def check_batching(trial: Trial, bound: LinearBound) -> None:
    """A problem in a batch has the interval and the lines that it has alone."""
    whole = trial.op.interval(*trial.arguments, **trial.attributes)
    slack, lines = allowance(trial, bound), (line_at(bound.lower, trial.points), line_at(bound.upper, trial.points))
    for problem in range(0, trial.values.shape[1], 9):
        one = trial.take(problem)
        alone = one.op.interval(*one.arguments, **one.attributes)
        bound_alone = one.op.lines(*one.arguments, **one.attributes)
        near = slack[problem:problem + 1]
        ends = ((alone.lower, whole.lower), (alone.upper, whole.upper))
        gaps = [(end - other[problem]).abs() - near.amax(1) for end, other in ends]
        for line, side in zip(lines, (bound_alone.lower, bound_alone.upper), strict=True):
            gaps.append(((line_at(side, one.points) - line[:, problem:problem + 1]).abs() - near).amax(2).amax(0))
        for gap in gaps:
            refuse(one, "the bounds of one problem depend on the others in its batch", gap.unsqueeze(0))


def check_guide(trial: Trial) -> None:
    """What searches follow has the operator's values, finite slopes, and the same for a problem alone as in a batch."""
    if trial.op.guide is None:
        return
    points = [value[0].clone().requires_grad_() for value in trial.points]
    value = trial.op.guided(*points, **trial.attributes)
    slopes = torch.autograd.grad(value.sum(), points)
    if not torch.equal(value, trial.op.evaluate(*points, **trial.attributes)):
        raise ConformanceError(f"{title(trial)}: Op.guided has other values than the operator.")
    alone = [point.detach()[-1:].requires_grad_() for point in points]
    same = torch.autograd.grad(trial.op.guided(*alone, **trial.attributes).sum(), alone)
    for slope, own in zip(slopes, same, strict=True):
        if not bool(torch.isfinite(slope).all()) or not torch.allclose(slope[-1:], own):
            raise ConformanceError(f"{title(trial)}: slopes of Op.guide are NaN, infinite, or depend on other problems.")


def check_derivative(trial: Trial) -> None:
    """The interval of the derivative holds the derivative at every point, for operators of one coordinate that give one."""
    if trial.op.derivative is None:
        return
    (points,) = trial.points
    x = points.double().flatten(0, 1).requires_grad_()
    constants = [part for part in trial.arguments if isinstance(part, Tensor)]
    wide = [part.double().expand(points.shape[1:]).repeat(len(points), *[1] * (points.dim() - 2)) for part in constants]
    (slope,) = torch.autograd.grad(trial.op.evaluate(x, *wide, **trial.attributes).sum(), x)
    slope = slope.reshape(points.shape)
    interval = trial.op.derivative(trial.perturbed[0], *constants, **trial.attributes)
    slack = ROUNDINGS * trial.eps * (1 + slope.abs().amax(0))
    refuse(trial, "the derivative falls below its interval", interval.lower.double() - slope - slack)
    refuse(trial, "the derivative rises above its interval", slope - interval.upper.double() - slack)


def check_gradients(trial: Trial) -> None:
    """Gradients of both ends and both lines with respect to the boxes are finite."""
    leaves = [end.clone().requires_grad_() for x in trial.perturbed for end in (x.lower, x.upper)]
    waiting = iter(leaves)
    arguments = [Interval(next(waiting), next(waiting)) if isinstance(part, Interval) else part for part in trial.arguments]
    interval, bound = trial.op.interval(*arguments, **trial.attributes), trial.op.lines(*arguments, **trial.attributes)
    points = [point[4] for point in trial.points]
    total = interval.lower.sum() + interval.upper.sum()
    for affine in (bound.lower, bound.upper):
        for layer, point in zip(affine.maps, points, strict=True):
            total = total + layer.push(point.unsqueeze(1)).sum()
        total = total if affine.bias is None else total + affine.bias.sum()
    if not total.requires_grad:
        return
    for leaf, gradient in zip(leaves, torch.autograd.grad(total, leaves, allow_unused=True), strict=True):
        if gradient is not None and not bool(torch.isfinite(gradient).all()):
            place = worst(~torch.isfinite(gradient))
            raise ConformanceError(f"{title(trial)}: the gradient of the bounds is NaN or infinite where an end of the box is "
                                   f"{float(leaf[place]):.9g}, on {box_text(trial, place)}.")


def check_compiled(trial: Trial) -> None:
    """The relaxation is captured whole by torch.compile, without a branch on values, and gives the same lines."""
    one = trial.take(20)

    def at_point(*ends: Tensor) -> Tensor:
        waiting = iter(ends)
        arguments = [Interval(next(waiting), next(waiting)) if isinstance(part, Interval) else part for part in one.arguments]
        bound = one.op.lines(*arguments, **one.attributes)
        parts = [layer.push(end.unsqueeze(1)) for affine in (bound.lower, bound.upper)
                 for layer, end in zip(affine.maps, ends[::2], strict=True)]
        return torch.cat([part.flatten() for part in parts])

    ends = [end for x in one.perturbed for end in (x.lower, x.upper)]
    torch.compiler.reset()
    try:
        found = torch.compile(at_point, fullgraph=True, backend="eager")(*ends)
    except Exception as problem:  # dynamo raises many kinds; each means that the rule cannot be captured whole
        reason = str(problem).strip().splitlines()[0]
        raise ConformanceError(f"{title(trial)}: torch.compile(fullgraph=True) cannot capture its relaxation: {reason}. "
                               "Branch on shapes, never on values of tensors.") from problem
    if not torch.allclose(found, at_point(*ends), rtol=1e-5, atol=1e-6):
        raise ConformanceError(f"{title(trial)}: the compiled relaxation differs from the eager one.")


def is_affine(trial: Trial) -> bool:
    """What the record says of this pattern of perturbed arguments."""
    return trial.op.affine(tuple(isinstance(part, Interval) for part in trial.arguments))


def title(trial: Trial) -> str:
    """The operator and its call, for a message."""
    shapes = ", ".join(f"{'perturbed' if isinstance(part, Interval) else 'constant'} {list(part.shape[1:])}"
                       for part in trial.arguments)
    attributes = f" with {dict(trial.attributes)}" if trial.attributes else ""
    dtype = str(trial.perturbed[0].lower.dtype).removeprefix("torch.")
    return f"operator '{trial.op.name}' ({shapes}){attributes} in {dtype}"


def worst(bad: Tensor) -> tuple[Tensor, ...]:
    """Where a tensor is largest (or true)."""
    return torch.unravel_index(bad.to(torch.float64).nan_to_num(nan=torch.inf).argmax(), bad.shape)


def box_text(trial: Trial, place: tuple[Tensor, ...]) -> str:
    """The boxes that a coordinate (b, *out) depends on."""
    problem = int(place[0])
    parts = []
    for x in trial.perturbed:
        if x.shape == trial.noise.shape:
            parts.append(f"[{float(x.lower[place]):.9g}, {float(x.upper[place]):.9g}]")
        else:
            parts.append(f"[{x.lower[problem].flatten().tolist()}, {x.upper[problem].flatten().tolist()}]")
    return "the box " + " x ".join(parts)


def refuse(trial: Trial, law: str, excess: Tensor) -> None:
    """ConformanceError where `excess` (n, b, *out) or (b, *out) is positive or NaN: operator, box, point, by how much."""
    if bool((excess <= 0).all()):
        return
    if excess.dim() == trial.noise.dim():
        excess = excess.unsqueeze(0)
    sample, *rest = worst(excess)
    place = tuple(rest)
    at = [point[sample][place] if point.shape[1:] == trial.noise.shape else point[sample, place[0]] for point in trial.points]
    point = ", ".join(str([round(number, 9) for number in part.flatten().tolist()]) for part in at)
    raise ConformanceError(f"{title(trial)}: {law}, on {box_text(trial, place)} at {point}, by "
                           f"{float(excess[(sample, *place)]):.3g} more than rounding explains.")
