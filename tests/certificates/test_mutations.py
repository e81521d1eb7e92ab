"""Honest certificates, changed in all ways: what is still accepted is true, and what is false is accepted in no form."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from boundlab.certificates.certificate import Argument, CaseProof, Certificate
from boundlab.certificates.check import check_certificate, fingerprint
from boundlab.certificates.file import load, save
from boundlab.certificates.leaves import places_of
from boundlab.certificates.narrowing import Narrowed
from boundlab.certificates.reading import read_network
from boundlab.errors import CertificateError
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import inner_values, perceptron, query_text
from tests.certificates.search import prove


@dataclass(frozen=True)
class Problem:
    """A network, a query that holds with an honest certificate, and one that a sample refutes by a hair."""

    content: bytes
    function: str
    true: str
    false: str
    proofs: tuple[CaseProof, ...]
    points: np.ndarray


@functools.cache
def problem(seed: int) -> Problem:
    """Two clauses about two outputs on a box; the thresholds stand just beyond, or just within, the values at many points."""
    function = ("Relu", "Relu", "Sigmoid", "LeakyRelu", "Abs", "Tanh")[seed % 6]
    content, rng = perceptron((2, 6, 5, 2), seed, function), np.random.default_rng(seed)
    points = np.concatenate([rng.uniform(-1, 1, (20000, 2)), [[a, b] for a in (-1, 1) for b in (-1, 1)]])
    y = inner_values(content, function, points)["y"]
    low, high = y[:, 0].min(), (y[:, 0] + y[:, 1]).max()

    def text(room: float) -> str:
        unsafe = f"(or (<= Y_0 {float(low - room)}) (and (>= (+ Y_0 Y_1) {float(high + room)}) (<= Y_0 1000)))"
        return query_text([-1, -1], [1, 1], 2, unsafe)

    for room in 0.05 * 1.25 ** np.arange(25):
        proofs = prove(read_network(content), parse_vnnlib(text(room)), turns=8, inputs=bool(seed % 2), seed=seed)
        if proofs is not None:
            return Problem(content, function, text(room), text(-1e-6), tuple(proofs), points[::20])
    raise AssertionError("the naive search proves nothing")


Change = Callable[[np.random.Generator, CaseProof], CaseProof]


def changed(name: str, change: Callable[[np.random.Generator, np.ndarray], np.ndarray]) -> Change:
    """A change of some entries of one array."""
    def apply(rng: np.random.Generator, proof: CaseProof) -> CaseProof:
        array = vars(proof)[name].copy()
        where = rng.uniform(size=array.shape) < rng.choice([0.05, 0.5, 1.0])
        array[where] = change(rng, array[where])
        return dataclasses.replace(proof, **{name: array})
    return apply


def leaves(pick: Callable[[np.random.Generator, int], np.ndarray]) -> Change:
    """Other leaves: some dropped, doubled or in another order."""
    def apply(rng: np.random.Generator, proof: CaseProof) -> CaseProof:
        chosen = pick(rng, proof.leaves)
        arrays = {name: value[chosen] for name, value in vars(proof).items() if isinstance(value, np.ndarray)}
        arrays["frame"] = np.unique(arrays["frame"], return_inverse=True)[1].reshape(-1)
        return dataclasses.replace(proof, **arrays)
    return apply


def sloped(rng: np.random.Generator, proof: CaseProof) -> CaseProof:
    """Random slopes for all lines."""
    size = {Argument("h0"): 6, Argument("h1"): 5}
    scale = rng.choice([0.3, 1, 100, 1e307])
    lines = {one: tuple(scale * rng.normal(size=(proof.leaves, k)) for _ in range(2)) for one, k in size.items()}
    pair = tuple(scale * rng.normal(size=(1, 2, 5, 6)) for _ in range(2))
    return dataclasses.replace(proof, lines=lines, inner={(Argument("h1"), Argument("h0")): pair})


def one_frame(rng: np.random.Generator, proof: CaseProof) -> CaseProof:
    """All leaves in one frame, or in frames at random."""
    frames = rng.integers(0, rng.integers(1, 4), proof.leaves)
    return dataclasses.replace(proof, frame=np.unique(frames, return_inverse=True)[1].reshape(-1))


def narrowed(rng: np.random.Generator, proof: CaseProof) -> CaseProof:
    """Random ends of intervals on random leaves."""
    count = int(rng.integers(1, 40))
    multiplier = rng.exponential(size=(count, proof.step.shape[1])) * rng.choice([0, 0.1, 1, 1e6, 1e307])
    ends = Narrowed(rng.integers(0, proof.leaves, count), rng.integers(0, len(proof.steps), count), rng.integers(0, 2, count),
                    rng.choice([-1, 1], count), multiplier)
    return dataclasses.replace(proof, narrowed=ends)


CHANGES: dict[str, Change] = {
    "points": changed("point", lambda rng, x: x + rng.normal(size=x.shape) * rng.choice([1e-12, 0.1, 10, 1e307])),
    "sides": changed("side", lambda rng, x: -x), "steps": changed("step", lambda rng, x: (x + 1) % 3),
    "neurons": changed("neuron", lambda rng, x: rng.integers(0, 2, x.shape)),
    "multipliers": changed("multiplier", lambda rng, x: rng.exponential(size=x.shape) * rng.choice([0.1, 1, 1e6, 1e307])),
    "weights": changed("weights", lambda rng, x: x * rng.exponential(size=x.shape) * rng.choice([1e-307, 1e-9, 1, 1e9, 1e307])),
    "clauses": changed("clause", lambda rng, x: rng.integers(0, 2, x.shape)), "slopes": sloped, "frames": one_frame,
    "ends": narrowed,
    "dropped": leaves(lambda rng, n: np.flatnonzero(np.arange(n) != rng.integers(n))),
    "order": leaves(lambda rng, n: rng.permutation(n)), "doubled": leaves(lambda rng, n: rng.integers(0, n, 2 * n)),
    "cut short": lambda rng, proof: dataclasses.replace(
        proof, step=np.where(np.arange(proof.step.shape[1]) < rng.integers(4), proof.step, -1)),
}


def write(found: Problem, folder: Path) -> tuple[Path, Path, Path]:
    """The network, the query that holds and the one that does not."""
    paths = folder / "net.onnx", folder / "true.vnnlib", folder / "false.vnnlib"
    paths[0].write_bytes(found.content)
    paths[1].write_text(found.true)
    paths[2].write_text(found.false)
    return paths


def all_covered(found: Problem, proof: CaseProof) -> bool:
    """Whether each clause has a leaf for every point, by brute force."""
    values = inner_values(found.content, found.function, found.points)
    inside = np.ones((proof.leaves, len(found.points)), dtype=bool)
    for depth in range(proof.step.shape[1]):
        for leaf in np.flatnonzero(proof.step[:, depth] >= 0):
            tensor = values[proof.steps[proof.step[leaf, depth]].step.replace("h", "a")][:, proof.neuron[leaf, depth]]
            inside[leaf] &= proof.side[leaf, depth] * (tensor - proof.point[leaf, depth]) >= -1e-9
    return all(inside[proof.clause == clause].any(axis=0).all() for clause in (0, 1))


def mutate(seeds: range, per_change: int, folder: Path) -> tuple[int, int]:
    """How many certificates were tried and how many accepted; asserts that all that is accepted is true."""
    tried = accepted = 0
    for seed in seeds:
        found, rng = problem(seed), np.random.default_rng(seed)
        net, true, false = write(found, folder)
        for change in (name for name in CHANGES for _ in range(per_change)):
            tried += 1
            try:
                proof = CHANGES[change](rng, found.proofs[0])
                certificate = Certificate("0" * 64, "0" * 64, (proof,))
                assert not check_certificate(certificate, net, false, hashes=False).accepted, (seed, change)
                checked = check_certificate(certificate, net, true, hashes=False)
            except CertificateError:
                continue
            assert checked.accepted == (checked.margin > 0) == (not checked.reason)
            if checked.accepted:
                accepted += 1
                assert all_covered(found, proof), (seed, change)
    return tried, accepted


def test_what_is_changed_is_accepted_only_if_true(tmp_path: Path) -> None:
    tried, accepted = mutate(range(4), 4, tmp_path)
    assert tried == 4 * 4 * len(CHANGES) and 0 < accepted < 0.8 * tried


@pytest.mark.slow
def test_what_is_changed_is_accepted_only_if_true_a_thousand_times(tmp_path: Path) -> None:
    tried, accepted = mutate(range(4, 16), 12, tmp_path)
    assert tried > 1500 and 0 < accepted < 0.8 * tried


def damage(seeds: range, per_seed: int, folder: Path) -> tuple[int, int]:
    """The same for certificates' files with bytes changed, cut out or put in."""
    refused = accepted = 0
    for seed in seeds:
        found, rng = problem(seed), np.random.default_rng(seed)
        net, true, false = write(found, folder)
        path = folder / "proof.zip"
        save(Certificate("0" * 64, "0" * 64, found.proofs), path)
        content = path.read_bytes()
        for _ in range(per_seed):
            data = bytearray(content)
            start = int(rng.integers(len(data)))
            stop = start + int(rng.choice([1, 8, len(data)]))
            data[start:stop] = rng.bytes(int(rng.choice([0, 1, min(stop, len(data)) - start])))
            path.write_bytes(bytes(data))
            try:
                assert not check_certificate(path, net, false, hashes=False).accepted
                accepted += check_certificate(path, net, true, hashes=False).accepted
            except CertificateError:
                refused += 1
    return refused, accepted


