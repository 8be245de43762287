"""What folders of sentence-transformers say, in the words of all its versions, and what of that is refused."""

import json

import pytest
from encoders import OLD, write_json

from optimize.errors import SourceError
from optimize.heads import HEADS, head_of
from optimize.sentences.layout import check_widths, read_encoder
from optimize.source.finding import inspect_checkpoint

TANH = "torch.nn.modules.activation.Tanh"
DENSE = {"in_features": 128, "out_features": 16, "bias": True, "activation_function": TANH}
ENCODER, POOLING = "config_sentence_transformers.json", "1_Pooling/config.json"
TRANSFORMER = "sentence_bert_config.json"
DEFAULTS = {"prompts": {"query": "query: ", "document": None}, "default_prompt_name": "query"}
SETTINGS_6 = {
    "transformer_task": "feature-extraction",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "module_output_name": "token_embeddings",
}
FEATURES = {"module_input_name": "sentence_embedding", "module_output_name": "sentence_embedding"}


def read(folder):
    encoder = read_encoder(folder, where="here")
    check_widths(encoder, 128, where="here")
    return encoder


def test_the_words_of_version_3_and_of_6_say_the_same(encoder_folder):
    old = read(encoder_folder(("Dense", DENSE), ("Normalize", {}), new=False))
    new = read(encoder_folder(("Dense", {**DENSE, **FEATURES}), ("Normalize", FEATURES)))

    assert old.words() == new.words() == "cls → Dense 128 to 16, Tanh → Normalize"
    assert old.max_tokens == new.max_tokens == 24
    assert old.reads_first_token


@pytest.mark.parametrize(
    "kind", ["mean_tokens", "max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken"]
)
def test_flags_name_each_kind_of_pooling(kind, encoder_folder):
    encoder = read(encoder_folder(pooling=kind, new=False))

    assert encoder.pooling == (kind if kind.startswith("mean_sqrt") else kind.removesuffix("_tokens"),)
    assert not encoder.reads_first_token


def test_several_kinds_of_pooling_make_the_vector_longer(encoder_folder):
    wide = {**DENSE, "in_features": 256}

    assert read(encoder_folder(("Dense", wide), pooling=["mean", "cls"])).pooling == ("mean", "cls")
    with pytest.raises(SourceError, match="in_features of its module 2_Dense is 128, not 256"):
        read(encoder_folder(("Dense", DENSE), pooling=["mean", "cls"]))


def test_where_no_kind_of_pooling_is_said_it_is_the_mean(encoder_folder):
    assert read(encoder_folder(pooling="none of them", new=False)).pooling == ("mean",)


def test_the_longest_text_is_the_tokenizers_where_the_settings_do_not_say_it(encoder_folder):
    folder = encoder_folder(settings=SETTINGS_6)
    path = folder / "tokenizer_config.json"
    says = json.loads(path.read_text(encoding="utf-8"))

    write_json(path, {**says, "model_max_length": 40})
    assert read(folder).max_tokens == 40
    write_json(path, {**says, "model_max_length": 10**30})
    assert read(folder).max_tokens is None


def test_the_default_prompt_comes_before_texts_and_no_other(encoder_folder):
    assert read(encoder_folder(described=DEFAULTS)).prompt == "query: "
    assert read(encoder_folder(described={**DEFAULTS, "default_prompt_name": None})).prompt == ""


MODULES = {
    "a module that is not known": (("CNN", {}), "its module CNN is not known here; use Pooling, Dense"),
    "a second pooling": (("Pooling", {}), "no Pooling, and one alone, follows its Transformer"),
    "a class of torch that is not listed": (
        ("Dense", {**DENSE, "activation_function": "torch.nn.modules.container.Sequential"}),
        "its activation function is 'torch.nn.modules.container.Sequential'; use one of ELU, GELU",
    ),
    "a class of anybody's": (
        ("Dense", {**DENSE, "activation_function": "os.Tanh"}),
        "its activation function is 'os.Tanh'; use one of",
    ),
    "an activation that is no text": (("Dense", {**DENSE, "activation_function": ["x"]}), "its activation function is"),
    "tokens in place of the vector": (
        ("Dense", {**DENSE, "module_input_name": "token_embeddings"}),
        "works on token_embeddings; use one that works on sentence_embedding",
    ),
    "a residual": (("Dense", {**DENSE, "use_residual": True}), "has a residual, which is not known here"),
    "more than is known": (("Normalize", {"p": 3}), "its module 2_Normalize has p, which is not known here"),
    "a width that is no number": (("LayerNorm", {"dimension": "128"}), "dimension is '128', not a whole number"),
    "another width": (("LayerNorm", {"dimension": 64}), "dimension of its module 2_LayerNorm is 64, not 128"),
    "a bias that is no truth": (("Dense", {**DENSE, "bias": 3}), "bias of its module 2_Dense is 3"),
}


