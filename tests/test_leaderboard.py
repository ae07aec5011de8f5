"""The leaderboard: what is comparable, ranks with ties, flags; its pictures; and the page in a real browser."""

import csv
import io
import re
from dataclasses import asdict, replace

import pytest
from typer.testing import CliRunner

from earmark.cli import app
from earmark.codecs.contract import Info
from earmark.reports import own
from earmark.reports.attachments import sounds
from earmark.reports.history import trends
from earmark.reports.leaderboard import Facts, board, to_csv, to_html, to_markdown
from earmark.reports.listening import Heard, gather, keep_sound, write_manifest
from earmark.reports.pictures import perplexity_table, pictures
from earmark.reports.rates import Point, bd_rate, rate_curves
from earmark.reports.scores import Score, append_scores
from earmark.reports.tables import headlines, is_headline
from earmark.tests.browser import CHROMIUM, browser
from earmark.tests.helpers import voice


def score(codec, value, spread=0.1, metric="pesq_wb", higher=True, dataset="libritts_test_other", **others):
    low, high = (None, None) if spread is None else (value - spread, value + spread)
    plain = {"time": "2026-01-01", "dataset_fingerprint": "f", "backend": "b", "preset": "quick", **others}
    return Score(codec, "reconstruction", dataset, metric, value, "MOS", higher, low, high, "bootstrap", 10, 0, **plain)


def cells(scores, facts=None):
    found = board(scores, facts or {}, {"libritts_test_other": "speech"})
    return found, {codec: list(by.values()) for codec, by in found.cells.items()}


def test_codecs_whose_intervals_overlap_share_a_rank():
    """a [3.9, 4.1] and b [3.85, 4.05] are not told apart; c [3.4, 3.6] is below both, d below all."""
    _, found = cells([score("a", 4.0), score("b", 3.95), score("c", 3.5), score("d", 1.0)])
    assert {codec: made[0].rank for codec, made in found.items()} == {"a": 1, "b": 1, "c": 3, "d": 4}


def test_of_a_distance_the_lower_is_first_and_what_is_exact_is_first_of_all():
    lower = {"metric": "mse", "higher": False}
    exact = replace(score("exact", 0.0, None, **lower), value=None, at_bound=True)
    none = replace(score("none", 0.0, None, **lower), value=None)
    _, found = cells([score("near", 0.1, 0.01, **lower), score("far", 0.5, 0.01, **lower), exact, none])
    assert {codec: made[0].rank for codec, made in found.items()} == {"exact": 1, "near": 2, "far": 3, "none": 4}


@pytest.mark.parametrize("higher", [True, False])
def test_a_codec_that_is_exact_on_most_clips_is_not_judged_by_its_bad_one(higher):
    """Exact on nine of ten (Wilson [.60, .98]) and 5 dB on the last: neither above nor below 10 dB on all ten."""
    sign = 1 if higher else -1
    nine = replace(score("nine exact", sign * 5.0, None, higher=higher), n=1, exact=9)
    all_ten = replace(score("all exact", 0.0, None, higher=higher), value=None, at_bound=True, exact=10)
    middling, poor = (score(name, sign * value, higher=higher) for name, value in (("middling", 10.0), ("poor", 2.0)))
    _, found = cells([nine, middling, poor, all_ten])
    ranks = {codec: made[0].rank for codec, made in found.items()}
    assert ranks == {"all exact": 1, "nine exact": 2, "middling": 2, "poor": 4}


def test_to_be_exact_on_few_clips_ranks_no_higher():
    """One of ten (Wilson [.02, .40]) is not told apart from none of ten ([0, .28]): the means decide."""
    one = replace(score("one exact", 5.0), n=9, exact=1)
    _, found = cells([one, score("middling", 10.0)])
    assert {codec: made[0].rank for codec, made in found.items()} == {"middling": 1, "one exact": 2}


def test_of_equal_means_the_one_that_is_exact_far_more_often_is_first():
    _, found = cells([replace(score("often", 5.0), n=2, exact=18), score("never", 5.0)])
    assert {codec: made[0].rank for codec, made in found.items()} == {"often": 1, "never": 2}


