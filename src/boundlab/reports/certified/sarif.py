"""A certified data set as SARIF 2.1.0 (OASIS 2020): what is not certified, as results that code-scanning tools show."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from boundlab.certify.certification import Certification
from boundlab.certify.export import plain
from boundlab.certify.record import Record, Status
from boundlab.reports.certified.words import Names, called, one_line, outcome, radius, rigour_sentence

SCHEMA, VERSION = "https://json.schemastore.org/sarif-2.1.0.json", "2.1.0"


@dataclass(frozen=True)
class Rule:
    """What can be wrong with an example. `kind` and `level` are SARIF's; a question that is open has no level."""

    identifier: str
    name: str
    short: str
    full: str
    help: str
    kind: str = "fail"
    level: str = "error"

    def record(self) -> dict[str, Any]:
        """The rule as SARIF holds it."""
        return {"id": self.identifier, "name": self.name, "shortDescription": {"text": self.short},
                "fullDescription": {"text": self.full}, "help": {"text": self.help},
                "defaultConfiguration": {"level": self.level}}


RULES = {
    Status.FALSIFIED: Rule(
        "BL1", "Falsified", "A small change of the input changes the class.",
        "An input of the ball around the example is given another class. It was replayed, and judged in exact arithmetic.",
        "The changed input is in counterexamples.npz beside the records. Train with bounds (boundlab train), or state the "
        "radius up to which the network is to be trusted."),
    Status.MISCLASSIFIED: Rule(
        "BL2", "Misclassified", "The network does not give the example its label.",
        "Another class than the label has the highest score of the example itself, or one as high.",
        "Look whether the label is right, and whether the network expects other inputs, such as normalised ones (--mean).",
        level="warning"),
    Status.UNKNOWN: Rule(
        "BL3", "Open", "Neither proven nor refuted.",
        "Within the limits there is no proof that the class stays, and no input of the ball with another one.",
        "Give each question more time (--timeout); the same command goes on from its ledger.", "open", "none"),
    Status.FAILED: Rule(
        "BL4", "Failed", "The computation failed, so nothing is claimed.",
        "The computation ended with an error, ran out of memory, or killed its process.",
        "The reason is in the message; give more memory (--memory), or other methods (--method).", "open", "none"),
}


def sarif_of(found: Certification, classes: Sequence[str] = ()) -> str:
    """The certification as SARIF; `classes` are what classes are called.

    There is one result for each example and status other than certified, at the smallest of its radii. Counterexamples and
    misclassified examples fail; what is open or failed is of the kind "open", which claims no problem.
    """
    chosen, places = found.settings, {status: place for place, status in enumerate(RULES)}
    driver = {"name": "boundlab", "version": chosen.versions.get("boundlab", "unknown"),
              "rules": [rule.record() for rule in RULES.values()]}
    told = [{"level": "error", "message": {"text": one_line(f"{count} questions failed: {reason}")}}
            for reason, count in found.failures.items()]
    invocation: dict[str, Any] = {"executionSuccessful": True, "toolExecutionNotifications": told}
    if chosen.command:
        invocation["commandLine"] = one_line(chosen.command)
    run = {"tool": {"driver": driver}, "invocations": [invocation], "artifacts": [{"location": location(found)}],
           "results": [result(found, records, places, Names(classes)) for records in grouped(found)],
           "properties": {"claim": rigour_sentence(found), "network": one_line(chosen.network_name),
                          "networkSha256": chosen.network, "dataSha256": chosen.data, "norm": f"{chosen.p:g}",
                          "eps": list(chosen.eps)}}
    return json.dumps(plain({"$schema": SCHEMA, "version": VERSION, "runs": [run]}), indent=1, allow_nan=False) + "\n"


def location(found: Certification) -> dict[str, Any]:
    """The data's file or folder, as a relative reference."""
    return {"uri": quote(one_line(found.settings.data_name) or "data", safe="/")}


def grouped(found: Certification) -> Iterator[list[Record]]:
    """The records of each example and status that has a rule, by radius."""
    held: dict[tuple[int, Status], list[Record]] = {}
    for record in found.records:  # radii ascend
        if record.status in RULES:
            held.setdefault((record.index, record.status), []).append(record)
    yield from (held[key] for key in sorted(held, key=lambda key: (key[0], key[1].name)))


def result(found: Certification, records: Sequence[Record], places: dict[Status, int], names: Names) -> dict[str, Any]:
    """One result: an example that is not certified, at the smallest of some radii."""
    record, rule = records[0], RULES[records[0].status]
    radii = ", ".join(radius(one.eps) for one in records)
    at = "" if record.status is Status.MISCLASSIFIED else f" at eps {radii}"
    place = {"artifactLocation": {**location(found), "index": 0}}
    example = {"name": one_line(called(record)), "fullyQualifiedName": one_line(f"{found.settings.data_name}[{record.index}]"),
               "kind": "element"}
    return {
        "ruleId": rule.identifier, "ruleIndex": places[record.status], "kind": rule.kind, "level": rule.level,
        "message": {"text": one_line(f"Example {called(record)}{at}: {outcome(record, names)}.")},
        "locations": [{"physicalLocation": place, "logicalLocations": [example]}],
        "partialFingerprints": {"example/v1": f"{location(found)['uri']}:{record.index}:{rule.identifier}"},
        "properties": {"index": record.index, "label": record.label, "predicted": record.predicted,
                       "eps": [one.eps for one in records]}}
