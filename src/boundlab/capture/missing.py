"""What a network needs and boundlab lacks, collected over the whole network instead of refused at its first place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Missing:
    """One call that could not be captured: the node that stands in for it (or would), its operator, place and reason.

    `blind` says that boundlab knows no operator of that name; else it knows the operator, but not this use of it. `others` are
    the nodes that stand in for further results of the same call.
    """

    name: str
    operator: str
    origin: str
    reason: str
    blind: bool
    others: tuple[str, ...] = ()
