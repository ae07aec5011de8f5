"""Do tokens stay the same when what is heard stays the same? The ID sensitivity of AudioCodecBench, and further.

Same-ID ratio: the share of tokens that are the same as before, frame by frame. A codec that always gives the same token
has 1, so kappa stands beside it: what is the same beyond chance. `few` are the clips of sweeps, fewer in the quick
preset. What each score means and how to read it: docs/tokens.md.
"""

import itertools

import allure
import numpy as np
import pytest

from earmark.metrics import codebook
from earmark.metrics.information import shared_information
from earmark.reports.plots import curves, heat_map
from earmark.scoring import codebooks, quality, semantics, stability
from earmark.scoring.stability import curve, shown
from earmark.store.transforms import Level, Lost, Noise, Resampled, Round, Shift

pytestmark = pytest.mark.suite("id_sensitivity", needs="encode")
decodes = pytest.mark.suite("id_sensitivity", needs=("encode", "decode"))
reconstructs = pytest.mark.suite("id_sensitivity", needs="reconstruct")

ROUNDS = range(1, 11)
LAST = ROUNDS[-1]
SHIFTS_MS = (0.5, 1, 2, 5, 10, 20)
NOISES = ("white", "babble", "music")
SNRS_DB = (40, 30, 20, 10, 0)
LEVELS_DB = (-20, -6, 6)
RATES_HZ = (8000, 11025, 22050, 44100)
CONTEXTS_S = (0, 0.25, 0.5, 1, 2)
LOST = (0.01, 0.05, 0.1, 0.2)
QUALITY = ("mel_loss", "estoi", "pesq_wb")
RATIO = "same-ID ratio"


def attach(picture, title):
    allure.attach(picture, title, allure.attachment_type.PNG)


@pytest.fixture
def same(codec, few, scores):
    """`same(change, variant)`: the share of tokens that stay the same and, beside it, what of that is beyond chance."""

    def score(change, variant, **of):
        found = {"same_id_ratio": stability.same_ids(change, **of), "same_id_kappa": stability.kappa(change, **of)}
        return [scores(name, codec, few, found=one, variant=variant) for name, one in found.items()]

    return score


# -- rounds of reconstruction -----------------------------------------------------------------------------------------


@decodes
def test_rounds(codec, few, store, scores, same, gate):
    """Tokens of the n-th reconstruction against the original's, and against those of the round before."""
    original, before = rounds(codec, few, store)
    found = ratios(original)
    lines = {"against the original": curve(found), "against the round before": curve(ratios(before))}
    attach(curves(lines, "Tokens that stay the same", "round", RATIO), "rounds of reconstruction")
    gate(
        *same(original[1], "round_1"),
        *same(original[LAST], f"round_{LAST}"),
        *same(before[LAST], f"round_{LAST}_previous"),
        scores("same_id_ratio_per_round", codec, few, found=stability.slope(found, few)),
    )


@decodes
def test_rounds_by_codebook(codec, few, store, scores, same, gate):
    """The same of each codebook alone; of more than eight, of eight from the first to the last."""
    original, before = rounds(codec, few, store)
    books, measured = shown(codec.info.num_codebooks), []
    sweeps = [{k: ratios(changes, k) for k in books} for changes in (original, before)]
    for k in books:
        measured += same(original[LAST], f"round_{LAST}_codebook_{k}", codebook=k)
        measured += same(before[LAST], f"round_{LAST}_previous_codebook_{k}", codebook=k)
        slope = stability.slope(sweeps[0][k], few)
        measured.append(scores("same_id_ratio_per_round", codec, few, found=slope, variant=f"codebook_{k}"))
    for name, sweep in zip(("against the original", "against the round before"), sweeps, strict=True):
        lines = {f"codebook {k}": curve(found) for k, found in sweep.items()}
        attach(curves(lines, f"Tokens that stay the same, {name}", "round", RATIO), f"rounds by codebook, {name}")
    gate(*measured)


def rounds(codec, few, store):
    """What changed from the original to each round, and from the round before."""
    original = {n: stability.change(codec, few, store, (Round(),) * n) for n in ROUNDS}
    before = {n: stability.change(codec, few, store, (Round(),) * n, (Round(),) * (n - 1)) for n in ROUNDS}
    return original, before


def ratios(changes, codebook=None):
    return {x: stability.same_ids(change, codebook) for x, change in changes.items()}


@reconstructs
def test_generation_loss(codec, few, store, scores, gate):
    """Quality of the n-th reconstruction, and how much of it is lost in each round."""
    measured = []
    for metric in quality.metrics_for(few, QUALITY):
        found = {n: quality.quality(metric, codec, few, store, (Round(),) * (n - 1)) for n in ROUNDS}
        attach(curves({codec.name: curve(found)}, f"{metric.name} over rounds", "round", metric.unit), metric.name)
        measured += [scores(metric.name, codec, few, found=found[LAST], variant=f"round_{LAST}")]
        measured += [scores(f"{metric.name}_per_round", codec, few, found=stability.slope(found, few))]
    gate(*measured)


# -- changes that are hardly heard ------------------------------------------------------------------------------------


