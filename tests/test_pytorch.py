"""The platform pytorch on small networks: equal to PyTorch's own run of the module, and whatever else is refused."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto

from sgs.cli import convert_tool
from sgs.engine import FloatEngine
from sgs.errors import UserError
from sgs.frontends.onnx_import import import_model, import_onnx
from sgs.frontends.onnx_model import SourceModel
from sgs.frontends.onnx_surgery import Endpoint, Surgery
from sgs.frontends.platforms import Asked, platform_named
from sgs.frontends.pytorch import platform
from sgs.frontends.pytorch.files import kind_of
from sgs.ir import Graph
from sgs.passes.pipeline import optimise

torch = pytest.importorskip("torch", reason="torch is not installed")
pytest.importorskip("onnxscript", reason="onnxscript is not installed")
nn = torch.nn

PLATFORM = platform_named("pytorch", stage="test")
PICTURE = (1, 3, 10, 14)
SCRIPTS = Path(__file__).resolve().parents[1] / "Scripts"


# -- networks ----------------------------------------------------------------------------------------------------------
class Head(nn.Module):
    """A convolutional network with ReLU in place, a dictionary and a tuple of results, and one that is None."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.drop, self.fc = nn.Dropout(0.3), nn.Linear(8, 5)
        nn.init.normal_(self.norm.running_mean)

    def forward(self, image: Any, scale: Any = None) -> Any:
        x = torch.relu_(self.norm(self.conv(image)))
        return {"boxes": self.fc(self.drop(x.mean((2, 3)))), "more": (x, None)}


class Pair(nn.Module):
    """Head, of which tracing can write the results down, with or without a remainder of sizes."""

    def __init__(self, head: Head, remainder: bool) -> None:
        super().__init__()
        self.head, self.remainder = head, remainder

    def forward(self, image: Any) -> Any:
        found = self.head(image)
        x = found["more"][0]
        batch, channels, height, _ = x.shape
        rows = x.view(batch, channels, height * 2, -1)
        return found["boxes"], rows[:, :, : (19 - height) % 7 + 1] if self.remainder else rows


class Scripted(nn.Module):
    """A loop, an option, a number with a default and a dictionary, for torch.jit.script."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, image, mask: torch.Tensor | None = None, times: int = 2):  # type: ignore[no-untyped-def]
        x = self.norm(self.conv(image))
        for _ in range(times):
            x = torch.relu(x) * 0.5
        if mask is not None:
            x = x * mask
        return {"x": x, "mean": x.mean((2, 3))}


class Choice(nn.Module):
    """A branch on values."""

    def forward(self, x):  # type: ignore[no-untyped-def]
        if bool(x.sum() > 0):
            return x + 1
        return x - 1


class Words(nn.Module):
    """An embedding, averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(50, 8)

    def forward(self, tokens):  # type: ignore[no-untyped-def]
        return self.table(tokens).mean(1)


class Arguments(nn.Module):
    """Trees of inputs, one by keyword, a number; an input and a constant among the results."""

    def forward(self, tree: Any, *, by_name: Any, factor: float) -> Any:
        return tree["a"] + tree["b"][0] * factor, by_name, torch.arange(3.0)


