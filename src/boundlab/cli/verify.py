"""boundlab verify: proof, counterexample, or neither."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import typer

from boundlab.bounds.problem import Rigour
from boundlab.certificates.file import save
from boundlab.cli.answer import Answer
from boundlab.cli.loading import NetworksChoice
from boundlab.cli.question import REGION, Format, Region, Spec, Timeout, answer, ask, named
from boundlab.cli.verb import Misuse, Session
from boundlab.verify import verify as library
from boundlab.verify.options import Race
from boundlab.verify.recording import certificate_of
from boundlab.verify.team import Team
from boundlab.verify.verdict import Verdict

Proof = Annotated[Path | None, typer.Option("--certificate", help="Write a proof here, for `boundlab check`. For an ONNX file "
                                            "with a VNN-LIB file.")]
Strict = Annotated[Literal["sound", "float"], typer.Option("--rigour", help="sound: with all rounding counted in; float: "
                                                           "floating point is believed.")]
Meaning = Annotated[Literal["real", "float32"], typer.Option("--semantics", help="What is proven: the network as a function of "
                                                             "real numbers, or as it runs in float32, in any order.")]
Resume = Annotated[Path | None, typer.Option("--resume", help="Keep the search in this file, and go on from it where it has "
                                             "this question.")]


@dataclass(frozen=True)
class Output:
    """What counts as an answer, how it is given (with a certificate, and in which form), and where the search is kept."""

    certificate: Proof = None
    form: Format = "text"
    rigour: Strict = "sound"
    semantics: Meaning = "real"
    resume: Resume = None


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
    if output.rigour == "float" and certificate is not None:
        raise Misuse("--certificate is for proofs that count rounding; leave out --rigour float.")
    if certificate is not None and output.semantics != "real":
        raise Misuse("a certificate does not say what is proven: write it without --semantics, and check it with that.")
    if output.resume is not None and (output.resume.is_dir() or not output.resume.parent.is_dir()):
        raise Misuse(f"--resume is a file in a folder that exists; '{output.resume}' is none.")
    rigour = rigour_of(output.rigour, output.semantics)
    question = ask(session, network, spec, region)
    if certificate is not None and not question.alone:
        raise Misuse("--certificate is for a property of one network's inputs and outputs: the checker takes no others yet.")
    beside = Team.beside(question.original.model.device, session.cores)
    with session.working(f"verifying, at most {timeout:g} s") as say, beside as team:
        stages = (*library.LADDER[:-1], Race(watch=lambda turn: say(f"verifying; {turn}"), file=output.resume, team=team))
        results = library.verify(question.original, question.sets, question.spec, stages=stages, timeout=timeout,
                                 rigour=rigour)
    if certificate is not None and spec is not None and results[0].verdict is Verdict.VERIFIED:
        save(certificate_of(results[0], network.net, spec), certificate)
    return answer(question, results, output.form, named(network, spec, region))


def rigour_of(rigour: Strict, semantics: Meaning) -> Rigour:
    """The rigour that --rigour and --semantics ask for."""
    if rigour == "float" and semantics != "real":
        raise Misuse("--semantics is for proofs that count rounding; leave out --rigour float.")
    return Rigour.FLOAT32 if semantics == "float32" else Rigour[rigour.upper()]
