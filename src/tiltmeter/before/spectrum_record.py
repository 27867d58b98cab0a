"""A spectrum as it is saved: the figures of `result.json`, its tables and its arrays."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from math import degrees
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tiltmeter.before.spectrum_measure import DATA, NULLS, SAMPLED, Measured, Spectra
from tiltmeter.curvature.nulls import flat_energy, flat_loss
from tiltmeter.curvature.output_rank import OutputRank
from tiltmeter.curvature.rotation import Rotation
from tiltmeter.curvature.sites import Site
from tiltmeter.curvature.spectrum import Spectrum, against_size, equalised, halvings, jackknife
from tiltmeter.intervals import Interval as Estimate
from tiltmeter.layers import widths
from tiltmeter.runs import spectrum_result as saved
from tiltmeter.runs.results import Interval

SUBSAMPLES = 20


def skill_record(
    measured: Measured, turned: Mapping[str, Sequence[Rotation | None]], dims: int, seed: int
) -> saved.SkillSpectrum:
    """One skill's entry; `turned` holds the rotation at each site by checkpoint."""
    return saved.SkillSpectrum(
        examples=len(measured.fisher),
        data=_measured_shape(measured.texts[DATA], dims, seed),
        sampled=_measured_shape(measured.texts[SAMPLED], dims, seed),
        nulls={name: _null_shape(measured.texts[name], dims) for name in NULLS},
        sizes=[row for name in (DATA, *NULLS) for row in _size_rows(name, measured.texts[name], dims, seed)],
        labels=_turned(measured.labels[0]),
        split=_split(measured),
        flat=_flat(measured, dims),
        rank_bound=_rank_bound(measured),
        rotations=[saved.RotationRow(checkpoint=name, turned=_turned(found[0])) for name, found in turned.items()],
    )


def site_rows(name: str, measured: Measured, dims: int) -> Iterator[dict[str, Any]]:
    """One row per site of `spectrum.parquet`; a block's or all modules' Gram is the sum over its modules."""
    ranks = {rank.module: rank for rank in measured.ranks}
    for index, site in enumerate(measured.places):
        yield {
            "skill": name,
            **_site_columns(site),
            "parameters": site.size,
            **_spectrum_columns(measured.texts, index, dims),
            **_label_columns(measured.labels[index]),
            **_rank_columns(ranks.get(site.name)),
        }


def rotation_rows(
    name: str, places: Sequence[Site], turned: Mapping[str, Sequence[Rotation | None]]
) -> Iterator[dict[str, Any]]:
    """One row per checkpoint and site of `rotation.parquet`; null where there are fewer than d directions."""
    keys = ("sine", "overlap", "distance", "gap", "bound", "trace_ratio")
    for checkpoint, found in turned.items():
        for site, each in zip(places, found, strict=True):
            figures = {key: None if each is None else getattr(each, key) for key in keys}
            yield {"skill": name, "checkpoint": checkpoint, **_site_columns(site), **figures}


def arrays(name: str, measured: Measured) -> dict[str, Any]:
    """Gram matrices of the skill, and the eigenvalues of every text at every site."""
    found = {f"{name}.gram": measured.fisher.gram().numpy()}
    for text, spectra in measured.texts.items():
        key = f"{name}.{text.replace(' ', '_')}"
        found |= {f"{key}.eigenvalues": spectra.eigenvalues.numpy(), f"{key}.equalised": spectra.equalised.numpy()}
    return found


def _spectrum_columns(texts: Mapping[str, Spectra], index: int, dims: int) -> dict[str, float]:
    """Figures of one site by name of the column; those of a null are means over its draws and carry its name."""
    row: dict[str, float] = {}
    for name in (DATA, *NULLS):
        prefix = "" if name == DATA else f"{name.replace(' ', '_')}_"
        plain, equal = (_spectra(each[:, index]) for each in (texts[name].eigenvalues, texts[name].equalised))
        row |= {
            f"{prefix}trace": _mean(plain, lambda each: each.trace),
            f"{prefix}lambda_1": _mean(plain, lambda each: each.at(1)),
            f"{prefix}lambda_d": _mean(plain, lambda each: each.at(dims)),
            f"{prefix}tail": _mean(plain, lambda each: each.tail(dims)),
            f"{prefix}tail_share": _mean(plain, lambda each: each.tail_share(dims)),
            f"{prefix}participation_ratio": _mean(plain, lambda each: each.participation_ratio),
            f"{prefix}equalised_participation_ratio": _mean(equal, lambda each: each.participation_ratio),
        }
    return row


def _measured_shape(spectra: Spectra, dims: int, seed: int) -> saved.Shape:
    whole = spectra.whole[0]
    return _shape(spectra, dims, [each for gram in (whole, equalised(whole)) for each in _jackknifed(gram, dims, seed)])


