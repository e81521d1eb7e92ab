"""What a finished run leaves in its folder: weights, network, a record of each test example, a summary; and the way back."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from boundlab.data.examples import Examples
from boundlab.errors import BoundlabError, DataError
from boundlab.exchange.onnx_file import save_onnx
from boundlab.train.checkpoint import weights_file
from boundlab.train.measure import Measured
from boundlab.train.recipe import Recipe, recipe
from boundlab.train.run import Outcome
from boundlab.whole_file import write_whole

NETWORK, RESULT = "network.onnx", "result.json"
FILES = ("weights.safetensors", NETWORK, "records.csv", RESULT)
WORDS = "words.json"
"""What numbers of words mean, where sentences were trained on."""


@dataclass(frozen=True)
class Finished:
    """A run that `boundlab train` or `boundlab reproduce` has finished: its folder, recipe, and errors on test examples.

    `errors` are shares by what they are about: "clean", "attacked", "verified, IBP", and so on.
    """

    folder: Path
    name: str
    recipe: Recipe
    errors: Mapping[str, float]
    epochs: int
    examples: int
    seconds_an_epoch: float

    @property
    def network(self) -> Path:
        """The trained network, an ONNX file."""
        return self.folder / NETWORK


def errors_of(measured: Measured) -> dict[str, float]:
    """Shares of test examples by what does not hold of them."""
    proofs = {f"verified, {proof}": 1 - share for proof, share in measured.verified.items()}
    return {"clean": 1 - measured.clean, "attacked": 1 - measured.attacked, **proofs, "verified, any": 1 - measured.by_any}


def record_of(name: str, asked: Recipe, outcome: Outcome, sizes: tuple[int, int]) -> dict[str, Any]:
    """The summary of a run, in plain data: of training and test examples there are as many as `sizes` says."""
    settings = asked.model_dump(mode="json", by_alias=True, exclude_none=True)
    return textual({
        "recipe": name, "title": asked.title, "settings": settings, "eps": asked.radius, "train eps": asked.eps,
        "norm": asked.norm, "errors": errors_of(outcome.measured), "published": [one.model_dump() for one in asked.published],
        "training examples": sizes[0], "test examples": sizes[1], "chosen epoch": outcome.fitted.chosen,
        "seconds an epoch": outcome.seconds_an_epoch, "seconds of certification": outcome.seconds,
        "threads": torch.get_num_threads(), "rigour": "float", "history": [asdict(epoch) for epoch in outcome.fitted.history]})


def textual(value: Any) -> Any:
    """Plain data with infinities as text, which JSON lacks."""
    if isinstance(value, Mapping):
        return {key: textual(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [textual(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_run(folder: Path, record: Mapping[str, Any], outcome: Outcome, data: tuple[Examples, Examples]) -> list[Path]:
    """The files of a finished run, with the paths; the summary comes last, so that who finds it finds all."""
    paths = {part: folder / part for part in FILES}
    paths[FILES[0]].write_bytes(weights_file(outcome.fitted.module))
    save_onnx(outcome.fitted.model, paths[NETWORK])
    write_records(paths["records.csv"], data[1], outcome.measured)
    if data[0].lexicon is not None:
        paths[WORDS] = folder / WORDS
        lists = [[other for other in row if other] for row in data[0].lexicon.candidates.tolist()]
        paths[WORDS].write_text(json.dumps({"words": data[0].lexicon.words, "candidates": lists}) + "\n", encoding="utf-8")
    write_whole(paths[RESULT], (json.dumps(record, indent=2) + "\n").encode())
    return list(paths.values())


def write_records(path: Path, test: Examples, measured: Measured) -> None:
    """What was found of each test example, 1 for true."""
    columns: dict[str, Any] = {"label": test.labelled()[1], "clean": measured.correct, "attacked": measured.survived,
                               **{f"verified {proof}": held for proof, held in measured.proven.items()}}
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["example", *columns])
        rows = zip(*(column.int().tolist() for column in columns.values()), strict=True)
        writer.writerows((place, *row) for place, row in enumerate(rows))


def read_run(folder: Path) -> Finished:
    """A finished run from its folder; DataError, in one sentence, if its summary is none.

    A summary without settings, as versions before this wrote it, has those of the recipe that it names.
    """
    path = folder / RESULT
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        asked = Recipe.model_validate(held["settings"]) if "settings" in held else recipe(held["recipe"])
        errors = {str(name): float(share) for name, share in held["errors"].items()}
        if not all(0 <= share <= 1 for share in errors.values()):
            raise ValueError("errors are shares")
        return Finished(folder, str(held["recipe"]), asked, errors, len(held["history"]), int(held["test examples"]),
                        float(held["seconds an epoch"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ValidationError, BoundlabError) as problem:
        raise DataError(f"'{path}' is no summary of a run ({type(problem).__name__}); `boundlab train` writes such "
                        "files.") from problem


def runs_below(folder: Path) -> list[Finished]:
    """All finished runs in a folder and the folders below it, by path; DataError if there is none."""
    found = [read_run(path.parent) for path in sorted(folder.rglob(RESULT))]
    if not found:
        raise DataError(f"there is no finished run below '{folder}': no {RESULT}, as `boundlab train --out` writes it.")
    return found