class Counter(nn.Module):
    """State in a view of a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(4, 4))

    def forward(self, x: Any) -> Any:
        self.seen[:2].copy_(x)
        return x + self.seen[1:3]


class Numbers(nn.Module):
    """A result that is no tensor."""

    def forward(self, x: Any) -> Any:
        return x * 2, 3


class Spectral(nn.Module):
    """An operator that ONNX has no word for."""

    def forward(self, x: Any) -> Any:
        return torch.linalg.svd(x)[1]


def seeded(make: Callable[[], Any]) -> Any:
    torch.manual_seed(3)
    return make().eval()


def exported(module: Any, args: Sequence[Any], path: Path, kwargs: Any = None, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module, tuple(args), kwargs, **options), path)
    return path


def scripted(module: Any, path: Path, example: Sequence[Any] | None = None) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if example is not None:
            module = torch.jit.trace(module, tuple(example), check_trace=False)
        torch.jit.save(torch.jit.script(module), str(path))
    return path


@pytest.fixture(scope="module")
def head() -> Any:
    return seeded(Head)


@pytest.fixture(scope="module")
def static(head: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported(head, [torch.zeros(PICTURE)], tmp_path_factory.mktemp("pt") / "head.pt2")


@pytest.fixture(scope="module")
def dynamic(head: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    extents = {0: torch.export.Dim("batch", min=1, max=8), 2: torch.export.Dim("rows", min=4)}
    path = tmp_path_factory.mktemp("pt") / "dynamic.pt2"
    return exported(head, [torch.zeros(2, 3, 10, 14)], path, dynamic_shapes={"image": extents})


# -- what both sides compute -------------------------------------------------------------------------------------------
def load(path: Path, *, dtypes: Sequence[str] | None = None, **asked: Any) -> SourceModel:
    values = PLATFORM.complete({"model_file": path, "input_dtypes": dtypes})
    source = PLATFORM.load(values, Asked(**asked))
    assert isinstance(source, SourceModel)
    return source


def graph_of(source: SourceModel) -> Graph:
    graph = import_model(source, skip_simplify=True)
    optimise(graph)
    return graph


def assert_same(source: SourceModel, expected: Sequence[Any], feeds: Sequence[Any], tolerance: float = 1e-5) -> Graph:
    """The float graph of a source gives, of torch tensors in order, what the module gave."""
    graph = graph_of(source)
    arrays = [feed.numpy() for feed in feeds]
    nhwc = [array.transpose(0, 2, 3, 1) if array.ndim == 4 else array for array in arrays]
    typed = [array.astype(graph[name].dtype.numpy) for name, array in zip(graph.inputs, nhwc, strict=True)]
    found = FloatEngine(graph).run(dict(zip(graph.inputs, typed, strict=True)))
    assert len(graph.outputs) == len(expected)
    for name, tensor in zip(graph.outputs, expected, strict=True):
        wanted = tensor.detach().float().numpy()
        wanted = wanted.transpose(0, 2, 3, 1) if wanted.ndim == 4 else wanted
        np.testing.assert_allclose(found[name], wanted, rtol=0, atol=tolerance * max(1.0, float(np.ptp(wanted))))
    return graph


def picture(*shape: int) -> Any:
    return torch.randn(*(shape or PICTURE), generator=torch.Generator().manual_seed(5))


# -- programs ----------------------------------------------------------------------------------------------------------
def test_a_program_computes_what_its_module_does(head: Any, static: Path) -> None:
    feed = picture()
    expected = head(feed.clone())
    source = load(static)
    assert [port.name for port in source.outputs] == ["boxes", "more_0"], "as the dictionary says, without the None"
    graph = assert_same(source, [expected["boxes"], expected["more"][0]], [feed])
    assert [node.op for node in graph.nodes] == ["CONV_2D", "MEAN", "FULLY_CONNECTED"]
    assert {"norm", "fc"} <= {node.name for node in source.proto.graph.node}, "nodes are named by their modules"


def test_a_program_is_the_graph_that_its_onnx_file_is(head: Any, static: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(head, (picture(),), str(tmp_path / "head.onnx"), verbose=False, external_data=False)
    theirs, ours = import_onnx(tmp_path / "head.onnx"), graph_of(load(static))
    optimise(theirs)
    assert [(node.op, node.attrs) for node in ours.nodes] == [(node.op, node.attrs) for node in theirs.nodes]
    for mine, other in zip(ours.nodes, theirs.nodes, strict=True):
        for a, b in zip(ours.operands(mine), theirs.operands(other), strict=True):
            assert a is not None and b is not None and a.shape == b.shape and a.is_constant == b.is_constant
            if a.is_constant:
                np.testing.assert_array_equal(a.data, b.data)


def test_trees_keywords_and_constants_of_a_program(tmp_path: Path) -> None:
    a, b, c = (torch.randn(2, extent, generator=torch.Generator().manual_seed(extent)) for extent in (4, 4, 7))
    module = seeded(Arguments)
    tree = {"a": a, "b": [b * 2]}
    path = exported(module, [tree], tmp_path / "x.pt2", {"by_name": c, "factor": 3.0})
    source = load(path)
    assert [port.name for port in source.inputs] == ["tree_a", "tree_b_0", "by_name"]
    assert source.inputs[2].shape == (2, 7)
    assert_same(source, module(tree, by_name=c, factor=3.0), [a, b * 2, c])


@pytest.mark.parametrize(("dtype", "tolerance"), [("bfloat16", 3e-2), ("float64", 1e-5)])
def test_floats_of_every_type_become_float32(dtype: str, tolerance: float, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    module = seeded(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 96, 5))).to(kind)
    feed = picture()
    path = exported(module, [feed.to(kind)], tmp_path / "x.pt2")
    assert_same(load(path), [module(feed.to(kind))], [feed], tolerance)


def test_dynamic_axes_are_a_question(head: Any, dynamic: Path) -> None:
    with pytest.raises(UserError, match=r"'image' \[s\d+,3,s\d+,14\] is not static .*--input_shapes 1,3,10,14\)"):
        load(dynamic)
    feed = picture(3, 3, 6, 14)
    expected = head(feed.clone())
    source = load(dynamic, shapes=((3, 3, 6, 14),))
    assert_same(source, [expected["boxes"], expected["more"][0]], [feed])


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        (
            ((9, 3, 3, 14),),
            r"2 problems\n.* 0 of .*cannot be 9: s\d+ is from 1 to 8.*\n.*cannot be 3: s\d+ is 4 or more",
        ),
        (((1, 3, 10, 15),), r"dimension 3 of input 'image' .* cannot be 15: it was exported as 14"),
        (((1, 3, 10),), r"1,3,10 does not fit input 'image'"),
        (((1, 3, 10, 14), (1, 2)), r"2 input shapes for 1 inputs \(image\)"),
    ],
)
def test_shapes_that_a_program_does_not_take(shapes: Any, message: str, dynamic: Path) -> None:
    with pytest.raises(UserError, match=message):
        load(dynamic, shapes=shapes)


def test_shapes_that_hang_together(tmp_path: Path) -> None:
    class Joined(nn.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return torch.cat([a, b])

    extent = torch.export.Dim("n", min=2, max=8)
    path = exported(
        Joined(),
        [torch.zeros(3, 4), torch.zeros(6, 4)],
        tmp_path / "x.pt2",
        dynamic_shapes=({0: extent}, {0: 2 * extent}),
    )
    with pytest.raises(UserError, match="--input_shapes 2,4:4,4"):
        load(path)
    with pytest.raises(UserError, match=r"dimension 0 of input 'b' \[2\*s\d+,4\] cannot be 9: 2\*s\d+ is 8"):
        load(path, shapes=((4, 4), (9, 4)))
    a, b = torch.ones(4, 4), torch.zeros(8, 4)
    shapes = ((8, 4), (4, 4))  # in the order of the ini
    assert_same(load(path, inputs=("b", "a"), shapes=shapes), [torch.cat([a, b])], [a, b])


# -- names -------------------------------------------------------------------------------------------------------------
def test_names_of_the_ini_count_by_position(static: Path) -> None:
    from sgs.frontends.pytorch.translate import name_ports

    def named(**asked: Any) -> tuple[list[str], list[str]]:
        proto = ModelProto()
        proto.CopyFrom(own)
        told = name_ports(proto, Asked(**asked))
        onnx.checker.check_model(proto)
        return [value.name for value in (*proto.graph.input, *proto.graph.output)], told

    own = load(static).proto
    assert named() == (["image", "boxes", "more_0"], [])
    told = ["output 'boxes' of the network is 'x'", "output 'more_0' of the network is 'y'"]
    assert named(inputs=("image",), outputs=("x", "y")) == (["image", "x", "y"], told)
    told = ["input 'image' of the network is 'norm.weight'"]
    assert named(inputs=("norm.weight",)) == (["norm.weight", "boxes", "more_0"], told)
    for names in (
        ("boxes",),
        ("x",),
        ("x", "more_0"),
        ("x", "mean"),
        ("x", "y", "z"),
    ):  # the importer says what is wrong
        assert named(outputs=names) == (["image", "boxes", "more_0"], [])
    cut = Surgery(outputs=(Endpoint("y"), Endpoint("x")))
    assert named(outputs=("y", "x"), surgery=cut) == (["image", "boxes", "more_0"], [])


# -- TorchScript -------------------------------------------------------------------------------------------------------
def test_a_script_takes_shapes_and_inference_mode(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(3)
    module = Scripted()
    path = scripted(module, tmp_path / "x.pt")
    with pytest.raises(
        UserError, match=r"no shapes of its inputs \(image: Tensor, mask: Optional\[Tensor\] or nothing"
    ):
        load(path)
    source = load(path, shapes=(PICTURE,))
    assert "saved in training mode" in caplog.text
    feed, mask = picture(), torch.rand(1, 4, 8, 12)
    expected = module.eval()(feed)
    assert [port.name for port in source.outputs] == ["x", "mean"]
    assert_same(source, list(expected.values()), [feed])
    assert_same(load(path, shapes=(PICTURE, (1, 4, 8, 12))), list(module(feed, mask).values()), [feed, mask])
    part = Surgery(inputs=(Endpoint("relu"),))
    assert load(path, inputs=("relu",), shapes=(PICTURE,), surgery=part).inputs[0].shape == PICTURE
    with pytest.raises(UserError, match=r"does not run on float32\[1,4,10,14\]: .* to have 3 channels, but got 4"):
        load(path, shapes=((1, 4, 10, 14),))


@pytest.mark.parametrize(("remainder", "names"), [(False, ["linear", "view_1"]), (True, ["output_0", "output_1"])])
def test_a_trace_goes_the_older_way_where_it_must(remainder: bool, names: Any, head: Any, tmp_path: Path) -> None:
    module = Pair(head, remainder).eval()
    path = scripted(module, tmp_path / "x.pth", [picture()])
    feed = picture(2, 3, 10, 14)
    source = load(path, shapes=((2, 3, 10, 14),))
    assert [port.name for port in source.outputs] == names
    assert_same(source, module(feed.clone()), [feed])


def test_a_branch_on_values(tmp_path: Path) -> None:
    path = scripted(Choice(), tmp_path / "x.pt")
    for feed in (torch.ones(2, 3), -torch.ones(2, 3)):
        assert_same(load(path, shapes=((2, 3),)), [Choice()(feed)], [feed])


def test_indices_have_a_type(tmp_path: Path) -> None:
    module = seeded(Words)
    tokens = torch.tensor([[3, 7, 49, 0]])
    path = scripted(module, tmp_path / "x.pt")
    assert_same(load(path, shapes=((1, 4),), dtypes=("int64",)), [module(tokens)], [tokens])
    for dtypes, message in (
        (None, r"does not run on float32\[1,4\]: .*indices.*--input_dtypes"),
        (("int64", "int64"), r"2 types for 1 inputs \(tokens\)"),
        (("int46",), "--input_dtypes names int46"),
    ):
        with pytest.raises(UserError, match=message):
            load(path, shapes=((1, 4),), dtypes=dtypes)
    program = exported(module, [tokens], tmp_path / "x.pt2")
    assert_same(load(program), [module(tokens)], [tokens])
    with pytest.raises(UserError, match=r"says float32, the program takes 'tokens' int64"):
        load(program, dtypes=("float32",))


# -- refusals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("make", "feed", "message"),
    [
        (lambda: Head().train(), PICTURE, r"aten.batch_norm 'norm.batch_norm': is in training mode .*eval"),
        (lambda: nn.GRU(4, 3, 2, dropout=0.1), (5, 2, 4), r"aten.gru 'gru': is in training mode"),
        (Counter, (2, 4), r"aten.copy_ 'copy_': writes 'seen', so that results depend on the runs before"),
        (Numbers, (2, 4), r"output 1 is 3, no tensor"),
        (Spectral, (2, 4), r"cannot translate the operator aten._linalg_svd to ONNX"),
    ],
)
def test_programs_that_have_no_meaning_here(make: Any, feed: Any, message: str, tmp_path: Path) -> None:
    path = exported(make(), [torch.zeros(feed)], tmp_path / "x.pt2")
    with pytest.raises(UserError, match=message):
        load(path)


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def archive(**entries: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, text in entries.items():
            file.writestr(name, text)
    return buffer.getvalue()


EXPORT = r"torch\.export\.save\(torch\.export\.export\(model\.eval\(\)"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda: saved(Head().state_dict()), rf"holds weights \(a state dict\), and no network .*{EXPORT}"),
        (lambda: saved({"state_dict": Head().state_dict(), "epoch": 3}), rf"is a training checkpoint.*{EXPORT}"),
        (lambda: saved(Head()), rf"holds a pickled [\w.]*Head, which only its own Python code can load .*{EXPORT}"),
        (lambda: saved(nn.Linear(2, 2)), r"holds a pickled torch.nn.modules.linear.Linear"),
        (lambda: saved({}, _use_new_zipfile_serialization=False), rf"is a pickled checkpoint.*{EXPORT}"),
        (lambda: (2).to_bytes(8, "little") + b"{}" + bytes(80), r"is a safetensors file"),
        (lambda: b"", r"is empty"),
        (lambda: b"\x89PNG\r\n\x1a\n" + bytes(80), r"is no file of PyTorch"),
        (lambda: archive(**{"word/document.xml": "x"}), r"is an archive of something else"),
        (lambda: archive(**{"x/data/aotinductor/model/a.so": "x"}), r"is compiled by AOTInductor"),
        (lambda: archive(**{"x/models/a.json": "{}", "x/models/b.json": "{}"}), r"holds the programs a, b"),
        (lambda: archive(**{"serialized_exported_program.json": "{}"}), r"in the format of PyTorch before 2.8"),
        (lambda: archive(**{"x/models/model.json": "{}"}), r"cannot read it, so it is damaged, or of another version"),
    ],
)
def test_files_that_are_something_else(content: Callable[[], bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "file of 谁.pt"
    path.write_bytes(content())
    with pytest.raises(UserError, match=message):
        load(path)


def changed(path: Path, to: Path, change: Callable[[str, bytes], bytes]) -> Path:
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(to, "w") as target:
        for name in source.namelist():
            target.writestr(name, change(name, source.read(name)))
    return to


def test_damaged_programs(static: Path, tmp_path: Path) -> None:
    whole = static.read_bytes()
    path = tmp_path / "x.pt2"
    for kept in (len(whole) // 2, len(whole) - 30):
        path.write_bytes(whole[:kept])
        with pytest.raises(UserError, match="is damaged or truncated"):
            load(path)
    entry = whole.index(b"models/model.json") + 200
    path.write_bytes(whole[:entry] + b"!" + whole[entry + 1 :])
    with pytest.raises(UserError, match=r"is damaged or truncated: Bad CRC-32 for file 'head/models/model.json'"):
        load(path)
    newer = changed(
        static, path, lambda name, data: re.sub(rb'("schema_version": ?\{"major": ?)\d+', rb"\g<1>99", data)
    )
    with pytest.raises(
        UserError, match=r"saved by PyTorch [\w.+]+ in format 99, the installed PyTorch .* reads format"
    ):
        load(newer)
    for other, message in ((tmp_path, "is a folder"), (tmp_path / "none.pt2", "no such file")):
        with pytest.raises(UserError, match=message):
            kind_of(other)


class Touches:
    """A pickle that makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return open, (str(self.path), "w")


