"""The pictures of the leaderboard: quality over bitrate with Opus as the reference line, word errors against speaker
similarity, and what goes together with perplexity.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from earmark.reports import aggregate, plots
from earmark.reports.correlation import Correlation, correlation
from earmark.reports.rates import REFERENCE, bd_rate, rate_curves
from earmark.reports.scores import Score
from earmark.reports.tables import is_headline

if TYPE_CHECKING:
    from matplotlib.figure import Figure

OVER_BITRATE = ("pesq_wb", "estoi", "visqol_audio", "mel_distance_7scale")
PERPLEXITY = "perplexity_overall"
ESTIMATE = "ngram_perplexity_overall"  # of the same in seconds: does it say the same?
CONTROL = "control"  # the family of those whose answers are known: no codecs, so neither a curve nor a point among them
KINDS = ("quantized", "unquantized")  # of latents, the first that a codec has


def pictures(scores: Sequence[Score], families: Mapping[str, str], domains: Mapping[str, str]) -> list[tuple[str, str]]:
    """(caption, SVG) of every picture that the scores give; families: codec -> family, domains: dataset -> domain."""
    scores = _comparable(scores)
    real = [score for score in scores if families.get(score.codec) != CONTROL]
    datasets = list(dict.fromkeys(score.dataset for score in scores))
    found = []
    for dataset in datasets:
        found += [_over_bitrate(real, dataset, metric, families) for metric in OVER_BITRATE]
        found.append(_words_and_voice(scores, dataset))
        found += _with_perplexity(real, dataset, families)
    found += [_probes(scores, protocol, domains) for protocol in ("earmark", "xares")]
    return [(caption, plots.svg(figure)) for caption, figure in (each for each in found if each)]


def _comparable(scores: Sequence[Score]) -> list[Score]:
    """Of each dataset and metric the scores made alike (clips, backend, protocol, preset, device), of the way that most
    codecs were measured; of one measurement that was repeated the newest.
    """
    ways: dict[tuple, dict[tuple, dict[str, Score]]] = {}
    for score in sorted(scores, key=lambda score: score.time):
        how = (score.dataset_fingerprint, score.backend, score.protocol, score.preset, score.device)
        ways.setdefault((score.dataset, score.metric), {}).setdefault(how, {})[score.codec] = score
    chosen = {key: max(by_way.values(), key=len) for key, by_way in ways.items()}
    wanted = {id(score) for by_codec in chosen.values() for score in by_codec.values()}
    return [score for score in scores if id(score) in wanted]


def _over_bitrate(
    scores: Sequence[Score], dataset: str, metric: str, families: Mapping[str, str]
) -> tuple[str, Figure] | None:
    """One metric's curves, where at least one family has two points; the caption has each BD-rate against Opus."""
    curves = rate_curves(scores, dataset, metric, families)
    if not any(len(points) > 1 for points in curves.values()):
        return None
    lines = {
        family: plots.Curve(
            [p.kbps for p in points], [p.value for p in points], [p.low for p in points], [p.high for p in points]
        )
        for family, points in curves.items()
    }
    saved = {
        family: bd_rate(curves.get(REFERENCE, ()), points) for family, points in curves.items() if family != REFERENCE
    }
    said = [f"{family} {percent:+.0f} %" for family, percent in saved.items() if percent is not None]
    caption = f"{metric} on {dataset}." + (f" BD-rate against Opus: {', '.join(said)}." if said else "")
    return caption, plots.curves_figure(lines, f"{metric}, {dataset}", "kbit/s", metric, log_x=True)


def _probes(scores: Sequence[Score], protocol: str, domains: Mapping[str, str]) -> tuple[str, Figure] | None:
    """What the probes of a protocol read, around a circle; the caption has the averages weighted by test clips."""
    found = aggregate.results(scores, protocol, KINDS)
    lines = aggregate.radar_lines(found)
    if not lines or len(next(iter(lines.values()))) < 3:
        return None
    table = aggregate.by_domain(
        found, {dataset: domains.get(dataset, "general") for dataset in {s.dataset for s in scores}}
    )
    averages = "; ".join(f"{codec} {_of_domains(parts)}" for codec, parts in table.items())
    caption = f"Probes, protocol {protocol}. Average weighted by test clips, of the tasks that all have: {averages}."
    return caption, plots.radar(lines, f"probes, {protocol}")


def _of_domains(averages: Mapping[str, float]) -> str:
    """The overall average, and those of the domains where there are several."""
    domains = [f"{name} {value:.3f}" for name, value in averages.items() if name != aggregate.OVERALL]
    return f"{averages[aggregate.OVERALL]:.3f}" + (f" ({', '.join(domains)})" if len(domains) > 1 else "")


def _words_and_voice(scores: Sequence[Score], dataset: str) -> tuple[str, Figure] | None:
    """CodecBench's picture: word errors against speaker similarity, bitrate as the area."""
    wer = _first(scores, dataset, "wer_", ("_increase", "_original"))
    voice = _first(scores, dataset, "speaker_similarity_", ())
    rates = _values(scores, dataset, "bitrate_kbps")
    both = [codec for codec in wer if codec in voice]
    if len(both) < 2:
        return None
    points = {codec: (voice[codec], wer[codec], rates.get(codec, 0.0)) for codec in both}
    figure = plots.bubbles(
        points, f"words and voice, {dataset}", "speaker similarity", "word error rate", "area: bitrate"
    )
    return f"Word error rate against speaker similarity on {dataset}; the area is the bitrate.", figure


def _first(scores: Sequence[Score], dataset: str, start: str, but: tuple[str, ...]) -> dict[str, float]:
    """The values of the first metric of a family (its backends are not mixed)."""
    names = [
        s.metric for s in scores if s.dataset == dataset and s.metric.startswith(start) and not s.metric.endswith(but)
    ]
    return _values(scores, dataset, names[0]) if names else {}


def _values(scores: Sequence[Score], dataset: str, metric: str) -> dict[str, float]:
    here = (score for score in scores if (score.dataset, score.metric) == (dataset, metric))
    return {score.codec: score.value for score in here if score.value is not None}


def perplexity_table(
    scores: Sequence[Score], dataset: str, families: Mapping[str, str] | None = None
) -> dict[str, Correlation]:
    """AudioCodecBench's Table 7 over our codecs: metric -> its correlation with perplexity, as if lower were better."""
    base = _values(scores, dataset, PERPLEXITY)
    higher = {score.metric: score.higher_is_better for score in scores if score.dataset == dataset}
    found = {
        metric: correlation(base, _values(scores, dataset, metric), negate_y=is_higher, families=families)
        for metric, is_higher in higher.items()
        if metric == ESTIMATE or "perplexity" not in metric
    }
    return {metric: each for metric, each in found.items() if each is not None}


def _with_perplexity(scores: Sequence[Score], dataset: str, families: Mapping[str, str]) -> list[tuple[str, Figure]]:
    """Scatter plots of the headlines, and of the n-grams' estimate, against perplexity, of four codecs or more."""
    base, drawn = _values(scores, dataset, PERPLEXITY), []
    for metric, found in perplexity_table(scores, dataset, families).items():
        if is_headline(metric) or metric == ESTIMATE:
            other = _values(scores, dataset, metric)
            points = {codec: (base[codec], other[codec], 1.0) for codec in base if codec in other}
            caption = f"{metric} against perplexity on {dataset}: {found}."
            drawn.append((caption, plots.bubbles(points, f"{metric}, {dataset}", PERPLEXITY, metric)))
    return drawn
