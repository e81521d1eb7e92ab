"""boundlab verify: proof, counterexample, or neither."""

from __future__ import annotations

from boundlab.cli.answer import Answer
from boundlab.cli.loading import NetworkChoice
from boundlab.cli.question import REGION, Format, Region, Spec, Timeout, answer, ask, named
from boundlab.cli.verb import Session
from boundlab.verify import verify as library


def verify(session: Session, network: NetworkChoice, spec: Spec = None, region: Region = REGION, timeout: Timeout = 300.0,
           form: Format = "text") -> Answer:
    """Prove or refute a VNN-LIB property, or that inputs keep their label in a ball.

    Exit codes: 0 verified, 10 falsified, 20 unknown or out of time, 2 bad request.
    """
    question = ask(session, network, spec, region)
    with session.working(f"verifying, at most {timeout:g} s"):
        results = library.verify(question.model, question.sets, question.spec, timeout=timeout, replay=question.replay)
    return answer(question, results, form, named(network, spec, region))
