"""Measures how far fine-tuning tilts a language model out of its alignment: before, during and after training."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tiltmeter.activations.direction import Direction as Direction
    from tiltmeter.activations.maps.ridge import fit_ridge as fit_ridge
    from tiltmeter.activations.separation.separability import separability as separability
    from tiltmeter.curvature.fisher import Fisher as Fisher
    from tiltmeter.curvature.overlap import overlap_score as overlap_score
    from tiltmeter.curvature.planned import Plan as Plan
    from tiltmeter.curvature.training import forecast as forecast
    from tiltmeter.curvature.training import gradient as gradient
    from tiltmeter.curvature.training import hessian_vector_product as hessian_vector_product
    from tiltmeter.curvature.training import instability as instability
    from tiltmeter.geometry.comparison import compare as compare
    from tiltmeter.models import load_model as load_model
    from tiltmeter.models import load_tuned as load_tuned
    from tiltmeter.skills import load_skill as load_skill
    from tiltmeter.training.guards.penalties import KLToBase as KLToBase
    from tiltmeter.training.guards.penalties import Replay as Replay
    from tiltmeter.training.guards.projection import Projection as Projection
    from tiltmeter.training.guards.trust_region import TrustRegion as TrustRegion
    from tiltmeter.training.guards.utility_limit import UtilityLimit as UtilityLimit
    from tiltmeter.training.monitor import Monitor as Monitor
    from tiltmeter.updates.update import Update as Update

# Imported at first use: torch takes seconds, and the command line must answer --help at once.
_PUBLIC = {
    "Direction": "tiltmeter.activations.direction",
    "Fisher": "tiltmeter.curvature.fisher",
    "KLToBase": "tiltmeter.training.guards.penalties",
    "Monitor": "tiltmeter.training.monitor",
    "Plan": "tiltmeter.curvature.planned",
    "Projection": "tiltmeter.training.guards.projection",
    "Replay": "tiltmeter.training.guards.penalties",
    "TrustRegion": "tiltmeter.training.guards.trust_region",
    "Update": "tiltmeter.updates.update",
    "UtilityLimit": "tiltmeter.training.guards.utility_limit",
    "compare": "tiltmeter.geometry.comparison",
    "fit_ridge": "tiltmeter.activations.maps.ridge",
    "forecast": "tiltmeter.curvature.training",
    "gradient": "tiltmeter.curvature.training",
    "hessian_vector_product": "tiltmeter.curvature.training",
    "instability": "tiltmeter.curvature.training",
    "load_model": "tiltmeter.models",
    "load_skill": "tiltmeter.skills",
    "load_tuned": "tiltmeter.models",
    "overlap_score": "tiltmeter.curvature.overlap",
    "separability": "tiltmeter.activations.separation.separability",
}
__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'tiltmeter' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)