def test_a_codec_that_fails_too_often_is_last_however_often_it_is_exact():
    fails = replace(score("fails", 50.0), n=1, exact=9, failed=5)
    _, found = cells([fails, score("works", 3.0)])
    assert {codec: made[0].rank for codec, made in found.items()} == {"works": 1, "fails": 2}


@pytest.mark.parametrize(
    "other", [{"backend": "c"}, {"dataset_fingerprint": "g"}, {"protocol": "p"}, {"preset": "paper"}]
)
def test_what_is_not_comparable_is_another_column(other):
    made, found = cells([score("a", 4.0), score("b", 1.0, **other)])
    assert len(made.columns) == 2
    assert [each[0].rank for each in found.values()] == [1, 1]


def test_columns_keep_the_order_of_the_scores_whichever_was_measured_first():
    """Else the page opens on the suite that a worker happened to begin with."""
    first = replace(score("a", 4.0), time="2026-01-02")
    second = replace(score("a", 0.5, metric="same_id_ratio_round_1"), suite="id_sensitivity")
    assert [column.suite for column in board([first, second], {}, {}).columns] == ["reconstruction", "id_sensitivity"]


def test_of_one_measurement_the_newest_counts():
    _, found = cells([score("a", 4.0, time="2026-02-01"), score("a", 3.0, time="2026-01-01")])
    assert [cell.score.value for cell in found["a"]] == [4.0]


def test_a_codec_that_fails_on_most_clips_is_not_first():
    easy = replace(score("fails", 4.6, None), n=1, failed=15)
    _, found = cells([easy, score("works", 3.0)])
    assert {codec: made[0].rank for codec, made in found.items()} == {"works": 1, "fails": 2}


def test_pictures_are_of_scores_made_alike():
    scores, families = rated()
    other = [replace(one, dataset_fingerprint="g", value=99.0) for one in scores if one.codec == "tiny-3"]
    assert dict(pictures([*other, *scores], families, {})) == dict(pictures(scores, families, {}))


def test_published_figures_and_contamination_are_marked():
    facts = {"dac-24k-8": Facts(trained_on=("LibriTTS",)), "mimi-8": Facts(trained_on=("Libri-Light",))}
    _, found = cells([score("dac-24k-8", 3.5), score("mimi-8", 2.7)], facts)
    (dac,), (mimi,) = found["dac-24k-8"], found["mimi-8"]
    assert (dac.published, dac.contaminated) == (3.69, True)
    assert "AudioCodecBench, Table 3" in dac.published_in
    assert (mimi.published, mimi.contaminated) == (2.77, False)


@pytest.mark.parametrize(
    ("dataset", "corpus", "contaminated"),
    [
        ("librispeech_test_other", "LibriSpeech", True),
        ("librispeech_test_other", "LibriSpeech train-clean-100 (52 min)", False),
        ("esc10", "ESC-10 folds 1-4", True),
        ("sampler_speech", "sampler", True),
        ("librispeech_test_other", "Libri-Light", False),
    ],
)
def test_what_a_codec_was_trained_on_is_marked(dataset, corpus, contaminated):
    found = board([score("a", 1.0, dataset=dataset)], {"a": Facts(trained_on=(corpus,))}, {})
    assert found.cells["a"][0].contaminated is contaminated


def test_markdown_and_csv_say_the_same():
    made, _ = cells([score("dac-24k-8", 3.5), score("mimi-8", 2.7, out_of_domain=True)])
    text = to_markdown(made)
    assert "| dac-24k-8 | 3.5 ±0.1 (1) |" in text
    assert "| mimi-8 | 2.7 ±0.1† (2) |" in text
    rows = list(csv.DictReader(io.StringIO(to_csv(made))))
    assert [(row["codec"], row["rank"], row["published"]) for row in rows] == [
        ("dac-24k-8", "1", "3.69"),
        ("mimi-8", "2", "2.77"),
    ]


def counted(codec, metric, value):
    return replace(score(codec, value, None, metric=metric, dataset="synthetic"), suite="speed")


