"""simulator: run a float .sim, a fixed .sim or an .img on samples; a result file for each, top-1 with labels."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from sgs.cli.options import add_category, add_common, add_later, add_samples, check_category, one_of, start_log
from sgs.cli.program import Parser, run
from sgs.cli.progress import progress
from sgs.config.chips import load_chip
from sgs.data.files import STAGE, atomic_output, check_output
from sgs.data.images import Sample, resolve_samples
from sgs.data.preprocess import Preprocessor, load_preprocessors
from sgs.data.shards import map_shards, process_count
from sgs.errors import UserError
from sgs.numeric.quantise import Array
from sgs.report.results import Labels, Ranked, classification_text, picture_names, ranked, result_name, unknown_text
from sgs.simulation import KINDS, Simulator

Named = tuple[Sample, str]  # a sample and what its results are called


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def _parser() -> Parser:
    parser = Parser(prog="simulator.py", description="Run a float .sim, a fixed .sim or an offline .img on samples.")
    parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="FILE", required=True, help="the model")
    add_samples(parser, purpose="samples to run")
    add_category(parser, default="Unknown", purpose="what the results look like (default: Unknown, every value)")
    text = "Float, Fixed or Offline, to be sure; it is read from the file"
    parser.add_argument("-t", "--type", metavar="KIND", type=one_of(KINDS), help=text)
    text = "classes of the pictures, for top-1: `<path> <index>` a line, or a csv that begins with the two"
    parser.add_argument("-l", "--label", metavar="FILE", help=text)
    parser.add_argument(
        "--output", metavar="DIR", default=".", help="folder of the result files (default: the current one)"
    )
    text = "also write what the model was fed, as raw bytes: rawdata_<model>_<picture>_<input>.bin"
    parser.add_argument("--dump_rawdata", action="store_true", help=text)
    add_common(parser, chip_required=False)
    add_later(parser, "--draw_result")
    return parser


@dataclass(frozen=True)
class _Job:
    """What a process needs to run its share of the samples and write their results."""

    simulator: Simulator
    preprocessors: tuple[Preprocessor, ...]
    category: str
    folder: Path
    dump: bool

    def run(self, samples: Sequence[Sample], names: Sequence[str]) -> Iterator[Ranked]:
        """Writes the files of each sample; gives its best classes, none for other categories."""
        results = self.simulator.simulate(self.preprocessors, samples)
        for name, (_, feeds, outputs) in zip(names, results, strict=True):
            real = {port.name: port.real(outputs[port.name]) for port in self.simulator.outputs}
            best: Ranked = []
            if self.category == "Classification":
                best = ranked(next(iter(real.values())))
                text = classification_text(name, best)
            else:
                text = unknown_text(real)
            if self.dump:
                self._dump(name, feeds)
            with atomic_output(self.folder / result_name(self.category, self.simulator.path, name)) as temporary:
                temporary.write_text(text, encoding="utf-8")
            yield best

    def _dump(self, name: str, feeds: dict[str, Array]) -> None:
        for index, values in enumerate(feeds.values()):
            with atomic_output(self.folder / f"rawdata_{self.simulator.path.name}_{name}_{index}.bin") as temporary:
                temporary.write_bytes(values.tobytes())


def _shard(job: _Job, named: Sequence[Named], threads: int) -> list[Ranked]:
    """One process's share."""
    job.simulator.threads = threads
    return list(job.run([sample for sample, _ in named], [name for _, name in named]))


def _body(argv: list[str]) -> int:
    options = _parser().parse_args(argv)
    start_log(options)
    if options.category == "Detection":
        reason = "-c Detection is not available in this version"
        raise UserError(reason, stage="simulator.py", remedy="use -c Unknown, which writes every output value")
    simulator = Simulator(options.model)
    _check(simulator, options)
    samples = resolve_samples(options.image, len(simulator.inputs))
    preprocessors = tuple(load_preprocessors(options.preprocess, len(simulator.inputs)))
    labels = None if options.label is None else Labels(options.label)
    expected = [None if labels is None else labels.of(sample[0]) for sample in samples]
    named = list(zip(samples, picture_names(samples), strict=True))
    job = _Job(simulator, preprocessors, options.category, Path(options.output), options.dump_rawdata)
    hits = 0
    for done, (best, wanted) in enumerate(zip(_results(job, named, options), expected, strict=True), start=1):
        hits += bool(best) and best[0][0] == wanted
        running = "" if wanted is None else f"  top-1 {hits}/{done}"
        if best:
            print(f"{named[done - 1][1]}: " + ", ".join(f"{index} ({score:.6f})" for index, score in best) + running)
    if labels is not None:
        print(f"top-1: {hits} of {len(samples)}, {hits / len(samples):.2%}")
    several = "s" if len(samples) > 1 else ""
    print(f"{simulator.kind} model, results of {len(samples)} sample{several} in: {options.output}")
    return 0


def _check(simulator: Simulator, options: argparse.Namespace) -> None:
    """Raise UserError where options and model do not go together."""
    if options.type is not None and options.type != simulator.kind:
        raise UserError(
            f"-t says {options.type}, the file is {simulator.kind}", stage="simulator.py", file=options.model
        )
    if options.soc_version is not None:
        chip = load_chip(options.soc_version)
        if simulator.image is not None and simulator.image.chip != chip.name:
            reason = f"was compiled for {simulator.image.chip}, not for {chip.name}"
            raise UserError(reason, stage="simulator.py", file=options.model, remedy="compile it again")
    check_category(options.category, [port.name for port in simulator.outputs], file=options.model)
    if options.label is not None and options.category != "Classification":
        raise UserError(
            "-l is for -c Classification", stage="simulator.py", remedy="leave it out, or add -c Classification"
        )
    if not Path(options.output).is_dir():
        raise UserError("is not a folder", stage=STAGE, file=options.output, remedy="create it first")
    check_output(Path(options.output) / "result.txt")


def _results(job: _Job, named: list[Named], options: argparse.Namespace) -> Iterator[Ranked]:
    """The best classes of every sample in order, as they are ready; by several processes where that pays."""
    processes = process_count(options.num_process, len(named))
    if processes == 1:
        shown = progress([sample for sample, _ in named], "simulate")
        yield from job.run(shown, [name for _, name in named])  # type: ignore[arg-type]
        return
    for shard in map_shards(partial(_shard, job), named, processes):
        yield from shard
