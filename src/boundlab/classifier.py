"""CertifiedClassifier: a classifier of tables whose answers can be proven, with the calls of scikit-learn."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from boundlab.certify.certification import Certification
from boundlab.certify.certify import certify, radii_of
from boundlab.certify.plan import Jobs, Plan
from boundlab.certify.record import Status
from boundlab.data.examples import Examples
from boundlab.errors import DataError, ShapeError, SpecError
from boundlab.evaluate import evaluate
from boundlab.graph import Model
from boundlab.radii.family import balls
from boundlab.radii.radius import Radius, radius
from boundlab.table import Shown, Table, percent, plural
from boundlab.train.fit import Fitted, fit
from boundlab.train.methods import CrownIBP, TrainingMethod
from boundlab.train.plan import TrainingPlan
from boundlab.train.regularisers import initialise_for_ibp
from boundlab.train.schedule import Ramp, Rate, Smooth

DEFAULT_PLAN = TrainingPlan(epochs=60, batch=32, rate=Rate(2e-3, (48,), 0.2), ramp=Ramp(5, 40, Smooth()), validation=None)
SINGLE, DOUBLE = 2.0**-21, 2.0**-50
"""More, relative to the numbers at hand, than rounding moves a row that is standardised in float64 and then cut to float32."""


@dataclass(frozen=True)
class Certified(Shown):
    """Which rows (n,) are proven to keep their label, and all that was found out about them.

    `found` has a record for each row; where labels were given, a row with another prediction is misclassified.
    """

    mask: np.ndarray
    found: Certification

    def __repr__(self) -> str:
        return f"Certified({self.mask.sum():,} of {plural(len(self.mask), 'row')} proven, {percent(float(self.mask.mean()))})"

    def shown(self) -> Table:
        """Between which shares the robust accuracy lies."""
        return replace(self.found.shown(), title=repr(self))


@dataclass(frozen=True)
class Learned:
    """What `fit` has learned: the network on standardised columns, their means and deviations (d,), and the classes."""

    fitted: Fitted
    mean: np.ndarray
    deviation: np.ndarray
    classes: np.ndarray

    def standardised(self, rows: np.ndarray) -> Tensor:
        """Rows (n, d) in standard deviations from the training mean, column by column, in float32."""
        if rows.shape[1] != len(self.mean):
            raise ShapeError(f"the rows have {plural(rows.shape[1], 'column')}, and the classifier was fitted on "
                             f"{len(self.mean)}; give the same ones.")
        return in_deviations(rows, self.mean, self.deviation)

    def room(self, rows: np.ndarray, eps: float) -> float:
        """How much further than eps two rows may be apart once they are standardised and rounded, in any entry."""
        moved = float(((np.abs(rows) + np.abs(self.mean)) / self.deviation).max())
        return SINGLE * (float(self.standardised(rows).abs().max()) + eps) + DOUBLE * (moved + eps)

    def numbers(self, labels: Iterable[Any]) -> Tensor:
        """Labels as the places of their classes; DataError for one that was not seen in training."""
        known = {label: place for place, label in enumerate(self.classes.tolist())}
        given = labels_of(labels)
        unknown = [label for label in given if label not in known]
        if unknown:
            raise DataError(f"the label {unknown[0]!r:.60} is none of the {len(known)} classes that the classifier was fitted "
                            "on; leave such rows out.")
        return torch.tensor([known[label] for label in given])


class CertifiedClassifier(Shown):
    """A network for tables, trained so that its answers can be proven; `fit`, `predict` and so on as in scikit-learn.

    `eps` is a number of standard deviations of each column in the training data: 0.1 means that all entries of a row may move
    at once, each by a tenth of its column's deviation (`norm` inf). `hidden` are the widths of the layers, `method` is a
    training method of `bl.fit` (default: CrownIBP), `plan` how it is trained (its seed is `random_state`; default: 60 epochs).
    Equal arguments and data give equal networks. Works in Pipeline and GridSearchCV; scikit-learn is not needed otherwise.
    """

    def __init__(self, *, eps: float = 0.1, norm: float = math.inf, hidden: Sequence[int] = (64, 64),
                 method: TrainingMethod | None = None, plan: TrainingPlan | None = None, random_state: int = 0) -> None:
        self.eps, self.norm, self.hidden = eps, norm, hidden
        self.method, self.plan, self.random_state = method, plan, random_state

    def fit(self, X: Any, y: Iterable[Any]) -> CertifiedClassifier:
        """Trains on rows X (n, d) with labels y (n,) of any hashable type; DataError for what is not finite or one class."""
        rows, labels = rows_of(X), labels_of(y)
        if len(rows) != len(labels):
            raise DataError(f"there are {len(rows)} rows and {len(labels)} labels; give one for each.")
        classes = classes_of(labels)
        if len(classes) < 2:
            raise DataError(f"all {len(labels)} rows have the label {labels[0]!r:.60}; a classifier needs two classes.")
        mean, deviation = scales(rows)
        places = {label: place for place, label in enumerate(classes.tolist())}
        data = Examples(in_deviations(rows, mean, deviation), torch.tensor([places[label] for label in labels]))
        self.check_arguments()
        net = network((rows.shape[1], *self.hidden, len(classes)), self.random_state)
        plan = replace(self.plan or DEFAULT_PLAN, seed=int(self.random_state), clip=None)
        trained = fit(net, data, self.method or CrownIBP(), eps=self.eps, norm=self.norm, plan=plan)
        self.learned_ = Learned(trained, mean, deviation, classes)
        self.classes_, self.n_features_in_ = classes, rows.shape[1]
        return self

    def check_arguments(self) -> None:
        """SpecError for arguments of other kinds: `set_params` and scikit-learn take any."""
        if self.plan is not None and not isinstance(self.plan, TrainingPlan):
            raise SpecError(f"plan is a bl.TrainingPlan, or None for the default, got {self.plan!r:.60}.")
        if not isinstance(self.hidden, Iterable) or isinstance(self.hidden, str):
            raise SpecError(f"hidden are the widths of the layers, such as (64, 64), got {self.hidden!r:.60}.")

    @property
    def learned(self) -> Learned:
        """What `fit` has learned; SpecError before that."""
        found = vars(self).get("learned_")
        if found is None:
            raise SpecError("the classifier is not fitted yet; call fit(X, y) first.")
        assert isinstance(found, Learned)
        return found

    @property
    def model(self) -> Model:
        """The network, of rows in standard deviations: (x - learned.mean) / learned.deviation."""
        return self.learned.fitted.model

    def scores(self, X: Any) -> Tensor:
        """The network's scores (n, classes) of rows X (n, d)."""
        with torch.no_grad():
            return evaluate(self.model, self.learned.standardised(rows_of(X)))

    def predict(self, X: Any) -> np.ndarray:
        """The labels (n,) of rows X (n, d)."""
        found: np.ndarray = self.learned.classes[self.scores(X).argmax(1).numpy()]
        return found

    def predict_proba(self, X: Any) -> np.ndarray:
        """Shares (n, classes) by softmax, in the order of `classes_`; they are not calibrated, and certify nothing."""
        return self.scores(X).double().softmax(1).numpy()

    def score(self, X: Any, y: Iterable[Any]) -> float:
        """The share of rows that get their label."""
        given = labels_of(y)
        found = self.predict(X).tolist()
        if len(given) != len(found):
            raise DataError(f"there are {len(found)} rows and {len(given)} labels; give one for each.")
        return sum(one == other for one, other in zip(found, given, strict=True)) / len(given)

    def certify(self, X: Any, y: Iterable[Any] | None = None, eps: float | None = None, *, plan: Plan | None = None,
                jobs: Jobs | None = None) -> Certified:
        """Which rows X (n, d) are proven to keep their label y, or without y their prediction, under any change up to `eps`.

        `eps` is in standard deviations (default: that of training). Rounding is counted in, that of standardising rows, too;
        a counterexample may lie that much outside. The plan's norm and domain are those of the classifier. Errors as those of
        `fit`, and SpecError for several radii.
        """
        if plan is not None and not isinstance(plan, Plan):
            raise SpecError(f"what is certified follows a bl.Plan, or None for the default, got {plan!r:.60}.")
        table, (told, *more) = rows_of(X), radii_of(self.eps if eps is None else eps)
        if more:
            raise SpecError(f"rows are certified at one radius, got {1 + len(more)}; call once for each.")
        rows, asked = self.learned.standardised(table), replace(plan or Plan(), p=self.norm, clip=None)
        labels = evaluate(self.model, rows).argmax(1) if y is None else self.learned.numbers(y)
        room = self.learned.room(table, told) * (1 if math.isinf(self.norm) else rows.shape[1])
        found = certify(self.model, Examples(rows, labels), told + room, asked, jobs)
        records = tuple(replace(record, eps=told) for record in found.records)
        found = replace(found, settings=replace(found.settings, eps=(told,)), records=records)
        return Certified(np.array([record.status is Status.CERTIFIED for record in records]), found)

    def radius(self, X: Any, y: Iterable[Any] | None = None) -> Radius:
        """How far each row may move, in standard deviations: proven by CROWN in floating point, and broken by attacks."""
        rows = self.learned.standardised(rows_of(X))
        labels = evaluate(self.model, rows).argmax(1) if y is None else self.learned.numbers(y)
        return radius(self.model, rows, labels, family=balls(self.norm))

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The arguments by name."""
        return {"eps": self.eps, "norm": self.norm, "hidden": self.hidden, "method": self.method, "plan": self.plan,
                "random_state": self.random_state}

    def set_params(self, **params: Any) -> CertifiedClassifier:
        """Changes some arguments; SpecError for others."""
        wrong = sorted(params.keys() - self.get_params().keys())
        if wrong:
            raise SpecError(f"a CertifiedClassifier has no argument '{wrong[0]}'; it has {', '.join(self.get_params())}.")
        vars(self).update(params)
        return self

    def __sklearn_tags__(self) -> Any:
        """What scikit-learn asks of a classifier."""
        tags = importlib.import_module("sklearn.utils")
        return tags.Tags(estimator_type="classifier", target_tags=tags.TargetTags(required=True),
                         classifier_tags=tags.ClassifierTags(), input_tags=tags.InputTags())

    def __repr__(self) -> str:
        return f"CertifiedClassifier({', '.join(f'{name}={value!r}' for name, value in self.get_params().items())})"

    def shown(self) -> Table:
        """The arguments, and what was learned."""
        rows = [(name, repr(value)) for name, value in self.get_params().items()]
        if "learned_" in vars(self):
            rows.append(("fitted on", f"{plural(self.n_features_in_, 'column')}, {len(self.classes_)} classes"))
        return Table(("argument", "value"), rows, "CertifiedClassifier")


def network(widths: Sequence[int], seed: int) -> nn.Module:
    """Linear layers of these widths with ReLUs between them; weights are fixed by the seed."""
    if not all(isinstance(width, int | np.integer) and width > 0 for width in widths):
        raise SpecError(f"hidden layers have whole numbers of neurons, at least 1 each, got {tuple(widths[1:-1])}.")
    if not isinstance(seed, int | np.integer) or not 0 <= seed < 2**63:
        raise SpecError(f"random_state is a whole number from 0 on, below 2**63, got {seed!r:.60}.")
    layers: list[nn.Module] = []
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(seed))
        for inner, outer in pairwise(widths):
            layers += [nn.Linear(int(inner), int(outer)), nn.ReLU()]
        net = nn.Sequential(*layers[:-1])
    initialise_for_ibp(net, int(seed))
    return net


def rows_of(table: Any) -> np.ndarray:
    """A table as rows (n, d) of float64; DataError if it holds what is no finite number, ShapeError for other shapes."""
    try:
        held = np.asarray(table.detach().cpu() if isinstance(table, Tensor) else table)
        if held.dtype.kind in "cmM":
            raise TypeError(f"numbers of type {held.dtype}")
        rows = held.astype(np.float64)
    except (TypeError, ValueError) as problem:
        raise DataError(f"the table holds what is no number ({' '.join(str(problem).split()):.99}); encode such columns "
                        "first.") from problem
    if rows.ndim != 2 or not rows.size:
        raise ShapeError(f"a table has rows and columns, (n, d), and at least one number; got the shape {list(rows.shape)}.")
    wrong = np.argwhere(~np.isfinite(rows))
    if len(wrong):
        raise DataError(f"row {wrong[0][0]} holds {rows[tuple(wrong[0])]} in column {wrong[0][1]}; fill in or drop what is "
                        "missing.")
    return rows


def scales(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Means and standard deviations (d,) of columns, 1 for a constant one, where else it is rounding; DataError if infinite."""
    constant = rows.max(0) == rows.min(0)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, deviation = np.where(constant, rows[0], rows.mean(0)), rows.std(0)
    wrong = np.flatnonzero(~np.isfinite(mean + deviation))
    if len(wrong):
        raise DataError(f"the numbers of column {wrong[0]} are too large for a standard deviation; give it another unit.")
    return mean, np.where(constant | (deviation == 0), 1.0, deviation)


