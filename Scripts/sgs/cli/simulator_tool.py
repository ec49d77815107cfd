"""simulator: run a float .sim, a fixed .sim or an .img on samples; a result file for each, and accuracy with labels."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from sgs.cli.options import add_category, add_common, add_samples, one_of, start_log
from sgs.cli.program import Parser, run
from sgs.cli.scheduler import cluster_at
from sgs.config.chips import load_chip
from sgs.config.nearest import counted
from sgs.data.files import STAGE, check_output, make_folder
from sgs.data.images import Sample, absolute, resolve_samples
from sgs.data.pictures import check_pictures
from sgs.data.preprocess import load_preprocessors
from sgs.data.shards import Pool, Workers, map_shares, process_count, processes_worth
from sgs.errors import UserError, raise_all
from sgs.evaluate.accuracy import Judge, MeanPrecision, TopFive, told
from sgs.evaluate.categories import check_category
from sgs.evaluate.coco import GroundTruth
from sgs.evaluate.detections import Decoder, image_id
from sgs.evaluate.labels import NAMES_FILE, check_names, class_names, names_beside, right_classes
from sgs.evaluate.results import picture_names
from sgs.evaluate.sample_job import Drawing, Found, SampleJob, Task
from sgs.quant.boxes import SCORE
from sgs.report.progress import counting
from sgs.simulation import KINDS, Simulator

TOLD = 20  # samples at most that get a line each


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code."""
    return run(_body, argv)


def parser() -> Parser:
    """The options of the program."""
    parser = Parser(prog="simulator.py", description="Run a float .sim, a fixed .sim or an offline .img on samples.")
    parser.add_argument("-m", "--model", "--model_file", dest="model", metavar="FILE", required=True, help="the model")
    add_samples(parser, purpose="samples to run")
    add_category(parser, default="Unknown", purpose="what the results look like (default: Unknown, every value)")
    text = "Float, Fixed or Offline, to be sure; it is read from the file"
    parser.add_argument("-t", "--type", metavar="KIND", type=one_of(KINDS), help=text)
    text = (
        "labels, for top-1 and top-5: `<path> <index>` a line, a csv that begins with the two, or a folder that has a "
        "folder of pictures for each class; for -c Detection COCO's instances.json, for mean average precision"
    )
    parser.add_argument("-l", "--label", metavar="PATH", help=text)
    parser.add_argument(
        "--output", metavar="DIR", default=".", help="folder of the result files (default: the current one)"
    )
    text = (
        "also draw the boxes, or the best classes, on the pictures, into this folder; those with a score of THRESHOLD "
        f"or more (default: boxes from {SCORE}, every class)"
    )
    parser.add_argument("--draw_result", metavar="DIR[,THRESHOLD]", type=_folder_and_threshold, help=text)
    text = (
        "Python file with decode(outputs) or decode(outputs, size), for -c Detection with a model that does not end in "
        "a detection operator: real outputs by name to boxes [ymin, xmin, ymax, xmax] from 0 to 1, classes and scores"
    )
    parser.add_argument("--decode", metavar="PY", help=text)
    text = f"names of the classes, one a line (default: those of the labels, or {NAMES_FILE} beside the model)"
    parser.add_argument("--class_names", metavar="FILE", help=text)
    text = "also write what the model was fed, as raw bytes: rawdata_<model>_<picture>_<input>.bin"
    parser.add_argument("--dump_rawdata", action="store_true", help=text)
    add_common(parser, chip_required=False)
    return parser


def _folder_and_threshold(text: str) -> tuple[Path, float | None]:
    """`DIR` or `DIR,0.5`; a folder that is there may have such a name."""
    head, _, tail = text.rpartition(",")
    if not head or Path(text).is_dir():
        return Path(text), None
    try:
        threshold = float(tail)
    except ValueError:
        return Path(text), None
    if not 0 <= threshold < math.inf:
        raise argparse.ArgumentTypeError(f"'{tail}' is not a threshold: a number from 0 on")
    return Path(head), threshold


def _body(argv: list[str]) -> int:
    options = parser().parse_args(argv)
    start_log(options)
    simulator = Simulator(options.model)
    _check(simulator, options)
    samples = resolve_samples(options.image, len(simulator.inputs))
    preprocessors = tuple(load_preprocessors(options.preprocess, len(simulator.inputs)))
    decoder = None if options.decode is None else Decoder(options.decode)
    if options.category == "Detection" or options.draw_result is not None:
        check_pictures(samples, "--draw_result" if options.draw_result is not None else "-c Detection")
    labels = _labels(simulator, samples, options)
    drawing = None if options.draw_result is None else _drawing(options, labels.names)
    folder, category = Path(options.output).absolute(), options.category
    job = SampleJob(simulator, preprocessors, category, folder, options.dump_rawdata, decoder, drawing)
    paths = samples if options.scheduler is None else absolute(samples)
    named = zip(paths, picture_names(samples), labels.images, strict=True)
    tasks = [Task(sample, name, image) for sample, name, image in named]
    with counting(len(samples), "simulate") as bar, _pool(job, tasks, options) as pool:
        _run(job, tasks, labels, bar, pool)
    if labels.judge is not None:
        print("\n".join(labels.judge.figures()))
    print(f"{simulator.kind} model, results of {counted(len(samples), 'sample')} in: {options.output}")
    if drawing is not None:
        print(f"drawn in: {options.draw_result[0]}")
    return 0


