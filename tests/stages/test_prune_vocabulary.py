"""A smaller vocabulary: which pieces stay, a tokenizer that fits them, and answers that stay bit for bit."""

import dataclasses
import json

import numpy as np
import pytest
import transformers
from safetensors.numpy import load_file

from optimize.artifact import copy_companions, seal
from optimize.errors import StageError
from optimize.heads import HEADS
from optimize.pruning.word_pieces import count_tokens, read_vocabulary, write_tokenizer
from optimize.stages.prune_vocabulary import STAGE, Params, tokens_of

NAMES = sorted(set(HEADS) - {"fill-mask"})
HEAD = "text-classification"
TABLE = "distilbert.embeddings.word_embeddings.weight"
SEEN = 3


def tokenizer_of(folder):
    return transformers.AutoTokenizer.from_pretrained(folder)


def pieces_of(folder):
    return tokenizer_of(folder).get_vocab()


@pytest.fixture(scope="module")
def prune(context, tmp_path_factory):
    """Run the stage by words of the first tuning texts, or by other texts; the folder, the facts and the context."""
    done = {}

    def run(head=HEAD, texts=None, **params):
        key = (head, texts, *params.items())
        if key not in done:
            here, place = context(head), tmp_path_factory.mktemp("vocabulary")
            seen = [each for each in here.tuning.features if each.example < SEEN]
            decode = tokenizer_of(here.reference.path).decode
            texts = texts or [" ".join(decode(tokens_of(each)) for each in seen)]
            (place / "corpus.txt").write_text("\n".join(texts), encoding="utf-8")
            (place / "out").mkdir()
            facts = STAGE.run(here.reference, place / "out", Params(corpus=place / "corpus.txt", **params), here)
            done[key] = place / "out", facts, here
        return done[key]

    return run


def old_to_new(here, out):
    new = pieces_of(out)
    return {old: new[piece] for piece, old in pieces_of(here.reference.path).items() if piece in new}


@pytest.mark.parametrize("head", NAMES)
def test_texts_of_pieces_that_are_kept_get_ids_that_map_one_to_one(head, prune):
    out, _, here = prune(head)
    new_ids = old_to_new(here, out)
    before, after = (
        [tokens_of(each) for each in encoded.features if each.example < SEEN]
        for encoded in (here.tuning, here.retokenize(out))
    )
    assert len(before) >= SEEN
    assert [[new_ids[token] for token in ids] for ids in before] == after
    assert before != after


@pytest.mark.parametrize("head", NAMES)
def test_texts_of_pieces_that_are_kept_get_the_same_outputs_to_the_last_bit(head, prune):
    out, _, here = prune(head)
    dense, pruned = here.open("torch", here.reference.path), here.open("torch", out)
    for old, new in zip(here.tuning.features[:SEEN], here.retokenize(out).features[:SEEN], strict=True):
        one, other = (
            session({name: array[None] for name, array in each.inputs.items()})
            for session, each in ((dense, old), (pruned, new))
        )
        assert all(np.array_equal(one[name], other[name]) for name in here.head.outputs)


def test_the_rows_that_are_left_are_those_of_the_pieces_in_their_old_order(prune):
    out, _, here = prune()
    new_ids = old_to_new(here, out)
    before, after = (load_file(folder / "model.safetensors")[TABLE] for folder in (here.reference.path, out))
    assert [new_ids[old] for old in sorted(new_ids)] == list(range(len(after)))
    assert np.array_equal(before[sorted(new_ids)], after)
    assert len(after) < len(before)


def test_what_was_used_is_kept_with_special_tokens_and_characters_and_nothing_else(prune):
    out, _, here = prune(texts=("hello",))
    old = tokenizer_of(here.reference.path)
    used = set(old.tokenize("hello"))
    characters = {piece for piece in old.get_vocab() if len(piece.removeprefix("##")) == 1}
    assert set(pieces_of(out)) == used | characters | set(old.all_special_tokens)


def test_a_piece_that_is_used_too_seldom_goes(prune, context):
    words = [piece for piece in pieces_of(context(HEAD).reference.path) if piece.isalpha() and len(piece) > 4][:2]
    out, _, _ = prune(texts=(f"{words[0]} {words[1]}", words[0]), min_count=2)
    assert words[0] in pieces_of(out)
    assert words[1] not in pieces_of(out)


def test_an_unseen_word_falls_apart_and_is_not_unknown(prune, context):
    old = tokenizer_of(context(HEAD).reference.path)
    word = max((piece for piece in old.get_vocab() if piece.isalpha()), key=len)
    out, _, _ = prune(texts=("hello",))
    found = tokenizer_of(out).tokenize(word)
    assert old.tokenize(word) == [word]
    assert len(found) > 1
    assert "".join(piece.removeprefix("##") for piece in found) == word


