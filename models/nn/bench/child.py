"""Measurements in fresh processes: memory, thread pools and caches of one do not reach the next.

Nothing here imports torch, and what is measured for boxes must not either: its memory would be counted.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any


class NotHere(Exception):
    """The variant cannot run on this machine; the text says why."""


def in_child(work: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `work` in a fresh process.

    Raises:
        NotHere: the work said so.
        RuntimeError: the process ended without an answer, e.g. killed for memory.
    """
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(theirs, work, arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        answer = ours.recv()
    except EOFError as ended:
        process.join()
        raise RuntimeError(f"the measuring process ended with code {process.exitcode}") from ended
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _child(answer: Connection, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    os.dup2(2, 1)  # quantizers print tables, and standard output is the bench's own
    logging.disable(logging.INFO)
    try:
        answer.send(work(*arguments))
    except NotHere as reason:
        answer.send(reason)
    except Exception as fault:  # noqa: BLE001 - the child's outermost edge: the parent is told
        answer.send(RuntimeError(f"{type(fault).__name__}: {fault}"))
