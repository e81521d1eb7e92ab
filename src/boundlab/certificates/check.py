"""check_certificate: a certificate with the files it is about."""

from __future__ import annotations

import gzip
import hashlib
import zlib
from pathlib import Path

from boundlab.certificates.certificate import Certificate, Checked, Semantics
from boundlab.certificates.checker import check_proofs
from boundlab.certificates.file import load
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from boundlab.question.exact import Query
from boundlab.question.vnnlib import parse_vnnlib


def check_certificate(certificate: Certificate | str | Path, network: str | Path, spec: str | Path, *,
                      hashes: bool = True, semantics: Semantics = Semantics.REAL) -> Checked:
    """Whether a certificate (or its file) proves that no input of a VNN-LIB query makes an ONNX network unsafe.

    Every bound is derived here, in float64 with outward rounding, about the network as a function of real numbers, or with
    `semantics` FLOAT32 as it runs in float32.
    CertificateError for a damaged certificate, one about other files (unless `hashes` is False), and for a network with an
    operator that the checker does not know.
    """
    if not isinstance(certificate, Certificate):
        certificate = load(certificate)
    contents = [content(Path(path)) for path in (network, spec)]
    for name, path, data, stated in (("network", network, contents[0], certificate.network),
                                     ("query", spec, contents[1], certificate.spec)):
        found = hashlib.sha256(data).hexdigest()
        if hashes and found != stated:
            raise CertificateError(f"the certificate is about another {name}: '{path}' has the SHA-256 {found[:12]}..., "
                                   f"not {stated[:12]}...")
    return check_proofs(read_network(contents[0]), query_of(contents[1], spec), certificate.cases, semantics=semantics)


def fingerprint(path: str | Path) -> str:
    """The SHA-256 (hexadecimal) of a file's bytes, uncompressed, as certificates state it."""
    return hashlib.sha256(content(Path(path))).hexdigest()


def content(path: Path) -> bytes:
    """A file's bytes, unpacked if it is gzipped."""
    data = path.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as problem:
        raise CertificateError(f"'{path}' is a damaged or cut gzip file: {problem}.") from problem


def query_of(data: bytes, path: str | Path) -> Query:
    """The query that the bytes of a VNN-LIB file state."""
    try:
        text = data.decode()
    except UnicodeDecodeError as problem:
        raise CertificateError(f"'{path}' is no VNN-LIB text.") from problem
    # The parser takes a text without brackets for a path.
    if "(" not in text:
        raise CertificateError(f"'{path}' is no VNN-LIB text.")
    return parse_vnnlib(text)
