"""What one step minimises: the method's loss and what regularises it, in parts of a batch if memory asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from boundlab.graph import Model
from boundlab.train.batch import Batch, Inputs
from boundlab.train.groups import even_groups, sum_over_groups
from boundlab.train.methods import Natural, TrainingMethod
from boundlab.train.plan import Statistics, TrainingPlan
from boundlab.train.processes import Processes
from boundlab.train.statistics import clean_pass, update_running

NATURAL = Natural()


def objective(batch: Batch, method: TrainingMethod, plan: TrainingPlan, generator: torch.Generator) -> Tensor:
    """The loss of a batch, a number; of several processes each has its part, and the first one has what regularises, too.

    While eps is 0 every method's loss is the natural one, which is cheaper and the same.
    """
    terms = [value for one in plan.regularisers if plan.processes.first and (value := one.term(batch)) is not None]
    if batch.share * batch.threat.eps == 0:
        method = NATURAL
    batch = replace(batch, points=method.search(batch, generator)) if not isinstance(method, Natural) else batch
    loss = in_parts(batch, method, plan.micro or len(batch.x), plan.processes)
    return loss if not terms else loss + torch.stack(terms).sum()


def with_statistics_of(batch: Batch, statistics: Statistics) -> Batch:
    """The batch with a model that normalises by what a clean pass measures; itself where nothing does, or all is frozen."""
    if statistics is Statistics.FROZEN or not batch.model.graph.norms:
        return batch
    clean = clean_pass(batch.model, batch.inputs)
    return replace(batch, model=clean.model, output=clean.output)


def in_parts(batch: Batch, method: TrainingMethod, size: int, processes: Processes) -> Tensor:
    """The method's loss, with at most `size` examples at a time, each part's gradient found before the next one is begun.

    Of several processes each has its part of the sum.
    """
    count = len(batch.x)
    groups = processes.own(even_groups(count, min(size, -(-count // processes.count))))
    if processes.alone and len(groups) == 1:
        return method.loss(batch)
    names, own = list(batch.model.params), [batch.points, batch.output]
    extra = [value for value in own if value is not None]
    tensors = [*batch.model.params.values(), *extra]

    def part(group: slice, tensors: Sequence[Tensor]) -> Tensor:
        given = iter(tensors[len(names):])
        points, output = (None if value is None else next(given) for value in own)
        some = replace(batch, model=Model(batch.model.graph, dict(zip(names, tensors, strict=False))), x=batch.x[group],
                       labels=batch.labels[group], points=points, output=output)
        return method.loss(some) * (len(some.x) / len(batch.x))

    return sum_over_groups(part, tensors, [False] * len(names) + [True] * len(extra), groups)


def running_statistics(model: Model, inputs: Iterable[tuple[Inputs, int]]) -> None:
    """Measure the running statistics of a model again, in place: their mean over batches of inputs, with their sizes.

    Wu and Johnson 2021 ("Rethinking batch in batch norm"), Sec. 3: population statistics.
    """
    if model.graph.norms:
        with torch.no_grad():
            for place, (x, count) in enumerate(inputs):
                update_running(model, clean_pass(model, x).model, count, 1 / (place + 1))
