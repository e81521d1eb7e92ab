"""Certificate files: a zip of one JSON text and of npy arrays, without pickle, read as if a stranger had written it."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from boundlab.certificates.assumption import Assumption
from boundlab.certificates.certificate import Argument, CaseProof, Certificate, Pair
from boundlab.certificates.narrowing import Narrowed
from boundlab.errors import CertificateError

FORMAT = "boundlab certificate"
VERSION = 1
MOST_BYTES = 2**33
"""Bytes that all of a file's members may unpack to."""
MOST_TEXT = 2**26
"""Bytes of the JSON text, and members of the file, at most."""
MOST_MEMBERS = 2**20
TYPES = {np.dtype(name) for name in ("<i1", "<i2", "<i4", "<i8", "<f4", "<f8")}
WHOLE = ("clause", "frame", "step", "neuron", "side")
NUMBERS = ("weights", "point", "multiplier")
TEXT = "certificate.json"
DAMAGE = (zipfile.BadZipFile, ValidationError, ValueError, KeyError, EOFError, zlib.error, struct.error, NotImplementedError,
          RuntimeError, OverflowError, MemoryError, SyntaxError, TypeError, IndexError, OSError)
"""What zipfile, numpy and pydantic raise for damaged files."""

Name = Annotated[str, Field(max_length=4096)]
Count = Annotated[int, Field(ge=0, le=2**20)]
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Member = Annotated[str, Field(pattern=r"^[0-9a-z/]{1,80}\.npy$")]


class Part(BaseModel):
    """What all parts of the JSON text have in common: nothing unknown, nothing converted."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Named(Part):
    """An `Argument`."""

    step: Name
    number: Count = 0

    def argument(self) -> Argument:
        """As the library has it."""
        return Argument(self.step, self.number)


class Slopes(Part):
    """Members with slopes of lines around an argument; `target` is whose intervals they are for; None: the checker's own."""

    argument: Named
    target: Named | None = None
    lower: Member | None = None
    upper: Member | None = None


class Lines(Part):
    """Slopes of lines around an argument."""

    argument: Named
    slopes: Member


class Assumed(Part):
    """An `Assumption`."""

    target: Named
    neurons: Member
    multipliers: Member
    lines: tuple[Lines, ...] = ()


class Narrowing(Part):
    """Members of a `Narrowed`."""

    leaf: Member
    step: Member
    neuron: Member
    side: Member
    multiplier: Member


class Proof(Part):
    """One case: names, members of the arrays, and slopes."""

    steps: tuple[Named, ...]
    arrays: dict[Literal["clause", "frame", "step", "neuron", "side", "weights", "point", "multiplier"], Member]
    lines: tuple[Slopes, ...] = ()
    inner: tuple[Slopes, ...] = ()
    plain: tuple[Slopes, ...] = ()
    thorough: bool = False
    assumed: tuple[Assumed, ...] = ()
    narrowed: Narrowing | None = None


class Text(Part):
    """The whole JSON text."""

    format: Literal["boundlab certificate"]
    version: Literal[1]
    network: Hash
    spec: Hash
    cases: tuple[Proof, ...]


def save(certificate: Certificate, path: str | Path) -> None:
    """Write a certificate; slopes keep their type, and arrays of slopes that are NaN everywhere are left out."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
        target = Target(archive)
        cases = [written(target, f"cases/{number}", proof) for number, proof in enumerate(certificate.cases)]
        text = {"format": FORMAT, "version": VERSION, "network": certificate.network, "spec": certificate.spec, "cases": cases}
        archive.writestr(TEXT, json.dumps(text))


@dataclass(frozen=True)
class Target:
    """A file that is written, and the names of its members by the SHA-256 of their bytes: equal arrays are stored once."""

    archive: zipfile.ZipFile
    names: dict[bytes, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A file that is read: unpacked sizes by member, and the arrays that were read so far, which cases may share."""

    archive: zipfile.ZipFile
    sizes: Mapping[str, int]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def written(target: Target, folder: str, proof: CaseProof) -> dict[str, Any]:
    """Write the arrays of a case; what the JSON text says of it."""
    whole = {"clause": proof.clause, "frame": proof.frame, "step": proof.step, "neuron": proof.neuron, "side": proof.side}
    numbers = {"weights": proof.weights, "point": proof.point, "multiplier": proof.multiplier}
    arrays = {name: store(target, f"{folder}/{name}.npy", narrow(array)) for name, array in whole.items()}
    arrays |= {name: store(target, f"{folder}/{name}.npy", array) for name, array in numbers.items()}
    lines, plain = ([slopes_text(target, f"{folder}/{name}/{k}", pair) | {"argument": text_of(argument)}
                     for k, (argument, pair) in enumerate(pairs.items())]
                    for name, pairs in (("lines", proof.lines), ("plain", proof.plain)))
    inner = [slopes_text(target, f"{folder}/inner/{k}", pair) | {"argument": text_of(argument), "target": text_of(goal)}
             for k, ((goal, argument), pair) in enumerate(proof.inner.items())]
    narrowed = None if proof.narrowed is None else {
        **{name: store(target, f"{folder}/narrowed/{name}.npy", narrow(array)) for name, array in proof.narrowed.whole.items()},
        "multiplier": store(target, f"{folder}/narrowed/multiplier.npy", proof.narrowed.multiplier)}
    return {"steps": [text_of(argument) for argument in proof.steps], "arrays": arrays, "lines": lines, "inner": inner,
            "plain": plain, "thorough": proof.thorough, "narrowed": narrowed,
            "assumed": [assumed_text(target, f"{folder}/assumed/{k}", *one) for k, one in enumerate(proof.assumed.items())]}


