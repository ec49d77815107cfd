"""Retraining: it helps or changes nothing, is the same every time, goes on where it was stopped, and leaves alone what
it is told to."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sgs.builder import GraphBuilder
from sgs.config.input_config import ConvSpec
from sgs.errors import UserError
from sgs.ir import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.ops._window import window_node
from sgs.quant.edit import mac_nodes
from sgs.quant.levels import Calibration
from sgs.quant.mixed import with_bits
from sgs.quant.plan import QuantPlan, TensorRange
from sgs.quant.plan_file import parse_plan
from sgs.quant.ports import NO_PORTS, Ports
from sgs.quant.statistics import measure_extrema

torch = pytest.importorskip("torch", reason="torch is not installed")
from sgs.retrain import blocks as blocks_module  # noqa: E402
from sgs.retrain import run  # noqa: E402
from sgs.retrain.device import device_of, repeatable  # noqa: E402
from sgs.retrain.program import Program  # noqa: E402
from sgs.retrain.reconstruct import Reconstruction  # noqa: E402
from sgs.retrain.run import LEARNED, retrained  # noqa: E402
from sgs.retrain.settings import Settings  # noqa: E402

SETTINGS = Settings(iterations=40, scales=True, device="cpu")
FAST = replace(SETTINGS, iterations=6)
BLOCKS = 3  # of `network`


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Threads of small networks only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- networks ----------------------------------------------------------------------------------------------------------
class Made:
    """A float graph that is being built, of random weights."""

    def __init__(self, seed: int = 0) -> None:
        self.rng, self.build = np.random.default_rng(seed), GraphBuilder()

    def input(self) -> Tensor:
        return self.build.input("x", (1, 16, 16, 3))

    def conv(self, x: Tensor, name: str, channels: int, kernel: int = 3, **window: Any) -> Tensor:
        shape = (channels, kernel, kernel, x.shape[3])
        return self._sums("CONV_2D", x, name, shape, channels, pads=(kernel // 2,) * 4, **window)

    def depthwise(self, x: Tensor, name: str, **window: Any) -> Tensor:
        shape = (1, 3, 3, x.shape[3])
        return self._sums("DEPTHWISE_CONV_2D", x, name, shape, x.shape[3], pads=(1, 1, 1, 1), **window)

    def _sums(self, op: str, x: Tensor, name: str, shape: tuple[int, ...], channels: int, **window: Any) -> Tensor:
        weight = self.rng.normal(0, 1.4 * np.sqrt(channels / np.prod(shape)), shape).astype(np.float32)
        bias = self.rng.normal(0.1, 0.2, channels).astype(np.float32)
        return self.build(op, x, weight, bias, output=name, **window_node(**window))


def network() -> Graph:
    """a, b · c, d with a connection over both · e, f: three blocks of two sums of products each."""
    made = Made()
    a = made.conv(made.input(), "a", 8, strides=(2, 2), activation="RELU")
    b = made.depthwise(a, "b", activation="RELU6")
    c = made.conv(b, "c", 12)
    d = made.conv(c, "d", 8, kernel=1)
    s = made.build("ADD", d, b, activation="NONE", output="s")
    e = made.conv(s, "e", 10, activation="RELU")
    return made.build.output(made.conv(e, "y", 5))


MACS = ["a", "b", "c", "d", "e", "y"]


def samples(count: int, seed: int = 1) -> list[dict[str, Array]]:
    """Smooth pictures."""
    rng = np.random.default_rng(seed)
    coarse = rng.normal(0, 1, (count, 5, 5, 3)).repeat(4, 1).repeat(4, 2)[:, 2:18, 2:18]
    return [{"x": picture[None].astype(np.float32)} for picture in coarse + rng.normal(0, 0.2, coarse.shape)]


def started(graph: Graph, bits: int = 4, *, ports: Ports = NO_PORTS, count: int = 24) -> tuple[Calibration, QuantPlan]:
    """A calibration, and its plan with all sums of products in so many bits."""
    feeds = samples(count)
    work = Calibration(graph, measure_extrema(graph, feeds, threads=1), feeds, ConvSpec(), threads=1, ports=ports)
    plan = work.search_weights(work.initial_plan())
    return work, with_bits(work, plan, dict.fromkeys(plan.macs, bits))


@cache
def start() -> tuple[Calibration, QuantPlan]:
    return started(network())


@cache
def result(settings: Settings = SETTINGS) -> QuantPlan:
    """Of an undisturbed retraining."""
    return retrained(*start(), settings)


Told = list[tuple[float, float]]
ERRORS = re.compile(r"error ([\d.e+-]+), retrained ([\d.e+-]+)")


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], Told]]:
    """The errors before and after, of every block that has been trained since last asked."""
    for settings in (SETTINGS, FAST):
        result(settings)
    caplog.set_level(logging.INFO, logger="sgs.retrain.run")

    def found() -> Told:
        pairs = ERRORS.findall(caplog.text)
        caplog.clear()
        return [(float(before), float(after)) for before, after in pairs]

    yield found


# -- what it is for ----------------------------------------------------------------------------------------------------
def test_errors_of_blocks_fall_and_the_fixed_network_comes_nearer(told: Callable[[], Told]) -> None:
    work, plan = start()
    found = retrained(work, plan, SETTINGS)
    errors = told()
    assert len(errors) == BLOCKS and all(after < before for before, after in errors)
    assert np.mean([after / before for before, after in errors]) < 0.96
    assert work.output_sqnr(found) > work.output_sqnr(plan) + 0.3
    assert {name: mac.bits for name, mac in found.macs.items()} == dict.fromkeys(MACS, 4)
    assert found.to_json() == result().to_json(), "the same every time"


def test_what_is_learned_is_a_plan_like_others() -> None:
    """Its file says it, later tools follow it, and it holds learned weights, biases and ranges."""
    work, plan = start()
    found = result()
    again = parse_plan(json.loads(found.to_json()))
    assert again.to_json() == found.to_json()
    first, second = work.fixed(found), work.fixed(again)
    for name, tensor in first.tensors.items():
        assert tensor.data is None or np.array_equal(tensor.data, second[name].data)
    assert {name for name, span in found.narrow.items() if span.method == LEARNED} == {"a", "b", "c", "s", "e"}
    assert found.narrow["x"] == plan.narrow["x"] and found.ranges == plan.ranges
    assert all(mac.weight is not None and mac.bias is not None for mac in found.macs.values())


def test_what_codes_stand_for_is_learned_only_where_asked_for(told: Callable[[], Told]) -> None:
    work, plan = start()
    found = retrained(work, plan, replace(SETTINGS, scales=False))
    assert all(after < before for before, after in told())
    assert work.output_sqnr(found) > work.output_sqnr(plan) + 0.3
    assert found.narrow == plan.narrow
    for name, mac in found.macs.items():
        np.testing.assert_allclose(mac.weight_bound, plan.macs[name].weight_bound, rtol=3e-7)
    before, after = work.fixed(plan), work.fixed(found)
    weights = [node.inputs[1] or "" for node in mac_nodes(before)]
    moved = [int(np.sum(before[name].data != after[name].data)) for name in weights]
    assert sum(moved) >= 10, moved


def test_the_fixed_network_has_the_learned_ranges() -> None:
    work, plan = start()
    core, found = work.fixed(result()), result().narrow
    for node in mac_nodes(core):
        operand, source = core[node.inputs[0] or ""], (node.inputs[0] or "").split("/")[0]
        assert operand.dtype is DType.UINT8 and operand.quant is not None
        width = max(found[source].high, 0) - min(found[source].low, 0)
        assert operand.quant.scale[0] * 255 == pytest.approx(width, rel=1e-5)
    assert found != plan.narrow


def test_other_seeds_learn_other_things() -> None:
    assert retrained(*start(), replace(FAST, seed=1)).to_json() != result(FAST).to_json()


def test_progress_counts_blocks() -> None:
    seen: list[tuple[str, int]] = []

    def wrap(items: Iterable[Any], title: str) -> Iterable[Any]:
        items = list(items)
        seen.append((title, len(items)))
        return items

    retrained(*start(), replace(SETTINGS, iterations=1, wrap=wrap))
    assert seen == [("retraining with scales", BLOCKS)]


# -- what goes wrong changes nothing -----------------------------------------------------------------------------------
@pytest.mark.parametrize("rate", [30.0, float("nan")])
def test_what_does_not_help_is_not_kept(rate: float, monkeypatch: pytest.MonkeyPatch, told: Callable[[], Told]) -> None:
    groups = Reconstruction._groups

    def harmful(self: Reconstruction) -> list[tuple[list[Any], float]]:
        return [(tensors, rate) for tensors, _ in groups(self)]

    monkeypatch.setattr(Reconstruction, "_groups", harmful)
    work, plan = start()
    found = retrained(work, plan, replace(SETTINGS, iterations=2))
    assert [before == after for before, after in told()] == [True] * BLOCKS
    assert found.to_json() == plan.to_json()


def test_16_bits_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "_Retraining", None)  # nothing is begun
    work, _ = start()
    plan = started(network(), 16)[1]
    assert retrained(work, plan, SETTINGS) is plan


def test_blocks_in_16_bits_are_passed_by(told: Callable[[], Told]) -> None:
    work, plan = start()
    mixed = with_bits(work, plan, {**dict.fromkeys(MACS, 16), "c": 8, "d": 16, "y": 4})
    found = retrained(work, mixed, FAST)
    assert len(told()) == 2
    for name in ("a", "b"):
        assert found.macs[name] is mixed.macs[name]
    assert found.macs["d"].weight is None and found.macs["d"].bits == 16
    np.testing.assert_array_equal(found.macs["d"].weight_bound, mixed.macs["d"].weight_bound)
    assert found.macs["c"].weight is not None and found.macs["y"].weight is not None
    assert work.output_sqnr(found) > work.output_sqnr(mixed)


def test_what_is_pinned_stays() -> None:
    work, plan = start()
    found = retrained(work, plan, replace(FAST, pinned=frozenset(["c", "s", "d/weight"])))
    assert found.narrow["c"] == plan.narrow["c"] and found.narrow["s"] == plan.narrow["s"]
    assert found.narrow["e"].method == LEARNED
    before, after = work.fixed(plan), work.fixed(found)
    for core in (before, after):
        node = next(node for node in mac_nodes(core) if node.outputs[0] == "d")
        assert np.array_equal(core[node.inputs[1] or ""].data, before[node.inputs[1] or ""].data)
    assert found.macs["d"].weight is None and found.macs["d"].bias is not None
    assert found.macs["c"].weight is not None


# -- going on ----------------------------------------------------------------------------------------------------------
class Stop(Exception):
    pass


def stopping(after: int) -> Callable[..., Iterator[Any]]:
    """A progress bar that stops behind so many blocks."""

    def wrap(items: Iterable[Any], title: str) -> Iterator[Any]:
        for number, item in enumerate(items):
            if number == after:
                raise Stop
            yield item

    return wrap


@pytest.mark.parametrize("after", [1, 2])
def test_a_stopped_retraining_goes_on(after: int, tmp_path: Path, told: Callable[[], Told]) -> None:
    work, plan = start()
    kept = replace(SETTINGS, folder=tmp_path / "blocks")
    with pytest.raises(Stop):
        retrained(work, plan, replace(kept, wrap=stopping(after)))
    assert len(told()) == after
    assert retrained(work, plan, kept).to_json() == result().to_json()
    assert len(told()) == BLOCKS - after
    assert retrained(work, plan, kept).to_json() == result().to_json()
    assert told() == []


@pytest.fixture(scope="module")
def blocks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a whole retraining."""
    folder = tmp_path_factory.mktemp("retraining")
    assert retrained(*start(), replace(FAST, folder=folder)).to_json() == result(FAST).to_json()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path, blocks: dict[str, bytes]) -> Path:
    assert len(blocks) == BLOCKS
    for name, content in blocks.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "Expecting value"),
        (b"\xff\x80", "decode"),
        (b"[" * 100_000, "recursion"),
        (b"[1]", "is no JSON object with the keys ranges, macs"),
        (b'{"plan": {}}', "unknown key 'plan'"),
        (None, "half"),
    ],
)
def test_a_damaged_block_is_retrained_again(
    content: bytes | None, reason: str, folder: Path, caplog: pytest.LogCaptureFixture, told: Callable[[], Told]
) -> None:
    (file,) = folder.glob("*_1.json")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if content is None else content)
    assert retrained(*start(), replace(FAST, folder=folder)).to_json() == result(FAST).to_json()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1 and str(file) in warnings[0] and "retrained again" in warnings[0]
    assert content is None or reason in warnings[0]
    assert len(told()) == 1 and file.read_bytes() == whole


