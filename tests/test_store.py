"""The store: each clip once, nothing stale, nothing half written, failures named and tried again."""

import functools
import gc
import json
import math
import os
import re
import signal
import threading
import warnings
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from earmark.codecs import registry
from earmark.data import cards
from earmark.data.manifest import SHARD_CLIPS
from earmark.store import fingerprint, shards
from earmark.store.jobs import Job, latents_job, sound_job, tokens_job
from earmark.store.shards import Outcome, Shard
from earmark.store.store import Store
from earmark.store.transforms import Noise, Round, Shift
from earmark.tests import own_codecs
from earmark.tests.helpers import ROOT, voice, write_dataset

OWN = "earmark.tests.own_codecs"


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    wavs = {f"{i:02}.flac": voice(0.2, 16000, 100 + i) for i in range(SHARD_CLIPS + 3)}
    wavs["99.flac"] = np.concatenate([[0.99], voice(0.2, 16000, 99)]).astype(np.float32)
    monkeypatch.setenv("EARMARK_DATA", str(write_dataset(tmp_path / "d", wavs, dataset="d", domain="speech")))
    return cards.load(cards.select(["d"])[0])


@pytest.fixture
def make(tmp_path):
    return lambda run="run1": Store(tmp_path / "store", "cpu", run)


def halver():
    return registry.find(f"{OWN}:Halver")


def sounds(store, entry, dataset):
    return list(store.outcomes(sound_job(entry), dataset.clips))


def test_every_clip_comes_back_in_order_and_is_encoded_once(dataset, make):
    own_codecs.Halver.encoded = 0
    for store in (make(), make("run2")):
        found = sounds(store, halver(), dataset)
        assert [sound.clip for sound in found] == [clip.sha256 for clip in dataset.clips]
        assert all(sound.arrays["wav"].shape == (1, sound.facts["samples"]) for sound in found)
    assert own_codecs.Halver.encoded == len(dataset.clips)


def test_tokens_are_counted_as_bits(dataset, make):
    sound = sounds(make(), halver(), dataset)[0]
    assert sound.facts["bits"] == 8 * 1600  # 3200 samples, a token of 8 bits for two


def test_a_selection_makes_what_is_lacking_and_nothing_again(dataset, make):
    own_codecs.Halver.encoded = 0
    some = dataset.clips[1::3]
    made = list(make().outcomes(sound_job(halver()), some))
    assert [sound.clip for sound in made] == [clip.sha256 for clip in some]
    assert own_codecs.Halver.encoded == len(some)
    whole = sounds(make("run2"), halver(), dataset)
    assert [sound.clip for sound in whole] == [clip.sha256 for clip in dataset.clips]
    assert own_codecs.Halver.encoded == len(dataset.clips)


def test_outcomes_come_in_the_order_that_was_asked_for(dataset, make):
    mixed = [dataset.clips[i] for i in (9, 0, 10, 3, 1, 8)]
    assert [sound.clip for sound in make().outcomes(sound_job(halver()), mixed)] == [clip.sha256 for clip in mixed]


def test_sound_is_made_from_stored_tokens(dataset, make):
    """Tokens and sound of a codec that encodes and decodes cost one encoding, whichever is asked for first."""
    own_codecs.Halver.encoded = 0
    sounds(make(), halver(), dataset)
    tokens = list(make("run2").outcomes(tokens_job(halver()), dataset.clips))
    assert own_codecs.Halver.encoded == len(dataset.clips)
    assert tokens[0].arrays["codes"].shape == (1, 1600)
    assert tokens[0].facts["frames"] == 1600


def test_latents_are_half_precision_unless_that_overflows(dataset, make):
    entry = registry.find(f"{OWN}:Embedder")
    for kind, dtype in (("unquantized", np.float16), ("layer:1", np.float32)):
        found = list(make().outcomes(latents_job(entry, kind), dataset.clips))
        assert found[0].arrays["latents"].dtype == dtype
        assert found[0].arrays["latents"].shape == (4, found[0].facts["frames"])
        assert np.isfinite(found[0].arrays["latents"]).all()


