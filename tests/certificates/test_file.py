"""Certificate files: round trips, and every kind of damage ends in one sentence, never in an acceptance."""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from boundlab.certificates import file
from boundlab.certificates.certificate import Argument, CaseProof, Certificate
from boundlab.certificates.file import load, save
from boundlab.errors import CertificateError


def example(seed: int = 0) -> Certificate:
    rng = np.random.default_rng(seed)
    step = np.array([[0, 1, -1], [0, -1, -1], [1, 0, 1], [-1, -1, -1]])
    slopes = rng.normal(size=(4, 5)).astype(np.float32)
    slopes[1] = np.nan
    proof = CaseProof(
        np.array([0, 1, 1, 300]), rng.uniform(0.1, 1, (4, 2)), step, np.where(step < 0, 0, 70000), np.where(step < 0, 0, 1),
        rng.normal(size=(4, 3)), rng.uniform(size=(4, 3)), np.array([0, 0, 1, 0]), (Argument("in/x"), Argument("h", 1)),
        {Argument("h", 1): (slopes, np.full((1, 5), np.nan)), Argument("k"): (slopes, rng.normal(size=(1, 5)))},
        {(Argument("k"), Argument("h", 1)): (np.full((2, 1, 1, 5), np.nan, np.float32), rng.normal(size=(2, 2, 3, 5)))})
    return Certificate("a" * 64, "b" * 64, (proof, dataclasses.replace(proof, lines={}, inner={})))


def same(one: object, other: object) -> bool:
    if isinstance(one, np.ndarray):
        return isinstance(other, np.ndarray) and bool(np.array_equal(one, other, equal_nan=one.dtype.kind == "f"))
    return one == other


def test_files_come_back_as_they_were(tmp_path: Path) -> None:
    before = example()
    save(before, tmp_path / "proof.zip")
    after = load(tmp_path / "proof.zip")
    assert (after.network, after.spec, len(after.cases)) == (before.network, before.spec, 2)
    for old, new in zip(before.cases, after.cases, strict=True):
        assert old.steps == new.steps and old.lines.keys() == new.lines.keys() and old.inner.keys() == new.inner.keys()
        for name, value in vars(old).items():
            assert not isinstance(value, np.ndarray) or same(value, vars(new)[name]), name
        for mine, its in ((old.lines, new.lines), (old.inner, new.inner)):
            for key, pair in mine.items():
                for a, b in zip(pair, its[key], strict=True):
                    assert same(a, b) or (np.isnan(a).all() and np.isnan(b).all())
                    assert a.dtype == b.dtype or np.isnan(a).all()


def test_arrays_that_say_nothing_are_left_out(tmp_path: Path) -> None:
    save(example(), tmp_path / "proof.zip")
    with zipfile.ZipFile(tmp_path / "proof.zip") as source:
        names = source.namelist()
    assert "cases/0/lines/0/lower.npy" in names and "cases/0/lines/0/upper.npy" not in names
    assert not any(name.startswith("cases/1/lines") for name in names)


