"""The file formats: the generated classes are those of the schemas, and sim.fbs is wire-compatible with TFLite."""

import ast
import importlib.util
import inspect
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import flatbuffers
import numpy as np
import pytest

from conventions import ROOT
from sgs.frontends.caffe.generated import caffe_pb2
from sgs.img import generated as img
from sgs.img.generated import img_generated
from sgs.sim import generated as sim
from sgs.sim.generated import sim_generated, vectors

GENERATED = {"sim": sim_generated, "img": img_generated, "caffe": caffe_pb2}


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("schema_generate", ROOT / "schema" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generator = load_generator()


# ---- generated files -------------------------------------------------------------------------------------------------


def kept_classes(name: str) -> Path:
    return Path(ROOT, "Scripts", "sgs", generator.SCHEMAS[name].home, "generated")


@pytest.mark.parametrize("name", generator.SCHEMAS)
def test_regenerating_changes_nothing(name: str, tmp_path: Path) -> None:
    schema = generator.SCHEMAS[name]
    version = generator.version_of(schema.compiler)
    if version is None:
        pytest.skip(f"{schema.compiler} is not on PATH")
    if version != schema.version:
        pytest.skip(f"{schema.compiler} {version} writes another text than {schema.version}, which wrote the tree's")
    fresh = generator.generate(name, tmp_path)
    kept = kept_classes(name)
    assert {path.name: path.read_text("utf-8") for path in fresh.glob("*.py")} == {
        path.name: path.read_text("utf-8") for path in kept.glob("*.py")
    }


@pytest.mark.parametrize("name", generator.SCHEMAS)
def test_generated_files_are_of_these_sources(name: str) -> None:
    """The same without the compilers: a schema or vectors.py edited and not regenerated."""
    assert generator.schema_digest(name) in inspect.getsource(GENERATED[name]), "run python schema/generate.py"
    copies = {path.read_bytes() for path in kept_classes(name).glob("vectors.py")}
    assert copies <= {(ROOT / "schema" / "vectors.py").read_bytes()}


@pytest.mark.parametrize("name", generator.SCHEMAS)
def test_generating_without_its_compiler_is_a_clear_error(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(generator.GenerateError, match=f"{generator.SCHEMAS[name].compiler} .* needed"):
        generator.generate(name, tmp_path)
    assert not list(tmp_path.iterdir())


# ---- wire compatibility ----------------------------------------------------------------------------------------------


class Facts:
    """What a file of generated classes says about the wire: enum numbers, and of every field its id, type, default."""

    def __init__(self, module: ModuleType) -> None:
        body = ast.parse(inspect.getsource(module)).body
        classes = [node for node in body if isinstance(node, ast.ClassDef)]
        self.enums = {c.name: self.numbers(c) for c in classes if not self.methods(c) and self.numbers(c)}
        self.tables = {
            c.name: {m.name: read for m in self.methods(c) if (read := self.read_access(m))}
            for c in classes
            if any(m.name == "Init" for m in self.methods(c))
        }
        # ConvStart: number of fields. ConvAddPadding: id, type, default. ConvStartShapeVector: element size, alignment.
        functions = [node for node in body if isinstance(node, ast.FunctionDef)]
        self.writers = {f.name: self.builder_call(f) for f in functions if f.args.args[0].arg == "builder"}

    @staticmethod
    def methods(node: ast.ClassDef) -> list[ast.FunctionDef]:
        return [item for item in node.body if isinstance(item, ast.FunctionDef)]

    @staticmethod
    def numbers(node: ast.ClassDef) -> dict[str, Any]:
        pairs = [(i.targets[0], i.value) for i in node.body if isinstance(i, ast.Assign)]
        return {t.id: v.value for t, v in pairs if isinstance(t, ast.Name) and isinstance(v, ast.Constant)}

    @staticmethod
    def read_access(method: ast.FunctionDef) -> tuple[Any, ...] | None:
        """(offset in the vtable, element types and classes named, value when absent) of an accessor."""
        nodes = list(ast.walk(method))
        calls = [n for n in nodes if isinstance(n, ast.Call)]
        offsets = [n.args[0].value for n in calls if ast.unparse(n.func) == "self._tab.Offset"]
        if not offsets:
            return None
        types = {n.attr for n in nodes if isinstance(n, ast.Attribute) and n.attr.endswith("Flags")}
        tables = {n.func.id for n in calls if isinstance(n.func, ast.Name)} - {"bool", "Table"}
        last = method.body[-1]
        assert isinstance(last, ast.Return) and last.value is not None
        return offsets[0], types | tables, ast.unparse(last.value)

    @staticmethod
    def builder_call(function: ast.FunctionDef) -> list[str]:
        """The calls to the builder, with the name of the second parameter (it is spelled differently) blotted out."""
        calls = [ast.unparse(n) for n in ast.walk(function) if isinstance(n, ast.Call)]
        for parameter in function.args.args[1:]:
            calls = [re.sub(rf"\b{parameter.arg}\b", "VALUE", call) for call in calls]
        return sorted(call for call in calls if call.startswith("builder."))


@pytest.fixture(scope="module")
def ours() -> Facts:
    return Facts(sim_generated)


@pytest.fixture(scope="module")
def tflite() -> Facts:
    return Facts(pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed"))


def is_placeholder(table: str, facts: Facts) -> bool:
    return facts.writers[f"{table}Start"] == ["builder.StartObject(0)"]


def test_the_comparison_sees_the_schema(ours: Facts) -> None:
    assert ours.enums["BuiltinOptions"]["RightShiftOptions"] == 126
    assert ours.tables["Conv2DOptions"]["DilationWFactor"] == (12, {"UOffsetTFlags", "Int32Flags"}, "1")
    assert ours.tables["Model"]["Subgraphs"] == (8, {"UOffsetTFlags", "SubGraph"}, "None")
    assert ours.writers["BufferStartDataVector"] == ["builder.StartVector(1, VALUE, 1)"]
    assert ours.writers["AddOptionsAddPotScaleInt16"] == ["builder.PrependBoolSlot(1, VALUE, 1)"]


def test_enum_and_union_numbers(ours: Facts, tflite: Facts) -> None:
    assert {"BuiltinOperator", "BuiltinOptions", "BuiltinOptions2", "TensorType"} <= ours.enums.keys()
    for name, numbers in ours.enums.items():
        # TFLite may have grown; what stands in our text must be a prefix of it.
        assert list(numbers.items()) == list(tflite.enums[name].items())[: len(numbers)], name


def test_field_ids_types_and_defaults(ours: Facts, tflite: Facts) -> None:
    compared = 0
    for table, fields in ours.tables.items():
        assert table in tflite.tables
        for field, access in fields.items():
            assert access == tflite.tables[table][field], f"{table}.{field}"
            compared += 1
    assert compared > 300
    for name, calls in ours.writers.items():
        if not name.endswith("Start"):
            assert calls == tflite.writers[name], name


def test_tables_are_complete_or_placeholders(ours: Facts, tflite: Facts) -> None:
    """A table with fewer fields than TFLite's loses data when it is rewritten, so there is none unless it has none."""
    schema = (ROOT / "schema" / "sim.fbs").read_text("utf-8")
    placeholders = schema[schema.index("// Placeholders:") : schema.index("union BuiltinOptions ")]
    for table in ours.tables:
        if is_placeholder(table, ours) and not is_placeholder(table, tflite):
            assert f"table {table} {{}}" in placeholders
        else:
            assert f"table {table} {{}}" not in placeholders
            assert ours.writers[f"{table}Start"] == tflite.writers[f"{table}Start"], table


def test_image_types_are_numbered_like_sim_types() -> None:
    numbers = {name: value for name, value in vars(img.DType).items() if isinstance(value, int)}
    assert len(numbers) > 10
    assert numbers == {name: getattr(sim.TensorType, name) for name in numbers}


# ---- round trips -----------------------------------------------------------------------------------------------------


def make(cls: type, **fields: Any) -> Any:
    """An object of the object API with these fields set; a field that it lacks is an error."""
    result = cls()
    for name, value in fields.items():
        assert hasattr(result, name), f"{cls.__name__} has no field {name}"
        setattr(result, name, value)
    return result


def pack(root: Any, identifier: bytes) -> bytes:
    builder = flatbuffers.Builder(0)
    builder.Finish(root.Pack(builder), identifier)
    return bytes(builder.Output())


def leaky_add_model(constant: np.ndarray) -> Any:
    """LEAKY_RELU(x + constant), float."""
    shape = np.array([1, *constant.shape[1:]], np.int32)
    tensors = [
        make(sim.TensorT, shape=shape, type=sim.TensorType.FLOAT32, buffer=buffer, name=name)
        for name, buffer in (("x", 0), ("größe", 1), ("sum", 0), ("y", 0))
    ]
    tensors[0].quantization = make(sim.QuantizationParametersT, min=[-1.5], max=[2.0])
    codes = [
        make(sim.OperatorCodeT, deprecatedBuiltinCode=code, builtinCode=code, version=1)
        for code in (sim.BuiltinOperator.ADD, sim.BuiltinOperator.LEAKY_RELU)
    ]
    add = make(sim.OperatorT, opcodeIndex=0, inputs=[0, 1], outputs=[2])
    add.builtinOptionsType, add.builtinOptions = sim.BuiltinOptions.AddOptions, sim.AddOptionsT()
    leaky = make(sim.OperatorT, opcodeIndex=1, inputs=[2], outputs=[3])
    leaky.builtinOptionsType = sim.BuiltinOptions.LeakyReluOptions
    leaky.builtinOptions = make(sim.LeakyReluOptionsT, alpha=0.125)
    graph = make(sim.SubGraphT, tensors=tensors, inputs=[0], outputs=[3], operators=[add, leaky], name="main")
    data = constant.reshape(-1).view(np.uint8)
    buffers = [sim.BufferT(), make(sim.BufferT, data=data), make(sim.BufferT, data=b'"float"')]
    metadata = [make(sim.MetadataT, name="sgs.stage", buffer=2)]
    fields = dict(subgraphs=[graph], buffers=buffers, metadata=metadata, description="t")
    return make(sim.ModelT, version=3, operatorCodes=codes, **fields)


CONSTANT = np.linspace(-3, 3, 24, dtype=np.float32).reshape(1, 2, 3, 4)


def test_sim_round_trip() -> None:
    data = pack(leaky_add_model(CONSTANT), b"TFL3")
    assert sim.Model.ModelBufferHasIdentifier(data, 0)
    model = sim.ModelT.InitFromObj(sim.Model.GetRootAs(data))
    graph = model.subgraphs[0]
    assert [t.name for t in graph.tensors] == ["x", "größe", "sum", "y"]
    assert isinstance(graph.operators[1].builtinOptions, sim.LeakyReluOptionsT)
    assert graph.operators[1].builtinOptions.alpha == 0.125
    assert graph.operators[0].builtinOptions.potScaleInt16 is True
    assert graph.tensors[0].quantization.min.tolist() == [-1.5]
    np.testing.assert_array_equal(model.buffers[1].data.view(np.float32), CONSTANT.reshape(-1))
    assert model.buffers[0].data is None and model.buffers[2].data.tobytes() == b'"float"'
    assert pack(model, b"TFL3") == data, "reading and writing again gives the same bytes"


def test_buffers_are_views_and_aligned() -> None:
    model = leaky_add_model(CONSTANT)
    model.buffers += [make(sim.BufferT, data=np.full(size, 7, np.uint8)) for size in (1, 15, 16, 17, 1000)]
    file = np.frombuffer(pack(model, b"TFL3"), np.uint8)
    for buffer in sim.ModelT.InitFromObj(sim.Model.GetRootAs(file.tobytes())).buffers[1:]:
        assert not buffer.data.flags.owndata
    again = sim.Model.GetRootAs(memoryview(file))
    for index in range(1, again.BuffersLength()):
        view = again.Buffers(index).DataAsNumpy()
        assert np.shares_memory(view, file)
        assert (view.__array_interface__["data"][0] - file.__array_interface__["data"][0]) % 16 == 0


def test_tflite_reads_ours_and_we_read_tflite() -> None:
    reference = pytest.importorskip("ai_edge_litert.schema_py_generated", reason="ai-edge-litert is not installed")
    data = pack(leaky_add_model(CONSTANT), b"TFL3")
    theirs = pack(reference.ModelT.InitFromObj(reference.Model.GetRootAs(data)), b"TFL3")
    model = sim.ModelT.InitFromObj(sim.Model.GetRootAs(theirs))
    assert pack(model, b"TFL3") == data


def test_litert_runs_it() -> None:
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="ai-edge-litert is not installed")
    interpreter = litert.Interpreter(model_content=pack(leaky_add_model(CONSTANT), b"TFL3"))
    interpreter.allocate_tensors()
    x = np.arange(24, dtype=np.float32).reshape(CONSTANT.shape) / 8 - 1
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], x)
    interpreter.invoke()
    total = x + CONSTANT
    expected = np.where(total < 0, total * np.float32(0.125), total)
    np.testing.assert_array_equal(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]), expected)


