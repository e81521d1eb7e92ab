"""Names of methods on the command line; in Python methods are values."""

from __future__ import annotations

from dataclasses import replace

import boundlab as bl
from boundlab.cli.verb import Misuse

METHODS: dict[str, bl.IBP | bl.Forward | bl.CROWN | bl.Optimised | bl.Dual | bl.LP | bl.MILP | bl.LMT | bl.BCP] = {
    "ibp": bl.IBP(),
    "crown-ibp": bl.CROWN(intermediate=bl.IBP()),
    "crown": bl.CROWN(),
    "forward": bl.Forward(),
    "forward-crown": bl.CROWN(intermediate=bl.Forward()),
    "fastlin": bl.CROWN(alpha=bl.parallel),
    "optimised": bl.Optimised(),
    "frown": bl.Optimised(inner=True),
    "dual": bl.Dual(),
    "lmt": bl.LMT(),
    "bcp": bl.BCP(),
    "lp-last": bl.LP(inner=False),
    "lp": bl.LP(),
    "milp": bl.MILP(),
}
NAMES = ", ".join(METHODS)


def method_named(name: str, memory: str | None = None) -> bl.Method:
    """The method called `name`, with a budget of memory such as "4GB"; Misuse lists the names."""
    if name not in METHODS:
        raise Misuse(f"there is no method '{name}'; choose one of {NAMES}.")
    method = METHODS[name]
    if memory is None:
        return method
    if isinstance(method, bl.LP | bl.MILP | bl.LMT | bl.BCP):
        raise Misuse(f"'{name}' keeps no budget of memory; leave out --memory, or bound fewer inputs at once.")
    return replace(method, memory=memory)
