"""Proof of retrieval: ranks by hand, captions that latents carry are found, those that they do not are not."""

import itertools

import numpy as np
import pytest
import torch

from earmark.metrics.retrieval import chance_at, ranks
from earmark.probes.folds import Fold
from earmark.probes.protocol import Recipe
from earmark.probes.towers import Captioned, FrozenText, TwoTowers, Words, retrieve
from earmark.scoring.found import Found
from earmark.scoring.readings import compared

pytestmark = pytest.mark.usefixtures("one_thread")
SOUNDS = ["dog", "bell", "rain", "wind", "siren", "bird", "engine", "clock"]
SPLIT = Fold(np.arange(40), np.arange(40, 48), np.arange(48, 60))
TOWERS = Recipe(
    learner="towers", optimiser="adamw", rates=(0.001,), epochs=40, batch=16, select="loss", options={"hidden": 64}
)


# -- ranks ------------------------------------------------------------------------------------------------------------


def test_ranks_by_hand():
    similarity = np.array([[0.9, 0.5, 0.1], [0.2, 0.1, 0.3], [0.4, 0.6, 0.5]])
    assert ranks(similarity, np.eye(3, dtype=bool)).tolist() == [1, 3, 2]


def test_the_best_of_several_that_belong_counts():
    relevant = np.array([[True, False, True, False]])
    assert ranks(np.array([[0.1, 0.8, 0.9, 0.95]]), relevant).tolist() == [2]


def test_who_finds_all_alike_finds_nothing():
    assert ranks(np.zeros((4, 4)), np.eye(4, dtype=bool)).tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("similarity", "relevant", "match"),
    [
        (np.array([[np.nan]]), np.array([[True]]), "no NaN"),
        (np.zeros((1, 2)), np.zeros((1, 1), bool), "as many"),
        (np.zeros((1, 2)), np.zeros((1, 2), bool), "nothing belongs"),
    ],
)
def test_what_cannot_be_ranked_is_an_error(similarity, relevant, match):
    with pytest.raises(ValueError, match=match):
        ranks(similarity, relevant)


@pytest.mark.parametrize(("k", "items", "relevant"), [(1, 5, 1), (2, 5, 2), (3, 6, 2), (5, 6, 1)])
def test_chance_by_counting(k, items, relevant):
    draws = [*itertools.combinations(range(items), k)]
    assert chance_at(k, items, relevant) == pytest.approx(np.mean([min(draw) < relevant for draw in draws]))


# -- towers -----------------------------------------------------------------------------------------------------------


def scenes(count=60, seed=0):
    """Captions of two or three sounds, no two of the same words, and means that are the sum of the sounds' vectors."""
    chance = np.random.default_rng(seed)
    sets = [*itertools.combinations(SOUNDS, 2), *itertools.combinations(SOUNDS, 3)]
    chosen = [sets[at] for at in chance.permutation(len(sets))[:count]]
    of = {sound: chance.standard_normal(16) for sound in SOUNDS}
    means = [sum(of[sound] for sound in scene).astype(np.float32) for scene in chosen]
    return [[f"a {', then a '.join(scene)}"] for scene in chosen], means


def recall_at_1(found):
    tops = [rank == 1 for rank in found.to_text.values()], [rank[0] == 1 for rank in found.to_sound.values()]
    return np.mean(tops)


def test_captions_of_clips_that_were_learned_from_are_all_found():
    captions, means = scenes(24)
    everything = Fold(np.arange(24), np.arange(0), np.arange(24))
    learned = TOWERS.model_copy(update={"epochs": 120, "select": "last"})
    assert recall_at_1(retrieve(learned, Captioned(means, captions), everything)) == 1


def test_captions_that_the_latents_carry_are_found_and_others_are_not():
    captions, means = scenes()
    found = retrieve(TOWERS, Captioned(means, captions), SPLIT)
    assert (found.sounds, found.texts, set(found.to_text)) == (12, 12, set(range(48, 60)))
    noise = [*np.random.default_rng(1).standard_normal((60, 16)).astype(np.float32)]
    assert recall_at_1(found) >= 0.9
    assert recall_at_1(retrieve(TOWERS, Captioned(noise, captions), SPLIT)) <= 0.25  # chance is 1 in 12
    shuffled = captions[1:40] + captions[:1] + captions[40:]
    assert recall_at_1(retrieve(TOWERS, Captioned(means, shuffled), SPLIT)) <= 0.25


