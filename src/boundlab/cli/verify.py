"""boundlab verify: proof, counterexample, or neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from boundlab.certificates.file import save
from boundlab.cli.answer import Answer
from boundlab.cli.loading import NetworksChoice
from boundlab.cli.question import REGION, Format, Region, Spec, Timeout, answer, ask, named
from boundlab.cli.verb import Misuse, Session
from boundlab.question.exact import Query
from boundlab.verify import verify as library
from boundlab.verify.recording import with_certificate

Proof = Annotated[Path | None, typer.Option("--certificate", help="Write a proof here, for `boundlab check`; then only what "
                                            "the checker accepts is verified. For an ONNX file with a VNN-LIB file.")]


@dataclass(frozen=True)
class Output:
    """How the answer is given: with a certificate, and in which form."""

    certificate: Proof = None
    form: Format = "text"


OUTPUT = Output()
"""No certificate, and text."""


def verify(session: Session, network: NetworksChoice, spec: Spec = None, region: Region = REGION, timeout: Timeout = 300.0,
           output: Output = OUTPUT) -> Answer:
    """Prove or refute a VNN-LIB property, or that inputs keep their label in a ball.

    Exit codes: 0 verified, 10 falsified, 20 unknown or out of time, 2 bad request.
    """
    certificate = output.certificate
    if certificate is not None and (spec is None or not Path(network.net).is_file()):
        raise Misuse("--certificate is for an ONNX file with a VNN-LIB file: the checker reads both by itself.")
    question = ask(session, network, spec, region)
    if certificate is not None and not question.alone:
        raise Misuse("--certificate is for a property of one network's inputs and outputs: the checker takes no others yet.")
    stages = library.LADDER if certificate is None else library.keeping(library.LADDER)
    with session.working(f"verifying, at most {timeout:g} s"):
        results = library.verify(question.model, question.sets, question.spec, stages=stages, timeout=timeout,
                                 replay=question.replay)
    if certificate is not None and spec is not None and isinstance(question.sets, Query):
        with session.working("writing and checking the certificate"):
            result, written = with_certificate(results[0], question.sets, question.model.graph, network.net, spec)
        if written is not None:
            save(written, certificate)
        results = (result,)
    return answer(question, results, output.form, named(network, spec, region))
