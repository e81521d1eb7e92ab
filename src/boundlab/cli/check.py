"""boundlab check: whether a certificate proves what it is about."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Literal

import typer

from boundlab.certificates.certificate import Semantics
from boundlab.certificates.check import check_certificate
from boundlab.cli.answer import OK, UNKNOWN, Answer
from boundlab.cli.verb import Session
from boundlab.table import number

Proof = Annotated[Path, typer.Argument(metavar="CERTIFICATE", help="A certificate file.")]
Network = Annotated[Path, typer.Argument(metavar="NETWORK", help="The ONNX file it is about (.onnx or .onnx.gz).")]
Spec = Annotated[Path, typer.Argument(metavar="SPEC", help="The VNN-LIB file it is about (.vnnlib or .vnnlib.gz).")]
Meaning = Annotated[Literal["real", "float32"], typer.Option("--semantics", help=(
    "What the proof shall be about: the network as a function of real numbers, or as it runs in float32."))]
Ignore = Annotated[bool, typer.Option("--ignore-hashes", help="Check it for these files even if it was made for others.")]


def check(session: Session, certificate: Proof, network: Network, spec: Spec, ignore_hashes: Ignore = False,
          semantics: Meaning = "real") -> Answer:
    """Check a certificate of `verify`: every bound is derived again, by code that shares nothing with the search.

    Exit codes: 0 it proves the property, 20 something is not shown, 2 bad request.
    """
    start = time.perf_counter()
    with session.working("checking the certificate"):
        found = check_certificate(certificate, network, spec, hashes=not ignore_hashes, semantics=Semantics[semantics.upper()])
    seconds = time.perf_counter() - start
    leaves = f"{found.leaves} {'leaf' if found.leaves == 1 else 'leaves'}"
    said = f"not shown: {found.reason}."
    if found.accepted:
        said = f"checked: {leaves}, smallest margin {number(found.margin)}, {seconds:.1f} s."
    data = {"certificate": str(certificate), "network": str(network), "spec": str(spec), "semantics": semantics,
            **asdict(found), "seconds": seconds}
    return Answer(data, sentences=(said,), code=OK if found.accepted else UNKNOWN)
