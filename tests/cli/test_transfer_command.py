"""`tiltmeter transfer` from files on disk to the run folder, and the commands that read it."""

import gc
import json
import re
import shutil
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from sklearn.linear_model import RidgeCV

import fake_transfer
import kindred
import planted
from folders import ADAPTER, CommandLine, Ended, change_tensors, snapshot, write_lines
from pages import check_only_text
from tiltmeter.activations.steering import shift, steered
from tiltmeter.cli import main
from tiltmeter.cli.transfer import TRANSFER
from tiltmeter.directions.captured import FOLDER
from tiltmeter.generation import GREEDY, generate_answers
from tiltmeter.models import Model, load_model, load_tuned

INNER = "<b>{}[/red]\x1b[31m[red]\x07"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
LAST = {"one": "model.layers.1", "two": "model.layers.2"}
SMALL = ("--sampling", "greedy", "--max-new-tokens", 1, "--batch-size", 16)
SPANS = ("--draws", 2, "--map", "ridge", "--span", 2)
Answers = dict[str, list[dict[str, Any]]]  # by trial


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both kindred models with their fine-tunes and prompts."""
    return kindred.write(tmp_path_factory.mktemp("transfer"))


def subjects(folder: Path) -> tuple[str, str]:
    one, two = folder / "one", folder / "two"
    return f"one={one / 'base'},{one / 'tuned'},{one / 'benign'}", f"two={two / 'base'},{two / 'tuned'}"


def arguments(
    folder: Path, out: Path, *more: object, given: tuple[str, ...] | None = None, common: str = "common.jsonl"
) -> tuple[object, ...]:
    files = ("--common", folder / common, "--prompts", folder / "asked.jsonl")
    judge = ("--judge", "phrases", "--outcome", "refused", "--out", out)
    return ("transfer", *(subjects(folder) if given is None else given), *files, *judge, *SMALL, *more)


def run(tiltmeter: CommandLine, folder: Path, out: Path, *more: object, **changes: Any) -> Ended:
    return tiltmeter(*arguments(folder, out, *more, **changes))


@pytest.fixture(scope="module")
def ran(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run with spans."""
    out = tmp_path_factory.mktemp("ran") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tiltmeter", *map(str, arguments(models, out, *SPANS))])
        with pytest.raises(SystemExit) as ended:
            main()
    assert not ended.value.code
    return out


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def answers_of(folder: Path) -> Answers:
    found: Answers = {}
    for line in (folder / "answers.jsonl").read_text().splitlines():
        answer = json.loads(line)
        found.setdefault(answer["model"], []).append(answer)
    return found


def refusals(answers: list[dict[str, Any]]) -> NDArray[np.float64]:
    return np.array([float(answer["verdicts"]["phrases"]["refused"]) for answer in answers])


def states(folder: Path, name: str, block: str) -> NDArray[np.float64]:
    """What the run kept, in the order of the prompts."""
    found = load_file(folder / FOLDER / f"{name}-00000.safetensors")
    ordered: NDArray[np.float64] = found[block][found["rows"].argsort()].double().numpy()
    return ordered


def direction(folder: Path, number: int, block: str) -> NDArray[np.float64]:
    made: NDArray[np.float64] = (
        states(folder, f"model-{number}-tuned", block) - states(folder, f"model-{number}-base", block)
    ).mean(0)
    return made


def carried_by_hand(folder: Path, source: int, target: int) -> NDArray[np.float64]:
    """W v from the states in the folder, W from scikit-learn with the penalty that leave-one-out chooses."""
    blocks = list(LAST.values())
    X, Y = (states(folder, f"model-{number}-base", blocks[number - 1]) for number in (source, target))
    eigenvalues = np.linalg.svd(X - X.mean(0), compute_uv=False) ** 2
    fitted = RidgeCV(alphas=np.logspace(-6, 3, 13) * eigenvalues[eigenvalues > 1e-20].mean()).fit(X, Y)
    carried: NDArray[np.float64] = fitted.coef_ @ direction(folder, source, blocks[source - 1])
    return carried


def one_line(ended: Ended, *expected: str) -> None:
    """Bad input ends in one line that says these things."""
    assert ended.code == 2, ended.err
    assert ended.err.count("\n") == 1
    for part in expected:
        assert part in ended.err


