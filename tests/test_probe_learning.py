"""Learning: batched runs are those of one by one, no test label is ever looked at, controls have known answers."""

import numpy as np
import pytest
import torch

from earmark.probes import protocol
from earmark.probes.folds import Fold
from earmark.probes.learn import learn
from earmark.probes.linear import Linear
from earmark.probes.mlp import Mlp
from earmark.probes.protocol import Recipe
from earmark.probes.targets import Targets, targets
from earmark.probes.train import Examples, Run, Trainer, losses

CLASSES, RATE = 4, 10.0


pytestmark = pytest.mark.usefixtures("one_thread")


def small(name, kind="classification"):
    """The recipe of a protocol, shorter: what it is, not how long it takes."""
    recipe = protocol.load(name).recipes[kind]
    options = recipe.options | ({"seconds": 1.6} if recipe.learner == "conv" else {})
    return recipe.model_copy(
        update={"epochs": min(recipe.epochs, 6), "seeds": min(recipe.seeds, 2), "options": options}
    )


def without_dropout(recipe):
    options = recipe.options | ({"dropout": 0.0} if "dropout" in recipe.options else {})
    return recipe.model_copy(update={"options": options})


def five_folds(count):
    side = np.arange(count) % 5
    parts = [(side != at) & (side != (at + 1) % 5) for at in range(5)]
    valid = [side == (at + 1) % 5 for at in range(5)]
    return [Fold(*(np.flatnonzero(part) for part in (parts[at], valid[at], side == at))) for at in range(5)]


def labels_of(kind, count, rng):
    if kind == "classification":
        return targets(kind, [str(label) for label in rng.integers(0, CLASSES, count)])
    if kind == "multi_label":
        drawn = rng.random((count, 3)) < 0.4
        return Targets(kind, ("a", "b", "c"), drawn.astype(np.float32))
    if kind == "regression":
        return Targets(kind, ("value",), rng.normal(100, 20, (count, 1)).astype(np.float32))
    texts = []
    for _ in range(count):
        at = rng.uniform(0, 1)
        texts.append([{"label": str(rng.integers(0, 2)), "onset_s": float(at), "offset_s": float(at + 0.6)}])
    return Targets(kind, ("0", "1"), np.zeros(0), tuple(texts))


def features_of(recipe, count, rng, dimensions=16):
    frames = recipe.learner in ("conv", "frames")
    return [
        rng.standard_normal((dimensions, int(rng.integers(12, 20))) if frames else dimensions).astype(np.float32)
        for _ in range(count)
    ]


KINDS = ("classification", "multi_label", "regression", "events")
ALL = [(name, kind) for name in protocol.names() for kind in protocol.load(name).recipes if kind in KINDS]
CASES = [(name, kind) for name, kind in ALL if name != "xares-as-published"]  # which does look, and is flagged

