from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from peft import LoraConfig

import tiltmeter as tm
import tiny
from tiltmeter.training.gauge import Gauging
from tiny_training import PAIRS, assert_is_audit, save_base

HOW = Gauging(dims=3)
KINDS: dict[str, dict[str, Any]] = {
    "full": {},
    "lora": {"peft_config": LoraConfig(r=4, target_modules="all-linear", lora_dropout=0.1)},
    "packed": {"packing": True, "max_length": 32},
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_measures_inside_an_sft_trainer(kind: str, tmp_path: Path) -> None:
    trl = pytest.importorskip("trl")
    base = save_base(tmp_path / "base")
    settings = dict(KINDS[kind])
    peft_config = settings.pop("peft_config", None)
    monitor = tm.Monitor(tiny.skill(), every=2, how=HOW)
    trl.SFTTrainer(
        model=str(base),
        args=trl.SFTConfig(
            output_dir=str(tmp_path / "run"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-2,
            save_steps=2,
            report_to=[],
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **settings,
        ),
        train_dataset=Dataset.from_list([{"prompt": a, "completion": b} for a, b in PAIRS]),
        processing_class=tiny.tokenizer(),
        callbacks=[monitor],
        peft_config=peft_config,
    ).train()
    (reading,) = monitor.readings
    assert reading.norm > 0.01
    assert_is_audit(reading, base, tmp_path / "run" / "checkpoint-2", HOW)