def assumed_text(target: Target, stem: str, goal: Argument, assumption: Assumption) -> dict[str, Any]:
    """Write an assumption; what the JSON text says of it."""
    lines = [{"argument": text_of(argument), "slopes": store(target, f"{stem}/lines/{k}.npy", slopes)}
             for k, (argument, slopes) in enumerate(assumption.lines.items())]
    return {"target": text_of(goal), "neurons": store(target, f"{stem}/neurons.npy", narrow(assumption.neurons)),
            "multipliers": store(target, f"{stem}/multipliers.npy", assumption.multipliers), "lines": lines}


def text_of(argument: Argument) -> dict[str, Any]:
    """An argument as JSON holds it."""
    return {"step": argument.step, "number": argument.number}


def narrow(array: np.ndarray) -> np.ndarray:
    """The same whole numbers in the smallest type that holds them."""
    largest = int(np.abs(array).max()) if array.size else 0
    return array.astype(next(kind for kind in (np.int8, np.int16, np.int32, np.int64) if largest <= np.iinfo(kind).max))


def slopes_text(target: Target, stem: str, pair: Pair) -> dict[str, Any]:
    """Write a pair of slopes; the members' names."""
    return {side: None if np.isnan(slopes).all() else store(target, f"{stem}/{side}.npy", slopes)
            for side, slopes in zip(("lower", "upper"), pair, strict=True)}


def store(target: Target, name: str, array: np.ndarray) -> str:
    """Write an array, unless an equal one is there; the member's name."""
    buffer = io.BytesIO()
    little = array.astype(array.dtype.newbyteorder("<"), order="C", copy=False)
    np.lib.format.write_array(buffer, little, version=(1, 0), allow_pickle=False)
    data = buffer.getvalue()
    known = target.names.setdefault(hashlib.sha256(data).digest(), name)
    if known == name:
        target.archive.writestr(name, data)
    return known


def load(path: str | Path) -> Certificate:
    """Read a certificate; CertificateError for a file that is damaged, too large, or not one at all."""
    with open(path, "rb") as stream:
        try:
            with zipfile.ZipFile(stream) as archive:
                source = Source(archive, limited(archive))
                text = Text.model_validate_json(member(source, TEXT, MOST_TEXT))
                return Certificate(text.network, text.spec, tuple(proof_of(source, proof) for proof in text.cases))
        except DAMAGE as problem:
            raise CertificateError(f"'{path}' is no certificate of version {VERSION}, or is damaged: {first_line(problem)}."
                                   ) from problem


def first_line(problem: Exception) -> str:
    """What went wrong, in short."""
    if isinstance(problem, ValidationError):
        first = problem.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or TEXT}: {first['msg']}"[:200]
    return (str(problem).split("\n")[0] or type(problem).__name__)[:200].rstrip(".")


def limited(archive: zipfile.ZipFile) -> Mapping[str, int]:
    """Unpacked sizes by member; ValueError for a file that would unpack to too much, or that names a member twice."""
    found = archive.infolist()
    sizes = {one.filename: one.file_size for one in found}
    if len(found) > MOST_MEMBERS or sum(one.file_size for one in found) > MOST_BYTES:
        raise ValueError(f"it would unpack to more than {MOST_BYTES} bytes or {MOST_MEMBERS} members")
    if len(sizes) != len(found):
        raise ValueError("it has two members of one name")
    return sizes