def other_plan(work: Calibration, plan: QuantPlan) -> tuple[Calibration, QuantPlan]:
    return work, plan.with_mac("e", weight_bound=plan.macs["e"].weight_bound * 1.01)


def other_samples(work: Calibration, plan: QuantPlan) -> tuple[Calibration, QuantPlan]:
    return replace(work, samples=[*samples(23), *samples(1, seed=9)]), plan


def other_split(work: Calibration, plan: QuantPlan) -> tuple[Calibration, QuantPlan]:
    """The same samples, in another order."""
    return replace(work, samples=[*work.samples[1:], work.samples[0]]), plan


def other_network(work: Calibration, plan: QuantPlan) -> tuple[Calibration, QuantPlan]:
    """For which the plan is the same."""
    graph = work.float_graph.copy()
    node = next(node for node in graph.nodes if node.outputs[0] == "y")
    weight = graph[node.inputs[1] or ""]
    weight.data = np.asarray(weight.data)[:, ::-1]
    return replace(work, float_graph=graph), plan


@pytest.mark.parametrize("change", [other_plan, other_samples, other_split, other_network])
def test_what_was_learned_for_something_else_is_not_taken(
    change: Callable[[Calibration, QuantPlan], tuple[Calibration, QuantPlan]], folder: Path, told: Callable[[], Told]
) -> None:
    retrained(*change(*start()), replace(FAST, folder=folder))
    assert len(told()) == BLOCKS


