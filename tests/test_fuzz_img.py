"""A short campaign of `fuzz_img.py`, and proof that it would find what it looks for. `make fuzz` runs the long one."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import fuzz_img
import fuzzing
from fuzz_img import Case, hand_made, judge, make_case, sealed
from fuzzing import Finding
from sgs.errors import UserError
from sgs.img import Dma, Image, OfflineEngine, Place, Space, TensorRef, image_bytes, parse_image, simulate
from sgs.img.check import ITEM_SIZES, _collisions
from sgs.img.write import HEADER
from sgs.ir import Graph, Node, Tensor
from sgs.numeric.quantise import symmetric_params
from sgs.numeric.table import expand
from sgs.numeric.types import DType

FILES = 150


def test_damaged_files_end_in_an_error_or_run_safely() -> None:
    results = fuzz_img.FUZZ.campaign(seed=1, files=FILES, jobs=1)
    assert [result for result in results if result["outcome"] == "found"] == []
    outcomes = Counter((result["kind"] in fuzz_img.DAMAGED, result["outcome"]) for result in results)
    assert len(results) == FILES and outcomes[True, "refused"] == 3 * FILES // 10
    assert outcomes[False, "refused"] > FILES // 5, "the checks behind the checksum are met"
    assert outcomes[False, "executed"] + outcomes[False, "stopped"] > FILES // 10, "so is the machine"


def test_a_file_is_made_by_seed_and_number() -> None:
    made = [make_case(3, index).data for index in range(20)]
    assert made == [make_case(3, index).data for index in range(20)]
    assert len(set(made)) == 20 and made[0] != make_case(4, 0).data


@pytest.mark.parametrize("kind", sorted(fuzz_img.DAMAGE))
def test_every_file_differs_from_its_original(kind: str) -> None:
    cases = [make_case(5, index) for index in range(60) if fuzz_img.KINDS[index % len(fuzz_img.KINDS)] == kind]
    assert cases and all(case.data != image_bytes(case.image) for case in cases)


# -- what it would find ------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def image() -> Image:
    return hand_made("chain", False)


def test_a_damaged_file_that_is_read_is_found(image: Image) -> None:
    with pytest.raises(Finding, match="was read"):
        judge(Case("flip", image, image_bytes(replace(image, model_name="another")), 0))


def test_another_answer_is_found(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([{"y": np.zeros(3)}, {"y": np.ones(3)}])
    monkeypatch.setattr(fuzz_img, "execute", lambda image, seed: next(answers))
    with pytest.raises(Finding, match="another answer"):
        judge(Case("sealed", image, image_bytes(image), 0))


@pytest.mark.parametrize("position", [-1, 1])
def test_a_byte_written_outside_is_found(image: Image, position: int, monkeypatch: pytest.MonkeyPatch) -> None:
    class Careless(fuzz_img._GuardedMemory):
        def __call__(self, size: int) -> np.ndarray:
            memory = super().__call__(size)
            self._blocks[-1][fuzz_img.GUARD - 1 if position < 0 else fuzz_img.GUARD + size] ^= 1
            return memory

    monkeypatch.setattr(fuzz_img, "_GuardedMemory", Careless)
    plain = simulate.aligned_bytes
    with pytest.raises(Finding, match="outside"):
        fuzz_img.execute(image, 0)
    assert simulate.aligned_bytes is plain


def test_a_killed_process_is_found_and_the_rest_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    class Done:
        def __init__(self, code: int, lines: str) -> None:
            self.returncode, self.stdout, self.stderr = code, lines, "what it said"

    ended = iter(
        [
            Done(0, '{"start": 7}\n{"index": 7, "outcome": "refused"}\n'),
            Done(-11, '{"start": 5}\n{"index": 5, "outcome": "refused"}\n{"start": 6}\n'),
        ][::-1]
    )
    monkeypatch.setattr(fuzzing.subprocess, "run", lambda *args, **options: next(ended))
    results = list(fuzz_img.FUZZ.attempt(0, 5, 8))
    assert [(result["index"], result["outcome"]) for result in results] == [
        (5, "refused"),
        (6, "found"),
        (7, "refused"),
    ]
    assert "ended with -11: what it said" in results[1]["what"]


def test_a_kernel_that_writes_beside_its_result_is_found(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = simulate._view

    def beside(memory: np.ndarray, offset: int, ref: TensorRef) -> np.ndarray:
        view = plain(memory, offset, ref)
        if ref.name == image.tensors[image.kernels[0].outputs[0]].name:
            memory[offset - 1] ^= 1
        return view

    monkeypatch.setattr(simulate, "_view", beside)
    with pytest.raises(fuzz_img.Overwritten, match="kernel 0 wrote outside"):
        fuzz_img.execute(image, 0)
    assert simulate._Run is not fuzz_img._WatchedRun


@pytest.mark.parametrize("space", [Space.INPUT, Space.WEIGHTS])
def test_memory_that_is_read_only_stays(image: Image, space: Space) -> None:
    """An image that nobody checked."""
    program = image.programs[0]
    write = Dma(0, (4,), 1, Place(Space.SRAM, 0, (1,)), Place(space, 0, (1,)))
    broken = replace(image, programs=(replace(program, commands=(*program.commands, write)),))
    broken = replace(broken, weights=image.weights.copy())
    with pytest.raises(Finding, match="input 'x' was written|weights were written"):
        fuzz_img.execute(broken, 0)


def test_an_operator_that_takes_much_memory_is_found(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise MemoryError("Unable to allocate 9 GiB")

    monkeypatch.setattr(simulate, "_session_kernel", fail)
    with pytest.raises(UserError, match="9 GiB"):
        judge(Case("sealed", image, image_bytes(replace(image, model_name="another")), 0))


# -- the machine in detail ---------------------------------------------------------------------------------------------
def with_kernels(image: Image, **changes: Any) -> Image:
    """The image with the same changes to all of its kernels, through a file."""
    return parse_image(image_bytes(replace(image, kernels=tuple(replace(one, **changes) for one in image.kernels))))


def retyped(image: Image, index: int, dtype: DType) -> Image:
    """Another type for a tensor, and room for it where it is."""
    tensors = list(image.tensors)
    tensors[index] = replace(tensors[index], dtype=dtype)
    return replace(image, tensors=tuple(tensors))


def test_a_kernel_without_its_attributes_is_named(image: Image) -> None:
    engine = OfflineEngine(with_kernels(image, attrs={}))
    where = r"^offline simulator: CONV_2D of layer 'conv_2d': cannot be executed: "
    with pytest.raises(UserError, match=where) as caught:
        engine.run(fuzz_img.random_feeds(image, 0))
    assert isinstance(caught.value.__cause__, KeyError) and caught.value.remedy


def test_results_of_another_type_or_shape_are_refused(image: Image) -> None:
    result = image.kernels[0].outputs[0]
    assert image.tensors[result].dtype is DType.UINT8
    feeds = fuzz_img.random_feeds(image, 0)
    with pytest.raises(UserError, match="a result is BOOL, the operands give"):
        OfflineEngine(retyped(image, result, DType.BOOL)).run(feeds)
    flat = list(image.tensors)
    flat[result] = replace(flat[result], shape=(flat[result].nbytes,))
    with pytest.raises(UserError, match="a result has shape"):
        OfflineEngine(replace(image, tensors=tuple(flat))).run(feeds)


def test_a_table_of_wide_codes_is_refused(image: Image) -> None:
    """It would be written out for every code that there can be."""
    with pytest.raises(ValueError, match="no tables of INT32 inputs"):
        expand(np.zeros(256, np.int16), DType.INT32, DType.UINT8)


@pytest.mark.parametrize("declared", [(1, 8), (2, 8), (8, 2)])
def test_a_session_does_not_write_beyond_what_is_declared(declared: tuple[int, ...]) -> None:
    """onnxruntime compares what it is to compute with where it is to go, before it writes."""
    node = Node("ADD", ["a", "b"], ["y"], {"activation": "NONE"})
    shapes = {"a": (2, 8), "b": (2, 8), "y": declared}
    tensors = {
        name: Tensor(name, shape, DType.INT16, None, symmetric_params(1.0, DType.INT16))
        for name, shape in shapes.items()
    }
    bind = simulate._session_kernel(Graph("", tensors, [node], ["a", "b"], ["y"]), node, 1)
    operands, memory = [np.zeros((2, 8), np.int16) for _ in range(2)], np.full(64, 7, np.int16)
    size = declared[0] * declared[1]
    run = bind(operands, [memory[8 : 8 + size].reshape(declared)])
    if declared == (2, 8):
        run()
        assert (memory[8:24] == 0).all() and (memory[:8] == 7).all() and (memory[24:] == 7).all()
    else:
        with pytest.raises(Exception, match=r"(?i)shape|dimensions"):
            run()
        assert (memory == 7).all()


def some_place(rng: random.Random, space: Space, extents: list[int], itemsize: int, factors: list[int]) -> Place:
    """Strides of whole rows times one of the factors, the innermost axis mostly being the last one."""
    step, strides = itemsize, [0] * len(extents)
    for axis in reversed(range(len(extents)) if rng.random() < 0.7 else rng.sample(range(len(extents)), len(extents))):
        strides[axis] = step * rng.choice(factors)
        step = (abs(strides[axis]) or step) * extents[axis]
    return Place(space, 2048 + rng.randrange(16) * 8, tuple(strides))


def test_transfers_move_what_they_say() -> None:
    """Strides of either sign and zero, in one memory and between two: as if the source was read whole before."""
    rng, moved = random.Random(0), Counter[int]()
    while min(moved[1], moved[2]) < 60:
        itemsize, extents = rng.choice(ITEM_SIZES), [rng.randint(1, 4) for _ in range(rng.randint(0, 4))]
        memories = [np.frombuffer(rng.randbytes(4096), np.uint8).copy() for _ in range(rng.choice([1, 2]))]
        source = some_place(rng, Space.SRAM, extents, itemsize, [1, 1, 1, 0, -1, -2])
        spaces = (Space.SRAM, Space.ARENA)
        target = some_place(rng, spaces[len(memories) - 1], extents, itemsize, [1, 1, 1, -1, 2])
        command = Dma(0, tuple(extents), itemsize, source, target)
        inside = all(first >= 0 and end <= 4096 for first, end in (command.reach(source), command.reach(target)))
        if not inside or list(_collisions(command)):
            continue
        moved[len(memories)] += 1
        expected, read = memories[-1].copy(), memories[0].copy()
        for index in np.ndindex(command.extents):
            at, to = (place.offset + int(np.dot(index, place.strides)) for place in (source, target))
            expected[to : to + itemsize] = read[at : at + itemsize]
        simulate._transfer(command, memories[0], memories[-1])()
        assert np.array_equal(memories[-1], expected), command


def test_a_command_that_fails_while_it_runs_is_named(image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise IndexError("index 7 is out of range")

    monkeypatch.setattr(simulate, "_session_kernel", lambda *arguments: lambda inputs, outputs: fail)
    engine = OfflineEngine(image)
    with pytest.raises(UserError, match="layer '.*': cannot be executed: index 7 is out of range"):
        engine.run(fuzz_img.random_feeds(image, 0))


def test_memory_is_taken_when_frames_come(monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []
    plain = simulate.aligned_bytes
    monkeypatch.setattr(simulate, "aligned_bytes", lambda size: taken.append(size) or plain(size))
    image = hand_made("chain", True)
    engine = OfflineEngine(image)
    assert taken == []
    for count in image.batches:  # a program takes its own when it is first run
        engine.run([fuzz_img.random_feeds(image, 0)] * count)
        program = image.programs[image.batches.index(count)]
        ports = [count * image.tensors[port.tensor].nbytes for port in (*image.inputs, *image.outputs)]
        assert sorted(taken) == sorted([program.arena_size, program.sram_size, *ports])
        taken.clear()


def test_kernels_for_constants_that_change_are_not_kept(image: Image) -> None:
    engine, feeds = OfflineEngine(replace(image, weights=image.weights.copy())), fuzz_img.random_feeds(image, 0)
    engine.run(feeds)
    kept = len(engine._kernels._made)
    for _ in range(3):
        engine.image.weights[:] = np.roll(engine.image.weights, 64)
        engine.run(feeds)
    assert len(engine._kernels._made) == kept


# -- the reader in detail ----------------------------------------------------------------------------------------------
def test_every_truncation_is_refused(image: Image) -> None:
    data = image_bytes(image)
    for length in [*range(min(len(data), 600)), *range(600, len(data), 7), len(data) - 1]:
        with pytest.raises(UserError, match=r"^read \.img: "):
            parse_image(data[:length])


def test_every_bit_of_the_header_counts(image: Image) -> None:
    data = image_bytes(image)
    for bit in range(HEADER.size * 8):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(UserError, match=r"^read \.img: "):
            parse_image(bytes(flipped))


def test_a_truncated_payload_with_a_header_that_fits_is_no_crash(image: Image) -> None:
    payload = image_bytes(image)[HEADER.size :]
    rng = random.Random(0)
    for length in rng.sample(range(len(payload)), 200):
        with pytest.raises(UserError, match=r"^read \.img: "):
            parse_image(sealed(payload[:length]))