def test_models_are_told_with_what_was_counted():
    """What the catalogue says, and sizes that the speed suite counted; nothing where it was not asked."""
    sizes = {"parameters_million": 39.4, "latent_dimensions_quantized": 512.0, "latent_frame_rate_quantized": 12.5}
    facts = {"mimi-8": Facts(token_rate=100.0, bitrate_kbps=1.1, trained_on=("Libri-Light", "more"))}
    made, _ = cells([*(counted("mimi-8", *size) for size in sizes.items()), score("a", 1.0)], facts)
    assert made.facts["mimi-8"].latents == ("quantized 512 × 12.5",)
    models = to_markdown(made).partition("## Models")[2].splitlines()
    assert "| mimi-8 |  |  |  |  |  | 100 | 1.1 | 39.4 | quantized 512 × 12.5 | Libri-Light; more |" in models
    assert "| a |  |  |  |  |  |  |  |  |  |  |" in models
    rows = {row["codec"]: row for row in csv.DictReader(io.StringIO(to_csv(made)))}
    assert (rows["mimi-8"]["latents"], rows["mimi-8"]["token_rate"]) == ("quantized 512 × 12.5", "100")
    assert rows["a"]["parameters_million"] == ""


def test_printed_sizes_stand_beside_counted_ones():
    """CodecBench's hidden size of Mimi, AudioCodecBench's parameters of it."""
    sizes = {"latent_dimensions_quantized": 512.0, "parameters_million": 79.3}
    _, found = cells([counted("mimi-8", *size) for size in sizes.items()])
    assert [cell.published for cell in found["mimi-8"]] == [512, 39.4]


@pytest.mark.parametrize(
    ("metric", "headline"), [("pesq_wb", True), ("wer_x", True), ("wer_x_original", False), ("mse", False)]
)
def test_headlines(metric, headline):
    assert is_headline(metric) is headline


def test_a_terminal_shows_all_of_few_metrics_and_the_headlines_of_many():
    few = [score("a", 1.0), score("a", 1.0, metric="mse")]
    assert headlines(few) == (few, 0)
    many = [*few, *(score("a", 1.0, metric=f"same_thing_codebook_{k}") for k in range(40))]
    assert headlines(many) == (few[:1], 41)


# -- pictures ---------------------------------------------------------------------------------------------------------


def curve(*points):
    return [Point("c", kbps, value, value, value) for kbps, value in points]


def test_half_the_bits_for_the_same_quality_is_minus_fifty_percent():
    anchor = curve((6, 1.0), (12, 2.0), (24, 3.0), (48, 4.0))
    half = curve((3, 1.0), (6, 2.0), (12, 3.0), (24, 4.0))
    assert bd_rate(anchor, half) == pytest.approx(-50)
    assert bd_rate(half, anchor) == pytest.approx(100)
    assert bd_rate(anchor, anchor) == pytest.approx(0)


def test_of_a_distance_less_is_better():
    anchor = curve((6, 4.0), (12, 3.0), (24, 2.0))
    assert bd_rate(anchor, curve((3, 4.0), (6, 3.0), (12, 2.0))) == pytest.approx(-50)
    assert bd_rate(anchor, curve((3, 2.0), (6, 3.0), (12, 4.0))) is None  # one falls, the other rises


@pytest.mark.parametrize(
    "other",
    [curve((6, 1.0)), curve((6, 5.0), (12, 6.0)), curve((6, 2.0), (12, 1.5), (24, 3.0)), curve((6, 3.7), (12, 9.0))],
    ids=["one point", "apart", "not monotone", "hardly overlapping"],
)
def test_curves_that_cannot_be_compared_have_no_bd_rate(other):
    assert bd_rate(curve((6, 1.0), (12, 2.0), (24, 3.0), (48, 4.0)), other) is None


