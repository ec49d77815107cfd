"""External data of ONNX models: mapped, checked, and never from outside the model's folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto

from onnx_compare import assert_same
from onnx_snippets import Net, conv_chain
from sgs.errors import UserError
from sgs.frontends import model_file, onnx_external, onnx_model, onnx_simplify
from sgs.frontends.onnx_external import take_external
from sgs.frontends.onnx_import import import_onnx
from sgs.frontends.onnx_model import load_model
from sgs.sim import read_sim, write_sim


def large(size: int = 300) -> ModelProto:
    """A matrix of size² × 4 bytes, and a small one."""
    net = Net()
    x = net("MatMul", net.input("x", 2, size), net.weights(size, size))
    return net.model(net("MatMul", x, net.weights(size, 3)))


def saved(model: ModelProto, folder: Path, **options: Any) -> Path:
    path = folder / "model.onnx"
    whole = {"save_as_external_data": True, "location": "w.bin", "size_threshold": 0, **options}
    onnx.save_model(model, path, **whole)
    return path


def test_large_values_stay_out_of_the_message(tmp_path: Path) -> None:
    path = saved(large(), tmp_path)
    source = load_model(path)
    assert {name: value.shape for name, value in source.external.items()} == {"c0": (300, 300)}
    assert not source.external["c0"].flags.writeable and source.external["c0"].base is not None
    assert source.proto.ByteSize() < 10_000
    assert_same(import_onnx(path), large())


def test_what_is_askew_is_copied(tmp_path: Path) -> None:
    path = saved(large(), tmp_path)
    proto = onnx.load_model(path, load_external_data=False)
    (tmp_path / "w.bin").write_bytes(b"abc" + (tmp_path / "w.bin").read_bytes())
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "offset":
                entry.value = str(int(entry.value) + 3)
    onnx.save_model(proto, path)
    assert_same(import_onnx(path), large())


def test_half_precision_and_nibbles(tmp_path: Path) -> None:
    net = Net()
    half = net.constant(np.linspace(-1, 1, 40_000).astype(np.float16).reshape(200, 200))
    x = net("Cast", net.input("x", 2, 200), to=TensorProto.FLOAT16)
    model = net.model(net("MatMul", x, half))
    model.graph.initializer.append(onnx.helper.make_tensor("n", TensorProto.INT4, [5], [1, -2, 3, 7, -8]))
    source = load_model(saved(model, tmp_path))
    assert source.external["c0"].dtype == np.float16
    nibbles = next(t for t in source.proto.graph.initializer if t.name == "n")
    assert source.value_of(nibbles).astype(int).tolist() == [1, -2, 3, 7, -8]
    assert import_onnx(saved(model, tmp_path)).inputs == ["x"]


def test_a_model_with_external_data_is_simplified(tmp_path: Path) -> None:
    source = load_model(saved(large(), tmp_path))
    ports = onnx_model.input_ports(source, None, ["x"])
    simpler = onnx_simplify.simplified(source, ports)
    assert simpler is not None and not simpler.external
    assert onnx_simplify.simplified(source, ports, largest_model=1000) is None


def test_values_go_back_in_only_where_a_message_holds_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = load_model(saved(large(), tmp_path))
    whole = onnx_external.with_values(source.proto, source.external)
    assert whole is not None and whole.graph.initializer[0].raw_data == large().graph.initializer[0].raw_data
    monkeypatch.setattr(onnx_external, "LARGEST_MESSAGE", 1000)
    assert onnx_external.with_values(source.proto, source.external) is None


# -- what is refused ---------------------------------------------------------------------------------------------------
def entry(proto: ModelProto, key: str, value: str | None) -> None:
    """Change an entry of the first initializer; None takes it away."""
    tensor = proto.graph.initializer[0]
    kept = [(e.key, e.value) for e in tensor.external_data if e.key != key]
    del tensor.external_data[:]
    for name, text in [*kept, *([] if value is None else [(key, value)])]:
        tensor.external_data.add(key=name, value=text)


def link_out(proto: ModelProto, folder: Path) -> None:
    (folder / "outside").mkdir()
    (folder / "w.bin").rename(folder / "outside" / "w.bin")
    (folder / "inside").mkdir()
    (folder / "inside" / "link.bin").symlink_to(folder / "outside" / "w.bin")


def pipe(proto: ModelProto, folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    entry(proto, "location", "pipe")


REFUSED: list[tuple[Callable[[ModelProto, Path], None], str]] = [
    (lambda proto, folder: (folder / "w.bin").unlink(), "'w.bin' cannot be read: No such file"),
    (lambda proto, folder: entry(proto, "location", "../w.bin"), "'../w.bin' lie outside the model's folder"),
    (lambda proto, folder: entry(proto, "location", "/etc/passwd"), "'/etc/passwd' lie outside the model's folder"),
    (lambda proto, folder: entry(proto, "location", "a\0b"), "name no file"),
    (lambda proto, folder: entry(proto, "location", None), "name no file"),
    (lambda proto, folder: entry(proto, "location", "."), r"'.' are (not a regular file|a link out)"),
    (lambda proto, folder: entry(proto, "location", "n" * 999), "cannot be read: File name too long"),
    (pipe, "'pipe' are not a regular file"),
    (lambda proto, folder: entry(proto, "offset", str(1 << 62)), "end at byte .* of 'w.bin', which has"),
    (lambda proto, folder: entry(proto, "offset", "-4"), "have the offset '-4'"),
    (lambda proto, folder: entry(proto, "length", "12"), r"its shape \[300,300\] takes 360000 bytes, .* have 12"),
    (lambda proto, folder: proto.graph.initializer[0].dims.append(1 << 40), "takes .* bytes, its external data have"),
    (lambda proto, folder: proto.graph.initializer[0].dims.append(-1), "is not one"),
    (lambda proto, folder: setattr(proto.graph.initializer[0], "data_type", 99), "element type 99 is not known"),
    (lambda proto, folder: setattr(proto.graph.initializer[0], "data_type", 8), "it is of text"),
    (lambda proto, folder: (folder / "w.bin").write_bytes(b""), "of 'w.bin', which has 0"),
]


@pytest.mark.parametrize(("damage", "message"), REFUSED)
def test_bad_external_data(damage: Callable[[ModelProto, Path], None], message: str, tmp_path: Path) -> None:
    path = saved(large(), tmp_path)
    proto = onnx.load_model(path, load_external_data=False)
    damage(proto, tmp_path)
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert "initializer 'c0'" in str(caught.value)


def test_links_stay_inside_the_models_folder(tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    path = saved(large(), inside)
    (inside / "w.bin").rename(inside / "real.bin")
    (inside / "w.bin").symlink_to(inside / "real.bin")
    load_model(path)
    (inside / "real.bin").rename(tmp_path / "real.bin")
    (inside / "w.bin").unlink()
    (inside / "w.bin").symlink_to(tmp_path / "real.bin")
    with pytest.raises(UserError, match="'w.bin' are a link out of the model's folder"):
        load_model(path)


def test_constants_inside_nodes_are_checked_too(tmp_path: Path) -> None:
    model = conv_chain()
    tensor = TensorProto(name="inner", data_type=TensorProto.FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="none.bin")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["k"], value=tensor))
    with pytest.raises(UserError, match="constant 'inner': its external data 'none.bin' cannot be read"):
        take_external(model, tmp_path / "m.onnx")


def test_a_file_past_the_limit_of_a_message_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(large(), path)
    monkeypatch.setattr(model_file, "LARGEST_MESSAGE", 1000)
    with pytest.raises(UserError, match="is larger than the 2 GiB .* external data"):
        load_model(path)


def test_mapped_weights_reach_a_sim_with_its_constants_outside(tmp_path: Path) -> None:
    graph = import_onnx(saved(large(), tmp_path))
    write_sim(graph, tmp_path / "x.sim", stage="float", external_above=1000)
    assert_same(read_sim(tmp_path / "x.sim").graph, large())
