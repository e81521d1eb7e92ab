"""Data sets are read as they were written, and every fault of a file is one sentence that names it."""

import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import boundlab as bl
from boundlab.data.cifar import FILES
from boundlab.data.examples import Examples, Part
from boundlab.data.idx import STEMS
from boundlab.data.read import read_examples
from boundlab.errors import DataError

DATA = os.environ.get("BOUNDLAB_DATA")


def idx(array):
    """Bytes of an IDX file."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def digits(folder, part=Part.TEST, images=None, labels=None):
    """MNIST's files with given arrays, one of them packed."""
    draw = np.random.default_rng(len(part.value))
    images = draw.integers(0, 256, (5, 4, 3), dtype=np.uint8) if images is None else images
    labels = draw.integers(0, 10, 5) if labels is None else labels
    (folder / f"{STEMS[part]}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
    (folder / f"{STEMS[part]}-labels-idx1-ubyte").write_bytes(idx(labels))
    return images, labels


def pictures(folder, **lines):
    """A folder of grey pictures with a table of their labels."""
    draw = np.random.default_rng(0)
    held = {name: draw.integers(0, 256, (3, 4), dtype=np.uint8) for name in ("a.png", "b.png")}
    for name, array in held.items():
        Image.fromarray(array).save(folder / name)
    (folder / "labels.csv").write_text("".join(lines.get("text", "file,label\na.png,1\nb.png,0\n")))
    return held


def lying(path, height=40_000_000):
    """A TIFF file of 3 rows that says it has more (tag 257)."""
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(path)
    content = bytearray(path.read_bytes())
    (start,) = struct.unpack_from("<I", content, 4)
    (count,) = struct.unpack_from("<H", content, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", content, place) == (257,):
            struct.pack_into("<HHII", content, place, 257, 4, 1, height)
    path.write_bytes(content)


def test_idx_folder(tmp_path):
    for part in Part:
        images, labels = digits(tmp_path, part)
        found = read_examples(tmp_path, part)
        assert found.x.shape == (5, 1, 4, 3) and found.x.dtype == torch.float32
        assert (found.x[:, 0] * 255).round().byte().numpy().tolist() == images.tolist()
        assert found.labels.tolist() == labels.tolist() and float(found.x.max()) <= 1


@pytest.mark.skipif(DATA is None, reason="BOUNDLAB_DATA names no folder with MNIST")
def test_the_real_digits():
    found = read_examples(Path(DATA) / "datasets/mnist")
    assert found.x.shape == (10000, 1, 28, 28) and found.labels[:5].tolist() == [7, 2, 1, 0, 4]
    assert (float(found.x.min()), float(found.x.max())) == (0, 1)
    colours = read_examples(Path(DATA) / "datasets/cifar10/cifar10_test_first2000.npz")
    assert colours.x.shape == (2000, 3, 32, 32) and colours.labels[:4].tolist() == [3, 8, 8, 0]


def test_cifar_folder(tmp_path):
    draw = np.random.default_rng(0)
    for name in FILES[Part.TRAIN]:
        records = draw.integers(0, 256, (2, 3073), dtype=np.uint8)
        records[:, 0] = draw.integers(0, 10, 2)
        (tmp_path / name).write_bytes(records.tobytes())
    found = read_examples(tmp_path, Part.TRAIN)
    assert found.x.shape == (10, 3, 32, 32) and found.labels[-2:].tolist() == records[:, 0].tolist()
    assert (found.x[-1].flatten() * 255).round().tolist() == records[-1, 1:].tolist()
    with pytest.raises(DataError, match=r"there is no test_batch\.bin"):
        read_examples(tmp_path, Part.TEST)


def test_arrays_keep_numbers_and_scale_bytes(tmp_path):
    x = np.random.default_rng(0).normal(size=(3, 4))
    np.savez(tmp_path / "plain.npz", x=x, y=np.array([[0], [1], [2]]))
    found = read_examples(tmp_path / "plain.npz")
    assert torch.equal(found.x, torch.from_numpy(x.astype(np.float32))) and found.labels.tolist() == [0, 1, 2]
    last = np.random.default_rng(0).integers(0, 256, (2, 5, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "last.npy", last)
    found = read_examples(tmp_path / "last.npy")
    assert found.labels is None and torch.equal(found.x, torch.from_numpy(last).permute(0, 3, 1, 2).float() / 255)


def test_table(tmp_path):
    (tmp_path / "t.csv").write_text("a,label,b\n0.5,1,2\n-1e-3,0,4\n")
    found = read_examples(tmp_path / "t.csv")
    assert found.x.tolist() == torch.tensor([[0.5, 2], [-1e-3, 4]]).tolist() and found.labels.tolist() == [1, 0]


def test_a_table_may_begin_with_a_mark_of_its_encoding(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbflabel,a\n1,0.5\n")
    found = read_examples(tmp_path / "t.csv")
    assert found.x.tolist() == [[0.5]] and found.labels.tolist() == [1]


def test_pictures(tmp_path):
    held = pictures(tmp_path)
    found = read_examples(tmp_path)
    assert found.names == ("a.png", "b.png") and found.labels.tolist() == [1, 0] and found.x.shape == (2, 1, 3, 4)
    assert (found.x[1, 0] * 255).round().tolist() == held["b.png"].tolist()


def test_examples_fit_networks_that_see_the_same_image():
    x = torch.rand(2, 3, 4, 5)
    found = Examples(x)
    assert torch.equal(found.fitted((4, 5, 3)).x, x.permute(0, 2, 3, 1))
    assert torch.equal(found.fitted((60,)).x, x.flatten(1)) and found.fitted((1, 60, 1)).x.shape == (2, 1, 60, 1)
    assert Examples(torch.rand(2, 1, 4, 5)).fitted((4, 5)).x.shape == (2, 4, 5)
    for shape in ((3, 5, 4), (59,), (6, 10), ()):
        with pytest.raises(DataError, match="the network takes"):
            found.fitted(shape)


def write(name, content):
    """A fault: a file of its own among MNIST's."""
    return lambda folder: (digits(folder), (folder / name).write_bytes(content))


def saved(**arrays):
    return lambda folder: np.savez(folder / "d.npz", **arrays)


def text(name, content):
    return lambda folder: (folder / name).write_text(content)


def cut(path, size=45):
    path.write_bytes(path.read_bytes()[:size])


def a_picture_of(mode, size=(4, 3)):
    return lambda folder: (pictures(folder), Image.new(mode, size).save(folder / "b.png"))


def flipped(folder):
    """A compressed archive with a wrong byte among the compressed ones."""
    np.savez_compressed(folder / "d.npz", x=np.arange(99.0))
    content = bytearray((folder / "d.npz").read_bytes())
    content[60:70] = b"\xff" * 10
    (folder / "d.npz").write_bytes(content)


def npy_of(header):
    """A .npy file that is its header."""
    return b"\x93NUMPY\x01\0" + len(header).to_bytes(2, "little") + header.encode()


ONE = np.zeros((1, 2), np.float32)
BAD = {
    "nothing": (lambda folder: None, "nowhere", "does not exist"),
    "an empty folder": (lambda folder: None, "", "holds 0 .csv files"),
    "an unknown kind": (text("d.txt", "1 2"), "d.txt", "none of the kinds"),
    "no labels": (lambda folder: (digits(folder), (folder / "t10k-labels-idx1-ubyte").unlink()), "", "there is no t10k-labels"),
    "no test set": (lambda folder: digits(folder, Part.TRAIN), "", "does not hold MNIST's test set"),
    "other lengths": (lambda folder: digits(folder, labels=np.arange(4)), "", "5 examples and 4 labels"),
    "truncated": (write("t10k-labels-idx1-ubyte", idx(np.arange(5))[:-1]), "", r"header says \[5\], and 4 bytes follow"),
    "a packed file cut": (lambda folder: (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"1" * 99)[:20]), "",
                          "not a readable IDX file"),
    "no gzip": (lambda folder: (folder / "t10k-images-idx3-ubyte.gz").write_bytes(b"plain"), "", "not a readable IDX file"),
    "an empty file": (write("t10k-labels-idx1-ubyte", b""), "", "not a readable IDX file"),
    "floats": (write("t10k-labels-idx1-ubyte", b"\0\0\x0d\x01" + b"\0" * 8), "", "not a readable IDX file"),
    "labels of two axes": (write("t10k-labels-idx1-ubyte", idx(np.zeros((5, 1)))), "", "labels have 1"),
    "no images": (lambda folder: digits(folder, images=np.zeros((0, 4, 3)), labels=np.zeros(0)), "", "at least one number"),
    "half a record": (lambda folder: (folder / "test_batch.bin").write_bytes(b"\0" * 3074), "", "not whole records"),
    "no record": (lambda folder: (folder / "test_batch.bin").write_bytes(b""), "", "not whole records"),
    "another label": (lambda folder: (folder / "test_batch.bin").write_bytes(b"\x0b" * 3073), "", "has the label 11"),
    "no archive": (text("d.npz", "text"), "d.npz", "not a readable .npy or .npz"),
    "an empty archive": (text("d.npz", ""), "d.npz", "not a readable .npy or .npz"),
    "an archive cut": (lambda folder: (saved(x=ONE)(folder), cut(folder / "d.npz", 100)), "d.npz", "not a readable .npy"),
    "a compressed archive flipped": (flipped, "d.npz", "not a readable .npy"),
    "a header that does not end": (lambda folder: (folder / "d.npy").write_bytes(npy_of("{'shape': (1, ")), "d.npy",
                                     "not a readable .npy"),
    "a size that is none": (lambda folder: (folder / "d.npy").write_bytes(
        npy_of("{'descr': '<f4', 'fortran_order': False, 'shape': (9000000000000000,), }")), "d.npy", "not a readable .npy"),
    "a hundred axes": (write("t10k-labels-idx1-ubyte", b"\0\0\x08\x64" + b"\0\0\0\1" * 100 + b"\0"), "", "its header says"),
    "no x": (saved(a=ONE, b=ONE), "d.npz", "name the inputs 'x'"),
    "words": (saved(x=np.array([["a"]])), "d.npz", "numbers are needed"),
    "no numbers": (saved(x=np.zeros((0, 2))), "d.npz", "numbers are needed"),
    "one axis": (saved(x=np.zeros(3)), "d.npz", r"examples are \(n, ...\)"),
    "not finite": (saved(x=np.array([[0, 1], [np.nan, 1]])), "d.npz", "example 1 holds NaN"),
    "beyond float32": (saved(x=np.array([[1e300]])), "d.npz", "example 0 holds NaN or infinite"),
    "labels in floats": (saved(x=ONE, y=np.array([0.0])), "d.npz", "whole numbers are needed"),
    "negative labels": (saved(x=ONE, y=np.array([-1])), "d.npz", "negative"),
    "more labels": (saved(x=ONE, y=np.array([1, 2])), "d.npz", "1 examples and 2 labels"),
    "a table of nothing": (text("d.csv", "a,label\n"), "d.csv", "no line below its header"),
    "an empty table": (text("d.csv", ""), "d.csv", "no line below its header"),
    "a short line": (text("d.csv", "a,label\n1\n"), "d.csv", "line 2 .* not as many fields"),
    "a long line": (text("d.csv", "a,label\n1,2,3\n"), "d.csv", "line 2 .* not as many fields"),
    "a word": (text("d.csv", "a,label\nx,1\n"), "d.csv", "no table of numbers"),
    "labels alone": (text("d.csv", "label\n1\n"), "d.csv", "no column of numbers"),
    "a label in words": (text("d.csv", "a,label\n1,cat\n"), "d.csv", "label 'cat' in line 2"),
    "a column twice": (text("d.csv", "a,b,a,label\n1,2,3,0\n"), "d.csv", "the column 'a' twice"),
    "no header": (text("d.csv", "0.5,0.25\n1,2\n"), "d.csv", "begins with numbers"),
    "a pipe": (lambda folder: os.mkfifo(folder / "d.npy"), "d.npy", "neither a file nor a folder"),
    "a picture elsewhere": (lambda folder: pictures(folder, text="file,label\n../b.png,1\n"), "", "not beneath its own folder"),
    "a picture by its root": (lambda folder: pictures(folder, text="file,label\n/b.png,1\n"), "", "not beneath its own folder"),
    "a pipe as picture": (lambda folder: (pictures(folder), (folder / "b.png").unlink(), os.mkfifo(folder / "b.png")), "",
                          "not a file"),
    "a folder as picture": (lambda folder: pictures(folder, text="file,label\n.,1\n"), "", "not a file"),
    "bytes": (lambda folder: (folder / "d.csv").write_bytes(b"\xff\xfe\x00"), "d.csv", "not readable as CSV"),
    "other columns": (lambda folder: pictures(folder, text="name,class\na.png,1\n"), "", "needs 'file' and 'label'"),
    "no such picture": (lambda folder: pictures(folder, text="file,label\nc.png,1\n"), "", "c.png"),
    "no picture": (lambda folder: (pictures(folder), (folder / "b.png").write_bytes(b"noise")), "", "not a readable picture"),
    "a picture that lies about its height": (
        lambda folder: (pictures(folder, text="file,label\na.png,1\nb.tif,0\n"), lying(folder / "b.tif")), "",
        "is damaged, or no"),
    "a picture cut": (lambda folder: (pictures(folder), cut(folder / "b.png")), "", "not a readable picture"),
    "another size": (a_picture_of("L", (5, 5)), "", "must be alike"),
    "colours among greys": (a_picture_of("RGB"), "", "must be alike"),
    "a kind of picture": (a_picture_of("RGBA"), "", "of the kind RGBA"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_data_is_one_sentence(tmp_path, name):
    make, path, words = BAD[name]
    make(tmp_path)
    with pytest.raises((DataError, FileNotFoundError), match=words) as caught:
        read_examples(tmp_path / path if path else tmp_path)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)


def test_pixels_outside_the_domain_are_named():
    found = Examples(torch.tensor([[0.5], [1.5]]), names=("first", "second"))
    assert found.take([0]).within(0, 1).x.tolist() == [[0.5]]
    with pytest.raises(DataError, match=r"1 of 2 examples have numbers outside 0 to 1; the first, 1 \('second'\)"):
        found.within(0, 1)


def test_labels_are_asked_for():
    with pytest.raises(DataError, match="no labels"):
        Examples(torch.zeros(1, 2)).labelled()
    assert issubclass(DataError, bl.BoundlabError)
