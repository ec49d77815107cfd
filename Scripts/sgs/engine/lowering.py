"""From nodes of the graph to one onnxruntime session.

A tensor of the graph can exist in the session in several forms: two layouts ("native", as in the graph, and "first",
channels first, for rank 4) times three carriers ("codes", its own type; "centred", codes minus zero point as
integer-valued binary32; "real", dequantised binary32). Rows ask for the form they compute in, conversions are
inserted once and shared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from sgs.ir.graph import Graph, Tensor
from sgs.numeric.quantise import Array
from sgs.numeric.types import DType
from sgs.registry import Layout

OPSET = 21
LARGE_TENSOR = 1 << 23  # elements
TO_FIRST, TO_NATIVE = (0, 3, 1, 2), (0, 2, 3, 1)
# rewrites of onnxruntime that multiply constants together, and so round differently from docs/NUMERICS.md
_UNWANTED_REWRITES = [
    "ConvMulFusion",
    "ConvAddFusion",
    "ConvBNFusion",
    "MatMulBNFusion",
    "MatMulScaleFusion",
    "DivMulFusion",
    "GemmSumFusion",
    "MatMulAddFusion",
]
# it moves Transposes through a linear Resize into axes that onnxruntime's own kernel refuses; layouts are solved
# before it
_UNSOUND_MOVES = ["TransposeOptimizer_CPUExecutionProvider"]
_ONNX_TYPE = {
    DType.FLOAT32: TensorProto.FLOAT,
    DType.FLOAT64: TensorProto.DOUBLE,
    DType.INT64: TensorProto.INT64,
    DType.INT32: TensorProto.INT32,
    DType.INT16: TensorProto.INT16,
    DType.UINT16: TensorProto.UINT16,
    DType.INT8: TensorProto.INT8,
    DType.UINT8: TensorProto.UINT8,
    DType.BOOL: TensorProto.BOOL,
}


def first_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """[N,H,W,C] → (N,C,H,W)."""
    return tuple(shape[axis] for axis in TO_FIRST)


class SessionBuilder:
    """Implements `registry.Lowering` for the nodes of one session."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.exact_dot_products = has_exact_dot_products()
        self.feeds: dict[str, Layout] = {}  # graph tensors that the session reads, in the layout they arrive in
        self.asked: dict[str, set[str]] = {}  # tensor → carriers in which rows asked for it
        self._centred_feeds: set[str] = set()
        self._nodes: list[onnx.NodeProto] = []
        self._constants: list[onnx.TensorProto] = []
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._forms: dict[tuple[str, str, Layout], str] = {}  # (tensor, carrier, layout) → value name
        self._extra: list[onnx.ValueInfoProto] = []
        self._extra_inputs: list[onnx.ValueInfoProto] = []
        self._count = 0

    # -- building blocks -------------------------------------------------------------------------------------------
    def _fresh(self) -> str:
        self._count += 1
        return f"v{self._count}"

    def op(self, op_type: str, inputs: Sequence[str], /, outputs: int = 1, domain: str = "", **attrs: Any) -> Any:
        names = [self._fresh() for _ in range(outputs)]
        self._nodes.append(helper.make_node(op_type, list(inputs), names, domain=domain, **attrs))
        return names[0] if outputs == 1 else names

    def cast(self, value: str, dtype: DType) -> str:
        return str(self.op("Cast", [value], to=_ONNX_TYPE[dtype]))

    def const(self, data: Array, *, shared: bool = True) -> str:
        data = np.asarray(data, order="C")
        key = (data.dtype.str, data.shape, data.tobytes()) if shared and data.nbytes <= 1 << 16 else None
        if key is not None and key in self._shared:
            return self._shared[key]
        name = f"c{len(self._constants)}"
        self._constants.append(numpy_helper.from_array(data, name))
        if key is not None:
            self._shared[key] = name
        return name

    # -- forms of a tensor -------------------------------------------------------------------------------------------
    def feed(self, tensor: str, layout: Layout, *, centred: bool = False) -> None:
        """Declare a session input that arrives in `layout`, as codes or, for rows that ask for nothing else,
        centred.
        """
        self.feeds[tensor] = layout
        self._forms[(tensor, "centred" if centred else "codes", layout)] = f"in:{tensor}"
        if centred:
            self._centred_feeds.add(tensor)

    def has(self, tensor: str) -> bool:
        """True when the session computes or is fed this tensor."""
        return any(key[0] == tensor for key in self._forms)

    def layouts(self, tensor: str) -> list[Layout]:
        """Layouts in which the tensor exists in any carrier."""
        return list(dict.fromkeys(key[2] for key in self._forms if key[0] == tensor))

    def _constant_form(self, tensor: Tensor, carrier: str, layout: Layout) -> str:
        data = tensor.data
        assert data is not None
        if carrier == "centred" and tensor.quant is not None:
            data = (data.astype(np.int64) - tensor.quant.shaped(data.ndim)[1]).astype(np.float32)
        elif carrier == "real" and tensor.quant is not None:
            scale, zero = tensor.quant.shaped(data.ndim)
            data = (data.astype(np.int64) - zero).astype(np.float32) * scale
        if layout == "first":
            data = data.reshape((1,) * (4 - data.ndim) + data.shape).transpose(TO_FIRST)
        return self.const(data)

    def _form(self, name: str, carrier: str, layout: Layout) -> str:
        """The tensor in one form, converted from one that exists: codes are turned first (they are small), then
        decoded.
        """
        tensor = self.graph[name]
        if not tensor.is_constant and tensor.quant is None:
            carrier = "codes"
        key = (name, carrier, layout)
        if key not in self._forms:
            if tensor.is_constant:
                self._forms[key] = self._constant_form(tensor, carrier, layout)
            elif carrier == "codes" or name in self._centred_feeds:
                self._forms[key] = self._turned(tensor, carrier, layout)
            else:
                self._forms[key] = self._decoded(tensor, carrier, layout)
        return self._forms[key]

    def _decoded(self, tensor: Tensor, carrier: str, layout: Layout) -> str:
        quant = tensor.quant
        assert quant is not None
        if not quant.per_tensor:
            raise ValueError(f"activation '{tensor.name}' must be quantised per tensor")
        codes = self._form(tensor.name, "codes", layout)
        scale = quant.scale[0] if carrier == "real" else np.float32(1)
        zero = np.asarray(quant.zero_point[0], tensor.dtype.numpy)
        if carrier == "centred" and not zero:
            return self.cast(codes, DType.FLOAT32)
        return str(self.op("DequantizeLinear", [codes, self.const(np.asarray(scale, np.float32)), self.const(zero)]))

    def _turned(self, tensor: Tensor, carrier: str, layout: Layout) -> str:
        """A form in `layout` from the same in the other one; lower ranks are seen as rank 4 with leading 1s."""
        other: Layout = "native" if layout == "first" else "first"
        if (tensor.name, carrier, other) not in self._forms:
            raise KeyError(f"tensor '{tensor.name}' is not available as {carrier} in this session")
        value = self._forms[(tensor.name, carrier, other)]
        if layout == "first" and len(tensor.shape) < 4:
            shape = (1,) * (4 - len(tensor.shape)) + tensor.shape
            value = self.op("Reshape", [value, self.const(np.array(shape, np.int64))])
        return str(self.op("Transpose", [value], perm=TO_FIRST if layout == "first" else TO_NATIVE))

    def _ask(self, tensor: str, carrier: str, layout: Layout) -> str:
        self.asked.setdefault(tensor, set()).add(carrier)
        return self._form(tensor, carrier, layout)

    def real(self, tensor: str, layout: Layout = "native") -> str:
        return self._ask(tensor, "real", layout)

    def codes(self, tensor: str, layout: Layout = "native") -> str:
        return self._ask(tensor, "codes", layout)

    def centred(self, tensor: str, layout: Layout = "native") -> str:
        return self._ask(tensor, "centred", layout)

    # -- results -----------------------------------------------------------------------------------------------------
    def put(self, tensor: str, value: str, layout: Layout = "native") -> None:
        self._forms[(tensor, "codes", layout)] = value

    def put_real(self, tensor: str, value: str, layout: Layout = "native") -> None:
        result = self.graph[tensor]
        if result.quant is None:
            self.put(tensor, value, layout)
            return
        scale = self.const(np.asarray(result.quant.scale[0], np.float32))
        self.put(tensor, self.quantised(value, scale, int(result.quant.zero_point[0]), result.dtype), layout)

    def quantised(self, value: str, scale: str, zero: int, dtype: DType) -> str:
        """clamp(rint(value / scale) + zero): onnxruntime's QuantizeLinear, which divides in binary32 and rounds to
        even.
        """
        return str(self.op("QuantizeLinear", [value, scale, self.const(np.asarray(zero, dtype.numpy))]))

    def put_scaled(
        self,
        tensor: str,
        value: str,
        multiplier: Array,
        layout: Layout = "native",
        bounds: tuple[int, int] | None = None,
    ) -> None:
        """Publish a result given as exact accumulator: eq. 7 (binary32) or eq. 8 (binary64 `multiplier`), [C] or
        scalar.

        `bounds`: the codes between which a fused activation clamps.
        """
        result = self.graph[tensor]
        assert result.quant is not None
        zero = int(result.quant.zero_point[0])
        scaled = self._times(value, multiplier, layout)
        whole = (result.dtype.qmin, result.dtype.qmax)
        wide = multiplier.dtype == np.float64
        if wide or (bounds or whole) != whole:
            # bounds are integers, so clamping before rounding is clamping after it
            limits = [np.asarray(b - zero, multiplier.dtype) for b in bounds or whole]
            scaled = self.op("Clip", [self.op("Round", [scaled]) if wide else scaled, *map(self.const, limits)])
        if wide:
            scaled = self.cast(scaled, DType.FLOAT32)
        self.put(tensor, self.quantised(scaled, self.const(np.asarray(1, np.float32)), zero, result.dtype), layout)

    def add_apart(self, a: str, b: str, layout: Layout) -> str:
        """Channels first it is done on [N, C, H·W]: else onnxruntime lets a convolution add its products up onto the
        other operand, which rounds at every product."""
        if layout == "native":
            return str(self.op("Add", [a, b]))
        flat = self.const(np.array([0, 0, -1], np.int64))
        total = self.op("Add", [self.op("Reshape", [value, flat]) for value in (a, b)])
        return str(self.op("Reshape", [total, self.op("Shape", [a])]))

    def _times(self, value: str, multiplier: Array, layout: Layout) -> str:
        """value · multiplier, a scalar or [C]. Channels first it is done on [N, C, H·W], because onnxruntime turns a
        product with a constant [1, C, 1, 1] into a slow 1×1 convolution."""
        if multiplier.size == 1:
            return value if multiplier == 1 else str(self.op("Mul", [value, self.const(multiplier.reshape(()))]))
        if layout == "native":
            return str(self.op("Mul", [value, self.const(multiplier.reshape(-1))]))
        flat = self.op("Reshape", [value, self.const(np.array([0, 0, -1], np.int64))])
        flat = self.op("Mul", [flat, self.const(multiplier.reshape(-1, 1))])
        return str(self.op("Reshape", [flat, self.op("Shape", [value])]))

    def prefer(self, tensors: Sequence[str | None]) -> Layout:
        weight = {"native": 0, "first": 0}
        for name in tensors:
            if name is None or self.graph[name].is_constant:
                continue
            tensor = self.graph[name]
            have = self.layouts(name)
            if len(tensor.shape) == 4 and len(have) == 1:
                weight[have[0]] += tensor.elements
        return "first" if weight["first"] > weight["native"] else "native"

    def only_if(self, condition: str, value: str, make: Callable[[], str]) -> str:
        """The float32 value of `make()` where the boolean `condition` holds, else `value`. What `make` adds runs only
        then, and forms of tensors that it makes are unknown outside."""
        outside, forms = self._nodes, dict(self._forms)
        self._nodes = []
        try:
            result = make()
            inner = self._nodes
        finally:
            self._nodes, self._forms = outside, forms
        branches = []
        for nodes, source in ((inner, result), ([], value)):
            name = self._fresh()
            nodes = [*nodes, helper.make_node("Identity", [source], [name])]
            info = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
            branches.append(helper.make_graph(nodes, name, [], [info]))
        return str(self.op("If", [condition], then_branch=branches[0], else_branch=branches[1]))

    def add_input(self, name: str, shape: Sequence[int | None]) -> str:
        """Declare a float32 session input that is not a tensor of the graph; returns its value name."""
        self._extra_inputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        return name

    def add_output(self, name: str, value: str, shape: Sequence[int], dtype: DType = DType.FLOAT32) -> None:
        """Declare a session output that is not a tensor of the graph."""
        self._nodes.append(helper.make_node("Identity", [value], [name]))
        self._extra.append(helper.make_tensor_value_info(name, _ONNX_TYPE[dtype], shape))

    # -- the finished session
    # ---------------------------------------------------------------------------------------------
    def model(self, results: dict[str, Layout]) -> onnx.ModelProto:
        """What has been lowered, closed: outputs `out:<tensor>` in the layouts asked for, inputs `in:<tensor>` as
        fed."""
        outputs = list(self._extra)
        for name, layout in results.items():
            self._nodes.append(helper.make_node("Identity", [self.codes(name, layout)], [f"out:{name}"]))
            outputs.append(helper.make_tensor_value_info(f"out:{name}", *self._type(name, layout)))
        inputs = [helper.make_tensor_value_info(f"in:{n}", *self._type(n, layout)) for n, layout in self.feeds.items()]
        inputs += self._extra_inputs
        graph = helper.make_graph(self._nodes, self.graph.name or "graph", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)

    def finish(self, results: dict[str, Layout], options: onnxruntime.SessionOptions) -> onnxruntime.InferenceSession:
        """The `model` as a session."""
        unwanted, providers = [*_UNWANTED_REWRITES, *_UNSOUND_MOVES], ["CPUExecutionProvider"]
        return onnxruntime.InferenceSession(
            self.model(results).SerializeToString(), options, providers=providers, disabled_optimizers=unwanted
        )

    def _type(self, name: str, layout: Layout) -> tuple[int, tuple[int, ...]]:
        tensor = self.graph[name]
        shape = first_shape(tensor.shape) if layout == "first" else tensor.shape
        return TensorProto.FLOAT if name in self._centred_feeds else _ONNX_TYPE[tensor.dtype], shape


def session_options(threads: int) -> onnxruntime.SessionOptions:
    """Options under which every session computes the same bits on every machine."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # keep onnxruntime from re-associating our quantise/dequantise steps
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    # many sessions take turns: a thread that spins for work in one takes a processor from the next
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not has_exact_dot_products():
        # UINT8 × INT8 kernels of AVX2 add pairs in 16 bits and saturate; this makes them UINT8 × UINT8, which is exact
        options.add_session_config_entry("session.x64quantprecision", "1")
    return options


def sparing(options: onnxruntime.SessionOptions, graph: Graph) -> onnxruntime.SessionOptions:
    """The options, so that onnxruntime takes no more memory than it must where tensors of the graph are large: it then
    neither plans all activations of a run as one block nor keeps blocks between runs, each up to twice what is used."""
    if max((tensor.elements for tensor in graph.activations()), default=0) >= LARGE_TENSOR:
        options.enable_mem_pattern = options.enable_cpu_mem_arena = False
    return options


@lru_cache(maxsize=1)
def has_exact_dot_products() -> bool:
    """True when the processor is known to sum UINT8 × INT8 products in 32 bits (VNNI, AMX)."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(flag in flags for flag in ("avx512_vnni", "avx_vnni"))