def member(source: Source, name: str, most: int) -> bytes:
    """A member's bytes; ValueError for one that is missing or too large."""
    if source.sizes.get(name, most + 1) > most:
        raise ValueError(f"its member {name} is missing or too large")
    return source.archive.read(name)


def array_of(source: Source, name: str) -> np.ndarray:
    """An array whose header agrees with its bytes; ValueError for any other type than those written."""
    if name in source.arrays:
        return source.arrays[name]
    data = member(source, name, MOST_BYTES)
    if data[:8] != np.lib.format.magic(1, 0):
        raise ValueError(f"its member {name} is no npy array of version 1.0")
    start = 10 + int.from_bytes(data[8:10], "little")
    shape, fortran, kind = header_of(data[8:start])
    if kind not in TYPES or fortran or len(shape) > 4 or any(size < 0 for size in shape):
        raise ValueError(f"its member {name} has the type {kind} or a layout that is not written")
    if math.prod(shape) * kind.itemsize != len(data) - start:
        raise ValueError(f"its member {name} has more or fewer bytes than its shape {shape} needs")
    return source.arrays.setdefault(name, np.frombuffer(data, dtype=kind, offset=start).reshape(shape))


@functools.lru_cache(maxsize=256)
def header_of(text: bytes) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type out of an npy header behind its magic string; many members have the same few."""
    return np.lib.format.read_array_header_1_0(io.BytesIO(text), max_header_size=2048)


def proof_of(source: Source, text: Proof) -> CaseProof:
    """A case with its arrays."""
    arrays = {name: array_of(source, text.arrays[name]) for name in (*WHOLE, *NUMBERS)}  # type: ignore[index]
    if not all(np.issubdtype(arrays[name].dtype, np.integer) for name in WHOLE):
        raise ValueError("it has numbers with a fraction where whole ones are needed")
    whole = {name: arrays[name].astype(np.int64) for name in WHOLE}
    lines, plain = ({one.argument.argument(): pair_of(source, one) for one in part if one.lower or one.upper}
                    for part in (text.lines, text.plain))
    inner = {(one.target.argument(), one.argument.argument()): pair_of(source, one) for one in text.inner
             if one.target is not None and (one.lower or one.upper)}
    return CaseProof(**whole, **{name: arrays[name] for name in NUMBERS},
                     steps=tuple(one.argument() for one in text.steps), lines=lines, inner=inner, plain=plain,
                     thorough=text.thorough, assumed=dict(assumption_of(source, one) for one in text.assumed),
                     narrowed=None if text.narrowed is None else narrowed_of(source, text.narrowed))


def narrowed_of(source: Source, text: Narrowing) -> Narrowed:
    """Ends of leaves with their arrays."""
    members = {"leaf": text.leaf, "step": text.step, "neuron": text.neuron, "side": text.side}
    whole = {name: array_of(source, one) for name, one in members.items()}
    if not all(np.issubdtype(array.dtype, np.integer) for array in whole.values()):
        raise ValueError("it has numbers with a fraction where whole ones are needed")
    return Narrowed(**{name: array.astype(np.int64) for name, array in whole.items()},
                    multiplier=array_of(source, text.multiplier))


def assumption_of(source: Source, text: Assumed) -> tuple[Argument, Assumption]:
    """An assumption with its arrays, and what it is about."""
    neurons = array_of(source, text.neurons)
    if not np.issubdtype(neurons.dtype, np.integer):
        raise ValueError("it has numbers with a fraction where whole ones are needed")
    lines = {one.argument.argument(): array_of(source, one.slopes) for one in text.lines}
    return text.target.argument(), Assumption(neurons.astype(np.int64), array_of(source, text.multipliers), lines)


def pair_of(source: Source, text: Slopes) -> Pair:
    """Slopes of lower and upper lines, NaN for those that are left out."""
    lower, upper = (None if name is None else array_of(source, name) for name in (text.lower, text.upper))
    return missing(upper) if lower is None else lower, missing(lower) if upper is None else upper


def missing(other: np.ndarray | None) -> np.ndarray:
    """Slopes that are not given, beside slopes that are."""
    assert other is not None
    return np.full((*(1,) * (other.ndim - 1), other.shape[-1]), np.nan, dtype=np.float32)
