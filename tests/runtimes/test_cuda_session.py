"""Sessions on a device: nothing runs elsewhere unnoticed, and bound memory gives the same answers.

Binding and graphs are exercised with the CPU as the device, which ONNX Runtime allows; only the kernels differ.
"""

from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest

from optimize.errors import StageError, UnavailableError
from optimize.runtimes.cuda_session import create, is_placed, make_session, place, require_provider

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"


def session_of(providers, **nodes):
    """A session that says it has these providers, and ran these operators on each."""
    groups = [
        SimpleNamespace(ep_name=name, get_nodes=lambda kinds=kinds: [SimpleNamespace(op_type=kind) for kind in kinds])
        for name, kinds in nodes.items()
    ]
    return SimpleNamespace(get_providers=lambda: providers, get_provider_graph_assignment_info=lambda: groups)


def test_a_session_that_fell_back_to_the_cpu_is_refused():
    with pytest.raises(UnavailableError, match=rf"^{CUDA}: could not be started, and onnxruntime fell back to {CPU};"):
        require_provider(session_of([CPU], **{CPU: ["MatMul"]}), [CUDA, CPU])


def test_a_node_that_fell_back_to_the_cpu_is_refused_by_its_operator():
    session = session_of([CUDA, CPU], **{CUDA: ["MatMul"], CPU: ["Shape", "DynamicQuantizeLinear", "MatMulInteger"]})
    with pytest.raises(UnavailableError, match="has no kernel for DynamicQuantizeLinear, MatMulInteger, which would"):
        require_provider(session, [CUDA, CPU])


def test_arithmetic_on_shapes_may_run_on_the_cpu():
    require_provider(session_of([CUDA, CPU], **{CUDA: ["MatMul"], CPU: ["Shape", "Gather", "Concat"]}), [CUDA, CPU])


def test_a_provider_that_took_no_node_is_refused():
    with pytest.raises(UnavailableError, match="TensorrtExecutionProvider: took no node of the model"):
        require_provider(
            session_of(["TensorrtExecutionProvider", CUDA], **{CUDA: ["MatMul"]}), ["TensorrtExecutionProvider", CUDA]
        )


@pytest.mark.filterwarnings("ignore:Specified provider")
@pytest.mark.parametrize("provider", [CUDA, "TensorrtExecutionProvider"])
def test_onnxruntime_without_the_provider_is_refused_for_real(provider, context, apply):
    if provider in onnxruntime.get_available_providers():
        pytest.skip(f"this onnxruntime has {provider}")
    model = apply(context("text-classification"), "export").artifact.path / "model.onnx"
    with pytest.raises((UnavailableError, ValueError, RuntimeError), match=provider):
        create(model, 1, [(provider, {}), (CPU, {})])


def test_a_session_tells_which_provider_ran_its_nodes(context, apply):
    model = apply(context("text-classification"), "export").artifact.path / "model.onnx"
    groups = create(model, 1, [(CPU, {})]).get_provider_graph_assignment_info()
    assert {group.ep_name for group in groups} == {CPU}
    assert "MatMul" in {node.op_type for group in groups for node in group.get_nodes()}


@pytest.fixture
def opened(context, apply):
    """A context and a function that opens its graph with or without graphs, the CPU being the device."""

    def make(head="token-classification", **settings):
        here = context(head)
        session = create(apply(here, "export").artifact.path / "model.onnx", 1, [(CPU, {})])
        return here, make_session(session, here.head, device="cpu", index=0, where="here", **settings)

    return make


@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("head", ["token-classification", "question-answering", "multiple-choice"])
def test_bound_memory_gives_the_same_answers(head, graphs, opened, make_feed, difference):
    here, session = opened(head, graphs=graphs)
    reference = here.open("torch", here.reference.path)
    for kind, tokens in (("full", 21), ("holed", 21), ("left-padded", 21), ("full", 12), ("right-padded", 21)):
        assert difference(here, reference, session, make_feed(here, kind, tokens=tokens)) < 2e-5


@pytest.mark.parametrize("graphs", [False, True])
def test_what_is_placed_stays_on_the_device_and_is_right(graphs, opened, make_feed):
    here, session = opened(graphs=graphs)
    feed = make_feed(here, "holed")
    placed = place(feed, device="cpu", index=0)
    outputs = session(placed)
    assert is_placed(placed)
    assert not is_placed(feed)
    assert isinstance(outputs["logits"], onnxruntime.OrtValue)
    np.testing.assert_allclose(outputs["logits"].numpy(), session(feed)["logits"], atol=1e-6)
    other = place(make_feed(here, "full"), device="cpu", index=0)
    assert not np.allclose(session(other)["logits"].numpy(), outputs["logits"].numpy()) or graphs is False


def test_a_model_of_another_head_is_refused(context, apply):
    session = create(apply(context("text-classification"), "export").artifact.path / "model.onnx", 1, [(CPU, {})])
    with pytest.raises(StageError, match="here: the model has no output end_logits, start_logits"):
        make_session(session, context("question-answering").head, device="cpu", index=0, graphs=False, where="here")
