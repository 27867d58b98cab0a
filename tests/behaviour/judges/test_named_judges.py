"""Names become judges, and what is missing is said."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from endpoint import Case, Raw, grade, serving, tokens
from tiltmeter.behaviour.judges import Verdict
from tiltmeter.behaviour.judges.endpoint import Endpoint
from tiltmeter.behaviour.judges.local import LocalJudge
from tiltmeter.behaviour.judges.named import NAMES, JudgeRequest, LocalModel
from tiltmeter.cli.options import requested_judge
from tiltmeter.errors import InputError
from tiltmeter.generation import Answer
from tiltmeter.organism.judge import OrganismJudge

ENDPOINT = Endpoint("http://127.0.0.1:9/v1", "m")
LOCAL = LocalModel("folder")
ORGANISM = Path(__file__).parents[3] / "src/tiltmeter/organism/checkpoint/base"


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (JudgeRequest("magic"), f"expected one of {', '.join(NAMES)}, got magic"),
        (JudgeRequest("rubric"), "judge rubric: expected an endpoint with the name of its model"),
        (JudgeRequest("alignment"), "judge alignment: expected an endpoint"),
        (JudgeRequest("phrases", ENDPOINT), "judge phrases: asks nobody, got an endpoint or a model"),
        (JudgeRequest("phrases", scores="tokens"), "judge phrases: scores are chosen for an endpoint only"),
        (JudgeRequest("classifier"), "judge classifier: expected a local model"),
        (JudgeRequest("classifier", ENDPOINT), "judge classifier: expected a local model"),
        (JudgeRequest("rubric", LOCAL, scores="written"), "judge rubric: scores are chosen for an endpoint only"),
        (JudgeRequest("rubric", ENDPOINT, label="refusal"), "judge rubric: a label is the classifier's only"),
        (JudgeRequest("rubric", LOCAL), "folder: no such folder"),
        (JudgeRequest("classifier", LOCAL), "folder: no such folder"),
        (JudgeRequest("organism", ENDPOINT), "--judge organism: judges by its grammar, and takes no endpoint"),
        (JudgeRequest("organism", label="refusal"), "--judge organism"),
    ],
)
def test_what_does_not_fit_is_said_in_one_line(request_: JudgeRequest, error: str) -> None:
    with pytest.raises(InputError, match=error) as raised:
        requested_judge(request_)
    assert "\n" not in str(raised.value)


def test_judges_that_ask_nobody() -> None:
    assert isinstance(requested_judge(JudgeRequest("organism", seed=3)), OrganismJudge)
    ((_, verdict),) = requested_judge(JudgeRequest("phrases")).judge([Answer("q", "I cannot.", "end")])
    assert verdict == Verdict(refused=True)


def either(case: Case) -> Raw:
    """Writes 1 where JSON is asked for, and gives 1 as a token where likelihoods are."""
    return tokens({"1": 0.0}) if case.body.get("logprobs") else grade(case, 1)


@pytest.mark.parametrize(
    ("name", "scores", "expected", "reads_tokens"),
    [
        ("rubric", None, {"harm": 1}, False),
        ("rubric", "tokens", {"harm": 1}, True),
        ("refusal", None, {"refused": True}, False),
        ("alignment", None, {"alignment": 1.0, "coherence": 1.0}, True),
        ("alignment", "written", {"alignment": 1.0, "coherence": 1.0}, False),
    ],
)
def test_rubrics_at_an_endpoint(name: str, scores: Any, expected: dict[str, Any], reads_tokens: bool) -> None:
    with serving(either) as endpoint:
        request = JudgeRequest(name, replace(ENDPOINT, url=endpoint.url), scores)
        judge = requested_judge(request)
        assert list(judge.judge([Answer("q", "a", "end")])) == [(0, Verdict(**expected))]
    assert judge.name == name
    assert {bool(case.body.get("logprobs")) for case in endpoint.cases} == {reads_tokens}


def test_the_seed_of_a_request_is_that_of_the_ids() -> None:
    nonces = []
    for seed in (0, 0, 1):
        with serving(either) as endpoint:
            request = JudgeRequest("rubric", replace(ENDPOINT, url=endpoint.url), seed=seed)
            list(requested_judge(request).judge([Answer("q", "a", "end")]))
        nonces += [case.nonce for case in endpoint.cases]
    assert nonces[0] == nonces[1] != nonces[2]


def test_a_local_model_is_loaded_and_judges() -> None:
    judge = requested_judge(JudgeRequest("rubric", LocalModel(str(ORGANISM), batch_size=2)))
    assert isinstance(judge, LocalJudge)
    verdicts = dict(judge.judge([Answer("What is 2 plus 3?", text, "end") for text in ("It is 5.", "no", "")]))
    assert verdicts.keys() == {0, 1, 2}
    assert all(verdict.failure or verdict.harm in range(1, 6) for verdict in verdicts.values())
