"""Laws of what other programs read: nothing passes that is not certified, every example is there, and all is well formed."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from boundlab.bounds.problem import Rigour
from boundlab.certify.export import save_records
from boundlab.certify.record import Status
from boundlab.reports.certified.card import card_of, yaml_of
from boundlab.reports.certified.junit import junit_of
from boundlab.reports.certified.page import save_report
from boundlab.reports.certified.sarif import RULES, sarif_of
from boundlab.reports.certified.words import one_line
from tests.reports.cases import CASES, certification

DREADFUL = "a\x00b\x1b[0m\ud800\u2028c\r\n---\n: d\u0085\ufeff\"'é"
"""What files may be called, and no text format holds."""
FOUND = {name: certification(**how) for name, how in CASES.items()} | {"dreadful": certification(name=DREADFUL)}
LEVELS = {"fail": {"error", "warning", "note"}, "open": {"none"}}
"""SARIF 2.1.0, 3.27.10: what is not of the kind "fail" has no level."""


@pytest.fixture(params=FOUND)
def found(request):
    return FOUND[request.param]


def test_junit_passes_what_is_certified_and_nothing_else(found):
    root = ElementTree.fromstring(junit_of(found).encode())
    suites = root.findall("testsuite")
    assert root.tag == "testsuites" and len(suites) == len(found.settings.eps)
    for suite, records in zip(suites, found.by_eps.values(), strict=True):
        cases = suite.findall("testcase")
        assert len(cases) == len(records) and len({case.get("name") for case in cases}) == len(cases)
        for case, record in zip(cases, records, strict=True):
            kinds = [child.tag for child in case]
            assert (not kinds) == (record.status is Status.CERTIFIED), record
            assert kinds == {Status.CERTIFIED: [], Status.UNKNOWN: ["skipped"], Status.FAILED: ["error"]}.get(
                record.status, ["failure"])
            assert all(child.get("message") for child in case) and float(case.get("time")) >= 0
    for part, cases in ((root, root.iter("testcase")), *((suite, suite.iter("testcase")) for suite in suites)):
        number = Counter(child.tag for case in cases for child in case)
        assert [int(part.get(name)) for name in ("failures", "errors", "skipped")] == [
            number[tag] for tag in ("failure", "error", "skipped")]
        assert int(part.get("tests")) == len(list(part.iter("testcase")))
    held = {one.get("name"): one.get("value") for one in suites[0].iter("property")}
    assert held["network.sha256"] == found.settings.network and held["data.sha256"] == found.settings.data
    assert ("less than a proof" in held["claim"]) == any(record.finding.rigour is Rigour.FLOAT for record in found.records)


def test_sarif_has_a_result_for_each_example_and_status_but_certified(found):
    log = json.loads(sarif_of(found))
    assert set(log) == {"$schema", "version", "runs"} and log["version"] == "2.1.0" and len(log["runs"]) == 1
    run, = log["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [rule.identifier for rule in RULES.values()]
    assert all(rule[part]["text"].endswith(".") for rule in rules for part in ("shortDescription", "fullDescription", "help"))
    statuses, seen = dict(zip((rule["id"] for rule in rules), RULES, strict=True)), Counter()
    for result in run["results"]:
        rule, (place,) = rules[result["ruleIndex"]], result["locations"]
        assert rule["id"] == result["ruleId"] and rule["defaultConfiguration"]["level"] == result["level"]
        assert result["level"] in LEVELS[result["kind"]] and result["message"]["text"].endswith(".")
        artifact = place["physicalLocation"]["artifactLocation"]
        assert run["artifacts"][artifact["index"]]["location"]["uri"] == artifact["uri"]
        assert re.fullmatch(r"([\w.~/-]|%[0-9A-F]{2})+", artifact["uri"]), "a relative reference (RFC 3986)"
        assert place["logicalLocations"][0]["fullyQualifiedName"].endswith(f"[{result['properties']['index']}]")
        for eps in result["properties"]["eps"]:
            seen[result["properties"]["index"], eps] += 1
            record, = (one for one in found.by_eps[eps] if one.index == result["properties"]["index"])
            assert record.status is statuses[result["ruleId"]] is not Status.CERTIFIED
    assert set(seen.values()) <= {1} and len(seen) == sum(record.status is not Status.CERTIFIED for record in found.records)
    prints = [result["partialFingerprints"]["example/v1"] for result in run["results"]]
    assert len(set(prints)) == len(prints)
    assert run["invocations"][0]["executionSuccessful"] and len(
        run["invocations"][0]["toolExecutionNotifications"]) == len(found.failures)


def test_the_page_of_what_has_a_dreadful_name_is_written(tmp_path):
    for path in save_report(FOUND["dreadful"], tmp_path):
        assert path.read_text(encoding="utf-8")


def test_a_sarif_alert_is_the_same_one_after_the_network_was_trained_again_or_with_more_data():
    before = FOUND["of all kinds"]
    after = replace(before, settings=replace(before.settings, network="ef" * 32, data="01" * 32))
    one, other = (json.loads(sarif_of(found))["runs"][0]["results"] for found in (before, after))
    assert [result["partialFingerprints"] for result in one] == [result["partialFingerprints"] for result in other]


def block(lines, depth):
    """YAML of blocks and JSON scalars, and nothing else: what the lines of this depth say, and the lines that are left."""
    held, indent = None, " " * depth
    while lines and lines[0].startswith(indent) and not lines[0][depth:].startswith(" "):
        line = lines[0][depth:]
        if line.startswith("- "):
            held = [] if held is None else held
            inner = line[2:]
            if re.match(r"[\w-]+:( |$)", inner):
                item, lines = block([indent + "  " + inner, *lines[1:]], depth + 2)
            else:
                item, lines = json.loads(inner), lines[1:]
            held.append(item)
        else:
            held = {} if held is None else held
            key, _, rest = re.fullmatch(r"([\w-]+):( (.+))?", line).groups()
            assert key not in held
            if rest:
                held[key], lines = json.loads(rest), lines[1:]
            else:
                held[key], lines = block(lines[1:], depth + 2)
    assert held is not None, lines
    return held, lines


def parsed(lines):
    held, left = block(list(lines), 0)
    assert left == []
    return held


def test_the_card_has_the_shares_and_the_hashes(found):
    text = card_of(found)
    first, front, body = text.split("---\n", 2)
    assert first == "" and "\r" not in text and "\x1b" not in text
    held = parsed(front.splitlines())
    model, = held["model-index"]
    result, = model["results"]
    assert set(held) == {"tags", "model-index"} and set(result) == {"task", "dataset", "metrics"}
    assert result["dataset"]["name"] and result["dataset"]["type"] and result["task"]["type"].endswith("classification")
    clean, *rest = result["metrics"]
    assert clean["value"] == found.shares[0].clean
    assert [metric["value"] for metric in rest] == [
        value for share in found.shares for value in (share.certified, share.attacked)]
    assert [metric["type"] for metric in rest] == ["certified_accuracy", "robust_accuracy_upper_bound"] * len(found.shares)
    assert ("floating point" in rest[0]["name"]) == any(one.finding.rigour is Rigour.FLOAT for one in found.records)
    assert found.settings.network in body and found.settings.data in body and "<script>" not in body


VALUES = st.dictionaries(st.sampled_from(["type", "model-index", "a"]), st.one_of(
    st.text(max_size=8).map(one_line), st.floats(0, 1), st.integers(-9, 9)), min_size=1, max_size=4)
TREES = st.dictionaries(st.sampled_from("abc"), st.one_of(VALUES, st.lists(VALUES, min_size=1, max_size=3), st.lists(
    st.text(max_size=5).map(one_line), min_size=1, max_size=3)), min_size=1)


@settings(max_examples=30, deadline=None)
@given(TREES)
def test_yaml_is_read_back_as_it_was(tree):
    assert parsed(yaml_of(tree)) == tree


@settings(max_examples=30, deadline=None)
@given(TREES)
def test_yaml_is_read_back_by_a_parser_that_others_use(tree):
    yaml = pytest.importorskip("yaml")
    assert yaml.safe_load("\n".join(yaml_of(tree))) == tree


def test_a_card_is_read_back_by_a_parser_that_others_use(found):
    yaml = pytest.importorskip("yaml")
    front = card_of(found).split("---\n", 2)[1]
    assert yaml.safe_load(front) == parsed(front.splitlines())


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_one_line_is_what_every_format_holds(text):
    line = one_line(text)
    assert line.isprintable() and one_line(line) == line and line.encode().decode() == line
    assert ElementTree.fromstring(ElementTree.tostring(ElementTree.Element("a", {"b": line}))).get("b") == line


def test_records_are_written_whatever_names_are(found, tmp_path):
    assert save_records(found, tmp_path / "r.csv").read_bytes().decode().count("\n") >= len(found.records)


def test_parquet_holds_every_record(found, tmp_path):
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        pytest.skip("pyarrow is not installed")
    assert parquet.read_table(save_records(found, tmp_path / "r.parquet")).num_rows == len(found.records)
