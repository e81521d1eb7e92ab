"""boundlab certify: which share of a data set is provably safe, how far, and where the network fails."""

from __future__ import annotations

import math
import shlex
import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
import typer

import boundlab as bl
from boundlab.capture.normalised import Normalisation, Normalised, normalised_onnx
from boundlab.certify.carried import of_onnx
from boundlab.certify.certification import Certification, Interrupted
from boundlab.certify.certify import certify as library
from boundlab.certify.export import save_certification
from boundlab.certify.plan import Jobs, Plan, Progress
from boundlab.cli.answer import FALSIFIED, OK, UNKNOWN, Answer
from boundlab.cli.engines import EngineChoice
from boundlab.cli.loading import NetworkChoice, find_network, norm_of, quotient
from boundlab.cli.methods import METHODS, NAMES, method_named
from boundlab.cli.modules import Shape
from boundlab.cli.question import on_disk
from boundlab.cli.verb import Misuse, Session, resumable
from boundlab.cli.verify import Meaning, Strict, rigour_of
from boundlab.data.examples import Examples, Part
from boundlab.data.read import KINDS, read_examples
from boundlab.errors import MissingPackage
from boundlab.reports.certified.page import HTML, save_report
from boundlab.reports.certified.tables import by_class, by_method
from boundlab.reports.certified.words import Names
from boundlab.table import percent, radius
from boundlab.verify.sound import Original
from boundlab.verify.verify import LADDER, Stage
from boundlab.whole_file import write_whole

Data = Annotated[Path, typer.Option(help=f"Labelled inputs: {KINDS}.")]
Eps = Annotated[str, typer.Option(help="Radius of the balls, or several with commas between, such as 0.01,8/255.")]
Norm = Annotated[str, typer.Option(help="Norm of the balls: inf, 1, 2 or another p from 1 on.")]
Half = Annotated[Literal["train", "test"], typer.Option("--part", help="Which part, if the data has both.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Only so many examples, the first ones.")]
Domain = Annotated[tuple[float, float], typer.Option("--clip", metavar="LOW HIGH", help=(
    "Between which numbers inputs lie; `--clip -inf inf` for any."))]
Mean = Annotated[str | None, typer.Option(help=(
    "Inputs become (x - mean) / std before the network: a number, or one a channel with commas between. Radii are of x."))]
Std = Annotated[str | None, typer.Option(help="See --mean.")]
Methods = Annotated[list[str] | None, typer.Option("--method", help=(
    f"ladder, attack, complete, or one of {NAMES}; several times for several, cheap ones first. By default the ladder of "
    "`verify`: attacks, ibp, crown-ibp, crown, and a complete search."))]
Timeout = Annotated[float, typer.Option(help="Seconds for each question: an example at a radius.")]
Memory = Annotated[str | None, typer.Option(help="What the process of a question may allocate, such as 4GB.")]
Batch = Annotated[int, typer.Option(min=1, help=(
    "Questions at a time for all but searches: more are faster, fewer are lost by a kill."))]
Retry = Annotated[bool, typer.Option("--retry-failed", help="Try again what has failed in an earlier run with this folder.")]
Out = Annotated[Path, typer.Option(help="Folder for records, and for the ledger from which the same command goes on.")]
FailUnder = Annotated[float | None, typer.Option(min=0, max=1, help=(
    "Exit code 0 only if so large a share is certified at every radius; 10 if that is refuted, else 20."))]
EXTRA: dict[str, Stage] = {"attack": bl.PGD(), "complete": bl.Race()}
LEDGER, NORMALISED = "ledger.sqlite", "normalised.onnx"
EVERY = 10.0
"""Seconds between two lines of progress where no person watches."""
MOST_CLASSES, MOST_CONFUSIONS = 20, 5
"""Rows and entries that are shown to people."""


@dataclass(frozen=True)
class Asked:
    """The examples and the balls around them."""

    data: Data
    eps: Eps
    norm: Norm = "inf"
    clip: Domain = (0.0, 1.0)
    part: Half = "test"
    limit: Limit = None
    mean: Mean = None
    std: Std = None

    def normalisation(self) -> Normalisation | None:
        """What --mean and --std say; None without them."""
        if self.mean is None and self.std is None:
            return None
        return Normalisation(numbers("--mean", self.mean or "0"), numbers("--std", self.std or "1"))

    def examples(self) -> Examples:
        """The examples that are asked about."""
        found = read_examples(self.data, Part(self.part))
        return found if self.limit is None else found.take(range(min(self.limit, len(found))))

    def radii(self) -> tuple[float, ...]:
        """The numbers of --eps."""
        return numbers("--eps", self.eps)


