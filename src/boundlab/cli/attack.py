"""boundlab attack: a counterexample, or nothing found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer

from boundlab.attack.pgd import PGD
from boundlab.cli.answer import Answer
from boundlab.cli.loading import NetworksChoice
from boundlab.cli.question import REGION, Format, Region, Spec, answer, ask, named
from boundlab.cli.verb import Session
from boundlab.verify.verify import verify

Steps = Annotated[int, typer.Option(min=1, help="Gradient steps.")]
Restarts = Annotated[int, typer.Option(min=1, help="Starting points.")]


@dataclass(frozen=True)
class Search:
    """How long to search."""

    steps: Steps = 40
    restarts: Restarts = 4


def attack(session: Session, network: NetworksChoice, spec: Spec = None, region: Region = REGION, search: Search = Search(),
           form: Format = "text") -> Answer:
    """Search for a counterexample by projected gradient descent; nothing is proven if none is found.

    Exit codes: 10 found (replayed at zero tolerance), 20 not found, 2 bad request.
    """
    question = ask(session, network, spec, region)
    with session.working("searching for a counterexample"):
        stages = (PGD(search.steps, search.restarts),)
        results = verify(question.original, question.sets, question.spec, stages=stages)
    return answer(question, results, form, named(network, spec, region))
