"""A ledger: a file of results that were computed once and never need be again."""

from __future__ import annotations

import hashlib
import io
import json
import sqlite3
import zipfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from boundlab.engines.engine import Engine, Stream
from boundlab.engines.shared import LARGE, Shared, digest_of, shared_of
from boundlab.engines.task import Arrays, Function, check_tasks, name_elsewhere
from boundlab.errors import EngineError, TaskError

APPLICATION = 0x626C6C67
"""Stands in the file's header, so that the file of another program is known for what it is."""
FORMAT = 1
PATIENCE = 60.0
"""Seconds to wait while another process writes; it holds the file for one result at a time."""


def any_result(result: Arrays) -> bool:
    """Every result is kept."""
    return True


@dataclass(frozen=True)
class Recorded:
    """An engine beside a ledger: what the file `path` holds is read, the rest is computed and written, each result as it comes.

    A result is found again under the function's name, `version`, and the task's arrays to the last bit. So change `version`
    whenever the function's code changes in a way that changes results. Several processes of one machine may share the file; it
    should lie on a disk of that machine. Only the process that consumes the stream touches it, workers do not. Results for
    which `keeps` is False are given and not written, so they are computed again; recorded ones for which `trusts` is False are
    computed again, too, and replaced.
    """

    engine: Engine
    path: str | Path
    version: str = ""
    keeps: Callable[[Arrays], bool] = any_result
    trusts: Callable[[Arrays], bool] = any_result

    def stream(self, function: Function, tasks: Sequence[Arrays]) -> Stream:
        """As `Engine.stream`, recorded results first; EngineError if the file is no ledger or is damaged."""
        name = name_elsewhere(function)
        check_tasks(tasks)
        shared = shared_of(tasks)
        return self._stream(function, [key_of(name, self.version, task, shared) for task in tasks], tasks)

    def _stream(self, function: Function, keys: list[bytes], tasks: Sequence[Arrays]) -> Stream:
        with open_ledger(Path(self.path)) as ledger:
            missing: dict[bytes, list[int]] = {}
            for place, key in enumerate(keys):
                known = None if key in missing else ledger.read(key)
                if known is None or not self.trusts(known):
                    missing.setdefault(key, []).append(place)
                else:
                    yield place, known
            groups = list(missing.values())
            with closing(self._compute(function, [tasks[places[0]] for places in groups], groups)) as computed:
                for number, result in computed:
                    places = groups[number]
                    if self.keeps(result):
                        ledger.write(keys[places[0]], result)
                    for place in places:  # equal tasks are computed once
                        yield place, result if place == places[0] else {name: array.copy() for name, array in result.items()}

    def _compute(self, function: Function, tasks: Sequence[Arrays], groups: Sequence[Sequence[int]]) -> Stream:
        """What the engine finds for the missing tasks, with their places among all tasks in its errors."""
        if not tasks:
            return
        try:
            yield from self.engine.stream(function, tasks)
        except TaskError as problem:
            error = TaskError(groups[problem.place][0], problem.reason, problem.kind)
            raise error from problem


def key_of(name: str, version: str, task: Arrays, shared: Shared | None = None) -> bytes:
    """The SHA-256 of all that determines a result: function, version, and each array's name, type, shape and bytes.

    Large arrays stand in it by their own hash, which is computed once for those that several tasks share.
    """
    digest = hashlib.sha256()

    def add(part: bytes) -> None:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)

    for text in (name, version):
        add(text.encode())
    for key in sorted(task):
        array = task[key]
        kind = repr((np.lib.format.dtype_to_descr(array.dtype), array.shape)).encode()
        known = None if shared is None else shared.token(array)
        content = array.tobytes() if array.nbytes < LARGE else known or digest_of(array)
        for part in (key.encode(), kind, content):
            add(part)
    return digest.digest()


def pack(arrays: Arrays) -> bytes:
    """The arrays as the bytes of an npz file; their names are an array too, because not every name can be a file's."""
    file = io.BytesIO()
    names = np.frombuffer(json.dumps(list(arrays)).encode(), np.uint8)
    np.savez(file, allow_pickle=False, names=names, **{str(place): array for place, array in enumerate(arrays.values())})
    return file.getvalue()


def unpack(value: bytes) -> dict[str, np.ndarray]:
    """What `pack` packed, bit for bit."""
    with np.load(io.BytesIO(value), allow_pickle=False) as file:
        names = json.loads(file["names"].tobytes())
        return {name: file[str(place)] for place, name in enumerate(names)}


@dataclass(frozen=True)
class Ledger:
    """An open ledger file; made by `open_ledger`."""

    connection: sqlite3.Connection
    path: Path

    def read(self, key: bytes) -> dict[str, np.ndarray] | None:
        """The result under a key, None if there is none; EngineError if it is not what was written."""
        row = self.connection.execute("SELECT value, digest FROM results WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        value, digest = row
        try:
            if digest == seal(key, value):
                return unpack(value)
        except (TypeError, ValueError, KeyError, zipfile.BadZipFile):
            pass
        raise EngineError(f"the ledger '{self.path}' is damaged: a result in it is not the one that was written; move the "
                          "file away and run again, which computes everything anew, or put back a copy that is whole.")

    def write(self, key: bytes, result: Arrays) -> None:
        """Adds a result, or replaces that of the same task, and commits it."""
        value = pack(result)
        row = (key, value, seal(key, value))
        self.connection.execute("INSERT OR REPLACE INTO results (key, value, digest) VALUES (?, ?, ?)", row)


def seal(key: bytes, value: bytes) -> bytes:
    """What shows that this value was written under this key."""
    return hashlib.sha256(key + value).digest()


@contextmanager
def open_ledger(path: Path) -> Generator[Ledger, None, None]:
    """The ledger in a file, which is made if it is not there; EngineError for other files and whatever SQLite refuses."""
    try:
        with closing(sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)) as connection:
            prepare(connection, path)
            yield Ledger(connection, path)
    except sqlite3.Error as problem:
        raise EngineError(f"the ledger '{path}' cannot be used ({problem}); if it is damaged or no ledger, move it away and "
                          "run again, if its folder is missing, full or not writable, choose another path.") from problem


def prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Makes the table of a new ledger; EngineError for a file that is not ours, which is left as it is."""
    if not is_ours(connection, path):
        # WAL: a commit needs no wait for the disk and survives the death of any process.
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if not is_ours(connection, path):  # another process may have made it since
            connection.execute("CREATE TABLE results (key BLOB PRIMARY KEY, value BLOB NOT NULL, digest BLOB NOT NULL)")
            connection.execute(f"PRAGMA application_id = {APPLICATION}")
            connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")
    connection.execute("PRAGMA synchronous = NORMAL")


def is_ours(connection: sqlite3.Connection, path: Path) -> bool:
    """Whether the file is a ledger, False for a new file; EngineError for a database of something else."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if (application, version) == (APPLICATION, FORMAT):
        return True
    if (application, version, tables) == (0, 0, 0):
        return False
    raise EngineError(f"'{path}' is a database, but not a ledger of this version of boundlab (application {application}, "
                      f"format {version}, {tables} tables); choose another path.")
