"""Our ONNX files as the onnx package sees them, and other people's files as our reader sees them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phi3_core.errors import ModelError
from phi3_core.quantization.scales import Scheme
from phi3_core.testing.checkpoints import TINY
from phi3_dml import configuration, layouts, weights
from phi3_dml.onnx import reader, writer

onnx = pytest.importorskip("onnx", reason="needs onnx to check what is written")


@pytest.mark.parametrize("layout", [layouts.CPU, layouts.DIRECTML], ids=lambda layout: layout.name or "cpu")
@pytest.mark.parametrize("name", TINY)
def test_the_checker_finds_nothing(checkpoints, write_graph, layout, name):
    scheme = Scheme(bits=4, group_size=32)
    schemes = {weight.name: scheme for weight in checkpoints[name].linear}
    path = write_graph(checkpoints[name], layout, schemes=schemes) / "model.onnx"
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        if node.op_type == "SimplifiedLayerNormalization":  # ONNX Runtime has it without a domain of its own
            node.domain = "com.microsoft"
    path.write_bytes(model.SerializeToString())
    onnx.checker.check_model(path)
    for tensor in model.graph.initializer:
        places = {entry.key: entry.value for entry in tensor.external_data}
        size = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize * int(np.prod(tensor.dims))
        assert int(places["length"]) == size


@given(
    st.integers(-(2**63), 2**63 - 1),
    st.floats(width=32, allow_nan=False),
    st.text(max_size=20),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=5),
)
def test_attributes_are_read_as_they_were_written(integer, number, text, integers):
    attributes = {"i": integer, "f": number, "s": text, "l": integers, "t": np.arange(3)}
    node = writer.Node(operator="X", inputs=("a", ""), outputs=("b",), name="n", domain="d", attributes=attributes)
    written = writer.Graph(name="g", nodes=[node], outputs=[writer.Value(name="b", kind=1, dims=(2, "n"))])
    model = onnx.load_from_string(writer.write_model(written, "p", "1"))
    (read,) = model.graph.node
    found = {each.name: onnx.helper.get_attribute_value(each) for each in read.attribute}
    assert (found["i"], found["f"], found["s"], list(found["l"])) == (integer, number, text.encode(), integers)
    assert onnx.numpy_helper.to_array(found["t"]).tolist() == [0, 1, 2]
    assert (list(read.input), list(read.output), read.domain) == (["a", ""], ["b"], "d")
    dims = model.graph.output[0].type.tensor_type.shape.dim
    assert (dims[0].dim_value, dims[1].dim_param) == (2, "n")


@pytest.mark.parametrize(
    ("bits", "precision"),
    [({}, "fp16"), ({"head": 8}, "fp16"), ({"linear": 8, "head": 8}, "int8"), ({"linear": 4}, "int4")],
)
def test_the_precision_is_that_of_the_products(checkpoints, write_graph, bits, precision):
    checkpoint = checkpoints["phi-3-medium"]
    schemes: dict[str, Scheme] = {}
    if "linear" in bits:
        schemes |= {weight.name: Scheme(bits=bits["linear"], group_size=32) for weight in checkpoint.linear}
    if "head" in bits:
        schemes[checkpoint.head.name] = Scheme(bits=bits["head"], group_size=32)
    folder = write_graph(checkpoint, layouts.CPU, schemes=schemes)
    assert weights.recognize(folder) == precision


def products(*operators, quantized=(), kind=None):
    """A graph with nodes of one embedding and one product of 64 x 32 weights, and 64 x 2 embeddings in float32."""
    tensors = [onnx.helper.make_tensor("table", onnx.TensorProto.FLOAT, [64, 2], [0.0] * 128)]
    for name, dims in quantized:
        values = [0] * int(np.prod(dims))
        tensors.append(onnx.helper.make_tensor(name, kind or onnx.TensorProto.UINT8, dims, values))
    nodes = [onnx.helper.make_node("Gather", ["table", "ids"], ["x"])]
    nodes += [onnx.helper.make_node(operator, inputs, ["y"], **more) for operator, inputs, more in operators]
    return onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", [], [], tensors))


@pytest.mark.parametrize(
    ("kind", "precision"),
    [("INT4", "int4"), ("UINT4", "int4"), ("INT8", "int8"), ("UINT8", "int8"), ("FLOAT8E4M3FN", "int8")],
)
def test_weights_behind_dequantize_linear_count(tmp_path, kind, precision):
    node = ("DequantizeLinear", ["w", "scales"], {"axis": 0, "block_size": 32})
    model = products(node, quantized=[("w", [64, 32])], kind=getattr(onnx.TensorProto, kind))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    found = reader.read(tmp_path / "model.onnx")
    assert found.bits == {4 if precision == "int4" else 8: 64 * 32}
    assert weights.precision_of(found) == precision


@pytest.mark.parametrize(
    ("operator", "inputs", "more", "quantized", "bits"),
    [
        ("MatMulNBits", ["x", "w", "s", "z"], {"K": 64, "N": 32}, [("w", [32, 2, 16]), ("z", [32, 1])], {4: 2048}),
        ("MatMulNBits", ["x", "w", "s"], {"K": 64, "N": 32, "bits": 8}, [("w", [32, 2, 32])], {8: 2048}),
        ("MatMulBnb4", ["x", "w", "s"], {"K": 64, "N": 32, "quant_type": 1}, [("w", [32, 32])], {4: 2048}),
        ("MatMulInteger", ["x", "w"], {}, [("w", [64, 32])], {8: 2048}),
        ("DynamicQuantizeMatMul", ["x", "w", "s"], {}, [("w", [64, 32])], {8: 2048}),
        ("GatherBlockQuantized", ["w", "ids", "s"], {"bits": 4}, [("w", [64, 32])], {}),
    ],
)
def test_packed_weights_count_once_and_embeddings_do_not(tmp_path, operator, inputs, more, quantized, bits):
    (tmp_path / "model.onnx").write_bytes(products((operator, inputs, more), quantized=quantized).SerializeToString())
    assert reader.read(tmp_path / "model.onnx").bits == bits


def test_windows_of_the_attention_are_read(tmp_path):
    nodes = [("GroupQueryAttention", ["x"], {"local_window_size": size}) for size in (11, 11, -1)]
    model = products(*nodes, ("GroupQueryAttention", ["x"], {}))
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    assert reader.read(tmp_path / "model.onnx").windows == {11: 2, -1: 2}


def other_graph(path, location="model.onnx.data", size=8):
    """A file of somebody else's, with its tensor in another file."""
    tensor = onnx.TensorProto(name="w", data_type=1, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(size))):
        tensor.external_data.add(key=key, value=value)
    return tensor