def test_a_codec_retrained_in_place_is_a_new_codec(dataset, make):
    store = make()
    before = sounds(store, halver(), dataset)[0].arrays["wav"]
    retrained = make("run2")
    retrained.adapter(halver()).gain.fill_(3.0)
    after = sounds(retrained, halver(), dataset)[0].arrays["wav"]
    assert retrained.fingerprint(halver()) != store.fingerprint(halver())
    assert not np.array_equal(before, after)


def test_a_failed_clip_is_named_and_the_rest_goes_on(dataset, make):
    entry = registry.find(f"{OWN}:RaisesOnOne")
    found = zip(dataset.clips, sounds(make(), entry, dataset), strict=True)
    failed = {clip.id: sound for clip, sound in found if sound.error}
    assert list(failed) == ["99.flac"]
    assert not failed["99.flac"].arrays
    expected = "codec failed: raises-on-one: reconstruct raised ValueError: I do not like this clip"
    lines = Path(own_codecs.__file__).read_text().splitlines()
    (line,) = (number for number, text in enumerate(lines, 1) if "I do not like this clip" in text)
    assert failed["99.flac"].error == f"{expected} (tests/own_codecs.py:{line})", "the line of the codec's own code"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("WrongShape", r"returned \[1, 3200\] for a wav of \[1, 1, 3200\], expected \[1, 1, L'\]"),
        ("Short", r"returned 1600 samples for 3200"),
        ("JustWav", r"reconstruct returned Tensor, expected a pair \(wav, bits or None\)"),
        ("JustCodes", r"encode returned Tensor, expected earmark.Encoded\(codes, frames\)"),
        ("NotANumber", r"returned NaN or infinite samples"),
        ("BadCodes", r"codes run from -?\d+ to \d+, expected 0 to V-1 with V = \(4,\)"),
    ],
)
def test_what_a_bad_codec_returns_is_an_error_not_a_score(dataset, make, name, message):
    found = sounds(make(), registry.find(f"{OWN}:{name}"), dataset)
    assert not any(sound.arrays for sound in found)
    assert re.search(message, found[0].error)


def test_a_file_that_cannot_be_read_is_tried_again_by_the_next_run(dataset, make):
    clip = dataset.clips[2]
    content = clip.path.read_bytes()
    clip.path.write_bytes(content[:-100])
    errors = [sound.error for sound in sounds(make(), halver(), dataset) if sound.error]
    assert len(errors) == 1
    assert "02.flac: its sha256 is not the manifest's" in errors[0]
    clip.path.write_bytes(content)
    assert not any(sound.error for sound in sounds(make("run2"), halver(), dataset))


def paths(store):
    return sorted(store.root.rglob("*.safetensors"))


@pytest.mark.parametrize("damage", ["truncate", "flip"])
def test_a_damaged_shard_is_found_and_made_again(dataset, make, damage):
    store = make()
    good = sounds(store, halver(), dataset)
    content = bytearray(paths(store)[0].read_bytes())
    if damage == "truncate":
        del content[len(content) // 2 :]
    else:
        content[-7] ^= 1
    paths(store)[0].write_bytes(content)
    for first, second in zip(good, sounds(make("run2"), halver(), dataset), strict=True):
        np.testing.assert_array_equal(first.arrays["wav"], second.arrays["wav"])


def test_a_shard_survives_the_file(tmp_path):
    wav = np.arange(6, dtype=np.float32).reshape(2, 3)
    facts = {"bits": 5.0, "value": math.inf, "none": None}
    shard = Shard((Outcome("a", facts, {"wav": wav, "side.x": wav[0]}), Outcome("b", error="why")), "run")
    shards.write(tmp_path / "s.safetensors", shard)
    read = shards.read(tmp_path / "s.safetensors")
    assert [(o.clip, o.facts, o.error) for o in read.outcomes] == [("a", facts, None), ("b", {}, "why")]
    np.testing.assert_array_equal(read.outcomes[0].arrays["wav"], wav)
    np.testing.assert_array_equal(read.outcomes[0].arrays["side.x"], wav[0])
    assert shards.peek(tmp_path / "s.safetensors").outcomes[0].facts == facts
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]


