"""A certified data set as a model card: metadata that Hugging Face reads (a model-index in YAML), and a page of Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import Certification
from boundlab.reports.certified import tables
from boundlab.reports.certified.pictures import is_picture
from boundlab.reports.certified.words import (
    headline,
    limits_sentence,
    one_line,
    radius,
    remainder,
    rigour_sentence,
    rigours,
)

TAGS = ["boundlab", "certified-robustness", "neural-network-verification"]
SETTINGS = ("network, SHA-256", "data, SHA-256", "radii", "norm", "inputs", "stages", "rounding", "seconds a question",
            "versions", "command")
"""What of the settings a card repeats."""


def card_of(found: Certification) -> str:
    """The card: metadata between two lines of dashes, then the answer, its protocol, rigour and hashes in Markdown."""
    name = one_line(found.settings.network_name) or "network"
    table = tables.settings(found)
    kept = tables.Table(table.columns, [row for row in table.rows if row[0] in SETTINGS], "Protocol")
    body = [f"# {tables.plain(name)}: certified robustness", f"**{tables.plain(headline(found))}**",
            tables.plain(remainder(found)), tables.plain(rigour_sentence(found)), tables.plain(limits_sentence(found)),
            tables.markdown(found.accuracies()), tables.markdown(kept)]
    return "\n".join(["---", *yaml_of(metadata(found, name)), "---", ""]) + "\n" + "\n\n".join(body) + "\n"


def metadata(found: Certification, name: str) -> dict[str, Any]:
    """What Hugging Face shows: accuracies on the data set, at each radius."""
    kind = "image-classification" if is_picture(found.inputs.shape) else "tabular-classification"
    data = one_line(found.settings.data_name) or "data"
    what = "certified accuracy" + (" in floating point" if Rigour.FLOAT in rigours(found) else "")
    metrics = [metric("accuracy", "accuracy without a change", found.shares[0].clean)]
    for share in found.shares:  # between these two lies the robust accuracy on the data
        ball = f"eps {radius(share.eps)}, norm {found.settings.p:g}"
        metrics += [metric("certified_accuracy", f"{what}, at least ({ball})", share.certified),
                    metric("robust_accuracy_upper_bound", f"robust accuracy, at most ({ball})", share.attacked)]
    results = [{"task": {"type": kind}, "dataset": {"name": data, "type": data}, "metrics": metrics}]
    return {"tags": TAGS, "model-index": [{"name": name, "results": results}]}


def metric(kind: str, name: str, value: float) -> dict[str, Any]:
    """One number of the model-index."""
    return {"type": kind, "name": name, "value": value}


def yaml_of(value: Any, indent: str = "") -> Iterator[str]:
    """Lines of YAML: maps and lists as blocks, text in double quotes, as JSON writes it for printable characters."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from entry(f"{indent}{key}:", item, indent + "  ")
    else:
        for item in value:
            first, *rest = [*yaml_of(item, indent + "  ")] if isinstance(item, Mapping) else [f"{indent}  {scalar(item)}"]
            yield f"{indent}- {first[len(indent) + 2:]}"
            yield from rest


def entry(head: str, item: Any, indent: str) -> Iterator[str]:
    """A key with its value: behind it, or as a block under it."""
    if isinstance(item, Mapping | list):
        yield head
        yield from yaml_of(item, indent)
    else:
        yield f"{head} {scalar(item)}"


def scalar(value: str | float) -> str:
    """Text, or a number with all its digits and no exponent, which some readers take for text."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else f"{Decimal(repr(value)):f}"