def save(path, *, main=(), inner=(), attribute=None):
    branch = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["w"], ["y"])], "inner", [], [], list(inner))
    nodes = [onnx.helper.make_node("If", ["c"], ["z"], then_branch=branch, else_branch=branch)]
    if attribute is not None:
        nodes.append(onnx.helper.make_node("Constant", [], ["k"], value=attribute))
    model = onnx.helper.make_model(onnx.helper.make_graph(nodes, "outer", [], [], list(main)))
    path.write_bytes(model.SerializeToString())


CONTENT = {"model": {"decoder": {"filename": "model.onnx"}}}


@pytest.mark.parametrize("where", ["main", "inner", "attribute"])
@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "a/b", "C:x", "..", "\\\\host\\x"])
def test_data_outside_the_folder_is_refused_wherever_it_is_named(tmp_path, where, location):
    tensor = other_graph(tmp_path, location)
    save(tmp_path / "model.onnx", **{where: tensor if where == "attribute" else [tensor]})
    with pytest.raises(ModelError, match="outside its folder"):
        configuration.check_files(tmp_path, CONTENT)


def test_data_that_is_missing_or_too_short(tmp_path):
    save(tmp_path / "model.onnx", main=[other_graph(tmp_path, size=9)])
    with pytest.raises(ModelError, match=r"model\.onnx\.data is missing"):
        configuration.check_files(tmp_path, CONTENT)
    (tmp_path / "model.onnx.data").write_bytes(b"12345678")
    with pytest.raises(ModelError, match=r"8 bytes, where model\.onnx refers to 9"):
        configuration.check_files(tmp_path, CONTENT)


def test_functions_are_refused(tmp_path):
    model = onnx.helper.make_model(onnx.helper.make_graph([onnx.helper.make_node("X", [], [])], "g", [], []))
    model.functions.add(name="f", domain="d")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="functions"):
        reader.read(tmp_path / "model.onnx")


@given(st.binary(max_size=200))
def test_junk_is_damage_and_nothing_else(tmp_path_factory, content):
    path = tmp_path_factory.mktemp("junk") / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.onnx"):
        reader.read(path)


def test_a_cut_file_is_damage(checkpoints, write_graph):
    path = write_graph(checkpoints["phi-4"], layouts.CPU) / "model.onnx"
    whole = path.read_bytes()
    for size in (0, 1, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"model\.onnx is"):
            reader.read(path)