def test_time_shift(codec, few, store, scores, same, gate):
    """Tokens of a clip that begins some ms later: as published, and moved by whole frames so that most agree."""
    changes = {ms: stability.change(codec, few, store, (Shift(ms),)) for ms in SHIFTS_MS}
    made = shifted(changes, codec, same, "Tokens of a later clip", "time shift", "")
    edits = stability.edit_distance(changes[2])
    gate(*made, scores("token_edit_distance", codec, few, found=edits, variant="shift_2ms"))


@decodes
def test_time_shift_then_reconstruction(codec, few, store, same, gate):
    """Tokens of the reconstruction of a clip that begins some ms later, against the clip's own; realigned too."""
    changes = {ms: stability.change(codec, few, store, (Shift(ms), Round())) for ms in SHIFTS_MS}
    title = "Tokens of a later clip's reconstruction"
    gate(*shifted(changes, codec, same, title, "shift, reconstructed", "_reconstructed"))


def shifted(changes, codec, same, title, name, ending):
    """The curve over all shifts, and the scores of two: frame by frame, and realigned by whole frames."""
    lags = {ms: stability.best_lag(change, codec, ms) for ms, change in changes.items()}
    moved = {ms: stability.same_ids(change, lag=lags[ms]) for ms, change in changes.items()}
    lines = {"as published": curve(ratios(changes)), "realigned by whole frames": curve(moved)}
    attach(curves(lines, title, "shift in ms", RATIO), name)
    made = []
    for ms in (2, 20):
        named = f"shift_{ms}ms{ending}"
        made += [*same(changes[ms], named), *same(changes[ms], f"{named}_realigned", lag=lags[ms])]
    return made


@pytest.mark.parametrize("kind", NOISES)
def test_noise(codec, few, kind, store, scores, same, gate):
    """Tokens of a clip with noise from 40 down to 0 dB SNR."""
    changes = {snr: stability.change(codec, few, store, (Noise(kind, snr),)) for snr in SNRS_DB}
    edits = {snr: stability.edit_distance(change) for snr, change in changes.items()}
    lines = {RATIO: curve(ratios(changes)), "token edit distance": curve(edits)}
    attach(curves(lines, f"Tokens in {kind} noise", "SNR in dB", "share of tokens"), f"{kind} noise")
    named = f"noise_{kind}_20db"
    gate(
        *same(changes[20], named),
        scores("token_edit_distance", codec, few, found=edits[20], variant=named),
    )


@reconstructs
@pytest.mark.parametrize("kind", NOISES)
def test_what_is_made_of_noise(codec, few, kind, store, scores, gate):
    """Whether what comes back of a noisy clip is nearer to the noisy one (towards 1) or the clean one (towards 0)."""
    found = {snr: quality.noise_followed(codec, few, store, Noise(kind, snr)) for snr in SNRS_DB}
    lines = {codec.name: curve(found)}
    attach(curves(lines, f"Nearer to the clean (0) or to the noisy clip (1): {kind}", "SNR in dB", "share"), kind)
    gate(*(scores("noise_followed", codec, few, found=found[snr], variant=f"{kind}_{snr}db") for snr in (20, 0)))


def test_level(codec, few, store, same, gate):
    """Tokens of a louder or softer clip."""
    changes = {db: stability.change(codec, few, store, (Level(db),)) for db in LEVELS_DB}
    lines = {codec.name: curve(ratios(changes))}
    attach(curves(lines, "Tokens at another level", "level in dB", RATIO), "level")
    gate(*(score for db in (-6, -20) for score in same(changes[db], f"level_{db}db")))


def test_sample_rate(codec, few, store, same, gate):
    """Tokens of a clip that was at another sample rate and came back; the codec's own is none."""
    others = [hz for hz in RATES_HZ if hz != codec.info.sample_rate]
    changes = {hz: stability.change(codec, few, store, (Resampled(hz),)) for hz in others}
    lines = {codec.name: curve(ratios(changes))}
    attach(curves(lines, "Tokens after another sample rate", "Hz", RATIO, log_x=True), "rates")
    asked = [hz for hz in (8000, 44100) if hz in others]
    gate(*(score for hz in asked for score in same(changes[hz], f"resampled_{hz}hz")))


def test_context(codec, few, store, same, gate):
    """Tokens of the same second of sound, alone or with some of what is around it, against those in the whole clip."""
    changes = stability.in_context(codec, few, store, 1.0, CONTEXTS_S)
    lines = {codec.name: curve(ratios(changes))}
    attach(curves(lines, "The same second", "s of sound on either side", RATIO), "context")
    gate(*(score for s in (0, 0.5) for score in same(changes[s], f"context_{s}s")))


@decodes
@pytest.mark.parametrize("of", ["frames", "tokens"])
def test_lost(codec, few, of, store, scores, gate):
    """What is left of the sound when frames, or single tokens, are lost and concealed."""
    measured = []
    for metric in quality.metrics_for(few, QUALITY[:2]):
        whole = quality.quality(metric, codec, few, store, ())
        lines = {}
        for conceal in ("repeat", "zero"):
            found = {p: quality.quality(metric, codec, few, store, (Lost(p, of, conceal),)) for p in LOST}
            lines[conceal] = curve({0.0: whole} | found)
            named = f"lost_5pct_{of}_{conceal}"
            measured.append(scores(metric.name, codec, few, found=found[0.05], variant=named))
        attach(curves(lines, f"{metric.name} with {of} lost", "share lost", metric.unit), f"{of} lost: {metric.name}")
    gate(*measured)