# -- batched ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("select", ["metric", "loss", "last"])
def test_batched_runs_are_those_of_one_by_one(select):
    """Runs of other sizes, rates and seeds, with statistics of their own; one with patience ends before the others."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(60, 8, generator=generator), torch.randint(0, 3, (60,), generator=generator)
    examples = Examples(x, y, torch.ones(60))
    recipe = Recipe(learner="mlp", epochs=6, batch=8, schedule="cosine", warmup=0.1, select=select, weight_decay=0.1)
    recipe = recipe.model_copy(update={"patience": 2 if select == "loss" else None})
    order = torch.randperm(60, generator=generator)
    runs = [
        Run(order[:size], order[size : size + 15], rate, seed, x[:size].mean(0), x[:size].std(0))
        for size, rate, seed in [(40, 1e-3, 0), (25, 1e-1, 1), (33, 1e-2, 2)]
    ]
    together = Trainer(lambda: Mlp(8, 3), "classification", examples, recipe, runs).fit()
    for at, run in enumerate(runs):
        alone = Trainer(lambda: Mlp(8, 3), "classification", examples, recipe, [run]).fit()
        assert alone.epochs[0] == together.epochs[at]
        for name, value in alone.parameters.items():
            torch.testing.assert_close(value[0], together.parameters[name][at], atol=1e-5, rtol=1e-4)


def test_a_run_is_what_a_plain_loop_of_torch_makes_of_it():
    generator = torch.Generator().manual_seed(1)
    x, y = torch.randn(30, 5, generator=generator), torch.randint(0, 3, (30,), generator=generator)
    recipe = Recipe(learner="linear", optimiser="adamw", weight_decay=0.1, epochs=4, batch=8, rates=(0.05,))
    index = torch.arange(30)
    run = Run(index, index[:0], 0.05, 7)
    ours = Trainer(lambda: Linear(5, 3), "classification", Examples(x, y, torch.ones(30)), recipe, [run]).fit()
    torch.manual_seed(7)
    model = Linear(5, 3)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.05, weight_decay=0.1)
    shuffled = torch.Generator().manual_seed(7)
    for _ in range(4):
        for rows in torch.randperm(30, generator=shuffled).split(8):
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimiser.step()
    for name, value in model.named_parameters():
        torch.testing.assert_close(ours.parameters[name][0], value.detach(), atol=1e-5, rtol=1e-4)


def test_the_conv_probe_batches_too():
    rng = np.random.default_rng(0)
    recipe = without_dropout(small("audiocodecbench"))
    features, aims = features_of(recipe, 30, rng), labels_of("classification", 30, rng)
    together = learn(recipe, aims, features, five_folds(30), RATE).said
    for fold in five_folds(30):
        alone = learn(recipe, aims, features, [fold], RATE).said
        np.testing.assert_allclose(alone[:, fold.test], together[:, fold.test], atol=1e-5)


def test_dropout_is_drawn_by_the_seed_and_leaves_the_global_generator_alone():
    rng = np.random.default_rng(0)
    recipe = small("audiocodecbench").model_copy(update={"epochs": 12, "select": "last", "rates": (1e-3,)})
    features, aims = features_of(recipe, 30, rng), labels_of("classification", 30, rng)
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = learn(recipe, aims, features, five_folds(30)[:1], RATE).said
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    np.testing.assert_array_equal(first, learn(recipe, aims, features, five_folds(30)[:1], RATE).said)
    without = learn(without_dropout(recipe), aims, features, five_folds(30)[:1], RATE).said
    assert np.nanmax(np.abs(first - without)) > 0


@pytest.mark.parametrize("segments_of_a_clip", [1, 3])
def test_a_batch_is_of_clips_whatever_segments_they_have(segments_of_a_clip, monkeypatch):
    """AudioCodecBench's batches are of clips, of which each brings all its segments."""
    from earmark.probes.optimise import Adam

    rng, steps = np.random.default_rng(0), []
    real = Adam.step
    monkeypatch.setattr(Adam, "step", lambda self, *of: steps.append(1) or real(self, *of))
    recipe = small("audiocodecbench").model_copy(update={"epochs": 2, "batch": 8, "select": "last"})
    features = [rng.standard_normal((16, 16 * segments_of_a_clip)).astype(np.float32) for _ in range(32)]
    learn(recipe, labels_of("classification", 32, rng), features, [Fold(*np.split(np.arange(32), [20, 24]))], RATE)
    assert len(steps) == 2 * 3  # 24 clips, 8 a batch


def test_what_is_there_counts_more_where_the_recipe_says_so():
    """torch's own pos_weight, by which X-ARES trains on MAESTRO; one cannot do it by the weight of an example."""
    said, y = torch.randn(4, 5, 3), (torch.rand(4, 5, 3) < 0.3).float()
    own = torch.nn.BCEWithLogitsLoss(pos_weight=torch.tensor(10.0))(said, y)
    torch.testing.assert_close(losses("events", said, y, 10.0).mean(), own)
    rng = np.random.default_rng(4)
    recipe = small("xares", "events").model_copy(update={"rates": (0.1,), "batch": 4})
    aims, features, folds = labels_of("events", 20, rng), features_of(recipe, 20, rng), five_folds(20)[:1]

    def said_of(recipe):
        found = learn(recipe, aims, features, folds, RATE).events[0]
        return sum(event["offset_s"] - event["onset_s"] for of in found for event in of)

    assert said_of(recipe.model_copy(update={"positive": 30.0})) > 2 * said_of(recipe)


def test_a_probe_that_diverges_is_an_error_and_no_score():
    rng = np.random.default_rng(0)
    recipe = small("codecbench").model_copy(update={"rates": (1e38,)})
    with pytest.raises(ValueError, match=r"a probe \(linear\) diverged"):
        learn(recipe, labels_of("classification", 30, rng), features_of(recipe, 30, rng), five_folds(30))


# -- no test label is looked at ---------------------------------------------------------------------------------------