def test_damaged_files_prove_nothing_false(tmp_path: Path) -> None:
    refused, _ = damage(range(2), 60, tmp_path)
    assert refused > 60


@pytest.mark.slow
def test_damaged_files_prove_nothing_false_a_thousand_times(tmp_path: Path) -> None:
    refused, _ = damage(range(2, 10), 130, tmp_path)
    assert refused > 600


@pytest.mark.parametrize("seed", range(6))
def test_honest_certificates_are_accepted(seed: int, tmp_path: Path) -> None:
    found = problem(seed)
    net, true, false = write(found, tmp_path)
    save(Certificate(fingerprint(net), fingerprint(true), found.proofs), tmp_path / "proof.zip")
    checked = check_certificate(tmp_path / "proof.zip", net, true)
    assert checked.accepted and checked.margin > 0 and checked.leaves == found.proofs[0].leaves
    assert all_covered(found, found.proofs[0])
    with pytest.raises(CertificateError, match="another query"):
        check_certificate(tmp_path / "proof.zip", net, false)
    assert "only down to" in check_certificate(tmp_path / "proof.zip", net, false, hashes=False).reason
    assert same_places(found, load(tmp_path / "proof.zip").cases[0])


def same_places(found: Problem, proof: CaseProof) -> bool:
    """What a certificate names is in the network."""
    return set(proof.steps) <= set(places_of(read_network(found.content)).numbers)