# -- information ------------------------------------------------------------------------------------------------------


@decodes
def test_information_kept(codec, dataset, store, scores, gate):
    """What tokens after reconstruction still tell of those before: of each codebook, and of all."""
    change = stability.change(codec, dataset, store, (Round(),))
    books = range(codec.info.num_codebooks)
    each = {k: stability.information_kept(change, [k]) for k in shown(len(books))}
    attach(curves({codec.name: curve(each)}, "Information kept", "codebook", "share of its entropy"), "by codebook")
    found = {"": stability.information_kept(change, books)} | {f"codebook_{k}": one for k, one in each.items()}
    gate(*(scores("information_kept", codec, dataset, found=one, variant=name) for name, one in found.items()))


def test_information_between_codebooks(codec, dataset, store, scores, gate):
    """What the tokens of a codebook tell of those of a later one, in the same frame."""
    if codec.info.num_codebooks < 2:
        pytest.skip(f"{codec.name} has one codebook")
    tokens, books = codebooks.tokens_of(codec, dataset, store), shown(codec.info.num_codebooks)
    pairs = [(j, k) for j in books for k in books if j < k]
    found = stability.information_shared(tokens.codes, tokens.errors, dataset, pairs)
    if found.n:
        joined = np.concatenate([*tokens.codes.values()], axis=1)
        matrix = np.full((len(books),) * 2, np.nan)
        for j, k in pairs:
            matrix[books.index(j), books.index(k)] = shared_information(joined[k], joined[j])
        attach(
            heat_map(matrix, "What one tells of the other", f"codebook of {books}", "codebook before it"), "codebooks"
        )
    gate(scores("information_shared", codec, dataset, found=found))


# -- the same words ---------------------------------------------------------------------------------------------------


def test_same_words(codec, dataset, store, scores, gate):
    """Tokens of the same words by other speakers, against those of other words; ABX across speakers."""
    repeated = semantics.repeated_texts(dataset)
    if not repeated.clips:
        pytest.skip(f"{dataset.name} has no text that two speakers read")
    compared = semantics.compared(codec, repeated, store)
    first = semantics.compared(codec, repeated, store, codebook=0)
    measured = [scores("abx_error", codec, repeated, found=semantics.abx(compared))]
    measured += [scores("abx_error", codec, repeated, found=semantics.abx(first), variant="codebook_0")]
    for text, speaker in itertools.product(("same", "other"), repeat=2):
        found = semantics.distance(compared, text == "same", speaker == "same")
        named = f"{text}_text_{speaker}_speaker"
        if found.n or named != "same_text_same_speaker":  # few corpora have anybody read a text twice
            measured.append(scores("token_edit_distance", codec, repeated, found=found, variant=named))
    gate(*measured)


# -- codebooks --------------------------------------------------------------------------------------------------------


def test_codebook_use(codec, dataset, store, scores, gate):
    """How many codes are used, and how evenly; those that never are."""
    tokens, books = codebooks.tokens_of(codec, dataset, store), range(codec.info.num_codebooks)
    if tokens.codes:
        lines = {f"codebook {k}": codebooks.zipf(tokens, k) for k in shown(len(books))}
        picture = curves(lines, "How often codes are used", "rank", "times", log_x=True, log_y=True)
        attach(picture, "Zipf: frequency over rank")
    used = tokens.found(codebook.utilisation, books, smooth=False)
    gate(
        scores("codebook_utilisation", codec, dataset, found=used),
        scores("dead_codes", codec, dataset, found=tokens.found(codebook.dead_codes, books, sum, smooth=False)),
        scores("codebook_entropy", codec, dataset, found=tokens.found(codebook.relative_entropy, books)),
        scores(
            "codebook_entropy", codec, dataset, found=tokens.found(codebook.relative_entropy, [0]), variant="codebook_0"
        ),
    )


def test_token_sequences(codec, dataset, store, scores, gate):
    """How far a token can be told from the one before, and how long one stays."""
    tokens, books = codebooks.tokens_of(codec, dataset, store), range(codec.info.num_codebooks)
    if tokens.codes:
        lines = {
            f"codebook 0, {how}": codebooks.blocks(tokens, 0, how == "shuffled") for how in ("as it is", "shuffled")
        }
        attach(curves(lines, "Entropy of successive tokens", "tokens in a block", "bit"), "n-gram entropy")
    runs = {"": books, "codebook_0": [0]}
    gate(
        scores("bigram_entropy", codec, dataset, found=codebooks.bigram_entropy(tokens, [0]), variant="codebook_0"),
        *(
            scores("mean_run_length", codec, dataset, found=tokens.found(codebook.mean_run_length, of), variant=name)
            for name, of in runs.items()
        ),
    )
