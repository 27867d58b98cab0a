"""The schema of a comparison's `result.json`: what updates share in weight space, beside what chance gives them."""

from typing import Literal

from pydantic import Field

from tiltmeter.runs.results import Record, Result

Figure = Literal[
    "cosine",
    "component_cosine_left",
    "component_cosine_right",
    "angle_left",
    "angle_right",
    "overlap_left",
    "overlap_right",
    "weighted_overlap_left",
    "weighted_overlap_right",
]
Reference = Literal["same_spectrum", "shared_initialisation"]


class DimsRecord(Record):
    """Leading singular directions that enter cosines of components, angles and overlaps."""

    components: int
    angles: int
    subspace: int


class UpdateRecord(Record):
    """One update.

    Attributes:
        kind: "adapter", "adapter difference" (minus its own start: PiSSA, OLoRA), "checkpoint", or "weights" for the
            base's own weights.
        norm: Frobenius norm over its modules.
        modules: how many it changes.
        ranks: smallest and largest rank of a module's change (of what was kept of it, where it is dense).
        error: largest residual of a leading direction of a dense change, relative to its singular value; 0 if exact.
        only_here: modules that no other update changes.
        not_covered: parameters that are no linear layer's weight: name -> norm of their change.
        trained_on: base and revision that an adapter's configuration names.
    """

    kind: str
    norm: float
    modules: int
    ranks: tuple[int, int]
    error: float
    only_here: list[str] = Field(default_factory=list)
    not_covered: dict[str, float] = Field(default_factory=dict)
    trained_on: str | None = None


class NullRecord(Record):
    """Random updates: the mean of a figure over draws, its central 95 %, and the p-value of the observed one.

    For the cosine they are of |cosine|.
    """

    mean: float
    low: float
    high: float
    p: float


class FigureRecord(Record):
    """One figure of a pair: the mean over blocks of the mean over a block's modules.

    Attributes:
        value: of the cosine, the mean of signed cosines; angles are in degrees.
        std: over blocks.
        closed_form: mean for independent frames; null for angles, which have none.
        random: Gaussian matrices of the full shape, the study's baseline.
        same_spectrum: each change's singular values in Haar-random orientation.
        shared_initialisation: A kept as it is stored, B of its own spectrum in random orientation; null unless both
            are adapters.
        reference: the null that the ratio is taken to.
        ratio: |value| over the mean of the reference.
    """

    value: float
    std: float
    closed_form: float | None
    random: NullRecord | None
    same_spectrum: NullRecord
    shared_initialisation: NullRecord | None
    reference: Reference
    ratio: float | None


class RowSpaceRecord(Record):
    """The row spaces of two low-rank updates (those of LoRA's A), mean over modules.

    Attributes:
        overlap: `||W_a^T W_b||^2 / min(ra, rb)`, 1 for equal ones.
        independent: the same by chance.
        factor_cosine: of the A's as stored; null where ranks differ.
        shared: do they coincide more than half beyond chance? Then the shared initialisation is the null to ask.
    """

    overlap: float
    independent: float
    factor_cosine: float | None
    shared: bool


class PairRecord(Record):
    """Two updates over the modules that both change; `blocks` counts the blocks with such modules."""

    one: str
    two: str
    modules: int
    blocks: int
    row_spaces: RowSpaceRecord | None
    figures: dict[Figure, FigureRecord]


class GroupFigure(Record):
    """One figure over the pairs between two groups: mean, least and greatest; mean of the pairs' reference nulls."""

    mean: float
    least: float
    greatest: float
    null: float
    ratio: float | None


class GroupRecord(Record):
    """All pairs with one update of each group (of the same group where both are one), `shared` of them sharing A."""

    one: str
    two: str
    pairs: int
    shared: int
    figures: dict[Figure, GroupFigure]


class Ordering(Record):
    """The updates in the order of a hierarchical clustering by average linkage.

    Attributes:
        figure: the similarity s; the distance is 1 - s. Left subspaces do not depend on a shared initialisation.
        names: so that near ones stand beside each other (optimal leaf order).
        merges: as scipy's linkage: (one, two, distance, size), clusters numbered after the updates in `updates`.
    """

    figure: Figure
    names: list[str]
    merges: list[tuple[int, int, float, int]]


class CompareResult(Result):
    """What several updates of one base share."""

    verb: Literal["compare"] = "compare"
    dims: DimsRecord
    draws: int
    updates: dict[str, UpdateRecord]
    pairs: list[PairRecord]
    groups: dict[str, list[str]] = Field(default_factory=dict)
    group_pairs: list[GroupRecord] = Field(default_factory=list)
    ordering: Ordering | None = None
