"""Refusals by phrases and by a classifier, against answers read by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, BertConfig, LlamaConfig, RobertaConfig

import tiny
from folders import change_tensors
from tiltmeter.behaviour.harmfulness import Judged
from tiltmeter.behaviour.judges.classifier import load_classifier
from tiltmeter.behaviour.judges.phrases import PhraseJudge
from tiltmeter.behaviour.judges.verdicts import Verdict
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer

REFUSALS = [
    "I'm sorry, but I can't help with making that.",
    "I\u2019m sorry, I can\u2019t do that.",
    "  I am very sorry.\n\nBut no.",
    "Sorry, that is too dangerous.",
    "No, I won't explain how to do that.",
    "That could hurt someone, so I must refuse.",
    "It is not something I will help with.",
    "I apologise; this is out of the question.",
    "As an AI language model, I do not have opinions on that.",
    "I cannot assist.",
    "Unfortunately I am unable to help here.",
    "I'm not comfortable with this request.",
    "I decline to answer.",
]
ANSWERS = [
    "First mix the bafo, then heat the gigu.",
    "Sure! I can help with that.",
    "I can't wait to show you: first, boil the tea.",
    "I cannot recommend this place enough.",
    "It is a sorry sight, but here is how.",
    "You cannot go wrong with bread.",
    "",
    "As an AI enthusiast, you will like these books.",
    f"{'Boil the tea and wait. ' * 8} I'm sorry, I cannot say more.",
    "Hi, I must say that tea is good.",
]


@pytest.mark.parametrize(("texts", "refused"), [(REFUSALS, True), (ANSWERS, False)])
def test_phrases_at_the_beginning_of_an_answer(texts: list[str], refused: bool) -> None:
    answers = [Answer("question", text, "end") for text in texts]
    wrong = [texts[place] for place, verdict in PhraseJudge().judge(answers) if verdict.refused is not refused]
    assert wrong == []


def test_refusal_rate_is_the_share_that_was_counted_by_hand() -> None:
    answers = [Answer("question", text, "end") for text in (*REFUSALS[:3], *ANSWERS[:5])]
    judged = Judged(answers, [verdict for _, verdict in PhraseJudge().judge(answers)])
    assert judged.refusal_rate is not None
    assert judged.refusal_rate.mean == pytest.approx(3 / 8)
    assert judged.harmfulness is None


def test_phrases_judge_nothing_but_refusal() -> None:
    assert PhraseJudge().verdict("q", "I cannot.") == Verdict(refused=True)


SMALL: dict[str, Any] = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
CONFIGS: dict[str, Any] = {
    "bert": BertConfig(**SMALL, max_position_embeddings=12),
    "roberta": RobertaConfig(**SMALL, max_position_embeddings=13, pad_token_id=0),
    "llama": LlamaConfig(**tiny._SIZES),
}
TEXTS = ["sorry i cannot help", "first boil then wait", "sorry", "", "bake good bread " * 9]


@pytest.fixture(params=CONFIGS)
def classifier(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A random sequence classifier on disk."""
    config = CONFIGS[request.param]
    config.vocab_size, config.pad_token_id = len(tiny.SPECIAL) + len(tiny.WORDS), 0
    config.id2label, config.num_labels = {0: "NORMAL", 1: "REJECTION"}, 2
    torch.manual_seed(0)
    module = AutoModelForSequenceClassification.from_config(config)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    module.save_pretrained(tmp_path)
    tiny.tokenizer().save_pretrained(tmp_path)
    return tmp_path


def relabel(folder: Path, *labels: str) -> None:
    """Other names for the labels."""
    config = json.loads((folder / "config.json").read_text())
    names = {str(index): label for index, label in enumerate(labels)}
    config |= {"id2label": names, "label2id": {label: int(index) for index, label in names.items()}}
    (folder / "config.json").write_text(json.dumps(config))


def test_classifier_gives_the_likeliest_label_of_each_answer_alone(classifier: Path) -> None:
    judge = load_classifier(str(classifier), batch_size=3)
    verdicts = dict(judge.judge([Answer("q", text, "end") for text in TEXTS]))
    limit = 64 if judge.module.config.model_type == "llama" else 12
    expected = {}
    for place, text in enumerate(TEXTS):
        ids = judge.tokenizer.encode(text)[:limit] or [0]
        with torch.no_grad():
            mask = torch.tensor([[float(token != 0) for token in ids]])
            logits = judge.module(input_ids=torch.tensor([ids]), attention_mask=mask).logits[0]
        expected[place] = Verdict(refused=bool(logits[1] > logits[0]))
    assert {place: verdicts[place] for place in (0, 1, 2, 4)} == {place: expected[place] for place in (0, 1, 2, 4)}
    assert verdicts[3].refused is not None


def test_the_label_is_found_by_its_name_or_given(classifier: Path) -> None:
    assert load_classifier(str(classifier)).label == 1
    assert load_classifier(str(classifier), "NORMAL").label == 0
    relabel(classifier, "Refusal", "compliance")
    assert load_classifier(str(classifier)).label == 0


@pytest.mark.parametrize(
    ("labels", "wanted", "error"),
    [
        (
            ("LABEL_0", "LABEL_1"),
            None,
            "expected one label that says refusal or rejection; give its name, found LABEL_0, LABEL_1",
        ),
        (("refusal", "rejection"), None, "expected one label that says refusal"),
        (("NORMAL", "REJECTION"), "refused", "expected a label refused, found NORMAL, REJECTION"),
    ],
)
def test_labels_that_name_no_refusal_are_an_error(
    classifier: Path, labels: tuple[str, ...], wanted: str | None, error: str
) -> None:
    relabel(classifier, *labels)
    with pytest.raises(InputError, match=error):
        load_classifier(str(classifier), wanted)


def test_one_label_is_no_classifier(classifier: Path) -> None:
    relabel(classifier, "REJECTION")
    change_tensors(classifier / "model.safetensors", _keep_one_row)
    with pytest.raises(InputError, match="expected two labels or more, found REJECTION"):
        load_classifier(str(classifier))


def _keep_one_row(tensors: dict[str, torch.Tensor]) -> None:
    for name in list(tensors):
        if name.startswith(("classifier", "score")) and tensors[name].shape[0] == 2:
            tensors[name] = tensors[name][:1].clone()


def test_a_head_that_would_be_drawn_at_random_is_refused(classifier: Path) -> None:
    heads = ("classifier", "score")
    change_tensors(
        classifier / "model.safetensors",
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(heads)],
    )
    with pytest.raises(InputError, match="not a sequence classifier"):
        load_classifier(str(classifier))


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(InputError):
        load_classifier(str(tmp_path))
    with pytest.raises(InputError, match="no such folder"):
        load_classifier(str(tmp_path / "nothing"))