def numbers(option: str, text: str) -> tuple[float, ...]:
    """The numbers of an option, where 8/255 is the quotient of two."""
    try:
        return tuple(quotient(part) for part in text.split(","))
    except ValueError as problem:
        raise Misuse(f"{option} '{text}' is no number, nor numbers with commas between, such as 0.01,8/255.") from problem


@dataclass(frozen=True)
class How:
    """How questions are decided."""

    method: Methods = None
    timeout: Timeout = 60.0
    memory: Memory = None
    rigour: Strict = "sound"
    semantics: Meaning = "real"
    batch: Batch = 32
    retry_failed: Retry = False


POOL = EngineChoice()
"""Two processes of this machine."""


@dataclass(frozen=True)
class Output:
    """Where results go, and which share has to be certified."""

    out: Out
    fail_under: FailUnder = None


def certify(session: Session, network: NetworkChoice, asked: Asked, output: Output, how: How = How(),
            engines: EngineChoice = POOL) -> Answer:
    """Certify a data set: which share of its inputs is provably safe, how far, and where the network fails.

    The folder --out holds the records and a ledger: interrupted or killed at any time, the same command goes on from there.
    Exit codes: 0 done (and with --fail-under proven), 10 refuted, 20 not decided, 2 bad request.
    """
    plan, radii, examples = plan_of(asked, how), asked.radii(), asked.examples()
    output.out.mkdir(parents=True, exist_ok=True)
    original, normalised = original_of(session, network, asked.normalisation(), lambda: tuple(examples.x.shape[1:]))
    if normalised is not None:
        write_whole(output.out / NORMALISED, normalised)
    kept = f"what is done is kept in '{output.out}', and the same command goes on there"
    with resumable(lambda: f"{kept}."):
        try:
            with engines.open() as engine, watching(session, radii) as watch:
                jobs = Jobs(engine, output.out / LEDGER, session.device, watch, how.retry_failed)
                found = library(original, examples, radii, plan, jobs)
        except Interrupted as stop:
            written, _ = saved(named(stop.found, network, asked), output.out)
            told = next((path for path in written if path.name == HTML), written[-1])
            raise KeyboardInterrupt(f"{str(stop).rstrip('.')}; {kept}; '{told}' says what is known so far.") from stop
        found = named(found, network, asked)
        written, lacking = saved(found, output.out)
    return answer(found, written, output.fail_under, lacking)


def named(found: Certification, network: NetworkChoice, asked: Asked) -> Certification:
    """With the command, and with what it calls network and data."""
    command = shlex.join(["boundlab", *sys.argv[1:]])
    return replace(found, settings=replace(found.settings, command=command, network_name=Path(network.net).name,
                                           data_name=asked.data.resolve().name))


def saved(found: Certification, folder: Path) -> tuple[tuple[Path, ...], list[str]]:
    """All files, the report among them; which were written, and what to say of one that was not."""
    written = save_certification(found, folder)
    try:
        return written + save_report(found, folder), []
    except MissingPackage as problem:
        return written, [f"There is no report: {problem} Then: boundlab report {shlex.quote(str(folder))}"]


def original_of(session: Session, network: NetworkChoice, normalisation: Normalisation | None, like: Callable[[], Shape]
                ) -> tuple[Original, bytes | None]:
    """The network, behind the normalisation of its input if one is asked for; of an ONNX file also a copy that has it."""
    if normalisation is None:
        return on_disk(network.net, network.load(session, like=like)), None
    found = find_network(network, like)
    if isinstance(found.net, Path):
        content = normalised_onnx(found.net, normalisation)
        return of_onnx(content), content
    module = Normalised(found.net, normalisation, found.example[0].shape[1:])
    return Original(bl.capture(module.eval(), *found.example).detached().to(torch.device(session.device))), None


def plan_of(asked: Asked, how: How) -> Plan:
    """The plan that the options ask for."""
    if norm_of(asked.norm) == 0:
        raise Misuse("certify is for balls of a norm from 1 on; for --norm 0 see `boundlab radius`.")
    stages = LADDER if how.method is None else tuple(stage for name in how.method for stage in stage_named(name))
    clip = None if asked.clip == (-math.inf, math.inf) else asked.clip
    return Plan(norm_of(asked.norm), clip, stages, rigour_of(how.rigour, how.semantics), how.timeout, how.memory,
                how.batch)