def in_deviations(rows: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> Tensor:
    """Rows (n, d) in standard deviations from the mean, in float32; DataError where that is no finite number."""
    with np.errstate(over="ignore", invalid="ignore"):
        found = ((rows - mean) / deviation).astype(np.float32)
    wrong = np.argwhere(~np.isfinite(found))
    if len(wrong):
        raise DataError(f"row {wrong[0][0]} holds {rows[tuple(wrong[0])]} in column {wrong[0][1]}, too far from the training "
                        "data for a network's numbers; drop it.")
    return torch.from_numpy(found)


def labels_of(labels: Iterable[Any]) -> list[Any]:
    """Labels as plain hashable values; DataError for one that is not hashable, or not equal to itself, such as NaN."""
    if not isinstance(labels, Iterable):
        raise DataError(f"labels are one value a row, got {labels!r:.60}.")
    given = labels.tolist() if isinstance(labels, np.ndarray | Tensor) else list(labels)
    for place, label in enumerate(given):
        try:
            hash(label)
        except TypeError as problem:
            raise DataError(f"the label of row {place}, {label!r:.60}, is not hashable; give one value a row.") from problem
        if label != label:
            raise DataError(f"the label of row {place} is {label!r:.60}; drop rows without a label.")
    return given


def classes_of(labels: Sequence[Any]) -> np.ndarray:
    """The different labels (k,): sorted, or where they cannot be compared in the order in which they come."""
    distinct = list(dict.fromkeys(labels))
    with suppress(TypeError):
        distinct = sorted(distinct)
    if len({type(label) for label in distinct}) == 1 and isinstance(distinct[0], str | bool | int | float):
        return np.array(distinct)
    held = np.empty(len(distinct), dtype=object)
    held[:] = distinct
    return held
