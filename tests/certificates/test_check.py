"""`check_certificate` and the verb: hashes, refusals, exit codes; the checker imports nothing of what it checks."""

from __future__ import annotations

import ast
import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

import boundlab as bl
from boundlab.certificates.certificate import Argument, CaseProof, Certificate
from boundlab.certificates.check import check_certificate, fingerprint
from boundlab.certificates.file import save
from boundlab.certificates.reading import read_network
from boundlab.cli.app import app
from boundlab.question.vnnlib import parse_vnnlib
from tests.certificates.models import model, perceptron, query_text
from tests.certificates.search import prove

SOURCE = Path(bl.__file__).parent
ALLOWED = {"boundlab.certificates", "boundlab.question", "boundlab.errors", "numpy", "scipy", "onnx", "pydantic", "vnnlib"}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network, a query that holds, one that does not, and an honest certificate, in the current folder."""
    monkeypatch.chdir(tmp_path)
    content = perceptron((2, 6, 2), 1)
    true = query_text([-1, -1], [1, 1], 2, "(or (<= Y_0 -4) (and (>= Y_1 4) (<= Y_0 9)))")
    Path("net.onnx").write_bytes(content)
    Path("net.onnx.gz").write_bytes(gzip.compress(content))
    Path("true.vnnlib").write_text(true)
    Path("false.vnnlib").write_text(true.replace("-4", "0.5"))
    Path("three.vnnlib").write_text(query_text([-1] * 3, [1] * 3, 2, "(<= Y_0 -4)"))
    proofs = prove(read_network(content), parse_vnnlib(true))
    assert proofs is not None
    save(Certificate(fingerprint("net.onnx"), fingerprint("true.vnnlib"), tuple(proofs)), "proof.zip")
    Path("cut.zip").write_bytes(Path("proof.zip").read_bytes()[:-30])
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["check", *arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_the_verb_accepts_and_refuses(files: Path) -> None:
    code, said = run("proof.zip", "net.onnx.gz", "true.vnnlib")
    assert code == 0 and said.startswith("checked: 2 leaves, smallest margin")
    code, said = run("proof.zip", "net.onnx", "true.vnnlib", "--json")
    data = json.loads(said)
    assert code == 0 and data["accepted"] and data["margin"] > 0 and data["leaves"] == 2
    code, said = run("proof.zip", "net.onnx", "false.vnnlib", "--ignore-hashes")
    assert code == 20 and "not shown: case 0: leaf 0 shows clause 0 only down to -" in said


@pytest.mark.parametrize("arguments, message", [
    (("proof.zip", "net.onnx", "false.vnnlib"), "another query"), (("cut.zip", "net.onnx", "true.vnnlib"), "no certificate"),
    (("net.onnx", "net.onnx", "true.vnnlib"), "no certificate"), (("none.zip", "net.onnx", "true.vnnlib"), "none.zip"),
    (("proof.zip", "none.onnx", "true.vnnlib"), "none.onnx"), ((".", "net.onnx", "true.vnnlib"), "."),
    (("proof.zip", "true.vnnlib", "true.vnnlib", "--ignore-hashes"), "not an ONNX file"),
    (("proof.zip", "net.onnx", "net.onnx", "--ignore-hashes"), "VNN-LIB"),
    (("proof.zip", "net.onnx", "three.vnnlib", "--ignore-hashes"), "about 3 inputs"),
])
def test_bad_requests_end_in_one_sentence(files: Path, arguments: tuple[str, ...], message: str) -> None:
    code, said = run(*arguments)
    assert code == 2 and message in said and "Traceback" not in said


def test_what_does_not_fit_the_network_is_refused(files: Path) -> None:
    content = Path("net.onnx").read_bytes()
    proof = prove(read_network(content), parse_vnnlib("true.vnnlib"))
    assert proof is not None
    one = proof[0]

    def changed(**changes: object) -> Certificate:
        return Certificate("", "", (CaseProof(**vars(one) | changes),))  # type: ignore[arg-type]

    pair = (np.zeros((1, 6)), np.zeros((1, 6)))
    step = np.zeros((one.leaves, 1), dtype=np.int64)
    array = {"step": step, "side": step + 1, "point": step * 0.0, "multiplier": step * 0.0}
    for certificate, message in (
            (changed(lines={Argument("h7"): pair}), "'h7'"), (changed(lines={Argument("h0", 1): pair}), "argument 1 of 'h0'"),
            (changed(lines={Argument("h0"): (np.zeros((1, 5)), pair[0])}), "5 slopes"),
            (changed(steps=(Argument("q"),)), "'q'"),
            (changed(lines={Argument("a0"): pair}), "'a0'"),
            (changed(inner={(Argument("h0"), Argument("h0")): (np.zeros((1, 1, 2, 6)),) * 2}), "2 slopes"),
            (changed(**array, neuron=step + 6), "a neuron that its step does not have"), (Certificate("", "", ()), "0 cases"),
            (changed(weights=np.ones((one.leaves, 3))), "does not have")):
        with pytest.raises(bl.CertificateError, match=message):
            check_certificate(certificate, "net.onnx", "true.vnnlib", hashes=False)


def test_of_a_softmax_at_the_end_the_order_is_known(tmp_path: Path) -> None:
    """y = softmax(x + (0, 1, 5)) on [0, 1]^3: the last is largest, and how large it is remains unsaid."""
    nodes = [helper.make_node("Add", ["x", "b"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])]
    content = model(nodes, (1, 3), {"b": np.array([0, 1, 5], np.float32)})
    (tmp_path / "net.onnx").write_bytes(content)
    for unsafe, accepted in (("(or (>= Y_0 Y_2) (and (<= (* 2 Y_2) (* 2 Y_1))))", True), ("(>= Y_1 Y_0)", False)):
        (tmp_path / "q.vnnlib").write_text(query_text([0] * 3, [1] * 3, 3, unsafe))
        leaves = unsafe.count("Y_2") // 2 + 1 if accepted else 1
        empty = np.zeros((leaves, 0), dtype=np.int64)
        proof = CaseProof(np.arange(leaves), np.ones((leaves, 1)), empty, empty, empty, empty * 0.0, empty * 0.0,
                          np.zeros(leaves, dtype=np.int64), (), {}, {})
        certificate = Certificate("", "", (proof,))
        assert check_certificate(certificate, tmp_path / "net.onnx", tmp_path / "q.vnnlib", hashes=False).accepted is accepted
    (tmp_path / "q.vnnlib").write_text(query_text([0] * 3, [1] * 3, 3, "(<= Y_2 0.1)"))
    with pytest.raises(bl.CertificateError, match="order only"):
        check_certificate(certificate, tmp_path / "net.onnx", tmp_path / "q.vnnlib", hashes=False)


def test_every_case_needs_its_own_proof(tmp_path: Path) -> None:
    """Two boxes, on one of which the clause holds that is unsafe on the other."""
    (tmp_path / "net.onnx").write_bytes(perceptron((2, 6, 2), 1))
    boxes = [f"(and (>= X_0 {low}) (<= X_0 {low + 1}) (>= X_1 0) (<= X_1 1) (<= Y_0 {y}))" for low, y in ((0, -4), (1, -5))]
    lines = "".join(f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1"))
    (tmp_path / "q.vnnlib").write_text(f"{lines}(assert (or {' '.join(boxes)}))")
    proofs = prove(read_network(perceptron((2, 6, 2), 1)), parse_vnnlib(tmp_path / "q.vnnlib"))
    assert proofs is not None and len(proofs) == 2
    files = tmp_path / "net.onnx", tmp_path / "q.vnnlib"
    assert check_certificate(Certificate("", "", tuple(proofs)), *files, hashes=False).accepted
    for wrong in (proofs[:1], [*proofs, proofs[0]]):
        with pytest.raises(bl.CertificateError, match="the query 2"):
            check_certificate(Certificate("", "", tuple(wrong)), *files, hashes=False)
    (tmp_path / "q.vnnlib").write_text((tmp_path / "q.vnnlib").read_text().replace("-5", "9"))
    found = check_certificate(Certificate("", "", tuple(proofs)), *files, hashes=False)
    assert not found.accepted and found.reason.startswith("case 1:")


def test_networks_of_two_inputs_count_their_entries_in_turn(tmp_path: Path) -> None:
    """y = x - 2 z on boxes for x and z, split in z."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xzy"]
    nodes = [helper.make_node("Add", ["z", "z"], ["t"]), helper.make_node("Sub", ["x", "t"], ["y"])]
    made = helper.make_model(helper.make_graph(nodes, "g", ends[:2], ends[2:]), opset_imports=[helper.make_opsetid("", 17)],
                             ir_version=9)
    (tmp_path / "net.onnx").write_bytes(made.SerializeToString())
    lower, upper = [0, 1, 2, 3], [1, 2, 3, 4]
    whole = np.array([[0], [0]])
    proof = CaseProof(np.zeros(2, dtype=np.int64), np.ones((2, 1)), whole, whole + 1, np.array([[1], [-1]]), whole + 3.5,
                      whole * 0.0, np.array([0, 1]), (Argument("z"),), {}, {})
    for least, accepted in ((-7.001, True), (-6.999, False)):  # y_1 = x_1 - 2 z_1 is at least 1 - 2 * 4
        (tmp_path / "q.vnnlib").write_text(query_text(lower, upper, 2, f"(<= Y_1 {least})"))
        found = check_certificate(Certificate("", "", (proof,)), tmp_path / "net.onnx", tmp_path / "q.vnnlib", hashes=False)
        assert found.accepted is accepted


@pytest.mark.parametrize("path", sorted([*(SOURCE / "certificates").glob("*.py"), *(SOURCE / "question").glob("*.py")]),
                         ids=lambda path: f"{path.parent.name}/{path.name}")
def test_the_checker_imports_nothing_of_the_search(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = ".".join(name.split(".")[:2 if name.startswith("boundlab") else 1])
            assert top in ALLOWED or top in sys.stdlib_module_names, f"{path.name} imports {name}"


def test_the_checker_runs_without_torch(files: Path) -> None:
    """In a process in which the package's own __init__, which loads torch, is replaced by an empty one."""
    program = f"""
import sys, types
package = types.ModuleType("boundlab")
package.__path__ = [{str(SOURCE)!r}]
sys.modules["boundlab"] = package
sys.modules["torch"] = None
from boundlab.certificates.check import check_certificate
assert check_certificate("proof.zip", "net.onnx", "true.vnnlib").accepted
loaded = {{name.split(".")[1] for name in sys.modules if name.startswith("boundlab.")}}
assert loaded == {{"certificates", "question", "errors"}}, loaded
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
