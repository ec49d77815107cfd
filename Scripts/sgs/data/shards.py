"""Share a list of samples among processes.

Processes are spawned, never forked: onnxruntime's threads do not survive a fork. The work function must be importable,
its arguments picklable. Results come back in the order of the shards, so callers that merge them get the same result
whatever the number of processes.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

from sgs.errors import UserError

Item = TypeVar("Item")
Result = TypeVar("Result")

WORTH_A_PROCESS = 64  # samples; starting a process costs about a second


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def process_count(asked: int, samples: int) -> int:
    """How many processes to use: what is asked, capped to the processors and to what the samples are worth."""
    return max(1, min(asked, processors(), math.ceil(samples / WORTH_A_PROCESS)))


def map_shards(
    work: Callable[[Sequence[Item], int], Result], items: Sequence[Item], processes: int, *, threads: int = 0
) -> Iterator[Result]:
    """Results of `work(shard, threads)` over contiguous shards of `items`, one per process, in order.

    With one process the work is done here, with all `threads`; else every process uses one thread. Raises UserError
    when a process is killed, which is what running out of memory looks like.
    """
    if processes <= 1:
        yield work(items, threads)
        return
    size = math.ceil(len(items) / processes)
    shards = [items[start : start + size] for start in range(0, len(items), size)]
    context = multiprocessing.get_context("spawn")
    try:
        with ProcessPoolExecutor(len(shards), mp_context=context) as pool:
            yield from pool.map(work, shards, [1] * len(shards))
    except BrokenProcessPool as error:
        reason = "a worker process was killed, most likely because memory ran out"
        raise UserError(reason, stage="processes", remedy="use a smaller --num_process") from error