def poisoned(aims, clips, rng):
    if aims.kind == "events":
        other = [{"label": "1", "onset_s": 0.0, "offset_s": 1.9}]
        return Targets(
            aims.kind, aims.names, aims.values, tuple(other if at in clips else of for at, of in enumerate(aims.events))
        )
    values = aims.values.copy()
    values[clips] = (values[clips] + 1) % CLASSES if aims.kind == "classification" else 1000 - values[clips]
    return Targets(aims.kind, aims.names, values)


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_labels_of_test_clips_change_nothing(name, kind):
    rng = np.random.default_rng(3)
    recipe = small(name, kind)
    features, aims, fold = features_of(recipe, 40, rng), labels_of(kind, 40, rng), five_folds(40)[1]
    torch.manual_seed(0)
    before = learn(recipe, aims, features, [fold], RATE)
    torch.manual_seed(0)
    after = learn(recipe, poisoned(aims, fold.test, rng), features, [fold], RATE)
    np.testing.assert_array_equal(before.said, after.said)
    assert (before.events, before.facts) == (after.events, after.facts)
    if kind != "events":  # only what is tested has a prediction
        assert np.isnan(before.said).all((0, 2)).nonzero()[0].tolist() == sorted({*range(40)} - {*fold.test.tolist()})


@pytest.mark.parametrize(
    ("name", "by"),
    [("earmark", "valid"), ("xares", "valid"), ("audiocodecbench", "valid"), ("xares-as-published", "test")],
)
def test_by_which_clips_rate_and_epoch_are_chosen(name, by):
    """Where the labels of these are all wrong, what has learned least is best; else what has learned most."""
    rng = np.random.default_rng(4)
    recipe = without_dropout(small(name))
    recipe = recipe if len(recipe.rates) > 1 else recipe.model_copy(update={"rates": (0.02,)})
    aims, fold = labels_of("classification", 80, rng), five_folds(80)[0]
    features = telling(recipe, aims, rng)
    told = learn(recipe, aims, features, [fold], RATE).facts
    misled = learn(recipe, poisoned(aims, getattr(fold, by), rng), features, [fold], RATE).facts
    key = "rates" if len(recipe.rates) > 1 else "epochs"
    assert np.mean(told[key]) > np.mean(misled[key])


# -- controls ---------------------------------------------------------------------------------------------------------

COUNT = 300


def accuracy(said, aims):
    return float(np.mean([(by_seed.argmax(-1) == aims.values).mean() for by_seed in said]))


def telling(recipe, aims, rng):
    """Features that contain the label, beside noise."""
    marks = np.eye(CLASSES, dtype=np.float32)[aims.values] * 8
    features = features_of(recipe, len(marks), rng, 12)
    return [
        np.concatenate([mark if of.ndim == 1 else np.tile(mark[:, None], of.shape[1]), of]).astype(np.float32)
        for mark, of in zip(marks, features, strict=True)
    ]


OF_CLASSES = [name for name in protocol.names() if "classification" in protocol.load(name).recipes]


@pytest.mark.parametrize("name", OF_CLASSES)
def test_latents_that_contain_the_label_are_read_and_others_are_not(name):
    rng = np.random.default_rng(5)
    recipe, aims = small(name), labels_of("classification", COUNT, rng)
    epochs = 10 if recipe.learner == "conv" else 30
    recipe = recipe.model_copy(update={"epochs": epochs, "batch": 32, "rates": (0.02,)})
    given = telling(recipe, aims, rng)
    assert accuracy(learn(recipe, aims, given, five_folds(COUNT), RATE).said, aims) >= 0.99
    if recipe.select == "test":
        return  # choosing on the test clips is above chance even so: that is what its flag says
    noise = learn(recipe, aims, features_of(recipe, COUNT, rng), five_folds(COUNT), RATE).said
    assert accuracy(noise, aims) == pytest.approx(1 / CLASSES, abs=0.09)  # 3.5 standard errors of 300 clips
    shuffled = Targets(aims.kind, aims.names, rng.permutation(aims.values))
    assert accuracy(learn(recipe, shuffled, given, five_folds(COUNT), RATE).said, shuffled) < 0.25 + 0.09


