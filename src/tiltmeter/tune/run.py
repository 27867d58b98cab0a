"""One fine-tune, from files to a run folder."""

from collections.abc import Mapping
from pathlib import Path

import torch
from transformers.integrations.integration_utils import get_available_reporting_integrations

from tiltmeter.errors import InputError
from tiltmeter.models import Model, load_model, local_folder, quiet
from tiltmeter.requests import hash_files
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.tune_result import TuneResult
from tiltmeter.training.callbacks import FiniteLoss, ProgressBar
from tiltmeter.training.checkpoints import Checkpoints
from tiltmeter.training.finetune import Session, finetune
from tiltmeter.training.processes import is_main, own_device, wait_for_all
from tiltmeter.tune import record
from tiltmeter.tune.data import DataSet, Nats, encode_sets, losses
from tiltmeter.tune.place import Place, place_for
from tiltmeter.tune.request import Running, TuneRequest

MODEL, CHECKPOINTS = "model", "checkpoints"


def run_tune(request: TuneRequest, out: Path) -> TuneResult:
    """Fine-tunes and writes the run folder `out`; goes on with the run of this very request that was killed there.

    Raises:
        InputError: any input that cannot be used, a training that diverges, or `out` is no place for a run.
    """
    sources = request.sources
    _check(request.running)
    sets = sources.load()
    folder = local_folder(sources.base)
    with place_for(out) as run:
        inputs = [hash_input(sources.base, "base", folder), *hash_files({"data": sources.data})]
        model = load_model(folder, torch.float32, own_device(request.running.device))
        data = encode_sets(model, sets, request.recipe.max_length)
        before = losses(model, data, request.seed)
        run.resume_or_start(request.record(inputs))
        wait_for_all(request.running.device)
        trained = _train(request, run, model, data, before)
        result = record.result(request, inputs, trained)
        run.write_table("loss", record.loss_rows(trained.log))
        run.write_result(result)
    return result


def _check(running: Running) -> None:
    if running.device.startswith("cuda:"):
        raise InputError(f"device {running.device}: training takes the first GPU; choose it by CUDA_VISIBLE_DEVICES")
    known = get_available_reporting_integrations()
    for name in running.report_to:
        if name not in known:
            raise InputError(
                f"--report-to {name}: expected one that is installed here: {', '.join(known) or 'none is'}"
            )


def _train(
    request: TuneRequest, run: Place, model: Model, data: Mapping[str, DataSet], before: Mapping[str, Nats]
) -> record.Trained:
    running = request.running
    weights = sum(parameter.numel() for parameter in model.module.parameters())
    checkpoints = Checkpoints(run.folder(CHECKPOINTS), running.save_every, running.keep)
    session = Session(checkpoints, running.dtype == "bfloat16", running.gradient_checkpointing, running.report_to)
    examples = [example for each in data.values() for example in each.encoded]
    callbacks = [FiniteLoss(), ProgressBar()]
    with quiet():
        log = finetune(model, examples, request.recipe, run.folder(MODEL), request.seed, callbacks, session)
    kept = checkpoints.finish(model.tokenizer) if is_main() else []
    after = losses(model, data, request.seed)
    return record.Trained(model, weights, data, before, after, log, [f"{CHECKPOINTS}/{path.name}" for path in kept])