@pytest.mark.parametrize(
    "change",
    [{"seed": 3}, {"iterations": 5}, {"scales": False}, {"pinned": frozenset(["c"])}, {"batch": 3}],
    ids=["seed", "iterations", "scales", "pinned", "batch"],
)
def test_what_was_learned_otherwise_is_not_taken(
    change: dict[str, Any], folder: Path, told: Callable[[], Told]
) -> None:
    retrained(*start(), replace(FAST, folder=folder, **change))
    assert len(told()) == BLOCKS


# -- devices, and what torch is set to ---------------------------------------------------------------------------------
@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three of them, the second the most idle."""
    memory = [(1, 8), (5, 8), (6, 16)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(memory))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: memory[index])


@pytest.mark.parametrize("asked", ["", "cpu"])
def test_without_a_gpu_the_cpu_computes(asked: str, no_gpu: None) -> None:
    assert device_of(asked) == torch.device("cpu")


@pytest.mark.parametrize(
    ("asked", "found"), [("", "cuda:1"), ("cuda", "cuda:1"), ("cuda:0", "cuda:0"), ("cuda:2", "cuda:2"), ("cpu", "cpu")]
)
def test_the_most_idle_gpu_computes_unless_another_is_named(asked: str, found: str, gpus: None) -> None:
    assert device_of(asked) == torch.device(found)


@pytest.mark.parametrize("asked", ["cuda", "cuda:9", "cuda:x", "cuda:", "mps", "cpu:0"])
def test_a_device_that_is_not_there_is_told(asked: str, no_gpu: None) -> None:
    with pytest.raises(UserError, match=f"device {asked}: torch sees no GPU here"):
        retrained(*start(), replace(SETTINGS, device=asked))


@pytest.mark.parametrize("asked", ["cuda:3", "cuda:x", "cuda:-1", "cuda:", "mps"])
def test_a_gpu_that_is_not_there_is_told(asked: str, gpus: None) -> None:
    with pytest.raises(UserError, match=f"device {asked}: there are 3 GPUs"):
        device_of(asked)


def settings_of_torch() -> tuple[object, ...]:
    cudnn = torch.backends.cudnn
    flags = (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32)
    modes = (torch.is_grad_enabled(), torch.get_default_dtype(), torch.get_num_threads())
    return (*flags, *modes, torch.are_deterministic_algorithms_enabled(), torch.get_rng_state().tolist())


def test_torch_is_set_as_it_was() -> None:
    with torch.backends.cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        before = settings_of_torch()
        retrained(*start(), replace(SETTINGS, iterations=1))
        assert settings_of_torch() == before
        with pytest.raises(Stop):
            retrained(*start(), replace(SETTINGS, iterations=1, wrap=stopping(1)))
        assert settings_of_torch() == before


def test_what_a_caller_has_set_is_no_matter() -> None:
    random = torch.get_rng_state()
    try:
        torch.set_default_dtype(torch.float64)
        torch.manual_seed(77)
        with torch.no_grad():
            assert retrained(*start(), FAST).to_json() == result(FAST).to_json()
            assert not torch.is_grad_enabled()
        assert torch.get_default_dtype() is torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_rng_state(random)


def test_results_on_gpus_are_repeatable() -> None:
    cudnn = torch.backends.cudnn
    with cudnn.flags(enabled=True, benchmark=True, deterministic=False, allow_tf32=True):
        with repeatable():
            assert (cudnn.enabled, cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, False, True, False)
        assert (cudnn.benchmark, cudnn.deterministic, cudnn.allow_tf32) == (True, False, True)


# -- memory ------------------------------------------------------------------------------------------------------------
LARGEST = 8 * 8 * (12 + 8 + 8)  # values of a sample in the largest block: c, d and s


@pytest.mark.parametrize(
    ("elements", "batch", "most"),
    [(1 << 26, 100, 24), (1 << 26, 5, 5), (LARGEST * 3 + 1, 100, 3), (LARGEST * 3 - 1, 100, 2), (1, 100, 1)],
)
def test_few_samples_are_looked_at_together_where_they_are_large(
    elements: int, batch: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = dict[tuple[str, ...], set[int]]()
    call = Program.__call__

    def counted(self: Program, values: Any, *more: Any) -> Any:
        seen.setdefault(tuple(self.results), set()).update({len(values[name]) for name in self.operands})
        return call(self, values, *more)

    monkeypatch.setattr(Program, "__call__", counted)
    monkeypatch.setattr(run, "ELEMENTS", elements)
    retrained(*start(), replace(SETTINGS, iterations=1, batch=batch))
    assert len(seen) == BLOCKS and max(seen[("s",)]) == most
    assert all(size * LARGEST <= elements or size == 1 for size in seen[("s",)])


def test_values_in_files_are_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    values = run.Values
    monkeypatch.setattr(run, "Values", lambda: values(0))
    assert retrained(*start(), FAST).to_json() == result(FAST).to_json()


def test_values_go_when_nobody_reads_them_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    held: list[run.Values] = []

    class Seen(run.Values):
        def __init__(self) -> None:
            super().__init__()
            held.append(self)

    monkeypatch.setattr(run, "Values", Seen)
    retrained(*start(), replace(SETTINGS, iterations=1))
    assert len(held) == 1 and not held[0]._held


# -- networks of other forms -------------------------------------------------------------------------------------------
def helps(graph: Graph, **options: Any) -> tuple[Calibration, QuantPlan, QuantPlan]:
    work, plan = started(graph, **options)
    found = retrained(work, plan, replace(SETTINGS, iterations=3))
    assert work.output_sqnr(found) > work.output_sqnr(plan)
    return work, plan, found


def test_a_range_that_constants_share_stays() -> None:
    made = Made(1)
    a = made.conv(made.input(), "a", 4, activation="RELU")
    rim = np.full((1, 16, 16, 2), 3, np.float32)
    j = made.build("CONCATENATION", a, rim, axis=3, activation="NONE", output="j")
    work, plan, found = helps(made.build.output(made.conv(j, "y", 4)))
    assert work.fixed(plan)["j"].dtype is DType.UINT8
    assert found.narrow["j"] == plan.narrow["j"] and found.narrow["a"] == plan.narrow["a"]


def test_a_range_that_blocks_share_stays(monkeypatch: pytest.MonkeyPatch, told: Callable[[], Told]) -> None:
    """A tensor and a part of it, which has its codes, are read in different blocks."""
    monkeypatch.setattr(blocks_module, "MOST", 2)
    made = Made(2)
    a = made.conv(made.input(), "a", 4, activation="RELU6")
    b = made.conv(a, "b", 5, strides=(2, 2), activation="RELU6")
    c = made.conv(b, "c", 6, activation="RELU")
    d = made.conv(c, "d", 4, activation="RELU")
    half = made.build("STRIDED_SLICE", b, begin=(0, 0, 0, 0), end=(1, 8, 8, 4), strides=(1, 1, 1, 1), output="h")
    e = made.conv(half, "e", 4, activation="RELU")
    work, plan, found = helps(made.build.output(made.build("ADD", d, e, activation="NONE", output="y")))
    core = work.fixed(plan)
    assert len(told()) == 3
    assert core["b"].dtype is DType.UINT8 and core["h"].quant.same_codes(core["b"].quant)
    assert plan.narrow["b"] == found.narrow["b"]


def test_readers_of_a_tensor_and_of_its_pool_learn_one_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at branches that are joined: all in one block."""
    learned, train = [], Reconstruction.train

    def watched(self: Reconstruction) -> tuple[float, float]:
        learned.append(sum(span.logs.requires_grad for span in self._ranges))
        return train(self)

    monkeypatch.setattr(Reconstruction, "train", watched)
    made = Made(4)
    a = made.conv(made.input(), "a", 4, activation="RELU")
    p = made.build("MAX_POOL_2D", a, output="p", **window_node(kernel=(3, 3), pads=(1, 1, 1, 1)))
    b, c = made.conv(a, "b", 4), made.conv(p, "c", 4)
    work, plan, found = helps(made.build.output(made.build("ADD", b, c, activation="NONE", output="y")))
    core = work.fixed(found)
    assert core["a"].dtype is core["p"].dtype is DType.UINT8
    assert learned == [1], "that of a and p"
    assert found.narrow["a"] == found.narrow["p"] and found.narrow["a"].method == LEARNED
    assert core["a"].quant.scale[0] * 255 == pytest.approx(found.narrow["a"].high, rel=1e-5)
    assert core["a"].quant.same_codes(core["p"].quant)


