from __future__ import annotations

import gzip
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from optimize.artifact import seal
from optimize.measure.size import measure_size, named_part, part_of, read_onnx, read_openvino, read_torch


@pytest.fixture
def onnx() -> ModuleType:
    module: ModuleType = pytest.importorskip("onnx")
    return module


def save_onnx(onnx: ModuleType, folder: Path, *, external: bool = False) -> None:
    """A quantized projection behind an anonymous name, an embedding, and a constant."""
    make, weight, kind = onnx.helper, onnx.numpy_helper.from_array, onnx.TensorProto
    initializers = [
        weight(np.zeros((8, 4), np.float32), "distilbert.embeddings.word_embeddings.weight"),
        weight(np.zeros((4, 4), np.int8), "onnx::MatMul_1_quantized"),
        weight(np.array(1, np.float32), "onnx::MatMul_1_scale"),
    ]
    nodes = [
        make.make_node("Gather", [initializers[0].name, "input_ids"], ["x"], name="/distilbert/Gather"),
        make.make_node("DequantizeLinear", ["onnx::MatMul_1_quantized", "onnx::MatMul_1_scale"], ["w"], name="dq_1"),
        make.make_node("MatMul", ["x", "w"], ["y"], name="/attention/q_lin/MatMul"),
        make.make_node("Constant", [], ["c"], name="k", value=weight(np.zeros(3, np.int64), "")),
        make.make_node("Reshape", ["y", "c"], ["logits"], name="/classifier/Reshape"),
    ]
    inputs = [make.make_tensor_value_info("input_ids", kind.INT64, ["t"])]
    outputs = [make.make_tensor_value_info("logits", kind.FLOAT, None)]
    model = make.make_model(make.make_graph(nodes, "g", inputs, outputs, initializers))
    outside = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save(model, folder / "model.onnx", **(outside if external else {}))


PARTS = [
    ("distilbert.embeddings.word_embeddings.weight_quantized", "embedding"),
    ("distilbert.embeddings.LayerNorm.weight", "norm"),
    ("distilbert.transformer.layer.0.sa_layer_norm.bias", "norm"),
    ("distilbert.transformer.layer.3.attention.q_lin.weight", "attention"),
    ("/distilbert/transformer/layer.5/ffn/lin1/MatMul_quant", "ffn"),
    ("Attention_0_qkv_weight_quantized", "attention"),
    ("EmbedLayerNormalization_0", "embedding"),
    ("SkipLayerNorm_AddBias_0", "norm"),
    ("Gelu_AddBias_0", "ffn"),
    ("vocab_layer_norm.weight", "head"),
    ("pre_classifier.weight", "head"),
    ("qa_outputs.bias", "head"),
    ("onnx::MatMul_345", "other"),
]


@pytest.mark.parametrize(("name", "part"), PARTS)
def test_a_name_tells_its_part(name: str, part: str) -> None:
    assert named_part(name) == part


def test_an_anonymous_tensor_belongs_to_the_nearest_consumer_with_a_name() -> None:
    users = {
        "w": [("dq", ("a",))],
        "a": [("cast", ("b",))],
        "b": [("/ffn/lin1/MatMul", ("c",))],
        "loop": [("x", ("loop",))],
    }
    assert part_of("w", users) == "ffn"
    assert part_of("loop", users) == "other"


@pytest.mark.parametrize("external", [False, True])
def test_onnx_bytes_are_split_by_part_and_by_data_type(onnx: ModuleType, tmp_path: Path, external: bool) -> None:
    save_onnx(onnx, tmp_path, external=external)
    size = measure_size(seal(tmp_path, "onnx"), reference_bytes=1000, read=read_onnx)
    assert size.by_component == {"embedding": 128, "head": 24, "attention": 20}
    assert size.by_dtype == {"float32": 132, "int64": 24, "int8": 16}
    assert (size.parameters, size.encoder_flops) == (132 // 4 + 16, None)
    assert size.bytes == sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size.ratio == size.bytes / 1000


def test_onnx_data_outside_the_file_is_not_needed(onnx: ModuleType, tmp_path: Path) -> None:
    save_onnx(onnx, tmp_path, external=True)
    (tmp_path / "model.onnx_data").write_bytes(b"")
    assert measure_size(seal(tmp_path, "onnx"), reference_bytes=1, read=read_onnx).by_component["embedding"] == 128


def test_safetensors_are_read_from_their_header(tmp_path: Path) -> None:
    header = {
        "__metadata__": {"format": "pt"},
        "distilbert.embeddings.word_embeddings.weight": {"dtype": "F32", "shape": [5], "data_offsets": [0, 20]},
        "classifier.bias": {"dtype": "F16", "shape": [2], "data_offsets": [20, 24]},
    }
    text = json.dumps(header).encode()
    (tmp_path / "model.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + bytes(24))
    size = measure_size(seal(tmp_path, "torch"), reference_bytes=100, read=read_torch)
    assert size.by_component == {"embedding": 20, "head": 4}
    assert size.by_dtype == {"float32": 20, "float16": 4}
    assert size.parameters == 20 // 4 + 4 // 2


def test_what_gzip_makes_of_a_model_is_measured_where_it_is_asked_for(onnx: ModuleType, tmp_path: Path) -> None:
    save_onnx(onnx, tmp_path, external=True)
    noise = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "model.onnx_data").write_bytes(noise + bytes(3_000_000))
    sealed = seal(tmp_path, "onnx")
    packed = sum(len(gzip.compress(file.read_bytes(), compresslevel=6)) for file in sealed.model_files())
    size = measure_size(sealed, 1, read=read_onnx, compressed=True)
    assert size.compressed_bytes == pytest.approx(packed, abs=1000)
    assert 3_000_000 < packed < 3_010_000
    assert measure_size(sealed, 1, read=read_onnx).compressed_bytes is None


IR = """<net><layers>
<layer id="0" name="emb.embeddings.weight" type="Const"><data element_type="i8" offset="0" size="40"/></layer>
<layer id="1" name="Constant_7" type="Const"><data element_type="f32" offset="40" size="12"/></layer>
<layer id="2" name="Constant_8" type="Const"><data element_type="f32" offset="40" size="12"/></layer>
<layer id="3" name="/layer.0/ffn/lin2/MatMul" type="MatMul"/>
</layers><edges><edge from-layer="1" to-layer="3"/><edge from-layer="2" to-layer="3"/></edges></net>"""


def test_openvino_constants_are_read_from_the_xml_and_shared_bytes_count_once(tmp_path: Path) -> None:
    (tmp_path / "openvino_model.xml").write_text(IR)
    (tmp_path / "openvino_model.bin").write_bytes(bytes(52))
    size = measure_size(seal(tmp_path, "openvino"), reference_bytes=52, read=read_openvino)
    assert size.by_component == {"embedding": 40, "ffn": 12}
    assert size.by_dtype == {"int8": 40, "float32": 12}
    assert size.bytes == 52 + len(IR)


def test_operations_follow_from_the_config_beside_the_model(onnx: ModuleType, tmp_path: Path) -> None:
    save_onnx(onnx, tmp_path)
    config = {"dim": 4, "n_heads": 2, "hidden_dim": 8, "n_layers": 1}
    (tmp_path / "config.json").write_text(json.dumps(config))
    size = measure_size(seal(tmp_path, "onnx"), 100, read=read_onnx)
    assert size.encoder_flops == 2 * 128 * 4 * (4 * 4 + 2 * 8) + 4 * 128**2 * 4
