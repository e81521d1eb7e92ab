"""A data set's questions as a folder that any verifier of the competition can run: a network, properties, instances.csv."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from boundlab.certify.carried import as_array, carried
from boundlab.certify.certification import Certification
from boundlab.certify.certify import digest, fitting, misclassified, radii_of, scores_of
from boundlab.certify.plan import Plan
from boundlab.certify.record import Status
from boundlab.data.examples import Examples
from boundlab.errors import DataError, SpecError
from boundlab.exchange.onnx_file import onnx_of
from boundlab.graph import Model
from boundlab.perturbations.ball import LpBall
from boundlab.question.exact import widened
from boundlab.question.vnnlib import write_vnnlib
from boundlab.spec import margins
from boundlab.verify.saved import check_norm, questions
from boundlab.verify.sound import Original
from boundlab.whole_file import write_whole

NETWORK, LIST, PROPERTIES = "network.onnx", "instances.csv", "properties"
OPEN = (Status.UNKNOWN, Status.FAILED)


@dataclass(frozen=True)
class Instances:
    """What a folder of questions holds: (example, radius) of each, and the examples that are misclassified and left out."""

    folder: Path
    asked: tuple[tuple[int, float], ...]
    misclassified: tuple[int, ...]


def save_instances(model: Model | Original, examples: Examples, eps: float | tuple[float, ...], folder: str | Path,
                   plan: Plan | None = None, certified: Certification | None = None) -> Instances:
    """Writes the questions of `certify` for other verifiers: the ONNX file, a VNN-LIB file each, and instances.csv.

    Every example at every radius is asked, or of an earlier certification only what it left open. Of the plan the domain and
    the seconds for each question count. Ends of boxes as for `save_vnnlib`. SpecError for a norm other than inf, and for a
    folder that holds another network; DataError where the certification is about another network or other data.
    """
    plan, place = plan or Plan(), Path(folder)
    check_norm(plan.p)
    original, radii = (model if isinstance(model, Original) else Original(model)).detached(), radii_of(eps)
    x, labels = fitting(original.model, examples, plan)
    wrong = {index for index, _ in misclassified(scores_of(original.model, x, "cpu"), labels, 1)}
    asked = [(index, radius) for radius in radii for index in range(len(x)) if index not in wrong]
    if certified is not None:
        check_same(certified, original, as_array(x.numpy().tobytes() + labels.numpy().tobytes()), plan)
        waiting = {(record.index, record.eps) for record in certified.records if record.status in OPEN}
        asked = [one for one in asked if one in waiting]
    content, network = onnx_of(original.model) if original.content is None else original.content, place / NETWORK
    if network.exists() and network.read_bytes() != content:
        raise SpecError(f"'{network}' is another network, which would be replaced; choose another folder.")
    (place / PROPERTIES).mkdir(parents=True, exist_ok=True)
    write_whole(network, content)
    listed = io.StringIO()
    for name, text in texts(original.model.to(torch.device("cpu")), (x, labels), asked, plan):
        write_whole(place / name, text.encode())
        csv.writer(listed, lineterminator="\n").writerow([NETWORK, name, f"{plan.timeout:g}"])
    write_whole(place / LIST, listed.getvalue().encode())
    return Instances(place, tuple(asked), tuple(sorted(wrong)))


def texts(model: Model, data: tuple[torch.Tensor, torch.Tensor], asked: list[tuple[int, float]], plan: Plan
          ) -> Iterator[tuple[str, str]]:
    """The name and the text of each question's file."""
    x, labels = data
    for index, radius in asked:
        ball = LpBall(x[index:index + 1], torch.tensor([radius], dtype=torch.float64), plan.p, plan.clip)
        spec = margins(labels[index:index + 1], model.graph.output.shape[0], model.dtype)
        query, = questions(model, ball, spec)
        yield f"{PROPERTIES}/{index}_{radius!r}.vnnlib", write_vnnlib(widened(query))


def check_same(certified: Certification, original: Original, data: np.ndarray, plan: Plan) -> None:
    """DataError unless a certification is about this network, these inputs and labels, and these balls."""
    known, clip = certified.settings, plan.clip
    found = {"another network": known.network != digest(carried(original)), "other data": known.data != digest(data),
             "balls of another norm": known.p != plan.p, "another domain": known.clip != clip}
    wrong = [name for name, differs in found.items() if differs]
    if wrong:
        raise DataError(f"the certification is about {' and '.join(wrong)}; give the options that it was made with.")
