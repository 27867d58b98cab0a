"""`tiltmeter forecast` from files on disk to the run folder, and the commands that read it."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fake_forecast import curve, data_curve, data_forecast, forecast_result, gain_of, proxy_forecast, rolled
from folders import CommandLine, Ended, change_argument, snapshot, write_lines
from tiltmeter.cli.forecast_table import print_forecast
from tiltmeter.cli.limits import FORECAST, exceeded, parse_limits
from tiltmeter.errors import InputError
from tiltmeter.runs.forecast_result import ForecastResult, SkillForecast
from tiltmeter.updates import matching

RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e]")
NAME = "=cmd()<img src=x onerror=alert(3)>\x1b[31m[red]\x07"
LORA = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"]}

Forecast = Callable[..., Ended]


@pytest.fixture
def forecast(folder: Path, tiltmeter: CommandLine) -> Forecast:
    """`tiltmeter forecast` in a folder: soup and tea as data, tea as the skill, unless options say otherwise."""
    (folder / "lora").mkdir()
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(LORA))

    def run(*data: str, **options: object) -> Ended:
        given = {"skill": folder / "tea.jsonl", "steps": 4, "train_batch_size": 2, "products": 2, "points": 3}
        given |= {"dims": 2, "groups": 2, "dtype": "float64", "out": folder / "out", **options}
        flags = [text for name, value in given.items() for text in (f"--{name.replace('_', '-')}", value)]
        sets = [text for name in data or ("soup.csv", "tea.jsonl") for text in ("--data", folder / name)]
        return tiltmeter("forecast", folder / "base", *sets, *flags)

    return run


def result_of(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text())


def test_a_forecast_ranks_data_before_training(folder: Path, forecast: Forecast) -> None:
    ended = forecast(limit=0.001, roll_out=2, adapter=folder / "lora", learning_rate=0.01)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder / "out")
    found = result["skills"]["tea"]
    losses = {name: entry["forecast"]["utility_loss"][-1] for name, entry in found["data"].items()}
    assert found["ranking"] == sorted(losses, key=lambda name: -losses[name])
    assert result["plan"] == {
        "method": "lora", "optimizer": "adamw", "learning_rate": 0.01, "steps": 4, "batch_size": 2
    }  # fmt: skip
    for name, entry in found["data"].items():
        assert entry["forecast"]["steps"] == pytest.approx([1, 2, 4])
        assert entry["roll_out"]["steps"] == pytest.approx([1, 2])
        assert entry["alarm"]["limit"] == 0.001
        assert f"{losses[name]:.3f} [" in ended.out
    assert "planned: LoRA by AdamW, learning rate 0.01, 4 steps, batches of 2" in ended.out
    assert re.search(r"tea: Of 2 data sets", ended.out)
    assert {given["role"] for given in result["inputs"]} == {"base", "data", "skill", "adapter"}


def test_a_proxy_is_forecast_beside_a_skill_of_its_own_name(folder: Path, forecast: Forecast) -> None:
    ended = forecast("soup.csv", proxy=folder / "tea.jsonl", proxy_limit=1e-4, roll_out=2, learning_rate=0.01)
    assert (ended.code, ended.err) == (0, "")
    result = result_of(folder / "out")
    loss, gain = result["skills"]["tea"]["data"]["soup"], result["data"]["soup"]["proxies"]["tea"]
    assert gain["gain"] == pytest.approx([-mean for mean in loss["forecast"]["utility_loss"]])
    assert gain["roll_out"]["gain"] == pytest.approx([-mean for mean in loss["roll_out"]["utility_loss"]])
    assert gain["steps"] == loss["forecast"]["steps"]
    assert gain["examples"] == result["skills"]["tea"]["examples"]
    assert (loss["alarm"], gain["alarm"]["limit"]) == (None, 1e-4)
    assert {given["role"] for given in result["inputs"]} == {"base", "data", "skill", "proxy"}
    assert "proxy: tea" in ended.out
    assert f"{gain['gain'][-1]:.3f} [" in ended.out
    assert re.search(r"proxy tea: (soup|Of)", ended.out)


def test_every_option_reaches_the_record(folder: Path, forecast: Forecast) -> None:
    options = {
        "optimizer": "sgd", "learning_rate": 0.02, "steps": 3, "train_batch_size": 1, "epsilon": 1e-7,
        "max_grad_norm": 0.5, "dims": 1, "products": 1, "points": 2, "roll_out": 1, "limit": 0.3, "groups": 0,
        "hessian": "central-difference", "labels": "sampled", "reduction": "mean", "max_length": 40,
        "batch_size": 3, "memory": 1.5, "seed": 7, "columns": "question,answer", "skill": folder / "soup.csv",
        "proxy": folder / "soup.csv", "proxy_limit": 0.2,
    }  # fmt: skip
    assert forecast("soup.csv", **options).code == 0
    arguments = yaml.safe_load((folder / "out" / "run.yaml").read_text())["arguments"]
    assert arguments == {
        "sources": {
            "base": str(folder / "base"),
            "data": [str(folder / "soup.csv")],
            "skills": [str(folder / "soup.csv")],
            "columns": ["question", "answer"],
            "adapter": None,
            "proxies": [str(folder / "soup.csv")],
        },
        "plan": {
            "optimizer": "sgd", "learning_rate": 0.02, "steps": 3, "batch_size": 1, "epsilon": 1e-7,
            "max_grad_norm": 0.5, "weight_decay": 0.0, "seed": 7,
        },
        "passes": {"labels": "sampled", "reduction": "mean", "max_length": 40, "batch_size": 3, "memory": 1.5},
        "settings": {
            "dims": [1], "products": 1, "points": 2, "roll_out": 1, "limit": 0.3, "proxy_limit": 0.2,
            "groups": 0, "hessian": "central-difference", "seed": 7,
        },
        "dtype": "float64",
        "device": "cpu",
    }  # fmt: skip


def test_run_does_it_again_and_verify_and_report_read_it(
    folder: Path, forecast: Forecast, tiltmeter: CommandLine
) -> None:
    assert forecast(limit=0.5, proxy=folder / "soup.csv", proxy_limit=0.1).code == 0
    assert tiltmeter("run", folder / "out" / "run.yaml", "--out", folder / "again").code == 0
    first, again = snapshot(folder / "out"), snapshot(folder / "again")
    assert first.keys() == again.keys()
    assert [name for name in first if first[name] != again[name]] == []
    assert tiltmeter("verify", folder / "out").code == 0
    ended = tiltmeter("report", folder / "out", "--out", folder / "page.html")
    assert (ended.code, ended.err) == (0, "")
    assert "before 2 planned fine-tunes" in (folder / "page.html").read_text()


def test_a_run_yaml_from_before_there_were_proxies_still_runs(
    folder: Path, forecast: Forecast, tiltmeter: CommandLine
) -> None:
    assert forecast("soup.csv").code == 0
    file = folder / "out" / "run.yaml"
    record = yaml.safe_load(file.read_text())
    del record["arguments"]["sources"]["proxies"], record["arguments"]["settings"]["proxy_limit"]
    file.write_text(yaml.safe_dump(record))
    assert tiltmeter("run", file, "--out", folder / "again").code == 0
    assert result_of(folder / "again")["skills"] == result_of(folder / "out")["skills"]


def test_hostile_names_and_texts_stay_inert(folder: Path, forecast: Forecast, tiltmeter: CommandLine) -> None:
    row = {"prompt": f"make {NAME}", "completion": f"boil {NAME}"}
    write_lines(folder / f"{NAME}.jsonl", row, row)
    hostile = folder / f"{NAME}.jsonl"
    ended = forecast(f"{NAME}.jsonl", skill=hostile, proxy=hostile, out=folder / NAME, limit=1)
    assert (ended.code, ended.err) == (0, "")
    assert not RAW.search(ended.out)
    assert r"\x1b[31m[red]" in ended.out
    assert tiltmeter("report", folder / NAME, "--out", folder / "page.html").code == 0
    page = (folder / "page.html").read_text()
    assert "<img src=x" not in page
    assert "&lt;img src=x onerror=alert(3)&gt;" in page


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "unknown figure": (
        {"fail_on": "overlap=1"},
        "--fail-on overlap: expected one of utility_loss, proxy_gain, alarm_step, tr",
    ),
    "no number": ({"fail_on": "utility_loss=much"}, "--fail-on utility_loss=much: expected NAME=LIMIT"),
    "alarm without a limit": ({"fail_on": "alarm_step=5"}, "--fail-on alarm_step: no alarm can sound; give --limit or"),
    "gain without a proxy": ({"fail_on": "proxy_gain=1"}, "--fail-on proxy_gain: no proxy is measured; give --proxy"),
    "limit without a proxy": ({"proxy_limit": 1.0}, "--proxy-limit: there is nothing to apply it to; give --proxy"),
    "no proxy limit": ({"proxy_limit": 0.0}, "--proxy-limit: expected a number above 0, got 0"),
    "no such proxy": ({"proxy": "nowhere.jsonl"}, "nowhere.jsonl: no such file"),
    "no rate": ({"learning_rate": 0.0}, "--learning-rate: expected a number above 0, got 0"),
    "negative epsilon": ({"epsilon": -1.0}, "--epsilon: expected a number above 0, got -1"),
    "no limit": ({"limit": 0.0}, "--limit: expected a number above 0, got 0"),
    "rate that is none": ({"learning_rate": "nan"}, "--learning-rate: expected a number above 0, got nan"),
    "no such adapter": ({"adapter": "nowhere.json"}, "nowhere.json: expected a file named adapter_config.json"),
    "no skill": ({"skill": "nowhere.jsonl"}, "nowhere.jsonl"),
    "no device": ({"device": "nowhere"}, "base: cannot load the model"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG.keys())
def test_options_that_cannot_be_met_end_in_one_line(
    options: dict[str, object], message: str, folder: Path, forecast: Forecast
) -> None:
    ended = forecast(**options)
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert message in ended.err
    assert not (folder / "out").exists()


def test_two_data_sets_of_one_name_are_refused(folder: Path, forecast: Forecast) -> None:
    ended = forecast("tea.jsonl", "tea.jsonl")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert "--data: two of the same name" in ended.err


@pytest.mark.parametrize(
    ("path", "value"),
    [("plan.steps", 0), ("settings.points", 0), ("settings.limit", -1.0), ("sources.data", 5), ("dtype", "float7")],
)
def test_a_run_yaml_that_asks_for_the_impossible(
    path: str, value: object, folder: Path, forecast: Forecast, tiltmeter: CommandLine
) -> None:
    assert forecast("soup.csv").code == 0
    file = folder / "out" / "run.yaml"
    change_argument(file, path, value)
    ended = tiltmeter("run", file, "--out", folder / "again")
    assert (ended.code, ended.err.count("\n")) == (2, 1)
    assert path in ended.err


def test_fail_on_decides_the_exit_code(folder: Path, forecast: Forecast) -> None:
    over = forecast("soup.csv", fail_on="epsilon_relative=0")
    assert over.code == 1
    assert "epsilon_relative is" in over.err
    assert forecast("soup.csv", limit=1e9, fail_on="alarm_step=1e9").code == 0


def _result(**data: Any) -> ForecastResult:
    skills = {"tea": SkillForecast(examples=9, data=data, ranking=list(data))}
    return forecast_result(skills=skills, data={name: data_curve(0.5, proxies={}) for name in data})


def test_limits_take_the_worst_of_forecast_and_roll_out() -> None:
    held = data_forecast(0.5, 0.4, forecast=curve(0.5), roll_out=rolled(60.0))
    result = _result(a=data_forecast(0.1), b=held)
    assert FORECAST["utility_loss"].of(result) == pytest.approx(1.1 * 60 * (24 / 60) ** 3)
    assert FORECAST["alarm_step"].of(result) == 15.0
    assert FORECAST["epsilon_relative"].of(result) == held.epsilon_relative
    assert FORECAST["alarm_step"].of(_result(a=data_forecast(0.1))) == float("inf")
    assert FORECAST["alarm_step"].of(_result(a=data_forecast(6.0, None))) == float("inf")
    assert FORECAST["alarm_step"].of(_result(a=data_forecast(6.0, roll_out=None))) == pytest.approx(22, abs=0.5)


def test_limits_of_proxies_take_the_worst_of_forecast_and_roll_out_and_any_alarm_counts() -> None:
    def result(*gains: Any) -> ForecastResult:
        data = {str(number): data_curve(0.5, proxies={"tea": gain}) for number, gain in enumerate(gains)}
        safe = SkillForecast(examples=9, data={"a": data_forecast(0.1)}, ranking=["a"])
        return forecast_result(skills={"tea": safe}, data=data)

    low, high = proxy_forecast(0.1), proxy_forecast(0.5, roll_out=gain_of(rolled(60.0)))
    assert FORECAST["proxy_gain"].of(result(low, high)) == pytest.approx(1.1 * 60 * (24 / 60) ** 3)
    assert FORECAST["proxy_gain"].of(result(low)) == pytest.approx(0.1)
    assert FORECAST["alarm_step"].of(result(low)) == float("inf")
    assert FORECAST["alarm_step"].of(result(low, high)) == 15.0
    assert FORECAST["alarm_step"].of(result(proxy_forecast(6.0, roll_out=None))) == pytest.approx(22, abs=0.5)


def test_trust_is_the_least_of_the_data_sets_and_the_longer_of_forecast_and_roll_out() -> None:
    rate = _result(a=data_forecast(0.1)).plan.learning_rate
    short, long = (curve(0.5).model_copy(update={"trusted_until": steps * rate}) for steps in (7, 30))
    one = data_forecast(0.1, forecast=short, roll_out=None)
    assert FORECAST["trusted_steps"].of(_result(a=one)) == pytest.approx(7)
    run = data_forecast(0.1, forecast=short, roll_out=rolled(60.0).model_copy(update={"trusted_until": 20 * rate}))
    other = data_forecast(0.1, forecast=long, roll_out=None)
    assert FORECAST["trusted_steps"].of(_result(a=run, b=other)) == pytest.approx(20)
    assert exceeded(_result(a=run, b=other), FORECAST, {"trusted_steps": 60.0}) == 1
    assert exceeded(_result(a=run, b=other), FORECAST, {"trusted_steps": 20.0 - 1e-9}) == 0


def test_an_alarm_fails_below_its_limit_and_a_loss_above(capsys: pytest.CaptureFixture[str]) -> None:
    result = _result(a=data_forecast(6.0, roll_out=None))
    assert exceeded(result, FORECAST, {"alarm_step": 30.0}) == 1
    assert exceeded(result, FORECAST, {"utility_loss": 5.0}) == 1
    assert "below the limit of 30" in (told := capsys.readouterr().err)
    assert "utility_loss is 6, above the limit of 5" in told
    assert exceeded(result, FORECAST, {"alarm_step": 20.0, "utility_loss": 7.0}) == 0


def test_limits_of_what_is_not_measured_are_refused() -> None:
    assert parse_limits(["alarm_step=5"], FORECAST, {}) == {"alarm_step": 5.0}
    with pytest.raises(InputError, match="give --limit"):
        parse_limits(["alarm_step=5"], FORECAST, {"alarm_step": "give --limit"})


def test_no_cell_of_the_table_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    print_forecast(forecast_result(), Path("out"))
    printed = capsys.readouterr().out
    assert "…" not in printed
    for row in ("harmful ", "instructions_top", "0.750 [0.598, 0.940]", "22 [20, 24]", "2nd, from 5.7", "30 (50 %)"):
        assert row in printed


def test_an_adapter_whose_pattern_never_finishes_ends_in_one_line(
    folder: Path, forecast: Forecast, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching, "SECONDS", 0.5)
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(LORA | {"target_modules": "(.*.)*x"}))
    ended = forecast(adapter=folder / "lora")
    assert ended.code == 2
    assert "target_modules" in ended.err
    assert "did not finish" in ended.err
    assert not (folder / "out").exists()


def test_an_adapter_that_fits_no_module_ends_in_one_line(folder: Path, forecast: Forecast) -> None:
    (folder / "lora" / "adapter_config.json").write_text(json.dumps(LORA | {"target_modules": ["nowhere"]}))
    ended = forecast(adapter=folder / "lora")
    assert ended.code == 2
    assert ended.err.count("\n") == 1
    assert "nowhere" in ended.err