def packed(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return buffer.getvalue()


def unpacked(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as source:
        return {name: source.read(name) for name in source.namelist()}


def npy(array: np.ndarray, pickle: bool = False) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, allow_pickle=pickle)
    return buffer.getvalue()


def text(change: Callable[[dict], object]) -> Callable[[dict[str, bytes]], None]:
    """A change of the JSON text."""
    def apply(members: dict[str, bytes]) -> None:
        content = json.loads(members[file.TEXT])
        change(content)
        members[file.TEXT] = json.dumps(content).encode()
    return apply


def put(name: str, data: bytes) -> Callable[[dict[str, bytes]], None]:
    return lambda members: members.update({name: data})


CLAUSE = "cases/0/clause.npy"
HUGE = npy(np.zeros(400, np.int8)).replace(b"(400,), }       ", b"(4000000000,), }")
DAMAGE: dict[str, Callable[[dict[str, bytes]], object]] = {
    "no text": lambda members: members.pop(file.TEXT), "no array": lambda members: members.pop(CLAUSE),
    "text is no JSON": put(file.TEXT, b"{"), "text is binary": put(file.TEXT, b"\xff\xfe\x00"),
    "text is empty": put(file.TEXT, b""),
    "text nested deep": put(file.TEXT, b"[" * 200_000), "version of the future": text(lambda one: one.update(version=2)),
    "another format": text(lambda one: one.update(format="zip")), "unknown key": text(lambda one: one.update(margin=5.0)),
    "no hash": text(lambda one: one.pop("network")), "hash of another length": text(lambda one: one.update(network="ab")),
    "number as text": text(lambda one: one["cases"][0]["steps"][0].update(number="0")),
    "negative number": text(lambda one: one["cases"][0]["steps"][0].update(number=-1)),
    "member outside": text(lambda one: one["cases"][0]["arrays"].update(clause="../../etc/passwd.npy")),
    "member that is missing": text(lambda one: one["cases"][0]["arrays"].update(clause="cases/9/clause.npy")),
    "no member": text(lambda one: one["cases"][0]["arrays"].pop("clause")), "steps twice": text(
        lambda one: one["cases"][0]["steps"].append(one["cases"][0]["steps"][0])),
    "objects": put(CLAUSE, npy(np.array([{}, 1, 2, 3], dtype=object), pickle=True)), "floats": put(CLAUSE, npy(np.zeros(4))),
    "words": put(CLAUSE, npy(np.array(["a"] * 4))), "big-endian": put(CLAUSE, npy(np.zeros(4, ">i4"))),
    "times": put(CLAUSE, npy(np.zeros(4, "m8[s]"))), "records": put(CLAUSE, npy(np.zeros(4, [("a", "<i4")]))),
    "unsigned": put(CLAUSE, npy(np.zeros(4, np.uint8))), "too short": put(CLAUSE, npy(np.zeros(4, np.int8))[:-1]),
    "too long": put(CLAUSE, npy(np.zeros(4, np.int8)) + b"\0"), "no npy": put(CLAUSE, b"\x93NUMPY not really"),
    "empty": put(CLAUSE, b""),
    "huge shape": put(CLAUSE, HUGE), "another shape": put(CLAUSE, npy(np.zeros(5, np.int8))),
    "five axes": put(CLAUSE, npy(np.zeros((4, 1, 1, 1, 1), np.int8))), "a number": put(CLAUSE, npy(np.int8(3))),
    "slopes of whole numbers": put("cases/0/lines/0/lower.npy", npy(np.zeros((4, 5), np.int8))),
    "slopes of one axis": put("cases/0/lines/0/lower.npy", npy(np.zeros(5))),
    "infinite slopes": put("cases/0/lines/0/lower.npy", npy(np.full((4, 5), np.inf))),
    "no leaves": put(CLAUSE, npy(np.zeros(0, np.int8))),
    "frames beyond number": put("cases/0/frame.npy", npy(np.full(4, 2**62))),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_damaged_members_end_in_one_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    save(example(), path)
    members = unpacked(path)
    before = dict(members)
    DAMAGE[name](members)
    assert members != before
    path.write_bytes(packed(members))
    with pytest.raises(CertificateError) as found:
        load(path)
    assert "\n" not in str(found.value) and str(found.value).endswith(".")


@pytest.mark.parametrize("content", [b"", b"PK\x05\x06" + b"\0" * 18, b"not a zip", b"PK\x03\x04" + b"\0" * 60])
def test_files_that_are_no_certificate_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "proof.zip").write_bytes(content)
    with pytest.raises(CertificateError, match="no certificate"):
        load(tmp_path / "proof.zip")


def test_a_file_that_unpacks_to_too_much_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "proof.zip"
    save(example(), path)
    monkeypatch.setattr(file, "MOST_BYTES", 2000)
    with pytest.raises(CertificateError, match="unpack to more"):
        load(path)


def test_a_member_may_not_stand_twice(tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    save(example(), path)
    with zipfile.ZipFile(path, "a") as target, pytest.warns(UserWarning, match="Duplicate"):
        target.writestr(CLAUSE, npy(np.zeros(4, np.int8)))
    with pytest.raises(CertificateError, match="two members"):
        load(path)


def test_bytes_changed_or_cut_give_a_sentence_or_the_same_certificate(tmp_path: Path) -> None:
    path = tmp_path / "proof.zip"
    save(example(), path)
    content, rng, refused = path.read_bytes(), np.random.default_rng(0), 0
    for turn in range(150):
        changed = bytearray(content)
        if turn % 3:
            changed[rng.integers(len(changed))] ^= 1 << rng.integers(8)
        else:
            del changed[rng.integers(len(changed)):]
        path.write_bytes(bytes(changed))
        try:
            load(path)
        except CertificateError as problem:
            refused += "\n" not in str(problem)
    assert refused > 75