def rated():
    """Two families of two codecs each, and a recogniser and a voice beside them."""
    found = []
    for family, kbps, pesq in (("opus", 6, 2.0), ("opus", 12, 3.0), ("tiny", 3, 2.0), ("tiny", 6, 3.0)):
        codec = f"{family}-{kbps}"
        found += [score(codec, float(kbps), metric="bitrate_kbps", higher=False), score(codec, pesq)]
        found += [
            score(codec, 1 / pesq, metric="wer_x", higher=False),
            score(codec, pesq / 4, metric="speaker_similarity_y"),
        ]
        found += [score(codec, 100 / pesq, metric="perplexity_overall", higher=False)]
    return found, {s.codec: s.codec.partition("-")[0] for s in found}


def test_pictures_have_their_captions():
    scores, families = rated()
    captions = dict(pictures(scores, families, {}))
    assert "pesq_wb on libritts_test_other. BD-rate against Opus: tiny -50 %." in captions
    assert any(caption.startswith("Word error rate against speaker similarity") for caption in captions)
    assert all(svg.startswith("<svg") and svg.rstrip().endswith("</svg>") for svg in captions.values())
    curves = rate_curves(scores, "libritts_test_other", "pesq_wb", families)
    assert [point.kbps for point in curves["tiny"]] == [3, 6]


def test_controls_are_no_codecs_among_others():
    """Constant and random codes would decide any correlation with perplexity, and are no family with a BD-rate."""
    scores, families = rated()
    for name, kbps, pesq in (("constant", 4.0, 2.1), ("uniform-8bit", 128.0, 2.9)):
        scores += [score(name, kbps, metric="bitrate_kbps", higher=False), score(name, pesq)]
        scores += [score(name, 1e4 * pesq, metric="perplexity_overall", higher=False)]
    captions = [
        caption
        for caption, _ in pictures(scores, families | dict.fromkeys(("constant", "uniform-8bit"), "control"), {})
    ]
    assert "pesq_wb on libritts_test_other. BD-rate against Opus: tiny -50 %." in captions
    (said,) = [caption for caption in captions if caption.startswith("pesq_wb against perplexity")]
    assert said.endswith("n 4 codecs of 2 families (an interval is over families, and needs 4).")


def test_what_goes_with_perplexity_is_oriented():
    """Perplexity falls as PESQ rises, so what is good in one is good in the other: r is positive."""
    found = perplexity_table(rated()[0], "libritts_test_other")
    assert found["pesq_wb"].r > 0.9
    assert found["wer_x"].r == pytest.approx(1)
    assert (found["pesq_wb"].n, found["pesq_wb"].families) == (4, 4)
    assert not [name for name in found if "perplexity" in name]
    assert perplexity_table(rated()[0], "libritts_test_other", rated()[1])["pesq_wb"].families == 2


def test_the_estimate_by_n_grams_is_drawn_against_perplexity():
    """Of all perplexities it alone: the others are parts of the same."""
    scores, families = rated()
    measured = [one for one in scores if one.metric == "perplexity_overall"]
    for name in ("ngram_perplexity_overall", "perplexity_codebook_0"):
        scores += [score(one.codec, one.value**2, metric=name, higher=False) for one in measured]
    captions = [caption for caption, _ in pictures(scores, families, {}) if "perplexity" in caption.partition(" ")[0]]
    assert [caption.partition(":")[0] for caption in captions] == [
        "ngram_perplexity_overall against perplexity on libritts_test_other"
    ]
    assert "rho 1.00" in captions[0]


def test_averages_of_several_domains_stand_beside_the_overall_one():
    scores = [
        score("tiny-2", 0.1 * at, metric=f"accuracy_a{at}_earmark_quantized", dataset=f"d{at % 2}") for at in range(4)
    ]
    ((caption, _),) = pictures(scores, {}, {"d0": "speech", "d1": "music"})
    assert caption.endswith("tiny-2 0.150 (speech 0.100, music 0.200).")


def test_probes_are_drawn_around_a_circle_with_their_weighted_average():
    """Of 10 clips each: (1 + .5 + .6) / 3."""
    names = [("accuracy_genre_earmark_quantized", 1.0), ("accuracy_key_earmark_quantized", 0.5)]
    names += [("accuracy_mood_earmark_quantized", 0.6)]
    scores = [score("tiny-2", value, metric=name) for name, value in names]
    ((caption, svg),) = pictures(scores, {}, {})
    assert "tiny-2 0.700" in caption
    assert svg.startswith("<svg")