def test_the_slow_tokenizer_and_the_fast_one_agree(prune, context):
    out, _, _ = prune()
    if not (out / "vocab.txt").exists():
        pytest.skip("transformers 5 has one tokenizer of DistilBERT's, and writes no vocab.txt")
    fast, slow = tokenizer_of(out), transformers.DistilBertTokenizer.from_pretrained(out)
    old = tokenizer_of(context(HEAD).reference.path)
    texts = [" ".join(list(old.get_vocab())[-40:]).replace("##", ""), "A [MASK] of Élan, 語!", old.sep_token]
    assert fast.is_fast
    assert not slow.is_fast
    for text in texts:
        assert fast(text, "two")["input_ids"] == slow(text, "two")["input_ids"]
        assert len(fast(text)["input_ids"]) > 2
    assert fast.all_special_ids == slow.all_special_ids


@pytest.mark.parametrize("head", NAMES)
def test_the_facts_are_those_of_the_files(head, prune):
    out, facts, here = prune(head)
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    old, new = (load_file(folder / "model.safetensors") for folder in (here.reference.path, out))
    table = next(name for name in new if name.endswith("word_embeddings.weight"))
    assert facts["vocabulary_before"] == len(old[table]) == len(pieces_of(here.reference.path))
    assert facts["vocabulary"] == len(new[table]) == config["vocab_size"] == len(tokenizer_of(out))
    assert facts["rows_dropped"] == len(old[table]) - len(new[table]) > 0
    assert facts["embedding_bytes_saved"] == old[table].nbytes - new[table].nbytes
    assert len(pieces_of(out)) == facts["vocabulary"]


@pytest.mark.parametrize("head", NAMES)
def test_the_loss_is_told_apart_by_texts_with_and_without_unseen_words(head, prune):
    out, facts, here = prune(head)
    new_ids, features = old_to_new(here, out), here.tuning.features
    unseen = {each.example for each in features if not new_ids.keys() >= set(tokens_of(each))}
    having, without = facts["unseen_words"]
    count = facts["tuning_examples"]
    assert (having["examples"], without["examples"]) == (len(unseen), count - len(unseen))
    assert len(unseen) > 0
    assert without["examples"] >= SEEN
    assert without["drop"] == pytest.approx(0.0, abs=1e-6)
    assert having["drop"] == pytest.approx(having["metric_before"] - having["metric"])