@pytest.mark.parametrize(("name", "kind"), [of for of in ALL if of[1] in ("multi_label", "regression")])
def test_other_kinds_are_read_where_they_are_there_and_not_where_they_are_not(name, kind):
    """In every protocol: latents that contain the labels, others, and labels that are another clip's."""
    from earmark.probes.measures import mean_ap, r2, roc_auc

    rng = np.random.default_rng(6)
    recipe, aims, folds = without_dropout(small(name, kind)), labels_of(kind, COUNT, rng), five_folds(COUNT)[:2]
    recipe = recipe.model_copy(update={"epochs": 20 if recipe.learner == "conv" else 30, "batch": 32})
    recipe = recipe if len(recipe.rates) > 1 else recipe.model_copy(update={"rates": (0.02,)})
    noise, marks = features_of(recipe, COUNT, rng), 8 * (aims.values - aims.values.mean(0)) / aims.values.std(0)
    given = [
        np.concatenate([mark if of.ndim == 1 else np.tile(mark[:, None], of.shape[1]), of]).astype(np.float32)
        for mark, of in zip(marks, noise, strict=True)
    ]
    others = Targets(aims.kind, aims.names, rng.permutation(aims.values))

    def items(features, aims):
        said = learn(recipe, aims, features, folds, RATE).said
        return [(aims.values[at], said[:, at]) for fold in folds for at in fold.test]

    if kind == "regression":
        assert r2(items(given, aims)) > 0.99
        assert max(r2(items(noise, aims)), r2(items(given, others))) < 0.1
    else:
        assert mean_ap(items(given, aims)) > 0.99
        for unread in (items(noise, aims), items(given, others)):
            assert roc_auc(unread) == pytest.approx(0.5, abs=0.12)  # 3.5 standard errors of three labels of 120 clips


@pytest.mark.parametrize("name", ["earmark", "xares"])
def test_events_are_read_where_they_are_there(name):
    from earmark.probes.events import f1, frame_targets, segment_counts

    rng = np.random.default_rng(7)
    recipe, aims = small(name, "events"), labels_of("events", 60, rng)
    recipe = recipe.model_copy(update={"epochs": 20, "batch": 4} | ({"rates": (0.03,)} if name == "xares" else {}))
    given = [
        np.concatenate([frame_targets(of, aims.names, 20, RATE).T, rng.standard_normal((4, 20))]).astype(np.float32)
        for of in aims.events
    ]
    noise = [rng.standard_normal((6, 20)).astype(np.float32) for _ in range(60)]

    def score(features, aims=aims):
        made = learn(recipe, aims, features, five_folds(60), RATE).events[0]
        rows = zip(aims.events, made, strict=True)
        return f1(np.sum([segment_counts(true, said, aims.names, 2.0, 0.1) for true, said in rows], axis=0))

    assert score(given) > 0.9  # an event need not begin at the edge of a frame
    others = Targets(aims.kind, aims.names, aims.values, (*aims.events[7:], *aims.events[:7]))
    assert score(given, others) < 0.3
    assert score(noise) < 0.3  # every event all the time: 2 p / (1 + p) of p = .15 is .26


# -- padding ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "kind"), [("earmark", "events"), ("audiocodecbench", "classification")])
def test_a_longer_clip_beside_them_changes_nothing_for_the_others(name, kind):
    rng = np.random.default_rng(8)
    recipe = without_dropout(small(name, kind))
    features, aims, fold = features_of(recipe, 20, rng), labels_of(kind, 20, rng), five_folds(20)[0]
    longer = [*features]
    longer[fold.test[-1]] = np.tile(features[fold.test[-1]], 5)  # all are padded to it, or it has more segments
    before, after = (learn(recipe, aims, of, [fold], RATE) for of in (features, longer))
    kept = fold.test[:-1]
    if kind == "events":
        assert [before.events[0][clip] for clip in kept] == [after.events[0][clip] for clip in kept]
    else:
        np.testing.assert_allclose(before.said[:, kept], after.said[:, kept], atol=1e-5)


def test_no_event_is_found_beyond_the_end_of_a_clip():
    """What is always on would be on in the padding too, had it frames."""
    rng = np.random.default_rng(9)
    recipe, always = small("earmark", "events"), [{"label": "0", "onset_s": 0.0, "offset_s": 9.0}]
    features, fold = features_of(recipe, 20, rng), five_folds(20)[0]
    aims = Targets("events", ("0",), np.zeros(0), (always,) * 20)
    found = learn(recipe, aims, features, [fold], RATE).events[0]
    ends = [[event["offset_s"] for event in found[clip]][-1] for clip in fold.test]
    assert ends == pytest.approx([features[clip].shape[1] / RATE for clip in fold.test])


def test_several_rates_need_validation_clips():
    recipe = Recipe(learner="linear", rates=(0.1, 0.2), select="last")
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="need validation clips"):
        learn(recipe, labels_of("classification", 20, rng), features_of(recipe, 20, rng), five_folds(20))
