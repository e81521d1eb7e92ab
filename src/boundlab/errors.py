"""One error family: what was asked, what was found, what to do."""


class BoundlabError(Exception):
    """Base of every error that boundlab raises for a user's mistake or an unsupported request."""


class UnsupportedOperator(BoundlabError):
    """The network uses an operator that nobody has registered."""


class MissingRule(BoundlabError):
    """A registered operator, or a perturbation set, lacks the rule that a method needs."""


class ShapeError(BoundlabError):
    """Shapes of network, set and specification do not fit together."""


class BoundError(BoundlabError):
    """A bound came out NaN, infinite, or with its lower end above its upper end.

    `failed` says for which problems of the batch that was bounded, where that is known.
    """

    def __init__(self, message: str, failed: tuple[bool, ...] | None = None) -> None:
        super().__init__(message)
        self.failed = failed


class OutOfTime(BoundlabError):
    """A deadline came before the work was done."""


class SpecError(BoundlabError):
    """A specification or perturbation set is malformed, empty or contradictory."""


class CaptureError(BoundlabError):
    """A network could not be turned into a graph, or the graph disagrees with the network."""


class DataError(BoundlabError):
    """A data set is missing, damaged, empty, or does not fit together or to the network."""


class CertificateError(BoundlabError):
    """A certificate is damaged, does not fit its network or query, or needs what the checker does not know."""


class CheckpointError(BoundlabError):
    """A checkpoint is damaged, or is about another network."""


class RecipeError(BoundlabError):
    """A recipe of training is missing, or is not valid."""


class MissingPackage(BoundlabError):
    """An optional package, or its licence, is needed; the message says what installs it."""


class ConformanceError(BoundlabError, AssertionError):
    """A suite of `boundlab.testing` found a law that an operator, a map or a perturbation set breaks."""


class EngineError(BoundlabError):
    """An engine cannot run what it was given, its workers do not live, or a ledger cannot be trusted."""


class TaskError(EngineError):
    """One task of many failed; `place` says which, counted from 0 in the order that the tasks were given in.

    `kind` is the class of the error, if the task raised one of this file that takes a sentence.
    """

    def __init__(self, place: int, reason: str, kind: type[BoundlabError] | None = None) -> None:
        super().__init__(place, reason, kind)
        self.place, self.reason, self.kind = place, reason, kind

    def __str__(self) -> str:
        return f"task {self.place}: {self.reason}"
