"""Shapes are checked under pytest only: the hook must stand before the first import of the package."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from jaxtyping import install_import_hook

install_import_hook("tiltmeter", "typecheck.check")

import torch  # noqa: E402

torch.set_num_threads(1)
