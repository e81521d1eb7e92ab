"""The training loop, for every method: batches, schedules, the step, validation, checkpoints."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from boundlab.data.examples import Examples, examples_in
from boundlab.errors import BoundError, SpecError
from boundlab.graph import Model
from boundlab.table import FEW, Shown, Table, number, percent, plural
from boundlab.train.averaging import Average, in_place
from boundlab.train.batch import Batch, Threat, ThreatModel, placed
from boundlab.train.checkpoint import NAME, Run, fingerprint, load, refuse, save
from boundlab.train.history import Epoch, write_history
from boundlab.train.measure import check_examples, measure
from boundlab.train.methods import TrainingMethod
from boundlab.train.plan import HeldOut, OnTestSet, Statistics, TrainingPlan
from boundlab.train.statistics import update_running
from boundlab.train.step import objective, running_statistics, with_statistics_of

CHOICE, NOISE = 1, 2
"""Added to the seed for the choice of validation examples, and for attacks and changed images."""


@dataclass(frozen=True, repr=False)
class Fitted(Shown):
    """A trained module (in evaluation mode), its model without gradients (the same tensors), and a record for each epoch.

    `chosen` is the number of the epoch whose weights it has.
    """

    module: nn.Module
    model: Model
    history: tuple[Epoch, ...]
    chosen: int

    def shown(self) -> Table:
        """The last few epochs; shares are of the validation examples."""
        title = (f"{type(self.module).__name__} trained for {plural(len(self.history), 'epoch')}, with the weights of epoch "
                 f"{self.chosen}; the last epochs:")
        columns = ("epoch", "loss", "eps", "clean", "attacked", "verified", "seconds")
        rows = [(str(one.epoch), number(one.loss), number(one.eps), *("-" if share is None else percent(share) for share in (
            one.clean, one.attacked, one.verified)), f"{one.seconds:.1f}") for one in self.history[-FEW:]]
        return Table(columns, rows, title, frozenset(columns), len(self.history) - len(rows))


@dataclass(frozen=True)
class Task:
    """What one run is about."""

    model: Model
    training: Examples
    validation: Examples | None
    method: TrainingMethod
    threat: ThreatModel
    plan: TrainingPlan


def fit(module: nn.Module, data: Examples, method: TrainingMethod, *, eps: float, norm: float = math.inf,
        plan: TrainingPlan | None = None) -> Fitted:
    """Train a classifier in place on labelled examples, so that bounds prove its labels on balls of radius `eps`.

    The module maps (b, *shape) to logits (b, classes); it is captured once, in evaluation mode, in which it stays: batch norms
    follow the plan's `statistics`, and dropout does nothing. eps is in the units of `data`: a normalisation is the first layer.
    ShapeError or SpecError where network, data and plan do not fit together, BoundError if the loss is no finite number,
    CheckpointError for a checkpoint of another run, and, without `resume`, for any.
    """
    plan = plan or TrainingPlan()
    return fit_against(module, data, method, Threat(eps, norm, plan.clip), plan)


def fit_against(module: nn.Module, data: Examples, method: TrainingMethod, threat: ThreatModel,
                plan: TrainingPlan | None = None) -> Fitted:
    """`fit` with anything that may vary: weights (`WeightThreat`), words (`WordThreat`), or a threat model of your own.

    What inputs stay between belongs to the threat, and `clip` of the plan is not read. Errors as those of `fit`.
    """
    plan = plan or TrainingPlan()
    if not isinstance(method, TrainingMethod) or isinstance(method, type):
        raise SpecError(f"the method is a training method such as bl.CrownIBP(), got {method!r:.60}.")
    plan.processes.check_running()
    if plan.keep is not None and not plan.keep.resume:
        refuse(plan.keep.folder / NAME)
    training, validation = divided(examples_in(data), plan)
    model = captured(module, training, threat)
    task = Task(model, training, validation, method, threat, plan)
    for part in (training, validation):
        if part is not None:
            check_examples(model, part, task.threat)
    check_batches(task)
    check_averaging(task)
    run = begun(module, task)
    tried(task)
    kept = "" if plan.keep is None else plan.keep.about
    about = "" if plan.keep is None and plan.processes.alone else fingerprint(
        model, [*data.labelled(), *threat.tensors], method, task.threat, plan, kept)
    if plan.keep is not None:
        plan.keep.folder.mkdir(parents=True, exist_ok=True)
        run = load(plan.keep.folder / NAME, run, about)
    plan.processes.agree(about, module.state_dict().values())
    for epoch in range(len(run.history), plan.epochs):
        run = remembered(run, task, one_epoch(run, task, epoch))
        if plan.keep is not None and plan.processes.first and ((epoch + 1) % plan.keep.every == 0 or epoch + 1 == plan.epochs):
            save(plan.keep.folder / NAME, run, about)
            write_history(plan.keep.folder / "history.csv", run.history)
    return finished(run, task)


def divided(data: Examples, plan: TrainingPlan) -> tuple[Examples, Examples | None]:
    """Training and validation examples; the latter are taken from the former unless a test set is named."""
    source = None if plan.validation is None else plan.validation.source
    if isinstance(source, OnTestSet):
        return data, source.examples
    if not isinstance(source, HeldOut) or source.share == 0:
        return data, None
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(plan.seed + CHOICE))
    count = round(source.share * len(data))
    if not 0 < count < len(data):
        raise SpecError(f"a share of {source.share:g} of {len(data)} examples leaves none for training or for validation.")
    return data.take(order[count:].sort().values.tolist()), data.take(order[:count].sort().values.tolist())


def check_batches(task: Task) -> None:
    """SpecError if a batch norm would have the statistics of one number, whose variance is 0."""
    smallest = min(len(task.training), len(task.training) % task.plan.batch or task.plan.batch)
    single = any(math.prod(norm.value.shape[1:]) == 1 for norm in task.model.graph.norms)
    if smallest == 1 and single and task.plan.statistics is not Statistics.FROZEN:
        raise SpecError(f"{len(task.training)} training examples in batches of {task.plan.batch} leave one alone in its "
                        "batch, and the network has a batch norm of one number an example; choose another batch.")


def check_averaging(task: Task) -> None:
    """SpecError if no step comes after which weights would go into the average."""
    how, count = task.plan.averaging, -(-len(task.training) // task.plan.batch)
    if how is None:
        return
    last = task.plan.epochs * count // how.every * how.every - 1
    if last < 0 or not how.due(last // count + last % count / count, last):
        raise SpecError(f"of {task.plan.epochs * count} steps none counts in the mean of weights after every {how.every} of "
                        f"them from epoch {how.start:g} on; begin sooner, or take in weights more often.")


def tried(task: Task) -> None:
    """Ask for the loss at the full radius once: what the method cannot do is said now, and not when the ramp is over."""
    x, labels = (placed(part[:2], task.model) for part in task.training.labelled())
    batch = Batch(task.model, x, labels, task.threat, 1.0)
    with contextlib.suppress(BoundError):  # the network is not trained yet
        objective(with_statistics_of(batch, task.plan.statistics), task.method, task.plan, torch.Generator())


def captured(module: nn.Module, examples: Examples, threat: ThreatModel) -> Model:
    """The module in evaluation mode as a model with live parameters."""
    like, x = next(module.parameters(), examples.x), examples.x[:2]
    return threat.captured(module.eval(), x.to(like.device, like.dtype if x.is_floating_point() else x.dtype))


def begun(module: nn.Module, task: Task) -> Run:
    """A run before its first epoch: an optimiser over all parameters, and generators of batches and of attacks."""
    parameters = [value for value in module.parameters() if value.requires_grad]
    if not parameters:
        raise SpecError("the module has no parameter that requires a gradient, so there is nothing to train.")
    seeds = {"order": task.plan.seed, "noise": task.plan.seed + NOISE}
    return Run(module, task.plan.optimiser.over(parameters),
               {name: torch.Generator().manual_seed(seed) for name, seed in seeds.items()},
               None if task.plan.averaging is None else Average.of(module))


def batches(task: Task, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """Inputs and labels of one epoch in random order, where the network is, changed at random if the plan says so."""
    x, labels = task.training.labelled()
    for part in torch.randperm(len(x), generator=run.generators["order"]).split(task.plan.batch):
        chosen = placed(x[part], task.model)
        if task.plan.augmentation is not None:
            chosen = task.plan.augmentation.applied(chosen, run.generators["noise"])
        yield chosen, labels[part].to(task.model.device)


def one_epoch(run: Run, task: Task, epoch: int) -> Epoch:
    """A step on each batch; what is remembered of them."""
    plan, started, total = task.plan, time.perf_counter(), 0.0
    count = -(-len(task.training) // plan.batch)
    share = rate = 0.0
    for place, (x, labels) in enumerate(batches(task, run)):
        moment, number = epoch + place / count, epoch * count + place
        share, rate = plan.ramp.at(moment), plan.rate.at(moment)
        total += step(run, task, Batch(task.model, x, labels, task.threat, share), rate) * len(x)
        if plan.averaging is not None and run.average is not None and plan.averaging.due(moment, number):
            run.average.add(run.module, plan.averaging)
    if not all(bool(torch.isfinite(value).all()) for value in run.module.parameters()):
        raise diverged("a parameter", epoch)
    if plan.statistics is Statistics.POPULATION:
        measure_statistics(run, task)
    return Epoch(epoch, total / len(task.training), task.threat.eps * share, rate, time.perf_counter() - started)


def measure_statistics(run: Run, task: Task) -> None:
    """Measure the running statistics of batch norms on the training examples, changed as in the next epoch."""
    running_statistics(task.model, ((task.threat.inputs(task.model, x), len(x)) for x, _ in batches(task, with_copies(run))))


def diverged(what: str, epoch: int) -> BoundError:
    """That training has left the numbers."""
    return BoundError(f"{what} is NaN or infinite in epoch {epoch + 1}; train with a smaller rate, a longer ramp of eps, "
                      "or gradients that are cut (gradient_norm).")


def with_copies(run: Run) -> Run:
    """The run with copies of its generators, for a pass that leaves their order alone."""
    return replace(run, generators={name: value.clone_state() for name, value in run.generators.items()})


def step(run: Run, task: Task, batch: Batch, rate: float) -> float:
    """One step of the optimiser; the loss before it. BoundError if it, or its gradient, is no finite number."""
    plan = task.plan
    for group in run.optimiser.param_groups:
        group["lr"] = rate
    run.optimiser.zero_grad()
    batch = with_statistics_of(batch, plan.statistics)
    loss = objective(batch, task.method, plan, run.generators["noise"])
    value = float(plan.processes.total(loss))
    if not math.isfinite(value):
        raise diverged("the loss", len(run.history))
    loss.backward()
    plan.processes.add_gradients(run.module.parameters())
    if plan.gradient_norm is not None:
        size = nn.utils.clip_grad_norm_(run.module.parameters(), plan.gradient_norm)
        if not bool(torch.isfinite(size)):
            raise diverged("the gradient", len(run.history))
    run.optimiser.step()
    if plan.statistics is not Statistics.FROZEN:
        update_running(task.model, batch.model, len(batch.x))
    return value


def remembered(run: Run, task: Task, epoch: Epoch) -> Run:
    """The run with one more epoch, with what validation measures, and with the weights that it would end with."""
    how, last = task.plan.validation, epoch.epoch + 1 == task.plan.epochs
    due = how is not None and (last or (epoch.epoch + 1) % how.every == 0)
    with in_place(run.module, run.average) as averaged:
        if averaged and task.plan.statistics is not Statistics.FROZEN:
            measure_statistics(run, task)
        best = False
        if how is not None and due and task.validation is not None:
            found = measure(task.model, task.validation, task.threat, {"bound": how.bound}, how.attack, task.plan.seed)
            epoch = replace(epoch, clean=found.clean, attacked=found.attacked, verified=found.verified["bound"])
            best = how.best and task.plan.ramp.at(epoch.epoch) == 1 and found.verified["bound"] > run.score
        if best or (averaged and run.score < 0):
            weights = {name: value.detach().clone() for name, value in run.module.state_dict().items()}
            run = replace(run, best=weights, score=run.score if epoch.verified is None or not best else epoch.verified)
    if task.plan.tell is not None and task.plan.processes.first:
        task.plan.tell(epoch)
    return replace(run, history=(*run.history, epoch))


def finished(run: Run, task: Task) -> Fitted:
    """The result, with the best or the averaged weights if the plan has them."""
    chosen = len(run.history) - 1
    if run.best is not None:
        run.module.load_state_dict(run.best)
    if run.score >= 0:
        chosen = next(epoch.epoch for epoch in run.history
                      if epoch.verified == run.score and task.plan.ramp.at(epoch.epoch) == 1)
    return Fitted(run.module, task.model.detached(), run.history, chosen)
