"""Every tensor of a model of any stage: opening one."""

from __future__ import annotations

import os
from pathlib import Path

from sgs.compare.image_stage import ImageStage
from sgs.compare.sim_stage import SimStage
from sgs.compare.source_stage import Source, SourceStage
from sgs.compare.stage import STAGE, Stage, StageTensor
from sgs.config.input_config import InputConfig
from sgs.errors import UserError
from sgs.frontends.platforms import platform_of
from sgs.simulation import Simulator

__all__ = ["Source", "Stage", "StageTensor", "open_stage"]


def open_stage(
    path: str | os.PathLike[str],
    *,
    config: InputConfig | None = None,
    source: Source | None = None,
    stage: str = STAGE,
) -> Stage:
    """The stage of a .sim, an .img, or a source model, which needs its ini.

    Args:
        source: what is meant of a source model; those that a file alone tells may go without.
        stage: the program, for messages.

    Raises:
        UserError: it cannot be read, or is of a platform that has to be told more than the file.
    """
    path = Path(path)
    if source is None and (row := platform_of(path, stage=stage)) is not None:
        source = Source(row.name, {"model_file": path})
    if source is not None:
        if config is None:
            reason = "is a source model, whose inputs an ini has to describe"
            raise UserError(reason, stage=stage, file=path, remedy="give its --input_config")
        return SourceStage(source, config)
    simulator = Simulator(path)
    return SimStage(simulator) if simulator.image is None else ImageStage(simulator)
