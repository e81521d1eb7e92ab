"""boundlab verify: proof, counterexample, or neither."""

from __future__ import annotations

from boundlab.cli.answer import Answer
from boundlab.cli.bound import Clip, Norm
from boundlab.cli.loading import InputShape, Net, Weights
from boundlab.cli.question import Data, Eps, Format, Label, NetworkChoice, Region, Spec, Timeout, answer, ask
from boundlab.cli.verb import Session
from boundlab.verify import verify as library


def verify(session: Session, net: Net, spec: Spec = None, data: Data = None, eps: Eps = None, norm: Norm = "inf",
           clip: Clip = None, label: Label = None, timeout: Timeout = 300.0, form: Format = "text",
           weights: Weights = None, input_shape: InputShape = None) -> Answer:
    """Prove or refute a VNN-LIB property, or that inputs keep their label in a ball.

    Exit codes: 0 verified, 10 falsified, 20 unknown or out of time, 2 bad request.
    """
    question = ask(session, NetworkChoice(net, weights, input_shape), spec, Region(data, eps, norm, clip, label))
    with session.working(f"verifying, at most {timeout:g} s"):
        results = library.verify(question.model, question.sets, question.spec, timeout=timeout, replay=question.replay)
    return answer(question, results, form, {"network": net, "spec": spec and str(spec), "data": data and str(data)})