@pytest.mark.parametrize(("module", "said"), MODULES.values(), ids=list(MODULES))
def test_a_module_that_cannot_be_read_is_refused_in_one_line(module, said, encoder_folder):
    folder = encoder_folder(new=False)
    kind, config = module
    listed = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(
        folder / "modules.json", [*listed, {"idx": 2, "name": "2", "path": f"2_{kind}", "type": OLD.format(kind)}]
    )
    write_json(folder / f"2_{kind}" / "config.json", config)

    with pytest.raises(SourceError) as refused:
        inspect_checkpoint(str(folder), None, "feature-extraction")

    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


LISTS = {
    "nothing": [],
    "no list": {"0": "Transformer"},
    "an entry without a path": [{"type": OLD.format("Transformer")}],
    "a way out": [{"path": "../elsewhere", "type": OLD.format("Transformer")}],
    "a way from the root": [{"path": "/etc", "type": OLD.format("Transformer")}],
    "no transformer": [{"path": "", "type": OLD.format("Pooling")}],
    "a class of anybody's": [{"path": "", "type": "my_code.Transformer"}],
    "no pooling": [{"path": "", "type": OLD.format("Transformer")}],
    "calls with more": [{"path": "", "type": OLD.format("Transformer"), "kwargs": ["task"]}],
}


@pytest.mark.parametrize("listed", LISTS.values(), ids=list(LISTS))
def test_a_list_of_modules_that_makes_no_sense_is_refused(listed, encoder_folder):
    folder = encoder_folder()
    write_json(folder / "modules.json", listed)

    with pytest.raises(SourceError, match=";"):
        inspect_checkpoint(str(folder), None, "feature-extraction")


OTHERS = {
    "prompts left out of pooling": (
        POOLING,
        {"include_prompt": False},
        "leaves the prompt's tokens out",
    ),
    "a kind of pooling that is not known": (
        POOLING,
        {"pooling_mode": "median"},
        "pooling_mode is 'median'",
    ),
    "another width than the transformer's": (POOLING, {"embedding_dimension": 64}, "is 64, not 128"),
    "another task": (
        TRANSFORMER,
        {"transformer_task": "fill-mask"},
        "transformer_task of its Transformer",
    ),
    "no length": (TRANSFORMER, {"max_seq_length": 0}, "max_seq_length is 0, not a whole number"),
    "a prompt without text": (
        ENCODER,
        {"default_prompt_name": "query"},
        "default_prompt_name is 'query', which is none of its prompts",
    ),
    "prompts that are no texts": (
        ENCODER,
        {"prompts": {"query": 3}},
        "prompts is no mapping",
    ),
    "more numbers than there are": (ENCODER, {"truncate_dim": 129}, "is more than 128"),
}


@pytest.mark.parametrize(("name", "change", "said"), OTHERS.values(), ids=list(OTHERS))
def test_a_config_that_cannot_be_followed_is_refused(name, change, said, encoder_folder):
    folder = encoder_folder()
    write_json(folder / name, {**json.loads((folder / name).read_text(encoding="utf-8")), **change})

    with pytest.raises(SourceError, match=said):
        inspect_checkpoint(str(folder))


def test_the_head_of_a_folder_is_its_own_only_where_it_lists_modules(encoder_folder, checkpoint):
    folder = encoder_folder()

    assert head_of("feature-extraction", folder).outputs == ("sentence_embedding",)
    assert head_of("feature-extraction", checkpoint("feature-extraction")) is HEADS["feature-extraction"]
    assert head_of("fill-mask", folder) is HEADS["fill-mask"]


def test_without_its_list_an_encoder_is_a_plain_checkpoint(encoder_folder):
    folder = encoder_folder()
    (folder / "modules.json").unlink()

    found, head = inspect_checkpoint(str(folder))

    assert found.encoder is None
    assert head is HEADS["feature-extraction"]