def test_neither_caption_nor_sound_of_a_test_clip_is_looked_at():
    """Whatever they are: the towers that rank them are the same."""
    captions, means = scenes()
    other = captions[:48] + [[f"zzz {at}"] for at in range(12)]
    louder = means[:48] + [100 * mean for mean in means[48:]]
    quick = TOWERS.model_copy(update={"epochs": 2, "standardise": True})
    from earmark.probes import towers

    trained = []
    for heard, told in ((means, captions), (louder, other)):
        pairs = towers._Pairs(quick, Captioned(heard, told), SPLIT, 0, "cpu")
        pairs.taught(quick, 0.001, 0, lambda doing: None)
        trained.append(pairs.model.state_dict())
    assert all(torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_a_caption_is_read_once(monkeypatch):
    """A frozen encoder would take longer for what is read again in every epoch than the towers take to learn."""
    captions, means = scenes(20)
    captions, read, real = [[*of, f"there is {of[0]}"] for of in captions], [], Words.read
    monkeypatch.setattr(Words, "read", lambda self, of: read.extend(of) or real(self, of))
    fold = Fold(np.arange(10), np.arange(10, 14), np.arange(14, 20))
    retrieve(TOWERS.model_copy(update={"epochs": 3}), Captioned(means, captions), fold)
    assert sorted(read) == sorted(caption for of in captions for caption in of)


def test_several_captions_of_a_clip_are_no_negatives_of_each_other():
    """One clip, two captions: nothing is wrong, so the loss from the clip's side is that of two equal answers."""
    model = TwoTowers(4, 3, hidden=8)
    sounds = torch.nn.functional.normalize(torch.randn(2, 8), dim=-1)
    texts = sounds[[0, 0, 1]]
    belong = torch.tensor([[True, True, False], [False, False, True]])
    with torch.no_grad():
        model.scale.fill_(10.0)
        assert model.loss(sounds, texts, belong).item() == pytest.approx(np.log(2) / 4, abs=1e-4)


def test_every_caption_of_a_clip_is_ranked():
    captions, means = scenes(20)
    captions = [[*of, f"there is {of[0]}"] for of in captions]
    found = retrieve(
        TOWERS.model_copy(update={"epochs": 2}),
        Captioned(means, captions),
        Fold(np.arange(10), np.arange(10, 14), np.arange(14, 20)),
    )
    assert (found.sounds, found.texts) == (6, 12)
    assert all(len(of) == 2 for of in found.to_sound.values())
    assert set(found.own_texts.values()) == {2}


@pytest.mark.parametrize("written", [str, str.upper, "{}.".format, lambda text: text.replace(",", " -")])
def test_the_same_words_belong_to_both_clips(written):
    """However they are written: to find the other clip by them is right."""
    captions, means = scenes(20)
    captions[15] = [written(captions[14][0])]
    found = retrieve(
        TOWERS.model_copy(update={"epochs": 1}),
        Captioned(means, captions),
        Fold(np.arange(10), np.arange(10, 14), np.arange(14, 20)),
    )
    assert found.own_texts[14] == found.own_texts[15] == 2
    assert found.own_sounds[14] == found.own_sounds[15] == [2]
    assert found.own_texts[16] == 1


def test_captions_without_a_letter_are_not_all_the_same():
    captions, means = scenes(20)
    captions[14], captions[15] = ["!"], ["?"]
    found = retrieve(
        TOWERS.model_copy(update={"epochs": 1}),
        Captioned(means, captions),
        Fold(np.arange(10), np.arange(10, 14), np.arange(14, 20)),
    )
    assert found.own_texts[14] == found.own_texts[15] == 1


def test_words_that_training_lacks_are_unknown():
    words = Words(["A dog barks."])
    assert [numbers.tolist() for numbers in words.read(["a cat barks", "!"])] == [[1, 0, 2], [0]]


def test_the_same_words_are_read_alike():
    """By the normal form in which captions are compared: `test_the_same_words_belong_to_both_clips`."""
    words = Words(["A dog’s bark; a ﬁre."])
    one, other = words.read(["a dog's bark: a fire", "A DOG’S BARK, A FIRE!"])
    assert one.tolist() == other.tolist() == [1, 3, 2, 1, 4]


@pytest.fixture(scope="module")
def bert():
    """A BERT of one layer with random weights, and a tokenizer of whole words."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate(["[PAD]", "[UNK]", "a", "then", "there", "is", ",", *SOUNDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = BertModel(config)
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    return FrozenText(encoder, wrapped)


def test_a_frozen_encoder_reads_a_caption_the_same_alone_and_in_a_batch(bert):
    captions = ["a dog", "a bell, then a siren, then rain", "wind"]
    for caption, together in zip(captions, bert.read(captions), strict=True):
        np.testing.assert_allclose(bert.read([caption])[0], together, atol=1e-5)


def test_towers_on_a_frozen_encoder(bert, monkeypatch):
    captions, means = scenes(24)
    monkeypatch.setattr(FrozenText, "published", classmethod(lambda cls, repo: bert))
    before = [weight.clone() for weight in bert.encoder.parameters()]
    recipe = TOWERS.model_copy(
        update={"epochs": 120, "select": "last", "options": {"hidden": 64, "text_encoder": "google-bert/tiny"}}
    )
    everything = Fold(np.arange(24), np.arange(0), np.arange(24))
    assert recall_at_1(retrieve(recipe, Captioned(means, captions), everything)) == 1
    assert all(torch.equal(*pair) for pair in zip(before, bert.encoder.parameters(), strict=True))


def test_padding_of_captions_changes_nothing(bert):
    torch.manual_seed(0)
    model, tokens = TwoTowers(4, 32, hidden=8), torch.from_numpy(bert.read(["a bell, then a dog"])[0])[None]
    longer = torch.cat([tokens, torch.full((1, 3, 32), 9.0)], 1)
    lengths = torch.tensor([tokens.shape[1]])
    torch.testing.assert_close(model.of_texts(longer, lengths), model.of_texts(tokens, lengths))
    words = TwoTowers(4, 6, words=5, hidden=8)
    short, padded = torch.tensor([[1, 2]]), torch.tensor([[1, 2, -1, -1]])
    torch.testing.assert_close(words.of_texts(padded, torch.tensor([2])), words.of_texts(short, torch.tensor([2])))


# -- what stands beside a score ---------------------------------------------------------------------------------------


def test_a_score_must_be_above_chance_with_its_whole_interval():
    nothing = float("nan")
    by_chance = {"at random": Found(0.125, nothing, nothing, "by definition", 8)}
    assert "not better than at random" in compared("recall_at_1", Found(0.15, 0.05, 0.25, "", 8), by_chance)
    assert compared("recall_at_1", Found(0.35, 0.2, 0.5, "", 8), by_chance) == ["at random: 0.125"]
