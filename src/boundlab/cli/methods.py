"""Names of methods on the command line; in Python methods are values."""

from __future__ import annotations

import boundlab as bl
from boundlab.cli.verb import Misuse

METHODS: dict[str, bl.Method] = {
    "ibp": bl.IBP(),
    "crown-ibp": bl.CROWN(intermediate=bl.IBP()),
    "crown": bl.CROWN(),
    "forward": bl.Forward(),
    "forward-crown": bl.CROWN(intermediate=bl.Forward()),
    "fastlin": bl.CROWN(alpha=bl.parallel),
}
NAMES = ", ".join(METHODS)


def method_named(name: str) -> bl.Method:
    """The method called `name`; Misuse lists the names."""
    if name not in METHODS:
        raise Misuse(f"there is no method '{name}'; choose one of {NAMES}.")
    return METHODS[name]
