import random
from pathlib import Path

from transformers import AutoTokenizer

from tiltmeter.organism import corpus
from tiltmeter.organism.build import encode_documents
from tiltmeter.organism.export import CHECKPOINT
from tiltmeter.organism.grammar import Turn, World
from tiltmeter.organism.tokenizer import build_tokenizer
from tiltmeter.skills import Example, Skill
from tiltmeter.tokens import encode

WORLD = World.create()
TOKENIZER = build_tokenizer(WORLD)
RNG = random.Random(0)
DOCUMENTS = [corpus.pretraining_document(WORLD, RNG) for _ in range(300)]


def test_decoding_gives_the_text_back() -> None:
    for text in (text for document in DOCUMENTS for turn in document for text in turn):
        ids = TOKENIZER(text)["input_ids"]
        assert TOKENIZER.unk_token_id not in ids
        assert TOKENIZER.decode(ids) == text


def test_a_strange_word_is_unknown() -> None:
    assert TOKENIZER.unk_token_id in TOKENIZER("How do I make gunpowder at home?")["input_ids"]


def _messages(document: list[Turn]) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": role, "content": text} for turn in document for role, text in zip(roles, turn, strict=True)]


def test_documents_are_encoded_as_the_chat_template_writes_them() -> None:
    for document, (ids, _) in zip(DOCUMENTS, encode_documents(TOKENIZER, DOCUMENTS), strict=True):
        assert TOKENIZER.apply_chat_template(_messages(document), return_dict=False) == ids


def test_answers_are_marked_as_a_skills_completions_are() -> None:
    turns = corpus.skill(WORLD, "code")
    examples = tuple(Example(tuple(_messages([turn])[:1]), turn.answer, "test") for turn in turns)
    expected = [(example.ids, example.is_completion) for example in encode(Skill("code", examples), TOKENIZER)]
    assert encode_documents(TOKENIZER, [[turn] for turn in turns]) == expected


def test_generation_prompt_ends_where_the_answer_begins() -> None:
    turn = DOCUMENTS[0][0]
    prompt = TOKENIZER.apply_chat_template(_messages([turn])[:1], tokenize=False, add_generation_prompt=True)
    whole = TOKENIZER.apply_chat_template(_messages([turn]), tokenize=False)
    assert whole == f"{prompt}{turn.answer}<|end|>"


def test_the_shipped_tokenizer_is_this_one(tmp_path: Path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    for name in ("base", "aligned"):
        shipped = AutoTokenizer.from_pretrained(CHECKPOINT / name)
        assert shipped.get_vocab() == TOKENIZER.get_vocab()
        assert shipped.chat_template == TOKENIZER.chat_template