def test_readers_in_16_bits_have_a_range_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """In another block than the reader in 8 bits, for which the tensor is converted."""
    monkeypatch.setattr(blocks_module, "MOST", 2)
    made = Made(6)
    a = made.conv(made.input(), "a", 4, activation="RELU")
    b = made.conv(a, "b", 4, strides=(2, 2), activation="RELU")
    c = made.conv(made.conv(b, "c", 4, activation="RELU"), "d", 4)
    e = made.conv(b, "e", 4)
    work, plan = started(made.build.output(made.build("ADD", c, e, activation="NONE", output="y")))
    plan = with_bits(work, plan, {"a": 4, "b": 4, "c": 4, "d": 4, "e": 16})
    found = retrained(work, plan, FAST)
    assert work.fixed(plan)["b"].dtype is DType.INT16 and work.fixed(plan)["b/uint8"].dtype is DType.UINT8
    assert found.narrow["b"].method == LEARNED and found.ranges == plan.ranges
    assert work.output_sqnr(found) > work.output_sqnr(plan)


def test_tensors_with_one_range_learn_it_together() -> None:
    """Joined parts, one of which does not contain 0."""
    made = Made(3)
    x = made.input()
    a = made.conv(x, "a", 4, activation="RELU")
    gate = made.build("LOGISTIC", made.conv(x, "c", 4))
    b = made.build("ADD", gate, np.float32([9.5]), activation="NONE", output="b")
    j = made.build("CONCATENATION", a, b, axis=3, activation="NONE", output="j")
    work, plan, found = helps(made.build.output(made.conv(j, "y", 4)))
    core = work.fixed(found)
    assert core["j"].dtype is DType.UINT8
    assert {found.narrow[name].method for name in ("a", "b", "j")} == {LEARNED}
    assert core["j"].quant.scale[0] * 255 == pytest.approx(found.narrow["j"].high - found.narrow["j"].low, rel=1e-5)
    assert parse_plan(json.loads(found.to_json())).to_json() == found.to_json()


