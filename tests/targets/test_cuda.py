"""The CUDA target: what its settings mean, and all that keeps a machine from running it, each refused by name."""

import sys
from pathlib import Path
from types import SimpleNamespace

import onnx
import pytest
from pydantic import ValidationError

from optimize.config import parse_pipeline
from optimize.errors import RequestError
from optimize.refusals import check_stages
from optimize.runtimes import cuda_machine, nvidia
from optimize.targets import cuda
from optimize.targets.cuda import Runtime, describe, open_session, providers, references, tensorrt_options, unavailable

H100 = nvidia.Device("Imagined H100", "GPU-1", (9, 0), 80 * 2**30)
V100 = nvidia.Device("Imagined V100", "GPU-2", (7, 0), 16 * 2**30)
ALL = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
TENSORRT = {"provider": "tensorrt", "lengths": (16, 128)}


@pytest.fixture
def machine(monkeypatch):
    """Pretend that this machine has such a driver, such packages and such libraries."""

    def pretend(
        devices=(H100,), driver=(13, 0), built="13.0", packages=("onnxruntime-gpu",), able=ALL, missing=(), found=()
    ):
        module = SimpleNamespace(
            __version__="1.31.1",
            cuda_version=built,
            get_available_providers=lambda: able,
            preload_dlls=lambda directory: None,
        )
        monkeypatch.setitem(sys.modules, "onnxruntime", module)
        spec = SimpleNamespace(submodule_search_locations=[])
        monkeypatch.setattr(cuda_machine.importlib.util, "find_spec", lambda _: spec if packages else None)
        monkeypatch.setattr(cuda_machine, "_installed", lambda name: name in packages)
        monkeypatch.setattr(cuda_machine, "_loads", lambda name: not any(each in name for each in missing))
        monkeypatch.setattr(cuda_machine, "found_libraries", lambda stem: (each for each in found if stem in each.name))
        state = nvidia.Driver(driver, tuple(devices), None if devices else "the driver finds no GPU")
        monkeypatch.setattr(nvidia, "find_driver", lambda: state)

    return pretend


@pytest.mark.parametrize(
    ("settings", "imagined", "words"),
    [
        (
            {},
            {"devices": ()},
            "no CUDA device: the driver finds no GPU; build it here with --build-only (BUILD_ONLY=1)",
        ),
        ({"device": 1}, {}, "device 1 is not there (found 0: Imagined H100); name another with --device"),
        ({}, {"packages": ()}, "onnxruntime-gpu is not installed; `make optimize TARGET=cuda` sets up"),
        (
            {},
            {"packages": ("onnxruntime",), "able": ALL[2:]},
            "the installed onnxruntime has no CUDAExecutionProvider; `make optimize TARGET=cuda` sets up",
        ),
        (
            {},
            {"packages": ("onnxruntime", "onnxruntime-gpu")},
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; uninstall both",
        ),
        (
            {},
            {"driver": (12, 4)},
            "the driver runs CUDA 12.4 and onnxruntime-gpu 1.31.1 needs CUDA 13.0; update the driver",
        ),
        (
            {},
            {"devices": (V100,)},
            "device 0 (Imagined V100) has compute capability 7.0 and CUDA 13.0 needs 7.5; use a newer GPU",
        ),
        (
            {},
            {"missing": ("libcudnn",)},
            "libcudnn.so.9 cannot be loaded; run: pip install 'distilbert-optimize[cuda]'",
        ),
        ({}, {"missing": ("libcufft",)}, "libcufft.so.12 cannot be loaded; run"),
        (
            {},
            {"missing": ("libcublasLt.so.13",), "found": (SimpleNamespace(name="libcublasLt.so.12"),)},
            "libcublasLt.so.13 cannot be loaded (found libcublasLt.so.12, of another version); run",
        ),
        (TENSORRT, {"missing": ("libnvinfer",)}, "libnvinfer.so.10 cannot be loaded; run: pip install 'distilbert-op"),
        (TENSORRT, {"able": ALL[1:]}, "the installed onnxruntime-gpu has no TensorrtExecutionProvider"),
        ({"provider": "cpu"}, {}, "provider cpu computes numerics only; add --build-only"),
    ],
)
def test_what_this_machine_lacks_is_said(settings, imagined, words, machine):
    machine(**imagined)
    reason = unavailable(Runtime(**settings))
    assert reason.startswith(words)
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("settings", "imagined"),
    [
        ({}, {}),
        ({"device": 1}, {"devices": (V100, H100)}),
        ({}, {"driver": (13, 1)}),
        ({}, {"devices": (V100,), "driver": (12, 8), "built": "12.8"}),
        (TENSORRT, {}),
        ({}, {"missing": ("libnvinfer",)}),
    ],
)
def test_what_is_there_is_not_refused(settings, imagined, machine):
    machine(**imagined)
    assert unavailable(Runtime(**settings)) is None