# -- the page, in a browser -------------------------------------------------------------------------------------------

SORT_AND_FILTER = """(() => {
const all = (what) => [...document.querySelectorAll(what)];
const texts = (what) => all(what).map((node) => node.firstChild.textContent);
const rows = () => texts("#board tbody tr:not(.group) td:first-child");
const heads = () => texts("#board th");
const click = (name) => all("#board th").find((th) => th.textContent.startsWith(name)).click();
const set = (id, value) => {
  const input = document.getElementById(id);
  input[input.type === "checkbox" ? "checked" : "value"] = value;
  input.dispatchEvent(new Event("input", { bubbles: true }));
};
const seen = { domain: document.getElementById("domain").value, heads: heads(), start: rows() };
seen.runs = all("#trends tbody tr").map((row) => row.innerText.split("\\t"));
seen.lines = all("#trends polyline").length;
click("pesq_wb"); seen.best = rows();
click("pesq_wb"); seen.worst = rows();
set("codec", "tiny"); seen.tiny = rows(); seen.heard = texts("#clips tbody td:first-child"); set("codec", "");
set("type", "fused"); seen.fused = rows(); set("type", "all");
set("metric", "speaker"); seen.speaker = heads(); set("metric", "");
set("heat", true); seen.coloured = all("#board td[style*=background]").length;
set("grouped", true); seen.groups = texts("tr.group td");
set("suite", "speed"); set("domain", "speech"); seen.speed = rows(); set("suite", "reconstruction");
seen.title = all("#board td.first")[0].title;
set("codec", "no such codec"); seen.empty = !document.getElementById("empty").hidden; set("codec", "");
seen.models = all("#models tbody tr").length;
seen.svg = all("figure svg").length;
return seen;
})()"""
HEARD_S = 60.0
PRESS = """document.querySelector(`#clips button[title^="%s"]`).click()"""
PLAYS = """player.currentTime > %g && player.readyState > 2 && !player.paused &&
  ({ at: player.currentTime, duration: player.duration, said: playing.innerText })"""


