"""A data set certified: all records, what they depend on, and what they say together."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from boundlab.certify.explained import Explained
from boundlab.certify.record import Record, Status
from boundlab.table import FEW, Shown, Table, percent, plural, radius

FORMAT = "boundlab certification 1"
UNASKED = "the run was interrupted before this question was decided"
"""The reason of what an interrupted run has left open."""


@dataclass(frozen=True)
class Settings:
    """All that the records depend on: SHA-256 of network and data, radii, set, stages, limits, and versions.

    `network` is of the unpacked ONNX file, or of the captured graph with its parameters; `data` of inputs as the network takes
    them and labels. `command` is the command line, if there was one, with what it calls network and data.
    """

    network: str
    data: str
    eps: tuple[float, ...]
    p: float
    clip: tuple[float, float] | None
    stages: tuple[str, ...]
    rigour: str
    timeout: float
    memory: int | None
    versions: Mapping[str, str]
    command: str = ""
    network_name: str = ""
    data_name: str = ""


@dataclass(frozen=True)
class Shares:
    """What became of some examples at one radius: how many there are, and shares of them.

    `certified` is a lower bound of the robust accuracy on these examples, and `attacked` (neither misclassified nor falsified)
    an upper bound; what lies between is `unknown` or `failed`. `methods` says what share each method has certified.
    """

    eps: float
    examples: int
    clean: float
    attacked: float
    certified: float
    unknown: float
    failed: float
    seconds: float
    methods: Mapping[str, float]


def shares(eps: float, records: Sequence[Record]) -> Shares:
    """The shares of at least one record, all at one radius."""
    count, statuses = len(records), Counter(record.status for record in records)
    methods = Counter(record.finding.method for record in records if record.status is Status.CERTIFIED)
    wrong = statuses[Status.MISCLASSIFIED]
    return Shares(eps, count, (count - wrong) / count, (count - wrong - statuses[Status.FALSIFIED]) / count,
                  statuses[Status.CERTIFIED] / count, statuses[Status.UNKNOWN] / count, statuses[Status.FAILED] / count,
                  sum(record.finding.seconds for record in records),
                  {method: number / count for method, number in methods.most_common()})


@dataclass(frozen=True)
class Reach:
    """How far one example goes: the largest radius that is certified and the smallest that is falsified, if there are any."""

    index: int
    certified: float | None
    falsified: float | None


@dataclass(frozen=True)
class Inputs:
    """Inputs of some examples by their place, as the network takes them; `shape` is that of an example in the data."""

    x: Mapping[int, np.ndarray]
    shape: tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Certification(Shown):
    """Records by radius and then by example, with what they depend on; `seconds` is how long this run took.

    `inputs` are those of all examples, or if it was read from files those of the `extremes`. `explained` says of the most
    instructive one where its bound is lost.
    """

    settings: Settings
    classes: int
    records: tuple[Record, ...]
    seconds: float
    inputs: Inputs
    explained: Explained | None = None

    @cached_property
    def by_eps(self) -> Mapping[float, tuple[Record, ...]]:
        """The records at each radius."""
        return {eps: tuple(record for record in self.records if record.eps == eps) for eps in self.settings.eps}

    @cached_property
    def shares(self) -> tuple[Shares, ...]:
        """What became of all examples, at each radius."""
        return tuple(shares(eps, records) for eps, records in self.by_eps.items())

    def accuracies(self, most: int | None = None) -> Table:
        """A row a radius, of all or of so many: between which shares the robust accuracy lies, and what is left open."""
        columns = ("eps", "clean", "certified, at least", "robust, at most", "unknown", "failed", "seconds")
        rows = [(radius(one.eps), *map(percent, (one.clean, one.certified, one.attacked, one.unknown, one.failed)),
                 f"{one.seconds:.1f}") for one in self.shares[:most]]
        return Table(columns, rows, f"Accuracy on {self.shares[0].examples} examples", frozenset(columns),
                     len(self.shares) - len(rows))

    def shown(self) -> Table:
        """Between which shares the robust accuracy lies, at a few radii."""
        name = self.settings.network_name or "Network"
        title = f"{name} certified on {plural(self.shares[0].examples, 'example')}, rigour {self.settings.rigour.upper()}"
        return replace(self.accuracies(FEW), title=title)

    def by_class(self, eps: float) -> Mapping[int, Shares]:
        """What became of the examples of each class at a radius; classes without examples are left out."""
        classes: dict[int, list[Record]] = {}
        for record in self.by_eps[eps]:
            classes.setdefault(record.label, []).append(record)
        return {label: shares(eps, classes[label]) for label in sorted(classes)}

    def confusions(self, eps: float) -> Mapping[tuple[int, int], int]:
        """How many counterexamples lead from a label to another class, at a radius."""
        return Counter((record.label, record.finding.adversary.label) for record in self.by_eps[eps]
                       if record.finding.adversary is not None)

    @cached_property
    def reach(self) -> tuple[Reach, ...]:
        """How far each example goes, in the order of the examples."""
        found: dict[int, Reach] = {}
        for record in self.records:  # radii ascend
            known = found.get(record.index, Reach(record.index, None, None))
            if record.status is Status.CERTIFIED:
                known = Reach(record.index, record.eps, known.falsified)
            elif record.status is Status.FALSIFIED and known.falsified is None:
                known = Reach(record.index, known.certified, record.eps)
            found[record.index] = known
        return tuple(found[index] for index in sorted(found))

    @cached_property
    def at_reach(self) -> Mapping[tuple[int, Status], Record]:
        """The record of each example at its largest certified radius, and at its smallest falsified one."""
        found: dict[tuple[int, Status], Record] = {}
        for record in self.records:  # radii ascend
            if record.status is Status.CERTIFIED or (record.index, record.status) not in found:
                found[record.index, record.status] = record
        return found

    @cached_property
    def ranking(self) -> tuple[int, ...]:
        """The correctly classified examples, the least robust first.

        By the smallest falsified radius, then by the largest certified one, then by the margin: that of the counterexample's
        scores, or the lower bound at the largest certified radius.
        """
        def key(reach: Reach) -> tuple[float, float, float, int]:
            broken = self.at_reach.get((reach.index, Status.FALSIFIED))
            proven = self.at_reach.get((reach.index, Status.CERTIFIED))
            margin = 0.0 if proven is None else proven.finding.margin
            if broken is not None and broken.finding.adversary is not None:
                margin = broken.finding.adversary.margin(broken.label)
            return (math.inf if reach.falsified is None else reach.falsified,
                    -1.0 if reach.certified is None else reach.certified, margin, reach.index)

        right = (one for one in self.reach if (one.index, Status.MISCLASSIFIED) not in self.at_reach)
        return tuple(one.index for one in sorted(right, key=key))

    def extremes(self, count: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """At most `count` of the least robust examples that have a counterexample, and of the most robust certified ones.

        The weakest comes first in the one, the strongest in the other.
        """
        broken = [index for index in self.ranking if (index, Status.FALSIFIED) in self.at_reach]
        proven = [index for index in reversed(self.ranking) if (index, Status.CERTIFIED) in self.at_reach]
        return tuple(broken[:count]), tuple(proven[:count])

    @property
    def unasked(self) -> int:
        """How many questions an interrupted run has left open."""
        return sum(record.finding.reason == UNASKED for record in self.records)

    @property
    def failures(self) -> Mapping[str, int]:
        """Why computations failed, and how often, most frequent first."""
        return dict(Counter(record.finding.reason for record in self.records
                            if record.status is Status.FAILED).most_common())

    def counterexamples(self) -> dict[str, np.ndarray]:
        """Counterexamples as arrays: `x` (m, *shape), `scores` (m, classes), `index`, `eps`, `label`; m may be 0.

        Each stands once, at the radius at which it was found; the records of other radii name that one in `nested`.
        """
        held = [record for record in self.records if record.finding.adversary is not None and record.finding.nested is None]
        adversaries = [record.finding.adversary for record in held if record.finding.adversary is not None]
        return {"x": stacked(one.x for one in adversaries), "scores": stacked(one.scores for one in adversaries),
                "index": np.array([record.index for record in held], np.int64),
                "eps": np.array([record.eps for record in held], np.float64),
                "label": np.array([record.label for record in held], np.int64)}

    def record(self) -> dict[str, Any]:
        """Everything but the counterexamples' numbers as plain data, for JSON."""
        return {"format": FORMAT, "settings": asdict(self.settings), "seconds": self.seconds, "classes": self.classes,
                "statuses": {status.name.lower(): status.value for status in Status},
                "shares": [asdict(one) for one in self.shares],
                "by_class": [{"label": label, **asdict(one)} for eps in self.settings.eps
                             for label, one in self.by_class(eps).items()],
                "confusions": [{"eps": eps, "label": label, "adversary": other, "count": count} for eps in self.settings.eps
                               for (label, other), count in sorted(self.confusions(eps).items())],
                "reach": [asdict(one) for one in self.reach], "failures": dict(self.failures), "unasked": self.unasked,
                "explained": None if self.explained is None else asdict(self.explained),
                "records": [record.row() for record in self.records]}


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during `certify`; `found` is what is known so far, with what was not decided as unknown."""

    def __init__(self, found: Certification) -> None:
        super().__init__(f"interrupted; {found.unasked:,} of {len(found.records):,} questions are not decided.")
        self.found = found


def stacked(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Arrays of one shape as one array; without axes of their own where there is none."""
    held = list(arrays)
    return np.stack(held) if held else np.zeros(0)