def stage_named(name: str) -> tuple[Stage, ...]:
    """The stages that a name of --method stands for."""
    if name == "ladder":
        return LADDER
    if name in EXTRA:
        return (EXTRA[name],)
    if name not in METHODS:
        raise Misuse(f"there is no method '{name}'; choose ladder, attack, complete, or one of {NAMES}.")
    return (method_named(name),)


@contextmanager
def watching(session: Session, radii: tuple[float, ...]) -> Iterator[Callable[[Progress], None] | None]:
    """What is told of progress: a line that changes where a person watches, else a line now and then; nothing for a program."""
    if session.quiet:
        yield None
        return
    with session.working("certifying") as say:
        said = 0.0

        def tell(progress: Progress) -> None:
            nonlocal said
            text = progress_text(progress, sorted(set(radii)))
            say(text)
            if not sys.stderr.isatty() and progress.seconds - said >= EVERY:
                said = progress.seconds
                print(text, file=sys.stderr, flush=True)

        yield tell


def progress_text(progress: Progress, radii: list[float]) -> str:
    """How far a run is, in one line: answers, how fast, how long, and what is known of the robust accuracy so far."""
    left = f" at {progress.rate:.1f}/s, about {duration(progress.left)}" if progress.waiting and progress.rate else ""
    known = ", ".join(f"{percent(low).removesuffix(' %')} to {percent(high)} at {radius(eps)}" for eps, low, high in
                      zip(radii, progress.certified, progress.attacked, strict=True))
    return (f"{progress.seconds:.1f} s  {progress.answered}/{progress.questions} answered, step {progress.rung} of "
            f"{progress.rungs}: {progress.waiting} waiting{left}; robust accuracy so far {known}")


def duration(seconds: float) -> str:
    """Seconds for people."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def answer(found: Certification, written: tuple[Path, ...], fail_under: float | None, more: Sequence[str] = ()) -> Answer:
    """The tables, the sentences that answer the question, the files, and the exit code."""
    data = found.record() | {"fail_under": fail_under, "files": [str(path) for path in written]}
    said = [*sentences(found), *demanded(found, fail_under), *more, f"Written: {', '.join(map(str, written))}"]
    tables = (found.accuracies(), by_method(found), by_class(found, MOST_CLASSES, Names()))
    return Answer(data, tables, tuple(said), exit_code(found, fail_under))


def sentences(found: Certification) -> Iterator[str]:
    """Which share is safe, how far, and where it fails."""
    last = found.shares[-1]
    rigour = "rounding not counted" if found.settings.rigour == "float" else "all rounding counted in"
    yield (f"At eps {radius(last.eps)} between {percent(last.certified)} and {percent(last.attacked)} of "
           f"{last.examples} inputs keep their label ({rigour}); {percent(last.clean)} have it without perturbation.")
    reach, whole = [one.certified or 0.0 for one in found.reach], [one.certified == last.eps for one in found.reach]
    yield (f"Of the radii asked for, the median of the largest that is certified is {radius(statistics.median_low(reach))}; "
           f"{percent(sum(whole) / len(whole))} go as far as {radius(last.eps)}.")
    confusions = sorted(found.confusions(last.eps).items(), key=lambda item: -item[1])[:MOST_CONFUSIONS]
    if confusions:
        yield "Counterexamples most often turn " + ", ".join(f"{a} into {b} ({count})" for (a, b), count in confusions) + "."
    if last.clean < 2 / found.classes:
        yield "So few right answers may mean that the network expects other inputs, such as normalised ones: --mean, --std."
    for reason, count in found.failures.items():
        yield f"{count} failed: {reason}"


def demanded(found: Certification, fail_under: float | None) -> Iterator[str]:
    """What has become of --fail-under."""
    if fail_under is not None:
        words = {OK: "is certified", FALSIFIED: "is refuted", UNKNOWN: "is not decided"}
        yield f"That {100 * fail_under:g} % are safe at every radius {words[exit_code(found, fail_under)]}."


def exit_code(found: Certification, fail_under: float | None) -> int:
    """0 unless a share is asked for: 10 if counterexamples refute it at some radius, 20 if it is not certified at every one."""
    if fail_under is None or all(one.certified >= fail_under for one in found.shares):
        return OK
    return FALSIFIED if any(one.attacked < fail_under for one in found.shares) else UNKNOWN