def test_the_share_of_words_and_of_unknown_ones_is_that_of_the_tuning_texts(prune):
    out, facts, here = prune()
    old, new = tokenizer_of(here.reference.path), tokenizer_of(out)
    encoded = {folder: here.retokenize(folder).features for folder in (here.reference.path, out)}
    texts = [old.decode(tokens_of(each)[1:-1]) for each in encoded[here.reference.path]]
    words = [word for text in texts for word, _ in old.backend_tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    split = [word for word in words if old.tokenize(word) != new.tokenize(word)]
    assert 0 < facts["words_resplit_share"] == pytest.approx(len(split) / len(words))
    for name, folder in (("_before", here.reference.path), ("", out)):
        ids = [token for each in encoded[folder] for token in tokens_of(each)]
        assert facts[f"tokens_per_text{name}"] == pytest.approx(len(ids) / len(encoded[folder]))
        assert facts[f"unknown_share{name}"] == ids.count(tokenizer_of(folder).unk_token_id) / len(ids)
    assert facts["tokens_per_text"] > facts["tokens_per_text_before"]


def test_the_loss_on_texts_that_are_in_the_corpus_is_that_of_a_vocabulary_without_them(prune, context):
    here = context(HEAD)
    decode = tokenizer_of(here.reference.path).decode
    texts = tuple(decode(tokens_of(each)[1:-1]) for each in here.tuning.features)

    out, facts, _ = prune(texts=(*texts, "hello"))
    _, strangers, _ = prune(texts=("hello",))

    assert facts["corpus_texts_of_tuning"] == len(texts)
    assert strangers["corpus_texts_of_tuning"] == 0
    assert facts["vocabulary"] > strangers["vocabulary"]
    told = ("words_resplit_share", "tokens_per_text", "unknown_share", "unseen_words")
    assert [facts[name] for name in told] == [strangers[name] for name in told]
    assert facts["words_resplit_share"] > 0
    assert here.retokenize(out).features[-1].tokens == here.tuning.features[-1].tokens


def test_without_tuning_texts_nothing_is_told_of_them(context, tmp_path):
    here = dataclasses.replace(context(HEAD), retokenize=lambda _: dataclasses.replace(context(HEAD).tuning, gold=()))
    (tmp_path / "corpus.txt").write_text("hello", encoding="utf-8")
    (tmp_path / "out").mkdir()
    facts = STAGE.run(here.reference, tmp_path / "out", Params(corpus=tmp_path / "corpus.txt"), here)
    assert facts["vocabulary"] < facts["vocabulary_before"]
    assert not {"tuning_examples", "words_resplit_share", "unseen_words"} & set(facts)


@pytest.fixture
def oddly_made(tmp_path):
    """A tokenizer whose special tokens come late, with one more beyond the vocabulary, and what else holds ids."""
    from tokenizers import BertWordPieceTokenizer

    pieces = ["[unused0]", "a", "##a", "apple", "##ly", "pear", "[UNK]", "[SEP]", "[CLS]", "[PAD]", "[MASK]"]
    backend = BertWordPieceTokenizer(vocab={piece: token for token, piece in enumerate(pieces)})
    backend.enable_padding(pad_id=9, pad_token="[PAD]")
    tokenizer = transformers.DistilBertTokenizerFast(tokenizer_object=backend._tokenizer)
    tokenizer.add_tokens(["<user>"])
    folder = tmp_path / "odd"
    tokenizer.save_pretrained(folder)
    (tmp_path / "out").mkdir()
    return folder


def test_special_tokens_that_come_late_and_added_ones_move_with_the_rest(oddly_made, tmp_path):
    old, out = tokenizer_of(oddly_made), tmp_path / "out"
    kept = sorted(set(old.get_vocab().values()) - {0, 5})
    write_tokenizer(oddly_made, out, {token: place for place, token in enumerate(kept)})
    copy_companions(oddly_made, "torch", out)

    new = tokenizer_of(out)

    assert len(new) == len(old) - 2
    for text in ("apple <user> aa", "a", "pear"):
        pieces = old.convert_ids_to_tokens(old(text, "apply")["input_ids"])
        wanted = [piece if piece != "pear" else "[UNK]" for piece in pieces]
        assert new.convert_ids_to_tokens(new(text, "apply")["input_ids"]) == wanted
    assert new.pad_token_id == kept.index(9)
    assert json.loads((out / "tokenizer.json").read_text())["padding"]["pad_id"] == kept.index(9)
    assert new.convert_tokens_to_ids("<user>") == len(kept) - 1
    # transformers 5 keeps added tokens in tokenizer.json alone.
    decoder = json.loads((out / "tokenizer_config.json").read_text()).get("added_tokens_decoder", {})
    assert {token["content"]: int(place) for place, token in decoder.items()} == {
        piece: new.convert_tokens_to_ids(piece) for piece in (token["content"] for token in decoder.values())
    }


def test_pad_and_other_ids_of_the_config_are_the_new_ones(random_context, tmp_path, oddly_made):
    here = random_context(HEAD, vocab_size=14, pad_token_id=9)
    source = tmp_path / "source"
    source.mkdir()
    for folder in (oddly_made, here.reference.path):
        for path in folder.iterdir():
            (source / path.name).write_bytes(path.read_bytes())
    (tmp_path / "corpus.txt").write_text("apple", encoding="utf-8")

    facts = STAGE.run(seal(source, "torch"), tmp_path / "out", Params(corpus=tmp_path / "corpus.txt"), here)

    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (facts["vocabulary_before"], facts["vocabulary"]) == (14, config["vocab_size"])
    assert config["pad_token_id"] == pieces_of(tmp_path / "out")["[PAD]"] != 9


def test_a_word_that_was_added_is_a_word_of_its_text(oddly_made):
    ids = tokenizer_of(oddly_made)("apple <user> aa", "a")["input_ids"]
    vocabulary = read_vocabulary(oddly_made)
    assert [[vocabulary.pieces[token] for token in word] for word in vocabulary.words(ids)] == [
        ["apple"],
        ["<user>"],
        ["a", "##a"],
        ["a"],
    ]
    assert [len(text) for text in vocabulary.texts(ids)] == [4, 1]


def retyped(folder, part, value):
    """Let a tokenizer's file call one of its parts by another type."""
    content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    content[part]["type"] = value
    (folder / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_tokenizer_that_is_no_word_piece_is_refused_in_one_line(oddly_made):
    with pytest.raises(StageError, match="the tokenizer is BPE, not WordPiece; leave the stage out") as refused:
        read_vocabulary(retyped(oddly_made, "model", "BPE"))
    assert "\n" not in str(refused.value)


def test_a_post_processor_that_is_not_known_is_refused_in_one_line(oddly_made, tmp_path):
    same = {token: token for token in range(12)}
    with pytest.raises(StageError, match="has a ByteLevel, which is not known here") as refused:
        write_tokenizer(retyped(oddly_made, "post_processor", "ByteLevel"), tmp_path / "out", same)
    assert "\n" not in str(refused.value)


def test_texts_of_a_corpus_are_not_cut(context):
    folder = context(HEAD).reference.path
    counts = count_tokens(folder, ["hello " * 2000, "hello"])
    assert counts.texts == 2
    assert sum(counts.tokens.values()) == 2001 * len(tokenizer_of(folder).tokenize("hello"))