def test_over_range_samples_are_counted_and_kept(dataset, make, monkeypatch):
    monkeypatch.setattr(own_codecs.Same, "reconstruct", lambda self, wav, lengths, seed: (wav + 2, None))
    sound = sounds(make(), registry.find(f"{OWN}:Same"), dataset)[0]
    assert sound.facts["over_range"] == sound.facts["samples"]
    assert sound.arrays["wav"].max() > 1.5


class Opaque:
    def __init__(self, part):
        self.part = part


def own_fingerprint(**parts):
    adapter = own_codecs.Same(None, "cpu")
    vars(adapter).update(parts)
    return fingerprint.of_adapter(registry.find(f"{OWN}:Same"), adapter)


def test_a_fingerprint_follows_tensors_modules_arrays_and_settings():
    torch.manual_seed(0)
    layer = torch.nn.Linear(2, 2)
    variants = [
        {},
        {"a": torch.zeros(2)},
        {"a": torch.ones(2)},
        {"a": np.ones(2)},
        {"a": 1},
        {"a": [1, "x"]},
        {"a": layer},
    ]
    prints = [own_fingerprint(**parts) for parts in variants]
    assert len(set(prints)) == len(prints)
    assert own_fingerprint(a=layer) == own_fingerprint(a=layer)
    with torch.no_grad():
        layer.bias[0] += 1e-3
    assert own_fingerprint(a=layer) != prints[-1]


def test_a_fingerprint_follows_every_setting_however_small():
    """Equal settings elsewhere in the codec must not hide a change (small numbers are one object in Python)."""
    assert own_fingerprint(a=True, b=False, c=True) != own_fingerprint(a=True, b=False, c=False)
    assert own_fingerprint(a=4, n_q=8, c=4) != own_fingerprint(a=4, n_q=8, c=8)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model[0].n_q = 4
    before = own_fingerprint(a=model)
    model[0].n_q = 8
    assert own_fingerprint(a=model) != before
    assert own_fingerprint(a=Opaque(1)) != own_fingerprint(a=Opaque(2))