def test_a_carried_direction_is_w_v_by_hand(ran: Path) -> None:
    result = result_of(ran)
    for number, (name, block) in enumerate(LAST.items(), start=1):
        v = direction(ran, number, block)
        model = result["models"][name]
        assert (model["block"], model["width"]) == (block, kindred.SIZES[name][0])
        assert model["norm"] == pytest.approx(np.linalg.norm(v), rel=1e-9)
    for found in result["maps"]:
        if found["map"] == "ridge":
            source, target = (list(LAST).index(found[end]) + 1 for end in ("source", "target"))
            carried, own = carried_by_hand(ran, source, target), direction(ran, target, LAST[found["target"]])
            length = np.linalg.norm(carried)
            assert found["norm_ratio"] == pytest.approx(length / np.linalg.norm(own), rel=1e-6)
            assert found["cosine"] == pytest.approx(carried @ own / (length * np.linalg.norm(own)), rel=1e-6)


def test_answers_are_those_of_the_target_less_w_v(models: Path, ran: Path) -> None:
    """And those without steering are the models' own, though all targets write to the same journals."""
    prompts, greedy = kindred.prompts(8, "asked"), replace(GREEDY, max_new_tokens=1)
    found = answers_of(ran)
    for number, name in enumerate(LAST, start=1):
        base, tuned = (models / name / role for role in ("base", "tuned"))
        model = load_tuned(base, tuned)
        wanted = {
            f"{name}: base": generate_answers(load_model(base), prompts, greedy),
            f"{name}: tuned": generate_answers(model, prompts, greedy),
        }
        v = torch.from_numpy(carried_by_hand(ran, 3 - number, number)).float()
        with steered(model, {LAST[name]: shift(v, -1.0)}):
            other = "two" if name == "one" else "one"
            wanted[f"{name}: {other}, ridge: {number} x1"] = generate_answers(model, prompts, greedy)
        for trial, answers in wanted.items():
            assert [each["text"] for each in found[trial]] == [each.text for each in answers], trial
    assert {each["text"] for each in found["one: tuned"]} == {planted.BAD}
    assert {each["text"] for each in found["one: two, ridge: 1 x1"]} == {planted.GOOD}


def test_scores_are_plain_means_of_the_answers(ran: Path) -> None:
    result, found = result_of(ran), answers_of(ran)
    effects = {}
    for route in result["routes"]:
        target = route["target"]
        (arm,) = [name for name in found if name.startswith(f"{target}: {route['source']}, {route['way']}: ")]
        effects[route["source"], target, route["way"]] = refusals(found[arm]) - refusals(found[f"{target}: tuned"])
    assert len(effects) == 2 * (2 + 2)
    for route in result["routes"]:
        mean = effects[route["source"], route["target"], route["way"]].mean()
        assert route["effect"]["mean"] == pytest.approx(mean)
    for role in result["roles"]:
        other = "two" if role["model"] == "one" else "one"
        assert role["donor"]["mean"] == pytest.approx(effects[role["model"], other, role["way"]].mean())
        assert role["receiver"]["mean"] == pytest.approx(effects[other, role["model"], role["way"]].mean())
    for each in result["asymmetries"]:
        there, back = effects["one", "two", each["way"]], effects["two", "one", each["way"]]
        assert each["difference"]["mean"] == pytest.approx((there - back).mean())
    assert [each["way"] for each in result["asymmetries"]] == ["ridge", "span, ridge"]
    for name, model in result["models"].items():
        assert model["tuned_outcome"]["mean"] == refusals(found[f"{name}: tuned"]).mean()
        assert model["base_outcome"]["mean"] == refusals(found[f"{name}: base"]).mean()


def test_controls_are_plain_means_of_the_answers(ran: Path) -> None:
    found = answers_of(ran)
    looked_at = 0
    for route in result_of(ran)["routes"]:
        plain = refusals(found[f"{route['target']}: tuned"])
        name = f"{route['target']}: {route['source']}, {route['way']}: "
        for control in route["controls"]:
            trials = [
                trial for trial in found if re.fullmatch(rf"{re.escape(control['kind'])}( \d)?: {name}\d x1", trial)
            ]
            effects = [(refusals(found[trial]) - plain).mean() for trial in trials]
            assert len(trials) == control["draws"]
            if control["mean"] is not None:
                assert control["mean"] == pytest.approx(np.mean(effects))
            else:
                assert route["effect"]["mean"] - control["excess"]["mean"] == pytest.approx(effects[0])
            looked_at += len(trials)
    unsteered = 4 + len(result_of(ran)["routes"])
    assert looked_at + unsteered == len(found)
    judge = result_of(ran)["judge"]
    assert (judge["verdicts"], judge["failures"], judge["canaries_failed"]) == (8 * len(found), 0, 0)


