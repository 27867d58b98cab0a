"""One fine-tune, from files to a run folder."""

from pathlib import Path

import torch
from transformers.integrations.integration_utils import get_available_reporting_integrations

from tiltmeter.errors import InputError
from tiltmeter.models import load_model, local_folder, quiet
from tiltmeter.requests import hash_files
from tiltmeter.runs.inputs import hash_input
from tiltmeter.runs.tune_result import TuneResult
from tiltmeter.training.callbacks import FiniteLoss, ProgressBar
from tiltmeter.training.checkpoints import Checkpoints
from tiltmeter.training.finetune import Session, finetune
from tiltmeter.training.processes import is_main, own_device, process_count, wait_for_all
from tiltmeter.tune import record
from tiltmeter.tune.measure import measured
from tiltmeter.tune.place import Place, place_for
from tiltmeter.tune.prepare import Prepared, Trained, prepare
from tiltmeter.tune.request import Running, TuneRequest

MODEL, CHECKPOINTS = "model", "checkpoints"


def run_tune(request: TuneRequest, out: Path) -> TuneResult:
    """Fine-tunes and writes the run folder `out`; goes on with the run of this very request that was killed there.

    Of several processes that train together, the main one writes.

    Raises:
        InputError: any input that cannot be used, a training that diverges, or `out` is no place for a run.
    """
    sources, running = request.sources, request.running
    _check(running)
    sets = sources.load()
    folder = local_folder(sources.base)
    with place_for(out) as place:
        inputs = [
            hash_input(sources.base, "base", folder),
            *hash_files({"data": sources.data}),
            *request.watch.hashed(),
        ]
        model = load_model(folder, torch.float32, own_device(running.device))
        prepared = prepare(request, model, sets)
        place.resume_or_start(request.record(inputs))
        wait_for_all(running.device)
        trained = _train(request, place, prepared)
        result = record.result(request, inputs, trained)
        for name, rows in record.tables(trained).items():
            place.write_table(name, rows)
        place.write_result(result)
    return result


def _check(running: Running) -> None:
    if running.device.startswith("cuda:"):
        raise InputError(f"device {running.device}: training takes the first GPU; choose it by CUDA_VISIBLE_DEVICES")
    if running.device == "cuda" and process_count() == 1 and torch.cuda.device_count() > 1:
        # The Trainer would copy the model to each and multiply the recipe's batch.
        raise InputError(
            f"device cuda: {torch.cuda.device_count()} GPUs are visible to one process; choose one by "
            "CUDA_VISIBLE_DEVICES, or start a process for each by torchrun"
        )
    known = get_available_reporting_integrations()
    for name in running.report_to:
        if name not in known:
            raise InputError(
                f"--report-to {name}: expected one that is installed here: {', '.join(known) or 'none is'}"
            )


def _train(request: TuneRequest, place: Place, prepared: Prepared) -> Trained:
    running, model = request.running, prepared.model
    checkpoints = Checkpoints(place.folder(CHECKPOINTS), running.save_every, running.keep)
    session = Session(checkpoints, running.dtype == "bfloat16", running.gradient_checkpointing, running.report_to)
    callbacks = [*prepared.watchers.callbacks, FiniteLoss(), ProgressBar()]
    with quiet():
        log = finetune(model, prepared.examples, request.recipe, place.folder(MODEL), request.seed, callbacks, session)
    kept = checkpoints.finish(model.tokenizer) if is_main() else []
    after = measured(model, prepared.samples, prepared.skills)
    return Trained(prepared, log, after, [f"{CHECKPOINTS}/{path.name}" for path in kept])
