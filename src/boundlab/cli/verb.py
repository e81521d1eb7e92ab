"""What all verbs share: the options --json, --debug, --threads and --device, one-sentence errors, and exit codes."""

from __future__ import annotations

import inspect
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Annotated, Any, TypeVar, get_type_hints

import typer

from boundlab.cli.answer import INTERRUPTED, MISUSE, Answer, show
from boundlab.errors import BoundlabError

INTERNAL = 1
Item = TypeVar("Item")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]
DebugFlag = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
Threads = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: what torch chooses.")]
Device = Annotated[str, typer.Option("--device", help="Where tensors live: cpu, cuda, cuda:1, ...")]


class Misuse(BoundlabError):
    """The command line asks for something that cannot be done."""


@dataclass(frozen=True)
class Session:
    """What a verb may know of its surroundings: the device, whether a program listens, the threads that were asked for."""

    device: str = "cpu"
    quiet: bool = False
    threads: int | None = None

    @property
    def cores(self) -> int:
        """The CPU threads that were asked for, or that torch has chosen."""
        import torch

        return torch.get_num_threads()

    @contextmanager
    def working(self, text: str) -> Iterator[Callable[[str], None]]:
        """A context in which a spinner says what is being done, if a person watches; what it gives says more."""
        if self.quiet or not sys.stderr.isatty():
            yield lambda text: None
            return
        from rich.console import Console

        with Console(stderr=True).status(text) as status:
            yield status.update

    def track(self, items: Iterable[Item], total: int, text: str) -> Iterator[Item]:
        """The items as they come, with a progress bar if a person watches."""
        if self.quiet or not sys.stderr.isatty():
            yield from items
            return
        from rich.console import Console
        from rich.progress import track

        yield from track(items, description=text, total=total, console=Console(stderr=True))


LONGEST = 1000
"""Characters of an error that are shown; a damaged file may have names of any length."""


def sentence(problem: BaseException) -> str:
    """An error as one line, without its middle if it is very long."""
    text = sentence_of(problem)
    return text if len(text) <= LONGEST else f"{text[:LONGEST // 2]} ... {text[-LONGEST // 2:]}"


def sentence_of(problem: BaseException) -> str:
    """An error as one line."""
    if isinstance(problem, OSError) and problem.strerror:
        name = f"'{problem.filename}': " if problem.filename else ""
        return f"{name}{problem.strerror}."
    return " ".join(str(problem).split()) or type(problem).__name__


@contextmanager
def reported(debug: bool) -> Iterator[None]:
    """Errors as one sentence on standard error and an exit code; the traceback only where it was asked for."""
    try:
        yield
    except BrokenPipeError:  # the reader of our output has gone (`boundlab ops | head`): nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(0) from None
    except (BoundlabError, OSError) as problem:
        fail(sentence(problem), MISUSE, debug)
    except KeyboardInterrupt as problem:
        fail(str(problem) or "interrupted.", INTERRUPTED, debug)
    except typer.Exit:
        raise
    except Exception as problem:
        said = f"internal error, {type(problem).__name__}: {sentence(problem)}"
        fail(f"{said} This is a defect of boundlab; --debug shows where.", INTERNAL, debug)


def narrator(session: Session) -> Callable[[str], None]:
    """Lines on standard error that say what is being done and how long it has run."""
    started = time.perf_counter()

    def tell(text: str) -> None:
        if not session.quiet:
            print(f"{time.perf_counter() - started:5.1f} s  {text}", file=sys.stderr, flush=True)

    return tell


@contextmanager
def resumable(kept: Callable[[], str]) -> Iterator[None]:
    """Ctrl-C as a sentence that says what is kept, asked for when it comes, and how to go on."""
    try:
        yield
    except KeyboardInterrupt as problem:
        raise KeyboardInterrupt(str(problem) or f"interrupted; {kept()}") from problem


def fail(text: str, code: int, debug: bool) -> None:
    """Say what went wrong and leave."""
    if debug:
        traceback.print_exc()
    print(f"boundlab: {text}", file=sys.stderr)
    raise typer.Exit(code)


def session_of(device: str, threads: int | None, quiet: bool) -> Session:
    """The session that the options ask for; Misuse if there is no such device."""
    import torch

    if threads is not None:
        torch.set_num_threads(threads)
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as problem:
        raise Misuse(f"there is no device '{device}' here: {problem}") from problem
    return Session(device, quiet, threads)


def grouped(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The options that a parameter stands for: the fields of a dataclass, else itself."""
    if not is_dataclass(parameter.annotation):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    hints = get_type_hints(parameter.annotation, include_extras=True)
    return [inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=hints[field.name],
                              default=inspect.Parameter.empty if field.default is MISSING else field.default)
            for field in fields(parameter.annotation)]


def value_of(parameter: inspect.Parameter, options: Mapping[str, Any]) -> Any:
    """A parameter's value from those of the options that it stands for."""
    if not is_dataclass(parameter.annotation):
        return options[parameter.name]
    make: Callable[..., Any] = parameter.annotation  # type: ignore[assignment]
    return make(**{option.name: options[option.name] for option in grouped(parameter)})


def verb(function: Callable[..., Answer]) -> Callable[..., None]:
    """A function of a Session and its own options as a command that also takes the shared ones.

    A parameter whose type is a dataclass stands for one option a field: verbs that ask for the same things share a value.
    """
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]

    def run(*, as_json: bool, debug: bool, threads: int | None, device: str, **options: Any) -> None:
        with reported(debug):
            asked = {parameter.name: value_of(parameter, options) for parameter in own}
            answer = function(session_of(device, threads, as_json), **asked)
            show(answer, as_json)
            sys.stdout.flush()
            raise typer.Exit(answer.code)

    shared = (("as_json", JsonFlag, False), ("debug", DebugFlag, False), ("threads", Threads, None), ("device", Device, "cpu"))
    added = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
             for name, kind, default in shared]
    parameters = [option for parameter in own for option in grouped(parameter)] + added
    run.__signature__ = signature.replace(parameters=parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    run.__doc__ = function.__doc__
    run.__name__ = function.__name__
    return run