def _null_shape(spectra: Spectra, dims: int) -> saved.Shape:
    kinds = [_spectra(each[:, 0]) for each in (spectra.eigenvalues, spectra.equalised)]
    return _shape(spectra, dims, [_range(values) for drawn in kinds for values in _shares_and_ratios(drawn, dims)])


def _shape(spectra: Spectra, dims: int, intervals: Sequence[Interval]) -> saved.Shape:
    drawn = _spectra(spectra.eigenvalues[:, 0])
    share, ratio, equal_share, equal_ratio = intervals
    return saved.Shape(
        trace=_mean(drawn, lambda each: each.trace),
        lambda_1=_mean(drawn, lambda each: each.at(1)),
        lambda_d=_mean(drawn, lambda each: each.at(dims)),
        tail=_mean(drawn, lambda each: each.tail(dims)),
        top_share=share,
        participation_ratio=ratio,
        equalised_top_share=equal_share,
        equalised_participation_ratio=equal_ratio,
    )


def _jackknifed(gram: Float[Tensor, "N N"], dims: int, seed: int) -> tuple[Interval, Interval]:
    share = jackknife(gram, lambda each: each.top_share(dims), (0.0, 1.0), seed)
    ratio = jackknife(gram, lambda each: each.participation_ratio, (1.0, float(len(gram))), seed)
    return _saved(share), _saved(ratio)


def _shares_and_ratios(drawn: Sequence[Spectrum], dims: int) -> tuple[list[float], list[float]]:
    return [each.top_share(dims) for each in drawn], [each.participation_ratio for each in drawn]


def _size_rows(name: str, spectra: Spectra, dims: int, seed: int) -> Iterator[saved.SizeRow]:
    sizes = halvings(spectra.whole.shape[-1], dims)
    drawn = [against_size(gram, sizes, dims, SUBSAMPLES, seed) for gram in spectra.whole]
    for index, size in enumerate(sizes):
        ratios, shares = (
            torch.cat([getattr(each[index], key) for each in drawn]) for key in ("participation_ratios", "top_shares")
        )
        yield saved.SizeRow(
            text=name, size=size, participation_ratio=_percentiles(ratios), top_share=_percentiles(shares)
        )


def _turned(found: Rotation | None) -> saved.Turned | None:
    if found is None:
        return None
    return saved.Turned(
        angles=[degrees(angle) for angle in found.angles.tolist()],
        sine=found.sine,
        overlap=found.overlap,
        trace_ratio=found.trace_ratio,
        distance=found.distance,
        gap=found.gap,
        bound=found.bound,
    )


def _split(measured: Measured) -> saved.Split | None:
    if not measured.splits:
        return None
    sines, overlaps = ([getattr(each, key) for each in measured.splits] for key in ("sine", "overlap"))
    return saved.Split(examples=len(measured.fisher) // 2, sine=_range(sines), overlap=_range(overlaps))


def _flat(measured: Measured, dims: int) -> saved.Flat:
    size = measured.places[0].size
    trace = float(measured.texts[DATA].eigenvalues[0, 0].sum())
    return saved.Flat(size=size, energy=flat_energy(dims, size), loss=flat_loss(trace, size, 1.0))


def _rank_bound(measured: Measured) -> saved.RankBound:
    layers, ranks = measured.fisher.layers, measured.ranks
    return saved.RankBound(
        modules=len(ranks),
        below_n=sum(rank.bound < len(measured.fisher) for rank in ranks),
        median_share=median(rank.r / widths(layers[rank.module][0])[0] for rank in ranks),
    )


def _site_columns(site: Site) -> dict[str, Any]:
    return {"scope": site.scope, "module": site.name or None, "block": site.block}


def _label_columns(found: Rotation | None) -> dict[str, float | None]:
    return {
        "sampled_overlap": None if found is None else found.overlap,
        "sampled_trace_ratio": None if found is None else found.trace_ratio,
    }


def _rank_columns(rank: OutputRank | None) -> dict[str, int | None]:
    return {
        "output_width": None if rank is None else len(rank.energies),
        "output_rank": None if rank is None else rank.r,
        "rank_bound": None if rank is None else rank.bound,
    }


def _spectra(eigenvalues: Float[Tensor, "D N"]) -> list[Spectrum]:
    return [Spectrum(each) for each in eigenvalues]


def _mean(spectra: Sequence[Spectrum], figure: Callable[[Spectrum], float]) -> float:
    return sum(figure(each) for each in spectra) / len(spectra)


def _saved(interval: Estimate) -> Interval:
    return Interval(mean=interval.mean, low=interval.low, high=interval.high)


def _range(values: Sequence[float]) -> Interval:
    return Interval(mean=sum(values) / len(values), low=min(values), high=max(values))


def _percentiles(values: Float[Tensor, " D"]) -> Interval:
    low, high = values.quantile(torch.tensor([0.05, 0.95], dtype=values.dtype)).tolist()
    return Interval(mean=float(values.mean()), low=low, high=high)