def listening(folder):
    """A recording and two codecs to play, the second of them half as loud; long enough not to end on a busy machine
    before it is looked at.
    """
    wav = voice(HEARD_S, 16000)
    clips = []
    for codec, dataset, level in (("tiny-3", "libritts_test_other", 1.0), ("tiny-6", "libritts_test_other", 0.5)):
        heard = sounds([("the recording", wav, 16000), (codec, level * wav, 16000)])
        recording, estimate = (keep_sound(folder, sound) for sound in heard)
        clips.append(Heard(codec, dataset, "worst", "a/</script>.flac", "mel_loss", 0.5, recording, estimate, "1"))
    write_manifest(folder, [asdict(clip) for clip in clips])
    return gather([folder], [("1", clip.codec, clip.dataset) for clip in clips])


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_the_page_sorts_filters_and_plays_in_a_browser(tmp_path):
    scores, families = rated()
    scores.append(score("</script><!--<script>", 1.0))  # a name must not break the page
    scores.append(counted("tiny-3", "real_time_factor_both", 0.1))  # speed is of no domain: every choice of one has it
    facts = {
        "tiny-3": Facts(feature_type="fused"),
        "tiny-6": Facts(feature_type="fused"),
        "opus-6": Facts(feature_type="acoustic"),
    }
    of_music = score("tiny-3", 1.0, metric="pesq_nb", dataset="gtzan")  # the first column is not of speech
    made = board([of_music, *scores], facts, {"libritts_test_other": "speech", "gtzan": "music"})
    past = trends([*worse_before(scores), *scores], {"libritts_test_other": "speech"})
    page = to_html(made, pictures(scores, families, {}), listening(tmp_path), past)
    assert "http://" not in re.sub(r"http://www\.w3\.org|http://purl\.org|http://creativecommons\.org", "", page)
    assert "https://" not in page.replace("https://matplotlib.org", "")
    (tmp_path / "page.html").write_text(page)
    with browser(tmp_path / "profile") as chromium:
        chromium.open(tmp_path / "page.html")
        seen = chromium.ask(SORT_AND_FILTER)
        silent = chromium.ask("player.readyState")
        chromium.ask(PRESS % "the recording")
        first = chromium.wait_for(PLAYS % 0.2)
        chromium.ask(PRESS % "tiny-3")
        second = chromium.wait_for(PLAYS % 0)
        chromium.ask("player.currentTime = player.duration - 0.1")
        chromium.wait_for("player.ended")
        assert chromium.complaints() == []
        assert chromium.requested() == []
    assert seen["domain"] == "speech"
    assert seen["heads"][0].startswith("codec")
    assert set(seen["start"]) == {"opus-6", "opus-12", "tiny-3", "tiny-6", "</script><!--<script>"}
    assert set(seen["best"][:2]) == {"opus-12", "tiny-6"}
    assert seen["best"][-1] == seen["worst"][0] == "</script><!--<script>"
    assert seen["tiny"] == ["tiny-3", "tiny-6"] or seen["tiny"] == ["tiny-6", "tiny-3"]
    assert set(seen["heard"]) == {"tiny-3", "tiny-6"}
    assert set(seen["fused"]) == {"tiny-3", "tiny-6"}
    assert seen["speaker"] == ["codec", "speaker_similarity_y ↑"]
    assert seen["coloured"] > 0
    assert seen["groups"] == ["acoustic", "fused", "type not stated"]
    assert seen["speed"] == ["tiny-3"]
    assert "95 % [" in seen["title"]
    assert "n 10" in seen["title"]
    assert seen["empty"]
    assert (seen["models"], seen["svg"] > 2) == (5, True)
    shown = [(row[0], row[1], row[3], row[-1]) for row in seen["runs"]]
    assert shown == [("opus-6", "pesq_wb ↑", "2", "better"), ("opus-12", "pesq_wb ↑", "2", "–")]
    assert seen["lines"] == 2
    assert silent == 0  # nothing is decoded before somebody asks for it
    assert first["duration"] == second["duration"] == HEARD_S
    assert second["at"] >= first["at"] > 0.2  # it goes on where the other was
    assert first["said"] == "worst clip of tiny-3 on libritts_test_other: the recording (60.00 s, 16 kHz)"
    assert second["said"] == "worst clip of tiny-3 on libritts_test_other: tiny-3 (60.00 s, 16 kHz)"


def test_of_several_files_the_newest_counts_in_whatever_order_and_each_device_has_its_column(tmp_path):
    speed = replace(score("a", 1.0, metric="kernels_per_second_both", higher=False), suite="speed", device="cpu")
    runs = {
        "new": [score("a", 3.0, run="2", time="2026-01-02"), replace(speed, value=2.0, device="cuda")],
        "old": [score("a", 1.0, run="1", time="2026-01-01"), speed],
    }
    for name, scores in runs.items():
        append_scores(tmp_path / name / "scores.jsonl", scores)
    files = [str(tmp_path / name / "scores.jsonl") for name in runs]
    for at, order in enumerate((files, files[::-1])):
        done = CliRunner().invoke(app, ["report", *order, "--reports", str(tmp_path / f"{at}")])
        assert done.exit_code == 0, done.output
        rows = [*csv.DictReader(io.StringIO((tmp_path / f"{at}" / "leaderboard.csv").read_text()))]
        values = sorted((row["metric"], row["device"], row["value"]) for row in rows)
        both = [("kernels_per_second_both", "cpu", "1.0"), ("kernels_per_second_both", "cuda", "2.0")]
        assert values == [*both, ("pesq_wb", "", "3.0")]


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not on this machine")
def test_a_run_of_a_few_metrics_shows_them_all_and_no_head_over_nothing(tmp_path):
    """SNR is no headline: a page that hid it would say nothing of a run that asked for it alone."""
    few, many = ([score("mine", 1.0, metric=name) for name in names] for names in (FEW, (*FEW, *"abcdef")))
    for name, scores in (("few", few), ("many", many)):
        (tmp_path / f"{name}.html").write_text(to_html(board(scores, {}, {}), []))
    with browser(tmp_path / "profile") as chromium:
        shown = {}
        for name in ("few", "many"):
            chromium.open(tmp_path / f"{name}.html")
            shown[name] = chromium.ask(SHOWN)
        assert chromium.complaints() == []
    assert shown == {"few": [2, True], "many": [1, True]}