@pytest.mark.parametrize(
    ("own", "found"), [((9.5, 10.5), (0, 4)), ((-9, -8), (-1, 0)), ((-0.5, 9), (-0.5, 4)), ((-2, 3), (-1, 3))]
)
def test_ranges_of_parts_lie_within_the_learned_one(own: tuple[float, float], found: tuple[float, float]) -> None:
    """Which reaches from −1 to 4."""
    span = run._within(QuantPlan(ranges={"b": TensorRange(*own)}), "b", -1.0, 4.0)
    assert (span.low, span.high, span.method) == (*found, LEARNED)


def test_the_range_of_an_output_in_bytes_stays() -> None:
    made = Made(4)
    a = made.conv(made.input(), "a", 6, activation="RELU6")
    graph = made.build.output(a, made.conv(a, "y", 4))
    work, plan, found = helps(graph, ports=Ports(byte_results=frozenset(["a"])))
    assert work.fixed(plan)["a"].dtype is DType.UINT8
    assert found.narrow["a"] == plan.narrow["a"]


@pytest.mark.parametrize("cut", [False, True])
def test_results_that_nothing_can_be_learned_from_are_passed(cut: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place among channels, as a real number that no gradient leads to, or as a whole one."""
    made = Made(5)
    a = made.conv(made.input(), "a", 6, activation="RELU")
    b = made.conv(a, "b", 5)
    place = made.build("ARG_MAX", b, axis=3, keep_dims=True, select_last=False)
    graph = made.build.output(made.build("CAST", place, to="FLOAT32", output="y"))
    if cut:
        parts = [blocks_module._block(graph, first, last, ["a", "b"]) for first, last in ((0, 3), (3, 4))]
        monkeypatch.setattr(run, "blocks_of", lambda *given: parts)
    work, plan = started(graph)
    assert retrained(work, plan, replace(SETTINGS, iterations=2)).to_json() == plan.to_json()


def test_one_sample_is_enough() -> None:
    """It is fitted to and judges."""
    work, plan = started(network(), count=1)
    found = retrained(work, plan, FAST)
    assert work.output_sqnr(found) > work.output_sqnr(plan)