def test_pickles_are_never_run(static: Path, tmp_path: Path) -> None:
    trap = saved((Touches(tmp_path / "touched"),))
    path = changed(static, tmp_path / "x.pt2", lambda name, data: trap if "sample_inputs" in name else data)
    with pytest.raises(UserError, match="holds pickled objects other than tensors"):
        load(path)
    (tmp_path / "x.pth").write_bytes(trap)
    with pytest.raises(UserError, match="holds a pickled io.open"):
        load(tmp_path / "x.pth")
    assert not (tmp_path / "touched").exists()


def test_packages_that_do_not_work(static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise OSError("libcudart.so.99: cannot open shared object file\nand more")

    monkeypatch.setattr(platform, "import_module", broken)
    with pytest.raises(
        UserError, match=r"torch cannot be imported: libcudart\.so\.99: cannot open [a-z ]+ \(.*whl/cpu"
    ):
        load(static)


@pytest.mark.parametrize("package", ["torch", "onnxscript"])
def test_packages_that_are_missing(package: str, static: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=rf"package {package} is not installed .*\[torch\].*whl/cpu"):
        load(static)


# -- the programs ------------------------------------------------------------------------------------------------------
INI = """[INPUT_CONFIG]
inputs=image;
training_input_formats=RGB;
input_formats=RGB;
mean=123:116:103;
std_value=58;
[OUTPUT_CONFIG]
outputs=boxes,more_0;
"""


def test_convert_tool_verifies(static: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ini = tmp_path / "input_config.ini"
    ini.write_text(INI)
    before = set(Path.cwd().iterdir())
    target = tmp_path / "模 型_float.sim"
    options = ["--input_config", ini, "--soc_version", "pcupid", "--output_file", target, "--verify"]
    arguments = ["pytorch", "--model_file", static, *options]
    assert convert_tool.main([str(argument) for argument in arguments]) == 0
    told, noise = capfd.readouterr()
    *lines, last = told.splitlines()
    assert last == f"Float model at: {target}" and not noise
    assert [re.sub(r"\d\.\de-\d+", "X", line) for line in lines] == [
        f"verify: output '{name}' is X of its range from PyTorch's" for name in ("boxes", "more_0")
    ]
    assert set(Path.cwd().iterdir()) == before, "and no other files"


def test_help_does_without_torch() -> None:
    """Its import takes seconds, which only those who convert its networks should wait."""
    code = "import sys, sgs.cli.convert_tool as tool; tool.main(['pytorch', '-h']); assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True
    )
    assert done.returncode == 0 and "--verify" in done.stdout, done.stderr