def small_image() -> Any:
    weights = np.arange(100, dtype=np.uint8)
    tensor = make(img.TensorRefT, name="x", dtype=img.DType.INT16, shape=[1, 4], scale=[0.5], zeroPoint=[0])
    io = make(img.IoTensorT, tensor=0, name="x", format="RAWDATA_S16_NHWC", shape=[1, 4], scale=np.array([0.5]))
    kernel = make(img.KernelT, opcode="ADD", inputs=[0, -1], outputs=[0], attributes=b"\x01")
    place = make(img.PlaceT, space=img.Space.WEIGHTS, offset=64, strides=(-4, 1))
    commands = [
        make(img.CommandT, kernel=0, inputs=[0, -1], outputs=[2**33], cycles=2**40),
        make(img.CommandT, extents=[2, 4], itemsize=1, source=place, target=place),
    ]
    program = make(img.ProgramT, batch=2, arenaSize=2**33, commands=commands)
    fields = dict(inputs=[io], outputs=[io], tensors=[tensor], kernels=[kernel], programs=[program])
    fields |= dict(weights=weights, weightsSize=100)
    return make(img.ImageT, formatVersion=2, batchMode=img.BatchMode.ONE_BUF, batches=[1, 2], configJson="{}", **fields)


def test_img_round_trip() -> None:
    data = pack(small_image(), b"SIPU")
    assert img.Image.ImageBufferHasIdentifier(data, 0)
    image = img.ImageT.InitFromObj(img.Image.GetRootAs(data))
    program = image.programs[0]
    assert program.commands[0].inputs.tolist() == [0, -1] and program.commands[0].cycles == 2**40
    assert program.commands[1].source.space == img.Space.WEIGHTS and program.arenaSize == 2**33
    assert program.commands[1].kernel == -1 and program.commands[1].target.strides.tolist() == [-4, 1]
    assert (image.tensors[0].axis, image.inputs[0].widthAlignment, image.chip) == (-1, 1, None)
    assert image.weights.tolist() == list(range(100))
    file = np.frombuffer(data, np.uint8)
    weights = img.Image.GetRootAs(memoryview(file)).WeightsAsNumpy()
    assert (weights.__array_interface__["data"][0] - file.__array_interface__["data"][0]) % 64 == 0
    assert pack(image, b"SIPU") == data


