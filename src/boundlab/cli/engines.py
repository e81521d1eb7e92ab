"""The options that choose an engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from boundlab.engines.cluster import Ray
from boundlab.engines.engine import Engine, Serial
from boundlab.engines.pool import Pool

Kind = Annotated[Literal["serial", "pool", "ray"], typer.Option(help=(
    "What runs tasks: this process, processes of this machine, or a Ray cluster."))]
Workers = Annotated[int | None, typer.Option(min=1, help="Processes of the engine; of a pool, 2 by default.")]
Address = Annotated[str | None, typer.Option(help="Of a Ray cluster that is there already.")]


@dataclass(frozen=True)
class EngineChoice:
    """What runs tasks."""

    engine: Kind = "pool"
    workers: Workers = None
    address: Address = None

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """The engine, with its processes."""
        if self.engine == "serial":
            yield Serial()
        elif self.engine == "pool":
            with Pool(self.workers or 2).open() as pool:
                yield pool
        else:
            with Ray(self.address, self.workers).open() as cluster:
                yield cluster
