"""boundlab attack: a counterexample, or nothing found."""

from __future__ import annotations

from typing import Annotated

import typer

from boundlab.attack.pgd import PGD
from boundlab.cli.answer import Answer
from boundlab.cli.bound import Clip, Norm
from boundlab.cli.loading import InputShape, Net, Weights
from boundlab.cli.question import Data, Eps, Format, Label, NetworkChoice, Region, Spec, answer, ask
from boundlab.cli.verb import Session
from boundlab.verify.verify import verify

Steps = Annotated[int, typer.Option(min=1, help="Gradient steps.")]
Restarts = Annotated[int, typer.Option(min=1, help="Starting points.")]


def attack(session: Session, net: Net, spec: Spec = None, data: Data = None, eps: Eps = None, norm: Norm = "inf",
           clip: Clip = None, label: Label = None, steps: Steps = 40, restarts: Restarts = 4,
           form: Format = "text", weights: Weights = None, input_shape: InputShape = None) -> Answer:
    """Search for a counterexample by projected gradient descent; nothing is proven if none is found.

    Exit codes: 10 found (replayed at zero tolerance), 20 not found, 2 bad request.
    """
    question = ask(session, NetworkChoice(net, weights, input_shape), spec, Region(data, eps, norm, clip, label))
    with session.working("searching for a counterexample"):
        results = verify(question.model, question.sets, question.spec, stages=(PGD(steps, restarts),), replay=question.replay)
    return answer(question, results, form, {"network": net, "spec": spec and str(spec), "data": data and str(data)})
