"""boundlab report, and the report that certify writes by itself."""

from __future__ import annotations

import json
import sys
from xml.etree import ElementTree

import pytest

from boundlab.cli import certify
from boundlab.errors import MissingPackage

CERTIFY = ("certify", "net.onnx", "--data", "labelled.npz", "--clip", "-inf", "inf", "--out", "out", "--engine", "serial")


def test_certify_writes_the_page_and_report_writes_it_again(folder, run):
    assert run(*CERTIFY, "--eps", "0.1,10").exit_code == 0
    page, text = ((folder / "out" / name).read_bytes() for name in ("report.html", "report.md"))
    assert b"net.onnx" in page and b"1 example of labelled.npz" in page
    result = run("report", "out")
    assert result.exit_code == 0 and result.stderr == "" and "Written: out/report.html, out/report.md" in result.stdout
    assert "Of 1 input, 1 (100.0 %) is proven to keep its class under any change of up to 0.1 in each feature" in result.stdout
    assert ((folder / "out/report.html").read_bytes(), (folder / "out/report.md").read_bytes()) == (page, text)
    assert json.loads(run("report", "out", "--json").stdout) == {"files": ["out/report.html", "out/report.md"]}


def test_classes_have_names(folder, run):
    run(*CERTIFY, "--eps", "10")
    assert run("report", "out", "--classes", "<safe>, broken").exit_code == 0
    page = (folder / "out/report.html").read_text()
    assert "&lt;safe&gt;" in page and "<safe>" not in page


def test_bad_input_is_one_sentence(folder, run):
    run(*CERTIFY, "--eps", "10")
    (folder / "broken").mkdir()
    (folder / "broken/certification.json").write_text("{")
    for arguments, words in ((("none",), "'none' holds no certification"), (("broken",), "no whole certification"),
                             (("net.onnx",), "'net.onnx' holds no certification"),
                             (("out", "--classes", "a,b,c"), "3 names, and the network has 2 classes")):
        result = run("report", *arguments)
        assert result.exit_code == 2 and result.stdout == "" and words in result.stderr, result.output
        assert result.stderr.startswith("boundlab: ") and result.stderr.count("\n") == 1


@pytest.mark.parametrize("name", ["certification.json", "counterexamples.npz", "extremes.npz"])
def test_files_that_are_cut_or_gone_are_one_sentence(folder, run, name):
    run(*CERTIFY, "--eps", "0.1,10")
    whole = (folder / "out" / name).read_bytes()
    for part in (0, len(whole) // 2, len(whole) - 3):
        (folder / "out" / name).write_bytes(whole[:part])
        result = run("report", "out")
        assert result.exit_code == 2 and result.stderr.count("\n") == 1, (part, result.output)
    (folder / "out" / name).unlink()
    result = run("report", "out")
    assert result.exit_code == 2 and f"({name} is not there)" in result.stderr, result.output


def test_without_matplotlib_everything_but_the_page_is_written(folder, run, monkeypatch):
    def lacking(*_):
        raise MissingPackage("figures need matplotlib.")

    monkeypatch.setattr(certify, "save_report", lacking)
    result = run(*CERTIFY, "--eps", "10")
    assert result.exit_code == 0 and "There is no report: figures need matplotlib. Then: boundlab report out" in result.stdout
    assert (folder / "out/records.csv").exists() and not (folder / "out/report.html").exists()


def test_files_for_other_programs(folder, run):
    run(*CERTIFY, "--eps", "0.1,10")
    asked = ("--junit", "j.xml", "--sarif", "s.sarif", "--card", "README.md", "--parquet", "r.csv", "--classes", "safe,broken")
    result = run("report", "out", *asked)
    assert result.exit_code == 0 and result.stdout.rstrip().endswith("j.xml, s.sarif, README.md, r.csv"), result.output
    cases = ElementTree.parse("j.xml").getroot().findall(".//testcase")
    assert [[child.tag for child in case] for case in cases] == [[], ["failure"]] and "class safe" in cases[0].get("name")
    one, = json.loads((folder / "s.sarif").read_text())["runs"][0]["results"]
    assert one["ruleId"] == "BL1" and one["properties"]["eps"] == [10]
    assert "class broken instead of safe" in one["message"]["text"]
    assert one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "labelled.npz"
    assert (folder / "README.md").read_text().startswith('---\ntags:\n  - "boundlab"\n')
    assert (folder / "r.csv").read_bytes() == (folder / "out/records.csv").read_bytes()


def test_files_for_other_programs_need_no_matplotlib(folder, run, monkeypatch):
    run(*CERTIFY, "--eps", "10")

    def lacking(*_):
        raise MissingPackage("figures need matplotlib.")

    monkeypatch.setattr("boundlab.cli.report.save_report", lacking)
    result = run("report", "out", "--junit", "j.xml")
    assert result.exit_code == 0 and "There is no report: figures need matplotlib." in result.stdout
    assert "Written: j.xml" in result.stdout and (folder / "j.xml").exists()
    assert run("report", "out").exit_code == 2


def test_files_that_cannot_be_written_are_one_sentence(folder, run, monkeypatch):
    run(*CERTIFY, "--eps", "10")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for arguments, words in ((("--junit", "none/j.xml"), "none/j.xml"), (("--sarif", "."), "is a folder"),
                             (("--card", "out/certification.json"), "belongs to the certification"),
                             (("--junit", "out/../out/ledger.sqlite"), "belongs to the certification"),
                             (("--junit", "j.xml", "--sarif", "./j.xml"), "named twice"),
                             (("--parquet", "r.xlsx"), ".csv or .parquet"), (("--parquet", "r.parquet"), "install pyarrow")):
        result = run("report", "out", *arguments)
        assert result.exit_code == 2 and result.stdout == "" and words in result.stderr, result.output
        assert result.stderr.startswith("boundlab: ") and result.stderr.count("\n") == 1
