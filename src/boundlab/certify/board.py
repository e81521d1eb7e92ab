"""Which questions are open, what answers say about other radii, and which radius of an example is asked next.

Balls of one center, norm and box are nested: what is proven on a larger one holds on smaller ones, and a counterexample in a
smaller one lies in larger ones.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from boundlab.certify.record import Finding, Status

Question = tuple[int, int]
"""The place of an example, and of a radius among all of them in ascending order."""


@dataclass(frozen=True)
class Board:
    """What is known of every question that has been looked at; `eps` are the radii in ascending order."""

    count: int
    eps: tuple[float, ...]
    found: Mapping[Question, Finding]

    def open(self, question: Question) -> bool:
        """Whether another rung may still answer it: not where a method has proven it in floating point alone."""
        known = self.found.get(question)
        return known is None or (known.status is Status.UNKNOWN and not known.method)

    def with_findings(self, new: Mapping[Question, Finding]) -> Board:
        """With answers, and with what they say of other radii."""
        found = dict(self.found)
        for question, finding in new.items():
            found[question] = finding.after(found.get(question))
            found |= self.implied(found, question)
        return replace(self, found=found)

    def implied(self, found: Mapping[Question, Finding], question: Question) -> dict[Question, Finding]:
        """What the answer to a question says of the same example at other radii that are not decided."""
        (example, place), finding = question, found[question]
        if finding.status is Status.CERTIFIED:
            others: Sequence[int] = range(place)
        elif finding.status is Status.FALSIFIED:
            others = range(place + 1, len(self.eps))
        else:
            return {}
        implied = {}
        for other in others:
            earlier = found.get((example, other))
            if earlier is None or not earlier.decided:
                own = replace(finding, seconds=0.0, nested=self.eps[place])
                if finding.status is Status.FALSIFIED:
                    own = replace(own, margin=-float("inf"))
                implied[example, other] = own.after(earlier)
        return implied

    def wave(self, tried: Collection[Question]) -> list[Question]:
        """The next questions of a rung, at most one of each example: the middle one of its radii that are still to try."""
        asked = []
        for example in range(self.count):
            places = [place for place in range(len(self.eps))
                      if (example, place) not in tried and self.open((example, place))]
            if places:
                asked.append((example, places[len(places) // 2]))
        return asked

    def share(self, place: int, *statuses: Status) -> float:
        """The share of examples that have one of some statuses at a radius."""
        known = (self.found.get((example, place)) for example in range(self.count))
        return sum(one is not None and one.status in statuses for one in known) / self.count
