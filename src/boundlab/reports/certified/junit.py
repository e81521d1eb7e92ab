"""A certified data set as JUnit XML: a test suite for each radius, a test case for each example, as build servers show them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from xml.etree import ElementTree

from boundlab.certify.certification import Certification
from boundlab.certify.record import Record, Status
from boundlab.reports.certified.words import Names, called, one_line, outcome, radius, rigour_sentence

KINDS = {Status.FALSIFIED: "failure", Status.MISCLASSIFIED: "failure", Status.FAILED: "error",
                Status.UNKNOWN: "skipped"}
"""What becomes of a question that is not certified. Open ones are skipped: they have neither passed nor failed."""
COUNTED = {"failures": "failure", "errors": "error", "skipped": "skipped"}


def junit_of(found: Certification, classes: Sequence[str] = ()) -> str:
    """The certification as JUnit XML; `classes` are what classes are called.

    Only what is certified passes. What a counterexample refutes and what is misclassified are failures, failed computations are
    errors, and open questions are skipped.
    """
    root = ElementTree.Element("testsuites", counts("boundlab certify", found.records))
    for eps, records in found.by_eps.items():
        suite = ElementTree.SubElement(root, "testsuite", counts(f"{network(found)} at eps {radius(eps)}", records))
        properties = ElementTree.SubElement(suite, "properties")
        for name, value in facts(found).items():
            ElementTree.SubElement(properties, "property", {"name": name, "value": one_line(value)})
        for record in records:
            suite.append(case(found, record, Names(classes)))
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def network(found: Certification) -> str:
    """What the network is called."""
    return one_line(found.settings.network_name) or "network"


def counts(name: str, records: Sequence[Record]) -> dict[str, str]:
    """The attributes of a suite: how many tests there are, and what has become of them."""
    number = Counter(KINDS.get(record.status) for record in records)
    seconds = sum(record.finding.seconds for record in records)
    return {"name": name, "tests": str(len(records)), **{word: str(number[kind]) for word, kind in COUNTED.items()},
            "time": f"{seconds:.3f}"}


def facts(found: Certification) -> dict[str, str]:
    """What the answers depend on, and how much is claimed."""
    chosen = found.settings
    return {"claim": rigour_sentence(found), "network": chosen.network_name, "network.sha256": chosen.network,
            "data": chosen.data_name, "data.sha256": chosen.data, "norm": f"{chosen.p:g}", "command": chosen.command,
            "boundlab": chosen.versions.get("boundlab", "")}


def case(found: Certification, record: Record, names: Names) -> ElementTree.Element:
    """One example at one radius."""
    title = one_line(f"example {called(record)} of class {names.of(record.label)}")
    test = ElementTree.Element("testcase", {"classname": f"{network(found)} at eps {radius(record.eps)}", "name": title,
                                            "time": f"{record.finding.seconds:.3f}"})
    if record.status in KINDS:
        said = {"message": one_line(outcome(record, names))}
        kind = KINDS[record.status]
        if kind != "skipped":
            said["type"] = record.status.name.lower()
        ElementTree.SubElement(test, kind, said)
    return test
