"""radius: the largest set around each input on which a statement was proven, and the smallest on which an attack broke it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from boundlab.bounds.methods import CROWN, method_value
from boundlab.bounds.problem import Method, Rigour
from boundlab.errors import BoundError, MissingRule, ShapeError, SpecError
from boundlab.graph import Model
from boundlab.radii.family import Family, balls
from boundlab.radii.problems import Problems, Statement, Targeted, problems_of
from boundlab.radii.search import COARSE, NEXT, Bracket, Search, narrowed, untried
from boundlab.table import FEW, Shown, Table, Tone, above, below, plural
from boundlab.verify.verdict import Witness


@dataclass(frozen=True, repr=False)
class Radius(Shown):
    """Radii by example (b,), or by example and target (b, t).

    The statement was proven on the set of radius `proven` itself (0: on none), and a witness refutes it on that of radius
    `attacked` (inf: none was found). `holds` says whether it holds at the input: where it does not, both radii are 0. The keys
    of `witnesses` are places in `attacked`. `evaluations` counts the bounds that were computed, one for a problem and a radius.
    """

    proven: Tensor
    attacked: Tensor
    holds: Tensor
    witnesses: Mapping[tuple[int, ...], Witness] = field(default_factory=dict, repr=False)
    evaluations: int = 0
    notes: tuple[str, ...] = ()
    rigour: Rigour = Rigour.FLOAT

    @property
    def gap(self) -> Tensor:
        """What lies between proof and counterexample, `attacked - proven`; inf where no attack succeeded."""
        return self.attacked - self.proven

    def shown(self) -> Table:
        """The first few radii, and between which they all lie."""
        kind, flat = "input" if self.proven.dim() == 1 else "input and target", self.proven.flatten()
        broken = int((~self.holds).sum())
        title = (f"Radii of {plural(len(flat), kind)}, rigour {self.rigour.name}: proven {below(float(flat.amin()))} to "
                 f"{below(float(flat.amax()))}, {below(float(flat.median()))} in the middle"
                 + (f"; {broken:,} broken without a change" if broken else ""))
        columns = (kind, "holds", "proven", "attacked", "gap")
        few = [part.flatten()[:FEW].tolist() for part in (self.holds, self.proven, self.attacked, self.gap)]
        rows = [(",".join(map(str, np.unravel_index(place, tuple(self.proven.shape)))), "yes" if holds else "no",
                 below(proven), *(above(value) if np.isfinite(value) else "-" for value in values))
                for place, (holds, proven, *values) in enumerate(zip(*few, strict=True))]
        return Table(columns, rows, title, frozenset(columns) - {"holds"}, len(flat) - len(rows), {"no": Tone.BROKEN})


@torch.no_grad()
def radius(model: Model, x: Tensor, statement: Statement, *, family: Family | None = None,
           method: Method | Sequence[Method] | None = None, search: Search | None = None) -> Radius:
    """The largest radii at which a statement about the outputs was proven around each input x (b, *shape).

    A radius is returned only if the method proved the statement on the set of that very radius; bounds need not get worse as
    sets grow, so larger ones may be provable, too. `statement` are labels (b,), a `Targeted`, or a `Specification`;
    `family` gives the sets (default: l_inf balls), `method` proves (default: CROWN). Of several methods each goes on where the
    one before ended. ShapeError or SpecError if these do not fit each other; BoundError if a counterexample lies in a set that
    was proven. Weng et al. 2018 (Fast-Lin) certify radii so; Lyu et al. 2020 (FROWN) double and bisect.
    """
    search, methods = search or Search(), methods_of(method)
    problems = problems_of(model, x, statement, family or balls())
    fresh = untried(problems.spec.worst(problems.spec.values(problems.outputs())))
    holds, largest = fresh.first > 0, problems.largest()
    proven = proven_radii(problems, fresh, methods, search)
    attacked, notes = attacked_radii(problems, fresh, proven.low, search)
    check_nested(proven.low, attacked.high)
    top, whole = proven.low >= largest, problems.family.whole
    notes += counted(top, "proven on the largest set of the family")
    notes += counted(proven.open(search.tolerance, whole) & ~top, f"still open after {search.rounds} rounds of the search")
    shape = shape_of(statement, len(holds))
    witnesses = {tuple(map(int, np.unravel_index(place, shape))): witness for place, witness in attacked.witnesses.items()}
    return Radius(proven.low.reshape(shape), attacked.high.reshape(shape), holds.reshape(shape), witnesses, proven.tried, notes)


def counted(where: Tensor, text: str) -> tuple[str, ...]:
    """A note that says how many problems something is true of, unless it is none."""
    return (f"{int(where.sum())} of {len(where)} problems are {text}.",) if bool(where.any()) else ()


def methods_of(method: Method | Sequence[Method] | None) -> tuple[Method, ...]:
    """The methods, from the first to the last; SpecError for a name, a class, or none at all."""
    if method is None:
        return (CROWN(),)
    methods = tuple(method) if isinstance(method, (tuple, list)) else (method,)
    if not methods:
        raise SpecError("a radius needs at least one method to prove it, such as CROWN().")
    return tuple(method_value(one) for one in methods)


def proven_radii(problems: Problems, fresh: Bracket, methods: Sequence[Method], search: Search) -> Bracket:
    """The largest radii that one of the methods proved; each begins at those of the one before."""
    bracket, start, largest = fresh, problems.full(search.start), problems.largest()
    if search.known is not None:
        if search.known.numel() != len(start):
            raise ShapeError(f"{search.known.numel()} radii are known for {len(start)} problems; give one for each.")
        low = torch.where(fresh.first > 0, search.known.reshape(-1).to(fresh.low), 0.0)
        bracket = replace(fresh, low=low, above=fresh.above.where(low == 0, torch.nan), leap=NEXT)
    for place, method in enumerate(methods):
        bracket = replace(bracket, high=fresh.high, leap=NEXT if place else bracket.leap)
        bracket = narrowed(bracket, problems.proofs(method), start, largest, search, problems.family.whole)
    return bracket


def attacked_radii(problems: Problems, fresh: Bracket, proven: Tensor, search: Search) -> tuple[Bracket, tuple[str, ...]]:
    """The smallest radii at which witnesses were found, inf where none was, and why there was no search.

    The first attack is at the proven radius, as a check of the proof: it must find nothing.
    """
    bracket, notes = replace(fresh, witnesses=problems.broken()), tuple[str, ...]()
    start = torch.where(proven > 0, proven, search.start)
    if search.attack is not None:
        try:
            trial = problems.attacks(search.attack)
            coarse = replace(search, tolerance=max(search.tolerance, COARSE))
            bracket = narrowed(bracket, trial, start, problems.largest(), coarse, problems.family.whole)
        except MissingRule as missing:
            notes = (f"no attack: {missing}",)
    known = torch.tensor([place in bracket.witnesses for place in range(len(proven))], device=proven.device)
    return replace(bracket, high=bracket.high.where(known, torch.inf)), notes


def check_nested(proven: Tensor, attacked: Tensor) -> None:
    """BoundError if a counterexample lies in a set that was proven."""
    wrong = ((proven > 0) & (proven >= attacked)).nonzero().flatten().tolist()
    if wrong:
        raise BoundError(f"problem {wrong[0]} was proven at radius {float(proven[wrong[0]]):g}, but has a counterexample at "
                         f"{float(attacked[wrong[0]]):g}: the method is unsound, or the sets of the family are not nested.")


def shape_of(statement: Statement, count: int) -> tuple[int, ...]:
    """(b,), or (b, t) where each example has several targets."""
    return tuple(torch.as_tensor(statement.targets).shape) if isinstance(statement, Targeted) else (count,)