def test_a_fingerprint_follows_source_files_below_the_codec(tmp_path, monkeypatch):
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "core.py").write_text("GAIN = 1")
    (tmp_path / "codec_with_a_net.py").write_text("from earmark.tests.own_codecs import Same\nclass Mine(Same): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    cls = __import__("codec_with_a_net").Mine
    entry = registry.find(f"{OWN}:Same")
    before = fingerprint.of_adapter(entry, cls(None, "cpu"))
    (tmp_path / "net" / "core.py").write_text("GAIN = 2")
    assert fingerprint.of_adapter(entry, cls(None, "cpu")) != before


def test_a_fingerprint_passes_over_what_editors_leave(tmp_path, monkeypatch):
    """Emacs marks what it edits by a hidden link to nowhere."""
    (tmp_path / "edited.py").write_text("from earmark.tests.own_codecs import Same\nclass Mine(Same): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    entry, adapter = registry.find(f"{OWN}:Same"), __import__("edited").Mine(None, "cpu")
    before = fingerprint.of_adapter(entry, adapter)
    for name in (".#edited.py", "gone.py"):
        (tmp_path / name).symlink_to("nobody@nowhere.1234")
    assert fingerprint.of_adapter(entry, adapter) == before


def test_what_a_source_imports_is_found_whatever_becomes_of_warnings(tmp_path):
    """An escape that is none, which Python warns of as it parses."""
    (tmp_path / "old.py").write_text("import safetensors\nPATTERN = '\\s'\n")
    for action in ("ignore", "error"):
        with warnings.catch_warnings():
            warnings.simplefilter(action)
            assert fingerprint._imports(tmp_path / "old.py") == {"safetensors"}


def test_what_cannot_be_looked_into_has_no_fingerprint():
    assert own_fingerprint(a=threading.Lock()) is None
    assert own_fingerprint(a=[Opaque(threading.Lock())]) is None


def test_a_codec_without_a_fingerprint_keeps_results_for_one_run_only(dataset, make, monkeypatch):
    monkeypatch.setattr(own_codecs.Halver, "session", None, raising=False)
    monkeypatch.setattr(own_codecs.Halver, "__init__", lambda self, info, device: vars(self).update(
        gain=torch.full((1,), 127.0), session=threading.Lock()))  # fmt: skip
    own_codecs.Halver.encoded = 0
    for run in ("run1", "run1", "run2"):
        sounds(make(run), halver(), dataset)
    assert own_codecs.Halver.encoded == 2 * len(dataset.clips)


def test_rows_are_told_apart_by_their_options():
    assert fingerprint.of_row(registry.find("opus-6")) != fingerprint.of_row(registry.find("opus-12"))


def address(job, device="cuda:0", run="r", weights="0"):
    store = Store(Path("root"), device, run)
    store.know({"halver": weights, "same": weights})
    return store.folder(job)


def test_every_part_of_a_job_is_part_of_its_address_and_nothing_else_is(monkeypatch):
    job = sound_job(halver())
    others = [
        {"maker": "earmark.store.jobs:tokens"}, {"detail": "x"}, {"seed": 1}, {"version": "x"},
        {"entry": registry.find(f"{OWN}:Same")}, {"steps": (Round(),)}, {"steps": (Round(), Round())},
        {"steps": (Shift(1.0),)}, {"steps": (Shift(2.0),)}, {"steps": (Noise("white", 20),)},
    ]  # fmt: skip
    found = [address(job), address(job, device="cpu"), address(job, weights="1")]
    found += [address(replace(job, **other)) for other in others]
    monkeypatch.setattr(fingerprint, "of_maker", lambda maker: "edited")
    shifted = replace(job, steps=(Shift(1.0),))
    found += [address(job), address(shifted)]
    monkeypatch.setattr(fingerprint, "of_transforms", lambda: "edited")
    found.append(address(shifted))
    assert len(set(found)) == len(found)
    assert address(job) == address(job, device="cuda:3") == address(job, run="another")


@pytest.mark.parametrize("part", ["_version", "_hash_files", "_snapshot", "resampler"])
def test_a_row_depends_on_libraries_sources_weights_and_the_resampler(part, monkeypatch):
    before = fingerprint.of_row(registry.find("tiny-2"))
    assert fingerprint.of_row(registry.find("tiny-2")) == before
    monkeypatch.setattr(fingerprint, part, lambda *of: f"another {part}")
    assert fingerprint.of_row(registry.find("tiny-2")) != before


def test_what_makes_a_result_depends_on_the_sources_that_every_one_goes_through(monkeypatch):
    """How clips are read, handed to a codec, put into batches, and what becomes of them; beside the maker's own."""
    monkeypatch.setattr(fingerprint, "_hash_files", lambda files: [file.name for file in files])
    of_maker = fingerprint.of_maker.__wrapped__
    assert of_maker("earmark.scoring.clips:values") == ["clips.py", "audio.py", "calls.py", "batches.py", "jobs.py"]


def changed(**info):
    entry = registry.find("tiny-2")
    return fingerprint.of_row(entry.model_copy(update={"info": entry.info.model_copy(update=info)}))


def test_a_row_s_results_do_not_depend_on_what_is_only_said_of_it():
    """A licence that is put right must not have every clip encoded again; a rate must."""
    said = {"licence": "X", "trained_on": ("x",), "domains": ("sound",), "feature_type": "semantic"}
    assert {changed(**{name: value}) for name, value in said.items()} == {changed()}
    matters = {"sample_rate": 8000, "channels": 2, "codebook_sizes": (4,), "revision": "x", "stochastic": True}
    assert len({changed(**{name: value}) for name, value in matters.items()} | {changed()}) == len(matters) + 1


def whole_job(version="dataset-1"):
    return Job("earmark.store.jobs:tokens", halver(), detail="trained", version=version)


def test_what_is_made_of_a_whole_dataset_is_made_once(make):
    made = []

    def train():
        made.append(1)
        return Outcome("all", {"loss": 0.5}, {"curve": np.arange(3.0)})

    first, again = (make(run).whole(whole_job(), train) for run in ("run1", "run2"))
    assert (first.facts, first.arrays["curve"].tolist(), len(made)) == (again.facts, [0.0, 1.0, 2.0], 1)
    make().whole(whole_job("dataset-2"), train)
    assert len(made) == 2


def test_two_workers_at_one_whole_dataset_make_it_once(make):
    made, inside = [], threading.Event()

    def train():
        inside.wait(60)
        made.append(1)
        return Outcome("all", {"loss": 0.5})

    workers = [threading.Thread(target=lambda: make().whole(whole_job(), train)) for _ in range(2)]
    for worker in workers:
        worker.start()
    inside.set()
    for worker in workers:
        worker.join(300)
    assert len(made) == 1


def test_an_error_in_a_whole_dataset_is_raised_and_not_kept(make):
    def diverge():
        raise RuntimeError("the loss is not finite")

    with pytest.raises(RuntimeError, match="not finite"):
        make().whole(whole_job(), diverge)
    assert make().whole(whole_job(), lambda: Outcome("all", {"loss": 1.0})).facts == {"loss": 1.0}


def test_a_row_depends_on_all_that_its_adapter_imports_of_ours():
    """A helper that an adapter calls moves its results as its own class does."""
    found = {path.name for path in fingerprint._ours("earmark.codecs.yue", "earmark.codecs.calls")}
    assert found == {"calls.py", "contract.py", "descript.py", "hub.py", "pretrained.py", "xcodec.py", "yue.py"}


def test_adapters_import_each_other_by_full_names():
    """`from earmark.codecs import dac` would not be seen by the fingerprint; `calls` knows the registry so."""
    short = re.compile(r"^\s*(from earmark\.codecs import|from \.+\w* import)", re.MULTILINE)
    found = {path.name for path in (ROOT / "codecs").rglob("*.py") if short.search(path.read_text())}
    assert found <= {"calls.py"}


def test_a_damaged_whole_is_made_again(make):
    made = []

    def train():
        made.append(1)
        return Outcome("all", {"loss": 0.5}, {"curve": np.arange(300.0)})

    make().whole(whole_job(), train)
    path = make().folder(whole_job()) / "whole.safetensors"
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    assert make("run2").whole(whole_job(), train).arrays["curve"][-1] == 299
    assert len(made) == 2


class Private(torch.nn.Module):
    """A codec's module that keeps a tensor, a number and a function of its own under private names."""

    def __init__(self, x):
        super().__init__()
        self._codebook, self._scale = torch.full((3,), float(x)), x


def partial_of(x):
    return functools.partial(pow, x)


def closure_of(x):
    def inner(y):
        return x * y

    return inner


@pytest.mark.parametrize("kind", [Private, partial_of, closure_of])
def test_what_is_kept_in_private_is_part_of_the_fingerprint(kind):
    """In a module's private attributes, in a partial, in a closure."""

    class Adapter:
        def __init__(self, x):
            self.part = kind(x)

    entry = registry.find(f"{OWN}:Same")
    one, same, other = (fingerprint.of_adapter(entry, Adapter(x)) for x in (1, 1, 2))
    assert one == same
    assert one is not None
    assert one != other


def test_two_machines_with_one_number_of_process_do_not_write_one_file(tmp_path, monkeypatch):
    """Containers number theirs from 1, and not every shared disk knows locks."""
    from safetensors import numpy as numbers

    names, save = set(), numbers.save_file
    monkeypatch.setattr(numbers, "save_file", lambda found, path, **more: names.add(path) or save(found, path, **more))
    for _ in range(2):
        shards.write(tmp_path / "x.safetensors", Shard((Outcome("a"),), "r"))
    assert len(names) == 2


# -- what happens on CUDA alone, with stand-ins -----------------------------------------------------------------------


def test_a_fingerprint_does_not_follow_which_of_the_gpus_it_was():
    """Workers, and tasks of Ray, have one each: the second would look elsewhere for what the first made."""
    for one, other in (("cuda:0", "cuda:3"), (torch.device("cuda", 0), torch.device("cuda", 3))):
        assert own_fingerprint(device=one) == own_fingerprint(device=other)
        assert own_fingerprint(device=one) != own_fingerprint(device="cpu")
    assert own_fingerprint(text="cuda:0 and more") != own_fingerprint(text="cuda:1 and more")


@pytest.fixture
def precision():
    """The settings of float32 on CUDA, put back afterwards; libraries' defaults before."""
    places = [(torch.backends.cudnn, name) for name in ("allow_tf32", "deterministic", "benchmark")]
    places.append((torch.backends.cuda.matmul, "allow_tf32"))
    before = [getattr(*place) for place in places]
    for place, value in zip(places, (True, False, True, True), strict=True):
        setattr(*place, value)
    yield lambda: tuple(getattr(*place) for place in places)
    for place, value in zip(places, before, strict=True):
        setattr(*place, value)


FULL = (False, True, False, False)


def test_a_codec_that_allows_tf32_as_it_is_built_does_not_get_it(tmp_path, precision):
    Store(tmp_path, "cuda:0", "r").adapter(registry.find(f"{OWN}:AllowsTf32"))
    assert precision() == FULL


def test_what_is_made_of_a_whole_dataset_has_full_precision_without_a_codec(tmp_path, precision):
    """Else a probe would be trained with TF32 where its features are stored, and without where they had to be made."""
    store, seen = Store(tmp_path, "cuda:0", "r"), []
    store.know({"same": "0"})
    store.whole(
        Job("earmark.store.jobs:tokens", registry.find(f"{OWN}:Same")), lambda: seen.append(precision()) or Outcome("x")
    )
    assert seen == [FULL]


def test_the_codec_before_is_gone_when_the_next_is_loaded(make):
    """Also one that refers to itself: two large models may not fit on a GPU."""
    store = make()
    gone = weakref.ref(store.adapter(registry.find(f"{OWN}:Ring")))
    gc.disable()
    try:
        store.adapter(registry.find(f"{OWN}:Same"))
        assert gone() is None
    finally:
        gc.enable()


@pytest.fixture
def lost(monkeypatch):
    """A process whose CUDA context a kernel of BreaksCuda ends, as torch tells it; the ends of processes, noted."""
    ends, broken = [], []
    reconstruct = own_codecs.BreaksCuda.reconstruct

    def breaks(*given):
        broken.append(True)
        reconstruct(*given)

    def synchronize(*_):
        if broken:
            raise torch.AcceleratorError("CUDA error: device-side assert triggered")

    monkeypatch.setattr(own_codecs.BreaksCuda, "reconstruct", breaks)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)

    def kill(pid, how):
        ends.append((pid, how))
        raise SystemExit  # this process has to go on

    monkeypatch.setattr(os, "kill", kill)
    return ends


def test_after_a_lost_device_nothing_is_blamed_on_other_codecs(dataset, make, lost):
    """Every later call of any codec fails with that error: none of it may be stored or scored."""
    store = make()
    for name in ("BreaksCuda", "Halver"):
        with pytest.raises(shards.StoreError, match=r"cpu is lost since a CUDA error in breaks-cuda: .* with -n 1"):
            sounds(store, registry.find(f"{OWN}:{name}"), dataset)
    assert not [*store.root.rglob("*.safetensors")]
    assert not [*(store.root / "halver").rglob("*.attempts")]  # nor counted as a death of theirs
    assert not lost


def test_a_device_that_was_lost_outside_of_the_store_is_blamed_on_nobody(dataset, make, lost):
    """As the contract's checks and the timed calls do, which go to the codec themselves."""
    store, breaks = make(), registry.find(f"{OWN}:BreaksCuda")
    with pytest.raises(RuntimeError, match="device-side assert"):
        store.adapter(breaks).reconstruct(None, None, 0)
    with pytest.raises(shards.StoreError, match="cpu is lost since a CUDA error before halver"):
        sounds(store, registry.find(f"{OWN}:Halver"), dataset)
    assert not [*store.root.rglob("*.attempts")]


def test_a_worker_that_lost_its_device_ends_for_another_to_take_its_place(dataset, tmp_path, lost):
    """Its shard counts one death, so that a codec that ends every worker is given up."""
    told = []
    store = Store(tmp_path / "store", "cpu", "r", notify=lambda *note: told.append(note[2]), expendable=True)
    with pytest.raises(SystemExit):
        sounds(store, registry.find(f"{OWN}:BreaksCuda"), dataset)
    assert lost == [(os.getpid(), signal.SIGKILL)]
    assert told[-1] == "infrastructure fault: cpu is lost since a CUDA error in breaks-cuda"
    [note] = store.root.rglob("*.attempts")
    assert json.loads(note.read_text()) == {"run": "r", "deaths": 1}
