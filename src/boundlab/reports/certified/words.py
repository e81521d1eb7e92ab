"""What a certified data set says, in sentences."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from boundlab.bounds.problem import Rigour
from boundlab.certify.certification import Certification, Settings
from boundlab.certify.explained import Explained
from boundlab.certify.record import Record, Status
from boundlab.reports.certified.pictures import is_picture
from boundlab.table import percent, plural, radius

ABOUT = {
    Rigour.CHECKED: ("with all rounding counted in, about the ONNX file itself as a function of real numbers, and derived "
                     "again by the independent checker"),
    Rigour.SOUND: "with all rounding counted in, about the captured network as a function of real numbers",
    Rigour.FLOAT32: "with all rounding counted in, about the network as it runs in float32, in any order of summation",
    Rigour.FLOAT: "in ordinary floating point, rounding not counted in, which is less than a proof",
}

NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


@dataclass(frozen=True)
class Names:
    """What classes are called: by their numbers where `classes` has no name for them."""

    classes: Sequence[str] = ()

    def of(self, label: int) -> str:
        """The name of a class."""
        return self.classes[label] if 0 <= label < len(self.classes) else str(label)



def counted(number: int, whole: int) -> str:
    """A number of a whole, with its share."""
    return f"{number:,} ({percent(number / whole)})"



def be(number: int) -> str:
    """The verb of so many things."""
    return "is" if number == 1 else "are"


def called(record: Record) -> str:
    """What an example is called: its number, and its name if it has one."""
    return f"#{record.index}" if record.name is None else f"#{record.index} ({record.name})"


def part_of(found: Certification) -> str:
    """What one number of an input is."""
    return "pixel" if is_picture(found.inputs.shape) else "feature"


def change(found: Certification, eps: float) -> str:
    """The changes that a ball of a radius holds."""
    p, part = found.settings.p, part_of(found)
    if math.isinf(p):
        return f"any change of up to {radius(eps)} in each {part}"
    if p == 1:
        return f"any change of up to {radius(eps)} in the sum over all {part}s"
    return f"any change of up to {radius(eps)} in {'the Euclidean norm' if p == 2 else f'the norm of order {p:g}'}"


def domain(settings: Settings) -> str:
    """Which inputs are meant."""
    return "any numbers" if settings.clip is None else f"numbers from {settings.clip[0]:g} to {settings.clip[1]:g}"


def statuses(found: Certification, eps: float) -> Counter[Status]:
    """How many examples have each status at a radius."""
    return Counter(record.status for record in found.by_eps[eps])


def rigours(found: Certification) -> Counter[Rigour]:
    """How many questions are certified with each rigour."""
    return Counter(record.finding.rigour for record in found.records
                   if record.status is Status.CERTIFIED and record.finding.rigour is not None)


def proven(found: Certification) -> str:
    """What may be said of what is certified: it is proven, unless rounding was not counted."""
    return "certified in floating point" if Rigour.FLOAT in rigours(found) else "proven"


def headline(found: Certification) -> str:
    """How many inputs are certified at the smallest radius, and at the largest."""
    first, last = found.settings.eps[0], found.settings.eps[-1]
    count = len(found.by_eps[first])
    safe = [statuses(found, eps)[Status.CERTIFIED] for eps in (first, last)]
    one = (f"Of {plural(count, 'input')}, {counted(safe[0], count)} {be(safe[0])} {proven(found)} to keep "
           f"{'its' if safe[0] == 1 else 'their'} class under {change(found, first)}")
    return f"{one}." if first == last else f"{one}, and {counted(safe[1], count)} under up to {radius(last)}."


def remainder(found: Certification) -> str:
    """What became of the inputs that are not certified at the largest radius."""
    last = found.settings.eps[-1]
    count, number = len(found.by_eps[last]), statuses(found, last)
    broken = number[Status.FALSIFIED]
    told = [f"{counted(broken, count)} provably {'does' if broken == 1 else 'do'} not keep it: a changed input of another "
            "class was found and checked" if broken else "no counterexample was found",
            f"{counted(number[Status.MISCLASSIFIED], count)} {be(number[Status.MISCLASSIFIED])} misclassified as given"]
    open_ones = number[Status.UNKNOWN] + number[Status.FAILED]
    failed = f", {number[Status.FAILED]:,} of them because the computation failed" if number[Status.FAILED] else ""
    told.append("nothing is open" if open_ones == 0 else
                f"{counted(open_ones, count)} {be(open_ones)} open: neither was found{failed}")
    return f"At {radius(last)}, {'; '.join(told)}."


def unasked_sentence(found: Certification) -> str:
    """What an interrupted run has left open; empty for others."""
    count, whole = found.unasked, len(found.records)
    return (f"The run was interrupted: {counted(count, whole)} of its {whole:,} questions {be(count)} not decided, and count "
            "as open." if count else "")


def rigour_sentence(found: Certification) -> str:
    """How what is certified was proven, and about what."""
    by = rigours(found)
    if not by:
        return "Nothing is certified, so nothing is claimed."
    if len(by) == 1:
        return f"{'Certified' if Rigour.FLOAT in by else 'Proven'} {ABOUT[next(iter(by))]}."
    return "; ".join(f"{plural(by[rigour], 'answer')} {ABOUT[rigour]}" for rigour in Rigour if rigour in by) + "."


def limits_sentence(found: Certification) -> str:
    """What is not said."""
    count = len(found.by_eps[found.settings.eps[0]])
    return (f"This is about {'this input' if count == 1 else f'these {count:,} inputs'} and changes of this kind. It does not "
            "say how the network does on other inputs, nor whether the labels are right.")


def explanation(found: Certification, one: Explained, names: Names) -> str:
    """What the table of layers is about."""
    record = next(record for record in found.by_eps[one.eps] if record.index == one.index)
    kind = "proof that is barest" if record.status is Status.CERTIFIED else "open question that is nearest to a proof"
    return (f"The {kind}: input {called(record)} of class {names.of(record.label)} at {radius(one.eps)}. CROWN bounds its "
            f"margin over class {names.of(one.other)} from below by {one.losses.bound:.4g}; at the input where lines attain "
            f"that, the network's own margin is {one.losses.value:.4g}. A layer loses what the bound would gain there if "
            "this layer alone were not replaced by lines. Searches split where much is lost.")


def reasons(found: Certification, status: Status) -> Iterator[tuple[str, int]]:
    """Why questions have no answer, and how many, most frequent first; reasons that differ in numbers alone are one."""
    kinds: dict[str, Counter[str]] = {}
    for record in found.records:
        if record.status is status:
            text = record.finding.reason or "no reason was given"
            kinds.setdefault(NUMBER.sub("…", text), Counter())[text] += 1
    for kind, texts in sorted(kinds.items(), key=lambda item: -item[1].total()):
        yield next(iter(texts)) if len(texts) == 1 else kind, texts.total()


def one_line(text: str) -> str:
    """Text in one line of characters that XML, YAML and JSON all can hold; others become spaces."""
    return " ".join("".join(sign if sign.isprintable() and not "\ud800" <= sign <= "\udfff" else " " for sign in text).split())


def outcome(record: Record, names: Names) -> str:
    """What became of a question that is not certified, in one clause."""
    label, adversary = names.of(record.label), record.finding.adversary
    if record.status is Status.FALSIFIED:
        other = "another class" if adversary is None else f"class {names.of(adversary.label)}"
        return f"an input of the ball is given {other} instead of {label}; it was replayed, and judged in exact arithmetic"
    if record.status is Status.MISCLASSIFIED:
        said = "another class the same score" if record.predicted == record.label else f"class {names.of(record.predicted)}"
        return f"the example itself is given {said}; its label is {label}"
    what = "neither proven nor refuted" if record.status is Status.UNKNOWN else "the computation failed, so nothing is claimed"
    return f"{what}: {record.finding.reason or 'no reason was given'}"