# ---- vectors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([], np.int32, []),
        ((1, -2), np.int32, [1, -2]),
        (np.array([1, -2], np.int64), np.int32, [1, -2]),
        (np.array([1, 2], ">i4"), np.int32, [1, 2]),
        (np.arange(6)[::2], np.int32, [0, 2, 4]),
        (range(3), np.uint8, [0, 1, 2]),
        (bytearray(b"ab"), np.uint8, [97, 98]),
        (memoryview(b"ab"), np.uint8, [97, 98]),
        ([1, 0.5], np.float32, [1, 0.5]),
        ([True, False], np.bool_, [True, False]),
    ],
)
def test_vector_accepts(values: Any, dtype: Any, expected: list[Any]) -> None:
    builder = flatbuffers.Builder(0)
    builder.Finish(vectors.vector(builder, values, dtype, 1))
    data = bytes(builder.Output())
    start = int.from_bytes(data[:4], "little")
    assert int.from_bytes(data[start : start + 4], "little") == len(expected)
    assert np.frombuffer(data, dtype, len(expected), start + 4).tolist() == expected


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([2**31], np.int32),
        ([-1], np.uint32),
        (np.array([2**40]), np.int32),
        ([0.5], np.int32),
        (np.zeros(2, np.int16), np.uint8),
        (np.zeros(2, np.float32), np.uint8),
        (np.zeros((2, 2), np.uint8), np.uint8),
        (["a"], np.int32),
    ],
)
def test_vector_refuses(values: Any, dtype: Any) -> None:
    with pytest.raises(ValueError, match=r"vector"):
        vectors.vector(flatbuffers.Builder(0), values, dtype, 1)


def test_text_keeps_different_names_apart() -> None:
    assert vectors.text(None) is None
    assert vectors.text("größe".encode()) == "größe"
    assert vectors.text(b"a\xff") != vectors.text(b"a\xfe")