FEW = ("snr", "stoi")
SHOWN = """[
  document.querySelectorAll("#board th").length - 1, document.getElementById("pictures-head").hidden
]"""


def test_what_a_codec_of_ones_own_says_of_itself_is_in_the_table_of_models(tmp_path):
    """Without it the row would be empty, and a corpus that it was trained on would go unmarked."""
    info = Info(name="mine", sample_rate=16000, frame_rate=50, codebook_sizes="8x1024", trained_on=("LibriTTS",))
    own.keep(tmp_path, {"mine": info.model_dump(mode="json")})
    own.keep(tmp_path, {"other": Info(name="other", sample_rate=24000).model_dump(mode="json")})  # a later run adds
    append_scores(tmp_path / "scores.jsonl", [score("mine", 2.0), score("other", 2.0)])
    done = CliRunner().invoke(app, ["report", str(tmp_path / "scores.jsonl"), "--reports", str(tmp_path / "made")])
    assert done.exit_code == 0, done.output
    page = (tmp_path / "made" / "leaderboard.md").read_text()
    assert "| mine |  | 16000 | 50 | 8 | 1024 | 400 | 4 |" in page
    assert "| other |  | 24000 |" in page
    assert "‡" in next(line for line in page.splitlines() if line.startswith("| mine |") and "±" in line)
    (tmp_path / own.FILE).write_text("{")
    done = CliRunner().invoke(app, ["report", str(tmp_path / "scores.jsonl"), "--reports", str(tmp_path / "made")])
    assert done.exit_code == 1
    assert "codecs.json: not JSON" in done.output


def worse_before(scores):
    """An earlier run: PESQ of opus-6 was lower beyond both intervals, that of opus-12 within them."""
    lower = {"opus-6": 1.0, "opus-12": 0.1}
    here = [one for one in scores if one.metric == "pesq_wb" and one.codec in lower]
    return [replace(one, time="2025-12-01", run="0", **lowered(one, lower[one.codec])) for one in here]


def lowered(score, by):
    return {name: getattr(score, name) - by for name in ("value", "ci_low", "ci_high")}


def test_a_trend_is_of_what_runs_measured_in_the_same_way():
    """a: 3, then 3.05 in a repeated measurement of the second run; other clips and other codecs are no trend of it."""
    runs = [score("a", 3.0, run="1", time="2026-01-01"), score("a", 9.0, run="2", time="2026-01-02")]
    runs += [score("a", 3.05, run="2", time="2026-01-03"), score("b", 1.0, run="2")]
    runs += [score("a", 1.0, run="3", time="2026-01-04", dataset_fingerprint="g")]
    (found,) = trends(runs, {})
    assert (found.codec, [each.value for each in found.scores], found.change) == ("a", [3.0, 3.05], "")


@pytest.mark.parametrize(("now", "change"), [(3.3, "better"), (2.7, "worse"), (3.1, "")])
@pytest.mark.parametrize("higher", [True, False])
def test_a_change_is_one_beyond_both_intervals(now, change, higher):
    """[2.9, 3.1] before; now [3.2, 3.4] is above, [2.6, 2.8] below, [3.0, 3.2] neither. Of a distance, the reverse."""
    runs = [score("a", 3.0, run="1", time="1", higher=higher), score("a", now, run="2", time="2", higher=higher)]
    (found,) = trends(runs, {})
    reverse = {"better": "worse", "worse": "better", "": ""}
    assert found.change == (change if higher else reverse[change])