def _run(job: SampleJob, tasks: Sequence[Task], labels: _Labels, bar: tqdm, pool: Pool | None) -> None:
    """Run the samples; a line for each where there are few, and the figure so far beside the bar."""
    done = 0
    try:
        for task, found in zip(tasks, _results(job, tasks, pool), strict=True):
            done += 1
            if labels.judge is not None:
                labels.judge.add(found)
            if bar.update() and labels.judge is not None:
                bar.set_postfix_str(labels.judge.running())
            if found is not None and len(tasks) <= TOLD:
                tqdm.write(f"{task.name}: {told(found, labels.names)}")
    except UserError:
        if done:
            tqdm.write(f"results of the {counted(done, 'sample')} before the fault are in: {job.folder}")
        raise


def _results(job: SampleJob, tasks: Sequence[Task], pool: Pool | None) -> Iterator[Found]:
    """What was found in every sample in order, as it is ready."""
    if pool is None:
        yield from job.run(tasks)
        return
    for share in map_shares(pool, replace(job, threads=pool.threads), tasks):
        yield from share.found
        if share.fault is not None:
            raise share.fault


@contextmanager
def _pool(job: SampleJob, tasks: Sequence[Task], options: argparse.Namespace) -> Iterator[Pool | None]:
    """The processes to use, several of this machine where that pays; None for this one."""
    if options.scheduler is not None:
        scripts = [*job.preprocessors, *filter(None, [job.decoder])]
        folders = [job.folder, *(drawing.folder for drawing in filter(None, [job.drawing]))]
        files = [job.simulator.path, *(script.path for script in scripts)]
        with cluster_at(options.scheduler, files, [task.sample for task in tasks], folders) as cluster:
            yield cluster
        return
    processes = _processes(job, tasks, options.num_process)
    with Workers(processes) if processes > 1 else nullcontext() as workers:
        yield workers


def _processes(job: SampleJob, tasks: Sequence[Task], asked: int) -> int:
    """Threads of one process share the pictures of float and fixed models, but run scripts one at a time."""
    if asked == 1 or len(tasks) == 1:
        return 1
    if job.simulator.kind == "Offline":
        return process_count(asked, len(tasks))
    processes = processes_worth(asked, job.seconds_beside_model(tasks[0]) * len(tasks))
    if processes > 1:
        job.simulator.close()  # others will run it
    return processes


# -- labels ------------------------------------------------------------------------------------------------------------
@dataclass
class _Labels:
    """`images`: what results call the pictures; `names`: of the classes, empty where they are not known."""

    images: Sequence[int | str]
    names: tuple[str, ...]
    judge: Judge | None = None


def _labels(simulator: Simulator, samples: Sequence[Sample], options: argparse.Namespace) -> _Labels:
    """What -l and --class_names say. Raises UserError with everything that is wrong with them."""
    path = None if options.label is None else Path(options.label)
    images = [image_id(sample[0]) for sample in samples]
    if options.category == "Detection":
        truth = None if path is None else GroundTruth(path)
        names = _names(options, 0, [] if truth is None else truth.names)
        if truth is None:
            return _Labels(images, names)
        ids = truth.image_ids(samples)
        return _Labels(ids, names, MeanPrecision(truth, samples, ids))
    classes = math.prod(simulator.outputs[0].shape)
    names = _names(options, classes, [])
    if path is None:
        return _Labels(images, names)
    return _Labels(images, names, TopFive(right_classes(path, samples, classes, names)))


def _names(options: argparse.Namespace, classes: int, labelled: Sequence[str]) -> tuple[str, ...]:
    """Names of the classes, `labelled` being those of the labels; `classes` is 0 where their number is not known."""
    if options.class_names is not None:
        path = Path(options.class_names)
        names = class_names(path)
        if classes or labelled:
            check_names(names, classes or len(labelled), file=path)
        return tuple(names)
    if labelled or options.category == "Unknown":
        return tuple(labelled)
    return names_beside(Path(options.model), classes)


def _drawing(options: argparse.Namespace, names: tuple[str, ...]) -> Drawing:
    """Where to draw; the folder is made if need be. Raises UserError."""
    folder, threshold = options.draw_result
    folder = make_folder(folder).absolute()
    check_output(folder / "result.jpg")
    lowest = SCORE if options.category == "Detection" else -math.inf
    return Drawing(folder, names, lowest if threshold is None else threshold)


# -- checks ------------------------------------------------------------------------------------------------------------
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
    raise_all(list(_contradictions(options)), stage="simulator.py")
    if options.decode is None:
        check_category(options.category, simulator.outputs, file=options.model)
    if not Path(options.output).is_dir():
        raise UserError("is not a folder", stage=STAGE, file=options.output, remedy="create it first")
    check_output(Path(options.output) / "result.txt")


def _contradictions(options: argparse.Namespace) -> Iterator[UserError]:
    """Options that have no say beside the others."""
    both = ("Classification", "Detection")
    for name, value, categories in (
        ("-l", options.label, both),
        ("--draw_result", options.draw_result, both),
        ("--class_names", options.class_names, both),
        ("--decode", options.decode, both[1:]),
    ):
        if value is not None and options.category not in categories:
            wanted = " or ".join(f"-c {category}" for category in categories)
            yield UserError(f"{name} is for {wanted}", stage="simulator.py", remedy=f"leave it out, or add {wanted}")