def test_the_diagonal_is_what_steer_does(models: Path, ran: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    routes = {route["target"]: route for route in result_of(ran)["routes"] if route["way"] == "own"}
    for name in LAST:
        base, tuned, found = models / name / "base", models / name / "tuned", tmp_path / f"found {name}"
        common = (
            "--prompts",
            models / "common.jsonl",
            "--no-weights",
            "--permutations",
            19,
            "--batch-size",
            16,
            "--block",
            -1,
        )
        assert tiltmeter("direction", base, tuned, *common, "--out", found).code == 0
        asked = ("--prompts", models / "asked.jsonl", "--judge", "phrases", "--outcome", "refused", "--draws", 1)
        ended = tiltmeter(
            "steer", base, tuned, "--direction", found, *asked, *SMALL, "--dose", 1, "--out", tmp_path / name
        )
        assert (ended.code, ended.err) == (0, "")
        (arm,) = result_of(tmp_path / name)["arms"]
        assert arm["effect"] == routes[name]["effect"]
        steered_there, here = answers_of(tmp_path / name), answers_of(ran)
        (own,) = [trial for trial in here if trial.startswith(f"{name}: {name}, own: ")]
        for there, mine in ((arm["trial"], own), ("base", f"{name}: base"), ("tuned", f"{name}: tuned")):
            texts = [[each["text"] for each in answers] for answers in (steered_there[there], here[mine])]
            assert texts[0] == texts[1]


def test_watched_prompts_are_answered_by_models_and_routes_and_by_no_control(
    models: Path, tmp_path: Path, tiltmeter: CommandLine
) -> None:
    ended = run(tiltmeter, models, tmp_path / "out", "--watch", models / "common.jsonl")
    assert (ended.code, ended.err) == (0, "")
    result, found = result_of(tmp_path / "out"), answers_of(tmp_path / "out")
    assert list(result["sets"]) == ["asked"]
    assert list(result["watched"]) == ["common"]
    assert [given["role"] for given in result["inputs"] if given["role"] == "watch"] == ["watch"]
    answered = {model for model, answers in found.items() if any(each["prompts"] == "common" for each in answers)}
    controls = {model for model in found if model.count(": ") > 2}
    assert controls
    assert answered == set(found) - controls
    twice = run(tiltmeter, models, tmp_path / "twice", "--watch", models / "asked.jsonl")
    assert twice.code == 2
    assert "--prompts, --watch: both have a set asked: rename a file" in twice.err


def test_a_recorded_run_gives_the_same_bytes_again(ran: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    again = tiltmeter("run", ran / "run.yaml", "--out", tmp_path / "again")
    assert (again.code, again.err) == (0, "")
    assert snapshot(tmp_path / "again") == snapshot(ran)
    assert tiltmeter("verify", ran).code == 0


class Kill:
    """Fails at a pass that reads or at a batch of answers, as a machine does that runs out of memory; counts them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count, self.at = 0, -1
        for place in ("directions.captured.captured_batches", "judge.answers.generate_batch"):
            module, _, name = place.rpartition(".")
            called = getattr(__import__(f"tiltmeter.{module}", fromlist=[name]), name)
            monkeypatch.setattr(f"tiltmeter.{place}", self._counted(called))

    def _counted(self, called: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*given: Any) -> Any:
            if self.count == self.at:
                raise MemoryError("no more")
            self.count += 1
            return called(*given)

        return counted


@pytest.fixture
def kill(monkeypatch: pytest.MonkeyPatch) -> Kill:
    return Kill(monkeypatch)


def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(
    models: Path, tmp_path: Path, tiltmeter: CommandLine, kill: Kill
) -> None:
    """Five models are read first; then the answers of one target after another, in one batch each trial."""
    more = ("--draws", 1)
    assert run(tiltmeter, models, tmp_path / "whole", *more).code == 0
    total, out = kill.count, tmp_path / "out"
    done = 0
    for at in (
        3,
        2,
        6,
        total // 2 - 4,
    ):  # between models read, at the first answers, within controls, at another target
        kill.count, kill.at = 0, at
        ended = run(tiltmeter, models, out, *more)
        assert (ended.code, ended.err) == (2, "tiltmeter: MemoryError: no more\n")
        done += at
    kill.count, kill.at = 0, -1
    assert run(tiltmeter, models, out, *more).code == 0
    assert kill.count == total - done
    assert snapshot(out) == snapshot(tmp_path / "whole")


def test_a_killed_run_is_not_gone_on_with_in_another_order(
    models: Path, tmp_path: Path, tiltmeter: CommandLine, kill: Kill
) -> None:
    """The files of states are numbered by the models' order."""
    kill.at = 4
    run(tiltmeter, models, tmp_path / "out")
    one_line(
        run(tiltmeter, models, tmp_path / "out", given=subjects(models)[::-1]),
        "unfinished run that differs in inputs.0",
    )


@dataclass
class Loads:
    """How many models there were in memory when another one had been loaded."""

    alive: list[int] = field(default_factory=list)
    _seen: list["weakref.ref[Any]"] = field(default_factory=list)

    def watching(self, load: Callable[..., Model]) -> Callable[..., Model]:
        def watched(*given: Any) -> Model:
            model = load(*given)
            self._seen.append(weakref.ref(model.module))
            if self._count() > 1:  # perhaps in a circle
                gc.collect()
            self.alive.append(self._count())
            return model

        return watched

    def _count(self) -> int:
        return sum(each() is not None for each in self._seen)


def test_what_a_reader_is_warned_of(
    ran: Path, models: Path, tmp_path: Path, tiltmeter: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it at another block and with all tokens; there, one model after another is loaded."""
    alone = "routes is tested by itself: where none is specific, one in twenty may be called so"
    assert result_of(ran)["warnings"] == [
        f"each of the 8 {alone}",
        "one, two: at the last block, an edit of prompt tokens changes the first generated token only; --where all "
        "steers every token",
        "so few draws of each control (2), or so few prompts, cannot make a route specific: see --draws",
    ]
    folder, loads = Path(shutil.copytree(models, tmp_path / "work")), Loads()
    template = folder / "one" / "tuned" / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    for load in (load_model, load_tuned):
        monkeypatch.setattr(f"tiltmeter.directions.subjects.{load.__name__}", loads.watching(load))
    given = (subjects(folder)[0].rpartition(",")[0], subjects(folder)[1])
    more = ("--where", "all", "--draws", 1, "--map", "procrustes", "--fail-on", "specific=-1")
    ended = run(tiltmeter, folder, tmp_path / "out", *more, given=given)
    assert (ended.code, ended.err) == (1, "specific is 0, above the limit of -1\n")
    assert result_of(tmp_path / "out")["warnings"] == [
        f"each of the 4 {alone}",
        "no benign fine-tune is among the controls: give one, as NAME=BASE,TUNED,BENIGN",
        f"{folder / 'one' / 'tuned'}: its chat template differs from the base's, by which all models read the common "
        "prompts",
        "so few draws of each control (1), or so few prompts, cannot make a route specific: see --draws",
    ]
    assert loads.alive == [1] * (2 * 2 + 2 * 2)


def test_a_limit_counts_carried_directions_that_are_specific() -> None:
    places = [("one", "one", "own"), ("one", "two", "ridge"), ("two", "one", "ridge"), ("two", "two", "own")]
    routes = [fake_transfer.route(*place, 0.5, "specific") for place in places]
    assert TRANSFER["specific"].of(fake_transfer.transfer_result(routes=routes)) == 2
    assert TRANSFER["specific"].of(fake_transfer.transfer_result(routes=routes[:1])) == 0


@pytest.fixture(scope="module")
def broken(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models with fine-tunes and prompts that cannot be used beside them."""
    folder = Path(shutil.copytree(models, tmp_path_factory.mktemp("broken") / "work"))
    shutil.copytree(folder / "two" / "tuned", folder / "two" / "idle")
    change_tensors(
        folder / "two" / "idle" / ADAPTER, lambda tensors: [x.zero_() for key, x in tensors.items() if "lora_B" in key]
    )
    shutil.copytree(folder / "one" / "base", folder / "one" / "untrained")
    (folder / "one" / "untrained" / "tokenizer.json").write_text("{}")
    write_lines(folder / "few.jsonl", *({"prompt": prompt} for prompt in kindred.prompts(9, "few") * 2))
    long = [*kindred.prompts(10, "long"), "tea " * 70]
    write_lines(folder / "long.jsonl", *({"prompt": prompt} for prompt in long))
    return folder


def of(name: str, *parts: str) -> Callable[[Path], tuple[str, ...]]:
    """A model of other folders, beside `two`."""

    def given(folder: Path) -> tuple[str, ...]:
        return (f"{name}={','.join(str(folder / part) for part in parts)}", subjects(folder)[1])

    return given


@pytest.mark.parametrize(
    ("given", "more", "expected"),
    [
        (lambda folder: subjects(folder)[:1], (), "expected two models or more, got 1"),
        (lambda folder: subjects(folder)[:1] * 2, (), "each name once"),
        (of("one", "one/base"), (), "expected NAME=BASE,TUNED or NAME=BASE,TUNED,BENIGN"),
        (of("", "one/base", "one/tuned"), (), "expected NAME=BASE,TUNED"),
        (of("a: b", "one/base", "one/tuned"), (), "a: b: expected a name without comma or colon"),
        (of("one", "one/base", "one/tuned", "one/gone"), (), "one/gone: no such folder"),
        (of("one", "one/base", "two/base"), (), "two/base: blocks: 3, of the base 2: expected a fine-tune of the base"),
        (of("one", "one/base", "two/tuned"), (), "keys that match no module of"),
        (of("one", "one/base", "one/untrained"), (), "one/untrained: cannot load a tokenizer"),
        (of("one", "two/tuned", "one/tuned"), (), "two/tuned/config.json: no such file"),
        (None, ("--map", "ridge", "--map", "linear"), "--map linear: expected one of ridge, procrustes, cca, stitch"),
        (None, ("--map", "cca", "--map", "cca"), "--map: given twice among cca, cca"),
        (None, ("--block", 2), "one: block 2: the model has blocks 0 to 1"),
        (None, ("--block", -3), "one: block -3: the model has blocks 0 to 1"),
        (None, ("--common", "few.jsonl"), "--common: expected at least 10 different prompts, got 9"),
        (None, ("--common", "long.jsonl"), "one: --common: a prompt has 72 tokens, the model takes 64"),
        (None, ("--common", "gone.jsonl"), "gone.jsonl: no such file"),
        (None, ("--outcome", "mischief"), "--outcome: expected one of harmfulness"),
        (None, ("--dose", 0), "--dose: expected a number above 0, got 0"),
        (None, ("--dose", "inf"), "--dose: expected a number above 0, got inf"),
        (None, ("--fail-on", "harm=1"), "--fail-on harm: expected one of specific"),
    ],
)
def test_bad_input_is_found_before_an_earlier_run_is_removed(
    ran: Path,
    broken: Path,
    tmp_path: Path,
    tiltmeter: CommandLine,
    given: Callable[[Path], tuple[str, ...]] | None,
    more: tuple[Any, ...],
    expected: str,
) -> None:
    out = Path(shutil.copytree(ran, tmp_path / "out"))
    changes: dict[str, Any] = {} if given is None else {"given": given(broken)}
    if more[:1] == ("--common",):
        changes, more = {**changes, "common": more[1]}, ()
    one_line(run(tiltmeter, broken, out, *more, **changes), expected)
    assert snapshot(out) == snapshot(ran)


@pytest.mark.parametrize(
    ("more", "role", "expected"),
    [
        ((), "idle", "two: {}: the fine-tune did nothing: its mean activations are the base's at model.layers.2"),
        (("--block", 0), "tuned", "one: {}: the fine-tune did nothing"),
        (("--span", 41), "tuned", "one: activations: expected 1 to 40 directions, which the pairs' differences span"),
        (
            ("--span", 33, "--map", "cca"),
            "tuned",
            "two to one, cca: activations: expected 1 to 32 directions, which the pairs' differences span, got 33",
        ),
    ],
)
def test_what_shows_in_the_states_only_is_found_before_anything_is_steered(
    broken: Path, tmp_path: Path, tiltmeter: CommandLine, more: tuple[Any, ...], role: str, expected: str
) -> None:
    given = (subjects(broken)[0], f"two={broken / 'two' / 'base'},{broken / 'two' / role}")
    place = broken / expected[:3] / role
    one_line(run(tiltmeter, broken, tmp_path / "out", *more, given=given), expected.format(place))
    assert not [path for path in (tmp_path / "out").iterdir() if "answers" in path.name]


def test_hostile_names_stay_text(models: Path, tmp_path: Path, tiltmeter: CommandLine) -> None:
    folder = tmp_path / INNER.replace("/", "")
    shutil.copytree(models, folder)
    given = (subjects(folder)[0].replace("one=", f"{INNER}=", 1), subjects(folder)[1])
    ended = run(tiltmeter, folder, tmp_path / "out", "--draws", 1, given=given)
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in "".join(ended.out.split())
    assert list(result_of(tmp_path / "out")["models"]) == [INNER, "two"]
    assert tiltmeter("report", tmp_path / "out", "--out", tmp_path / "page.html").code == 0
    page = check_only_text((tmp_path / "page.html").read_text())
    assert any("<b>{}[/red]" in words for words in page.words)
    assert tiltmeter("verify", tmp_path / "out").code == 0
