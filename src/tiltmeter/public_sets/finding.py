"""Where the files of a public set are: given by the user, in the Hub's cache, or on the Hub."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from tiltmeter.errors import InputError
from tiltmeter.public_sets.catalogue import PublicSet


@dataclass(frozen=True)
class Found:
    """A public set and the file or folder that holds it; `source` is as the user wrote it."""

    name: str
    set: PublicSet
    path: Path
    source: str


def find_public(source: str, sets: Mapping[str, PublicSet]) -> Found | None:
    """The set that `NAME` or `NAME=FILE` asks for; None where `source` is a file's path, or another thing.

    `NAME` alone is looked for on the Hub, and in its cache where the Hub cannot be reached (`HF_HUB_OFFLINE`).

    Raises:
        InputError: a set of which nothing was found; it says where to get it.
    """
    name, given, file = source.partition("=")
    if name not in sets or Path(source).is_file():
        return None
    wanted = sets[name]
    if not given:
        return Found(name, wanted, _from_hub(name, wanted), source)
    if not Path(file).exists():
        raise InputError(f"{source}: no such file or folder; get it from {wanted.place}")
    return Found(name, wanted, Path(file), source)


def files_of(found: Found) -> list[Path]:
    """The files of a set, in the order of their numbers ("category_2" before "category_10").

    Raises:
        InputError: a folder that holds none of them.
    """
    if found.path.is_file():
        return [found.path]
    files = sorted(found.path.glob(found.set.files or "*.yaml"), key=lambda file: (len(file.name), file.name))
    if not files:
        raise InputError(f"{found.source}: expected {found.set.files} in {found.path}; get it from {found.set.place}")
    return files


@cache  # what is hashed must be what was read, and the Hub is asked once
def _from_hub(name: str, wanted: PublicSet) -> Path:
    advice = f"get it from {wanted.place} and give {name}=PATH"
    if wanted.hub is None:
        raise InputError(f"{name}: is on no Hub; {advice}")
    try:
        folder = Path(snapshot_download(wanted.hub, repo_type="dataset", allow_patterns=[wanted.files]))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        kind = type(error).__name__
        raise InputError(f"{name}: not in the cache, and not to be had from the Hub ({kind}); {advice}") from error
    path = folder if "*" in wanted.files else folder / wanted.files
    if not path.exists():
        raise InputError(f"{name}: {wanted.hub} holds no {wanted.files}; {advice}")
    return path
