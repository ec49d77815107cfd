"""--scheduler: the workers of a Dask cluster in place of processes of this machine."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sgs.data.images import Sample
from sgs.data.shards import Pool

_log = logging.getLogger(__name__)


@contextmanager
def cluster_at(
    address: str | None, files: Iterable[Path], samples: Sequence[Sample], folders: Iterable[Path] = ()
) -> Iterator[Pool | None]:
    """The workers at the address, None without one. Raises UserError where there are none, and for workers that do not
    have the files, or not the samples, or cannot write into the folders."""
    if address is None:
        yield None
        return
    from sgs.data.cluster import Cluster, find_distributed

    find_distributed()
    with _quiet(), Cluster(address) as cluster:
        cluster.check(files, samples, folders)
        _log.info("cluster %s: %d workers, %d threads in each", address, len(cluster), cluster.threads)
        yield cluster


@contextmanager
def _quiet() -> Iterator[None]:
    """What Dask itself has to say is shown with --show_log only: a lost worker is replaced, or ends the run."""
    loggers = [logging.getLogger(name) for name in ("distributed", "distributed.client")]
    levels = [logger.level for logger in loggers]
    if not _log.isEnabledFor(logging.INFO):
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
