"""Bad input ends in one sentence on standard error and exit code 2, never in a traceback."""

import subprocess
import sys

import pytest

BALL = ("--data", "x.npy", "--eps", "0.1")
BAD = {
    "no such network": (("bound", "none.onnx", *BALL), "does not exist"),
    "a directory": (("bound", ".", *BALL), "is a directory"),
    "not ONNX": (("show", "text.onnx"), "text.onnx"),
    "truncated ONNX": (("show", "truncated.onnx"), "truncated.onnx"),
    "unknown operator": (("bound", "unknown.onnx", *BALL), "Det"),
    "NaN weights": (("bound", "nan.onnx", *BALL), "'w0' contains NaN"),
    "NaN weights of a factory": (("show", "factory_of_test:nan", "--input-shape", "2"), "NaN, in '0.weight' and 1 more."),
    "no such data": (("bound", "net.onnx", "--data", "none.npy", "--eps", "0.1"), "none.npy"),
    "unreadable npy": (("bound", "net.onnx", "--data", "broken.npy", "--eps", "0.1"), "not a readable"),
    "text in npy": (("bound", "net.onnx", "--data", "words.npy", "--eps", "0.1"), "numbers are needed"),
    "two nameless arrays": (("bound", "net.onnx", "--data", "nameless.npz", "--eps", "0.1"), "name the inputs 'x'"),
    "no batch axis": (("bound", "net.onnx", "--data", "single.npy", "--eps", "0.1"), "batch axis"),
    "another shape": (("bound", "net.onnx", "--data", "wide.npy", "--eps", "0.1"), "takes (batch, 2)"),
    "NaN data": (("bound", "net.onnx", "--data", "nan.npy", "--eps", "0.1"), "NaN"),
    "wrong memory": (("bound", "net.onnx", *BALL, "--memory", "much"), "such as '4GB'"),
    "wrong method": (("bound", "net.onnx", *BALL, "--method", "magic"), "ibp, crown-ibp, crown, forward, forward-crown"),
    "wrong norm": (("bound", "net.onnx", *BALL, "--norm", "0.5"), "norm"),
    "norm 0 without domain": (("bound", "net.onnx", "--data", "x.npy", "--eps", "1", "--norm", "0"), "--clip 0 1"),
    "norm 0 of a share": (("bound", "net.onnx", *BALL, "--norm", "0", "--clip", "0", "1"), "a whole number; got 0.1"),
    "norm 0 of less than none": (
        ("bound", "net.onnx", "--data", "x.npy", "--eps", "-1", "--norm", "0", "--clip", "0", "1"), "k must not be negative"),
    "norm in words": (("bound", "net.onnx", *BALL, "--norm", "big"), "norm"),
    "negative eps": (("bound", "net.onnx", "--data", "x.npy", "--eps", "-1"), "eps"),
    "NaN eps": (("bound", "net.onnx", "--data", "x.npy", "--eps", "nan"), "eps"),
    "empty clip": (("bound", "net.onnx", *BALL, "--clip", "1", "0"), "empty"),
    "clip beyond reach": (("bound", "net.onnx", *BALL, "--clip", "5", "6"), "do not reach the clip box"),
    "label out of range": (("bound", "net.onnx", *BALL, "--label", "7"), "classes 0 to 1"),
    "negative label": (("bound", "net.onnx", *BALL, "--label", "-1"), "classes 0 to 1"),
    "too many labels": (("bound", "net.onnx", *BALL, *("--label", "0") * 3), "2 inputs and 3 labels"),
    "no such spec": (("verify", "net.onnx", "none.vnnlib"), "none.vnnlib"),
    "spec for other dimensions": (("verify", "net.onnx", "three.vnnlib"), "3 inputs"),
    "empty set": (("verify", "net.onnx", "empty.vnnlib"), "no point at all"),
    "garbage spec": (("verify", "net.onnx", "garbage.vnnlib"), "VNN-LIB"),
    "binary spec": (("verify", "net.onnx", "binary.vnnlib"), "VNN-LIB"),
    "nothing to verify": (("verify", "net.onnx"), "what to prove"),
    "two questions": (("verify", "net.onnx", "safe.vnnlib", *BALL), "what to prove"),
    "no eps": (("attack", "net.onnx", "--data", "x.npy", "--label", "0"), "--eps"),
    "no label": (("attack", "net.onnx", *BALL), "label"),
    "vnncomp for two": (("verify", "net.onnx", *BALL, "--label", "0", "--format", "vnncomp"), "one problem"),
    "budget of a program": (("bound", "net.onnx", *BALL, "--method", "lp", "--memory", "1GB"), "no budget of memory"),
    "a set without rows": (("bound", "net.onnx", "--data", "x.npy", "--eps", "1", "--norm", "0", "--clip", "0", "1",
                            "--method", "lp"), "no rows for L0Ball"),
    "no published weights": (("reproduce", "barrier-1", "--weights", ".", "--data", "."), "MNIST's test set"),
    "radius of no norm": (("radius", "net.onnx", "--data", "x.npy", "--norm", "0.5"), "norm"),
    "radius of norm 0 without domain": (("radius", "net.onnx", "--data", "x.npy", "--norm", "0"), "--clip 0 1"),
    "radius from outside the clip box": (("radius", "net.onnx", "--data", "x.npy", "--clip", "0", "1"), "lie outside"),
    "radius of no tolerance": (("radius", "net.onnx", "--data", "x.npy", "--tolerance", "0"), "tolerance"),
    "radius against no class": (("radius", "net.onnx", "--data", "x.npy", "--targets", "2"), "the classes 0 to 1"),
    "radius against words": (("radius", "net.onnx", "--data", "x.npy", "--targets", "worst"), "runner-up"),
    "radius against the label": (
        ("radius", "net.onnx", "--data", "x.npy", "--label", "0", "--targets", "0"), "the label of input 0 itself"),
    "radius of a label out of range": (("radius", "net.onnx", "--data", "x.npy", "--label", "7"), "classes 0 to 1"),
    "no such folder": (("vnncomp", "nowhere"), "instances.csv"),
    "factory without shape": (("show", "factory_of_test:make"), "--input-shape"),
    "factory with another shape": (("show", "factory_of_test:make", "--input-shape", "5"), "does not take"),
    "shape in words": (("show", "factory_of_test:make", "--input-shape", "a,b"), "--input-shape"),
    "no such network of the zoo": (("show", "zoo:4c3f"), "near it are 4c3f-mnist, 4c3f-cifar"),
    "weights of another network": (("show", "zoo:mlp-b", "--weights", "other.pt"), "no '1.weight' in the file"),
    "weights of another network by its bare name": (("show", "mlp-b", "--weights", "other.pt"), "do not fit 'mlp-b'"),
    "an image for a zoo of sentences": (("show", "zoo:lstm-sst2", "--input-shape", "1,28,28"), "sentences"),
    "no such module": (("show", "no_module_of_this_name:make", "--input-shape", "2"), "is no module 'no_module_of_this_name'"),
    "a module that lacks another": (("show", "needy_of_test:make", "--input-shape", "2"), "raised ModuleNotFoundError"),
    "a module that is no Python": (("show", "garbled_of_test:make", "--input-shape", "2"), "raised SyntaxError"),
    "no such package": (("show", "no_package.nets:make", "--input-shape", "2"), "module 'no_package',"),
    "no such factory": (("show", "factory_of_test:none", "--input-shape", "2"), "no 'none'"),
    "not a module": (("show", "factory_of_test:wrong_kind", "--input-shape", "2"), "gave a int"),
    "broken factory": (("show", "factory_of_test:broken", "--input-shape", "2"), "itself is broken"),
    "a factory that ends the program": (("show", "factory_of_test:leaves", "--input-shape", "2"), "raised SystemExit: 3"),
    "a factory with a KeyError": (("show", "factory_of_test:lacks_a_key", "--input-shape", "2"), "raised KeyError: 'width'"),
    "a factory that wants arguments": (("show", "factory_of_test:wide", "--input-shape", "2"), "raised TypeError"),
    "a factory for data of another shape": (("bound", "factory_of_test:make", "--data", "wide.npy", "--eps", "0"),
                                            "of shape (batch, 5), see --input-shape"),
    "unsupported module": (("bound", "factory_of_test:unsupported", "--input-shape", "2", *BALL), "fft"),
    "weights that do not fit": (("show", "factory_of_test:make", "--input-shape", "2", "--weights", "other.pt"),
                                "'0.weight' is [3] in the file and [8, 2] in the network"),
    "weights of more precision": (
        ("show", "factory_of_test:make", "--input-shape", "2", "--weights", "double.safetensors"), "which float32 in"),
    "safetensors that are a pickle": (
        ("show", "factory_of_test:make", "--input-shape", "2", "--weights", "pickled.safetensors"), "not a readable"),
    "a list of tensors": (("show", "factory_of_test:make", "--input-shape", "2", "--weights", "list.pt"), "tensors by name"),
    "weights with code": (("show", "factory_of_test:make", "--input-shape", "2", "--weights", "pickled.pt"), "could run code"),
    "weights of noise": (("show", "factory_of_test:make", "--input-shape", "2", "--weights", "noise.pt"), "tensors"),
    "safetensors of noise": (
        ("show", "factory_of_test:make", "--input-shape", "2", "--weights", "noise.safetensors"), "not a readable safetensors"),
    "no such weights": (("show", "factory_of_test:make", "--input-shape", "2", "--weights", "none.pt"), "none.pt"),
    "weights of an ONNX file": (("show", "net.onnx", "--weights", "other.pt"), "module:factory"),
    "no such device": (("show", "net.onnx", "--device", "abacus"), "abacus"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2(folder, run, case):
    arguments, expected = BAD[case]
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert expected in result.stderr
    assert result.stderr.startswith("boundlab: ") and result.stderr.count("\n") == 1 and "Traceback" not in result.stderr


@pytest.mark.parametrize("arguments", [
    ("frobnicate",), ("bound", "net.onnx"), ("verify",), ("bound", "net.onnx", "--data", "x.npy", "--eps", "many"),
])
def test_misuse_of_the_command_line_itself(folder, run, arguments):
    result = run(*arguments)
    assert result.exit_code == 2 and "Traceback" not in result.stderr and result.stderr


def test_debug_shows_the_traceback(folder, run):
    result = run("bound", "none.onnx", *BALL, "--debug")
    assert result.exit_code == 2 and "Traceback" in result.stderr


def test_an_internal_error_is_a_sentence_too(folder, run, monkeypatch):
    monkeypatch.setattr("boundlab.cli.show.described", lambda *_: 1 / 0)
    result = run("show", "net.onnx")
    assert result.exit_code == 1
    assert "internal error, ZeroDivisionError" in result.stderr and "Traceback" not in result.stderr


def test_ctrl_c_is_a_sentence(folder, run, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("boundlab.cli.show.described", interrupt)
    result = run("show", "net.onnx")
    assert result.exit_code == 130 and result.stderr == "boundlab: interrupted.\n"


def test_the_program_itself(folder):
    command = [sys.executable, "-c", "from boundlab.cli import main; main()", "bound", "none.onnx", *BALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "") and done.stderr == "boundlab: the network 'none.onnx' does not exist; " \
        "give an ONNX file, a name that `boundlab zoo` lists, or module:factory.\n"


def test_a_reader_that_goes_away_is_no_error(folder):
    command = f"{sys.executable} -c 'from boundlab.cli import main; main()' ops | head -n 1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stderr) == (0, "") and done.stdout.startswith("name")