def test_the_device_is_described(machine, monkeypatch):
    monkeypatch.setattr(cuda, "cannot_compile", lambda: None)
    machine(devices=(V100, H100), driver=(13, 1))
    assert describe(Runtime(device=1)) == {
        "device": "cuda:1",
        "full_name": "Imagined H100",
        "compute_capability": "9.0",
        "memory": "80 GiB",
        "capabilities": "FP32, FP16, INT8",
        "cuda": "driver 13.1, onnxruntime 13.0",
        "provider": "cuda",
        "torch_compile": "measured",
    }
    assert describe(Runtime(provider="cpu")) == {"device": "CPU", "provider": "cpu, for numerics only"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cuda_graph": True}, "a CUDA graph is recorded for each length; give 'lengths'"),
        ({"provider": "tensorrt", "cuda_graph": True, "lengths": (16,)}, "cuda_graph is for provider cuda"),
        ({"provider": "tensorrt"}, "engines are built for a range of lengths; give 'lengths'"),
        ({"lengths": (32, 16)}, "lengths rise from 1 up"),
        ({"lengths": "0 16"}, "lengths rise from 1 up"),
        ({"device": -1}, "greater than or equal to 0"),
        ({"provider": "rocm"}, "'cuda', 'tensorrt' or 'cpu'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, words):
    with pytest.raises(ValidationError, match=words):
        Runtime(**settings)


def test_lengths_can_be_written_in_one_word():
    assert Runtime(lengths="16 64 512").lengths == (16, 64, 512)


@pytest.mark.parametrize(
    ("present", "compilers", "reason"),
    [
        (True, ["gcc"], None),
        (True, [], "not measured: triton needs a C compiler; install gcc"),
        (False, ["gcc"], "not measured: triton is not installed; install PyTorch for CUDA"),
    ],
)
def test_pytorch_is_compiled_only_where_it_can_be(present, compilers, reason, monkeypatch):
    monkeypatch.setattr(cuda_machine.importlib.util, "find_spec", lambda _: present or None)
    monkeypatch.setattr(cuda_machine.shutil, "which", lambda name: name if name in compilers else None)
    assert cuda_machine.cannot_compile() == reason
    assert ("pytorch-fp16-compiled" in references(Runtime())) == (reason is None)


def test_pytorch_is_measured_on_the_same_gpu_in_every_way_that_users_run_it(monkeypatch):
    monkeypatch.setattr(cuda, "cannot_compile", lambda: None)
    found = {name: (way.device, way.dtype, way.compiled) for name, way in references(Runtime(device=1)).items()}
    assert found == {
        "pytorch-fp32": ("cuda:1", "float32", False),
        "pytorch-fp16": ("cuda:1", "float16", False),
        "pytorch-fp16-compiled": ("cuda:1", "float16", True),
    }
    assert {name: way.device for name, way in references(Runtime(provider="cpu")).items()} == {"pytorch-fp32": "cpu"}


STATIC = {"quantize_static": {"format": "qdq", "activation_type": "int8", "symmetric": True}}


@pytest.mark.parametrize(
    ("stages", "runtime", "words"),
    [
        (["export", "quantize_dynamic"], {}, "DynamicQuantizeLinear has no CUDA kernel"),
        (["quantize_neural_compressor"], {}, "writes unsigned activations, which TensorRT does not take"),
        (["export", "quantize_static"], TENSORRT, "TensorRT takes only 'format: qdq, activation_type: int8, symmetric"),
        (["export", STATIC], {}, "provider cuda computes INT8 in FP32; set 'runtime: {provider: tensorrt}'"),
    ],
)
def test_int8_that_gpus_run_badly_is_refused_with_the_reason(stages, runtime, words):
    pipeline = parse_pipeline({"target": "cuda", "stages": stages, "runtime": runtime}, name="mine", where="mine.yaml")
    with pytest.raises(RequestError, match=rf"^pipeline mine: quantize_\w+: .*{words}"):
        check_stages(pipeline)


@pytest.mark.parametrize("stages", [["export", "fuse", "convert_fp16"], ["export", STATIC]])
def test_what_gpus_run_well_is_not_refused(stages):
    content = {"target": "cuda", "stages": stages, "runtime": TENSORRT}
    check_stages(parse_pipeline(content, name="mine", where="mine.yaml"))


def test_fp32_means_fp32_and_what_is_asked_for_comes_first(tmp_path):
    (first, options), (last, _) = providers(tmp_path, Runtime(device=1, cuda_graph=True, lengths=(16,)))
    assert (first, last) == ("CUDAExecutionProvider", "CPUExecutionProvider")
    assert options["use_tf32"] == "0"
    assert (options["device_id"], options["enable_cuda_graph"]) == ("1", "1")


@pytest.mark.parametrize("head", ["text-classification", "multiple-choice"])
def test_tensorrt_gets_a_profile_for_the_range_of_lengths(head, context, apply, tmp_path):
    model = apply(context(head), "export").artifact.path / "model.onnx"
    runtime = Runtime(provider="tensorrt", lengths=(16, 128, 512), most_batch=8, engine_cache=tmp_path / "engines")
    names = [name for name, _ in providers(model, runtime)]
    options = providers(model, runtime)[0][1]
    assert names == ALL
    assert (tmp_path / "engines").is_dir()
    inputs = [value.name for value in onnx.load(model).graph.input]
    texts = {"min": "1x16", "opt": "1x128", "max": "8x512"}
    choices = {"min": "1x1x16", "opt": "1x4x128", "max": "8x8x512"}
    for bound, shape in (choices if head == "multiple-choice" else texts).items():
        assert options[f"trt_profile_{bound}_shapes"] == ",".join(f"{name}:{shape}" for name in inputs)
    assert options["trt_int8_enable"] == "0"


def test_tensorrt_may_use_sparse_kernels_and_never_another_models_engines(context, apply, tmp_path):
    here = context("text-classification")
    runtime = Runtime(provider="tensorrt", lengths=(16, 64), engine_cache=tmp_path)
    dense, sparse = apply(here, "export"), apply(here, "export", apply(here, "prune_weights", pattern="2:4"))
    assert [node.output for node in dense.model().graph.node] == [node.output for node in sparse.model().graph.node]
    found = [tensorrt_options(each.artifact.path / "model.onnx", runtime) for each in (dense, sparse, sparse)]
    assert {options["trt_sparsity_enable"] for options in found} == {"1"}
    engines = [Path(options["trt_engine_cache_path"]) for options in found]
    assert engines[0] != engines[1] == engines[2]
    assert all(folder.parent == tmp_path and folder.is_dir() for folder in engines)
    assert {options["trt_timing_cache_path"] for options in found} == {str(tmp_path)}


def test_numerics_are_computed_on_the_cpu_with_lengths_or_without(context, apply, make_feed, difference):
    here = context("token-classification")
    fused = apply(here, "fuse", apply(here, "export", readout_slice=False))
    half = apply(here, "convert_fp16", fused).artifact.path
    reference = here.open("torch", here.reference.path)
    for lengths in ((), (8, 16, 32)):
        session = open_session(half, 1, here.head, Runtime(provider="cpu", lengths=lengths))
        assert 0 < difference(here, reference, session, make_feed(here, "left-padded")) < 1e-2


def test_without_a_gpu_a_run_is_refused_in_one_line_that_names_both_ways(optimize, capsys):
    if not nvidia.find_driver().error:
        pytest.skip("this machine has an NVIDIA GPU")
    assert optimize("run", "--target", "cuda") == 3
    err = capsys.readouterr().err
    assert err.startswith("optimize: target cuda: no CUDA device: ")
    assert "--build-only (BUILD_ONLY=1)" in err
    assert "or run all of it there" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--device", "first"], "--device: device: input should be a valid integer"),
        (["--runtime", "cuda_graph=true"], "--runtime: a CUDA graph is recorded for each length"),
        (
            ["--pipeline", "cuda-int8", "--runtime", "provider=cuda"],
            "pipeline cuda-int8: quantize_static: provider cuda",
        ),
        (["--pipeline", "auto", "--build-only"], "--build-only: 'auto' has to measure to choose"),
    ],
)
def test_requests_that_make_no_sense_are_one_line_and_exit_code_2(words, told, optimize, capsys):
    assert optimize("run", "--target", "cuda", *words) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"optimize: {told}")
    assert err.count("\n") == 1


def test_the_target_opens_nothing_to_be_listed():
    assert cuda.TARGET.reference_runtime["tf32"] is False
    assert "onnxruntime" not in vars(cuda)
