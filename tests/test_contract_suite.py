"""The contract: each check finds the bug that is planted for it, and no other check does; good codecs pass."""

import os
import random
import re
import subprocess
import sys

import numpy as np
import pytest
from typer.testing import CliRunner

from earmark.cli import app
from earmark.codecs import calls, registry
from earmark.codecs.calls import CodecError
from earmark.codecs.contract import capabilities_of
from earmark.codecs.pretrained import KINDS
from earmark.codecs.registry import Entry
from earmark.contract import CHECKS, Subject, check, examine, judge, lengths, precision
from earmark.contract.verdict import subject_of
from earmark.suites.test_contract import answer
from earmark.tests import planted_bugs
from earmark.tests import thin_transformers as thin
from earmark.tests.helpers import ROOT
from earmark.tests.planted_bugs import BUGS

torch = pytest.importorskip("torch")

from earmark.codecs.tiny.codec import Tiny  # noqa: E402

MODULE = "earmark.tests.planted_bugs"
ENCODER = """
import earmark
import torch


class MyEncoder:  # energies of hops of 10 ms
    info = earmark.Info(name="myencoder", sample_rate=16000, frame_rate=100, latent_kinds=("unquantized",))

    def __init__(self, info, device):
        self.info = info

    def latents(self, wav, lengths, kind, seed):  # wav [B, 1, L] -> latents [B, 1, T], frames [B]
        own = torch.arange(wav.shape[2], device=wav.device) < lengths[:, None, None]
        hops = torch.nn.functional.pad(wav.where(own, 0.0), (0, -wav.shape[2] % 160)).unflatten(2, (-1, 160))
        return hops.square().mean(3), -(-lengths // 160)
"""
SLOW = {"memory"}  # a second; asked of one good codec, one good encoder and its own bugs


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """Half precision and a second device, which the CPU plays."""
    monkeypatch.setattr(precision, "autocasts", lambda device: True)
    monkeypatch.setattr(precision, "peer_of", lambda device: "cpu:0")


def entry_of(cls):
    entry = registry.find(f"{MODULE}:{cls.__name__}")
    if cls is not BUGS["capabilities"]:
        return entry
    known = tuple(name for name in entry.info.capabilities if name != "embed")
    return entry.model_copy(update={"info": entry.info.model_copy(update={"capabilities": known})})


def failing(cls, names):
    """The messages of the checks that a class fails, by name; each is asked of a codec built anew."""
    results = [judge(CHECKS[name], subject_of(entry_of(cls), "cpu")) for name in names]
    return {result.check.name: result.message for result in results if result.verdict == "failed"}


def test_every_check_has_a_planted_bug():
    assert set(BUGS) == set(CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_planted_bug_is_caught_by_the_check_meant_and_by_no_other(name, as_on_a_gpu, monkeypatch):
    if name == "not_finite":  # Earmark itself keeps such a clip from every codec
        monkeypatch.setattr(calls, "check_finite", lambda info, wav, lengths: None)
    found = failing(BUGS[name], [other for other in CHECKS if other == name or other not in SLOW])
    assert set(found) == {name}, "\n".join(found.values())
    lines = found[name].splitlines()
    assert lines[0].startswith(f"bug-{name.replace('_', '-')}: {name}: ")
    assert [line.split()[0] for line in lines[1:]] == ["expected", "came", "given", "matters"]
    assert "nothing yet" not in found[name]


@pytest.mark.parametrize("cls", [planted_bugs.Good, planted_bugs.GoodEncoder])
def test_a_good_one_passes_every_check(cls, as_on_a_gpu):
    results = [*examine(subject_of(entry_of(cls), "cpu"))]
    assert not [result.message for result in results if result.verdict == "failed"]
    unasked = {result.check.name for result in results if result.verdict == "not asked"}
    sound_only = {"codes", "bitrate_is_declared", "fewer_codebooks", "range", "stream_equals_whole"}
    assert unasked == (sound_only if cls is planted_bugs.GoodEncoder else set())


@pytest.fixture
def settings_come_back(monkeypatch):
    """What a codec changes in the process is changed back."""
    monkeypatch.chdir(".")
    kept = torch.get_default_dtype(), torch.get_float32_matmul_precision(), np.geterr()
    drawn = torch.get_rng_state(), np.random.get_state(), random.getstate()
    yield
    torch.set_default_dtype(kept[0])
    torch.set_float32_matmul_precision(kept[1])
    torch.use_deterministic_algorithms(False)
    np.seterr(**kept[2])
    torch.set_rng_state(drawn[0])
    np.random.set_state(drawn[1])
    random.setstate(drawn[2])


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("default dtype", lambda: torch.set_default_dtype(torch.float64)),
        ("threads", lambda: torch.set_num_threads(torch.get_num_threads() + 1)),
        ("matmul precision", lambda: torch.set_float32_matmul_precision("medium")),
        ("deterministic algorithms", lambda: torch.use_deterministic_algorithms(True)),
        ("numpy's error handling", lambda: np.seterr(all="ignore")),
        ("folder", lambda: os.chdir("/")),
        ("random numbers of torch", lambda: torch.rand(1)),
        ("random numbers of numpy", lambda: np.random.seed(0)),
        ("random numbers of Python", lambda: random.seed(0)),
    ],
)
def test_what_a_call_changes_in_the_process_is_named(what, change, monkeypatch, settings_come_back):
    decode = planted_bugs.Good.decode

    def changes(self, encoded, seed):
        change()
        return decode(self, encoded, seed)

    monkeypatch.setattr(planted_bugs.Good, "decode", changes)
    assert f"changed by a call: {what}\n" in failing(planted_bugs.Good, ["global_state"])["global_state"]


def test_one_broken_method_is_told_once(monkeypatch):
    """And each check by itself, as the suite asks them, tells all."""

    def refuses(self, encoded, seed):
        raise ValueError("no such thing")

    monkeypatch.setattr(planted_bugs.Good, "decode", refuses)
    asked = ("length", "silence", "eval_mode", "dc")
    messages = [result.message for result in examine(subject_of(entry_of(planted_bugs.Good), "cpu"), asked)]
    raised = "codec failed: good-codec: decode raised ValueError: no such thing"
    assert f"  came      {raised} (tests/test_contract_suite.py:" in messages[0]
    assert messages[1:3] == [
        f"good-codec: {name}: {CHECKS[name].asks}\n  came      as in length" for name in ("silence", "dc")
    ]
    assert messages[3] == ""  # no module is in training mode
    assert raised in failing(planted_bugs.Good, ["dc"])["dc"]


@pytest.mark.parametrize(
    ("cls", "name", "message"),
    [
        (planted_bugs.SetsThreads, "global_state", "changed by building: default dtype"),
        (planted_bugs.KeepsArrays, "memory", "bytes of Python's more at every call"),
        (planted_bugs.NotReallyNested, "fewer_codebooks", "two codebooks or none"),
        (planted_bugs.LeakyEncoder, "padding", "latents layer:0 differ by up to"),
        (planted_bugs.RemembersTheStreamBefore, "stream_equals_whole", "sound differ by up to"),
        (planted_bugs.WaitsForTheEnd, "stream_equals_whole", "stream took 40 chunks and yielded 1 times"),
        (planted_bugs.KeepsTheTail, "stream_equals_whole", "codes of shape [2, 161] for [2, 162]"),
        (planted_bugs.StreamsCodesAlone, "stream_equals_whole", "expected  sound, as at once"),
    ],
)
def test_other_bugs(cls, name, message):
    before = torch.get_default_dtype()
    try:
        assert message in failing(cls, [name])[name]
    finally:
        torch.set_default_dtype(before)


def test_frames_may_be_as_long_as_ten_seconds():
    """Of such frames, as CLAP has, three are 30 s."""
    entry = entry_of(planted_bugs.GoodEncoder)
    slow = entry.model_copy(update={"info": entry.info.model_copy(update={"frame_rate": 0.1})})
    subject = subject_of(slow, "cpu")
    result = judge(CHECKS["any_length"], subject)
    assert (result.verdict, result.message) == ("passed", "")
    assert "samples at 16000 Hz" in subject.given


@pytest.mark.parametrize(
    ("made", "came"),
    [
        (torch.zeros(1, 2, 3), "returned Tensor"),
        (None, "returned NoneType"),
        ((torch.zeros(1, 2, 3), [3]), r"returned \(Tensor, list\)"),
        ((torch.zeros(1, 2, 3), torch.tensor([3]), 1), r"returned \(Tensor, Tensor, int\)"),
    ],
)
def test_latents_that_are_no_pair_are_the_encoders_error(made, came, monkeypatch):
    """And not a traceback from where they are unpacked."""
    monkeypatch.setattr(planted_bugs.GoodEncoder, "latents", lambda self, *given: made)
    adapter, info = planted_bugs.GoodEncoder(planted_bugs.GoodEncoder.info, "cpu"), planted_bugs.GoodEncoder.info
    message = rf"good-encoder: latents {came}, expected a pair of tensors \(latents \[1, D, T\], frames \[1\]\)"
    with pytest.raises(CodecError, match=message):
        calls.latents(adapter, info, torch.zeros(1, 1, 400), torch.tensor([400]), "layer:0", 0)


def changed(of, **attributes):
    """Good, whose method `of` gives what it gives with some parts exchanged."""

    def method(self, *given):
        made = getattr(planted_bugs.Good, of)(self, *given)
        for name, value in attributes.items():
            setattr(made, name, value(made) if callable(value) else value)
        return made

    return type("Changed", (planted_bugs.Good,), {of: method})


@pytest.mark.parametrize(
    ("cls", "came"),
    [
        (changed("encode", frames=lambda made: made.frames.float()), "frames are torch.float32 [1], expected a tensor"),
        (changed("encode", side={"scale": 3}), "side information 'scale' is int, expected a tensor"),
        (changed("encode", side_bits=5.0), "side_bits are float, expected a tensor [1] or None"),
        (type("C", (planted_bugs.Good,), {"reconstruct": lambda self, wav, *_: (wav, 5)}), "bits are int, expected a"),
        (type("C", (planted_bugs.Good,), {"decode": lambda self, *_: torch.zeros(1, 1, 0)}), "returned no samples"),
        (type("C", (planted_bugs.Good,), {"stream": lambda self, *_: 3}), "stream raised TypeError: 'int' object is"),
        (
            type("C", (planted_bugs.Good,), {"latents": lambda self, *_: (torch.zeros(1, 2, 3), torch.ones(1))}),
            "latents 'unquantized' must be [1, D, T] and frames int64 [1], and are [1, 2, 3] and torch.float32 [1]",
        ),
    ],
)
def test_what_no_codec_may_return_is_said_and_is_no_traceback(cls, came):
    adapter, entry = cls(planted_bugs.Good.info, "cpu"), entry_of(planted_bugs.Good)
    result = judge(CHECKS["stream_equals_whole"], Subject(entry, "cpu", lambda: adapter))
    assert f"  came      codec failed: good-codec: {came}" in result.message


def test_want_of_memory_says_nothing_of_a_codec(monkeypatch):
    def hungry(self, *given):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(planted_bugs.Good, "encode", hungry)
    result = judge(CHECKS["shapes"], subject_of(entry_of(planted_bugs.Good), "cpu"))
    assert (result.verdict, result.message) == (
        "failed",
        "infrastructure fault: good-codec: out of memory in encode: CUDA out of memory",
    )


def test_a_stream_may_draw_other_noise_but_not_other_tokens():
    """The same wrong sound is let pass where the codec is declared stochastic; tokens never are."""
    for cls, verdict in ((planted_bugs.RemembersTheStreamBefore, "passed"), (BUGS["stream_equals_whole"], "failed")):
        entry = entry_of(cls)
        drawn = entry.model_copy(update={"info": entry.info.model_copy(update={"stochastic": True})})
        assert judge(CHECKS["stream_equals_whole"], subject_of(drawn, "cpu")).verdict == verdict


def test_the_delay_of_a_stream_is_told():
    """Frames of 40 at 400 Hz come in chunks of 4: 10 ms."""
    (result,) = check(f"{MODULE}:Good", only=("stream_equals_whole",))
    assert result.measured == {"stream_delay_ms": 10.0}


def test_the_suite_asks_every_check():
    text = (ROOT / "suites" / "test_contract.py").read_text()
    asked = re.findall(r"^def test_(\w+)\(ask\):\n    \"\"\"(.*)\"\"\"\n    ask\(\"(\w+)\"\)", text, re.MULTILINE)
    assert [name for name, _, name_again in asked if name != name_again] == []
    assert {name: docstring for name, docstring, _ in asked} == {name: each.asks for name, each in CHECKS.items()}


def test_a_check_on_cuda_is_without_tf32(monkeypatch):
    """By default cuDNN convolves in TF32: ten bits, where the CPU that it is compared with has twenty-three."""
    monkeypatch.setattr(registry, "load", lambda entry, device: object())
    for device, expected in (("cpu", True), ("cuda:0", False)):
        for backend in (torch.backends.cudnn, torch.backends.cuda.matmul):
            monkeypatch.setattr(backend, "allow_tf32", True)
        subject_of(f"{MODULE}:Good", device).adapter()
        assert torch.backends.cudnn.allow_tf32 is torch.backends.cuda.matmul.allow_tf32 is expected


def test_what_is_measured_is_told():
    """The first sample of a frame of 40 at 16 kHz waits for its last, 39 later: 2.4375 ms."""
    results = check(f"{MODULE}:Good", only=("streaming", "frame_rate"))
    measured = {result.check.name: result.measured for result in results}
    assert measured["streaming"] == {"lookahead_ms": 2.44, "chunk_lookahead_ms": 0.0, "lookback_ms": 0.0}
    assert measured["frame_rate"] == {"frame_rate": 400.0}


def test_the_look_ahead_of_our_own_codec_is_what_its_network_says():
    """880 samples at 16 kHz (codecs/tiny/model.py); a change on a frame's border is seen no earlier than that."""
    (result,) = check("tiny-1", only=("streaming",))
    assert result.verdict == "passed", result.message
    assert 0 < result.measured["lookahead_ms"] <= Tiny.lookahead_ms == 55
    assert result.measured["lookback_ms"] > 20


def test_a_known_failure_is_known_and_must_still_be_there():
    entry, why = entry_of(BUGS["dc"]), "https://example.org/issues/1"
    known = entry.model_copy(update={"known_failures": {"dc": why, "faint": why}})
    subject = subject_of(known, "cpu")
    result = judge(CHECKS["dc"], subject)
    assert result.verdict == "known failure"
    assert result.message.startswith(why)
    with pytest.raises(pytest.xfail.Exception, match=why):
        answer(result)
    result = judge(CHECKS["faint"], subject)
    assert result.verdict == "failed"
    assert "declared a known failure in its catalogue row" in result.message
    with pytest.raises(pytest.fail.Exception, match="and passes; take it out of the row"):
        answer(result)


def test_known_failures_of_the_catalogue_are_checks_with_a_reason():
    for entry in registry.catalogue().values():
        for name, why in entry.known_failures.items():
            assert name in CHECKS, (entry.name, name)
            assert "http" in why, (entry.name, name)


def test_a_class_can_be_checked_from_python():
    from earmark import check as exported

    results = exported(planted_bugs.Good, only=("length", "dc"))
    assert [(result.check.name, result.verdict) for result in results] == [("length", "passed"), ("dc", "passed")]


def test_a_misspelt_check_has_its_nearest_name():
    with pytest.raises(LookupError, match="unknown check 'lenght'; did you mean length"):
        check("identity", only=("lenght",))


def test_a_codec_that_cannot_be_built_is_one_error():
    with pytest.raises(CodecError, match=r"unloadable: cannot be loaded: OSError: weights.safetensors: no such file"):
        check("earmark.tests.own_codecs:Unloadable")


def test_a_codec_without_the_two_arguments_is_told_how_it_is_built(monkeypatch):
    monkeypatch.setattr("earmark.tests.own_codecs.Unloadable.__init__", lambda self: None)
    with pytest.raises(CodecError, match=r"3 were given; it is built as Class\(info, device\)"):
        check("earmark.tests.own_codecs:Unloadable")


def test_importing_the_contract_is_light():
    code = "import sys, earmark.contract; print({'torch', 'hypothesis', 'transformers'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_a_subject_loads_no_model_before_it_is_asked():
    def never():
        raise AssertionError("loaded")

    subject = Subject(registry.find("opus-12"), "cpu", never)
    assert judge(CHECKS["codes"], subject).verdict == "not asked"


# What needs a row to build the codec from; test_transformers_codecs.py has the prefix of codes.
ROW_NEEDED = {"fresh_process", "global_state", "fewer_codebooks"}


@pytest.mark.parametrize("name", sorted(thin.THIN))
def test_the_contract_on_the_published_networks_with_random_weights(name, monkeypatch):
    """Mimi's random weights are loud. EnCodec at 48 kHz codes a second of sound every 0.99 s: 151.5 frames, not 150."""
    expected = {"mimi": {"range"}, "encodec-48k": {"frame_rate"}}.get(name, set())
    monkeypatch.setattr(lengths, "LONGEST_S", 2)
    adapter = thin.build(name)
    info = adapter.info.model_copy(update={"capabilities": capabilities_of(type(adapter)), "latent_kinds": KINDS})
    subject = Subject(Entry(info=info, adapter="unused:Unused"), "cpu", lambda: adapter)
    results = examine(subject, tuple(sorted({*CHECKS} - ROW_NEEDED - SLOW)))
    failed = {result.check.name: result.message for result in results if result.verdict == "failed"}
    assert set(failed) == expected, "\n".join(failed.values())


# From the shell.


def earmark(*words, cwd=ROOT):
    """The `earmark` command in a process of its own: exit code, and all that it says."""
    code = "from earmark.cli import app; app()"
    done = subprocess.run([sys.executable, "-c", code, *words], cwd=cwd, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


def test_the_shell_says_what_is_wrong_and_exits_with_one():
    wrong = f"{MODULE}:LooksIntoThePadding"
    code, said = earmark("check", wrong, "--only", "padding", "--only", "dc")
    assert code == 1
    assert "failed  padding: What lies beyond a clip's length" in said
    for part in (
        "expected  what it gives without padding",
        "of another sound as padding",
        "matters   Padding that leaks",
    ):
        assert part in said
    assert said.strip().splitlines()[-1] == f"{wrong}: 1 passed, 1 failed"


def test_the_recipe_of_a_codec_is_ten_lines_that_pass_the_contract(tmp_path):
    recipe = (ROOT / "CONTRIBUTING.md").read_text().partition("## A codec")[2].partition("\n## ")[0]
    source = re.search(r"```python\n(.*?)```", recipe, re.DOTALL)[1]
    assert len([line for line in source.splitlines() if line]) <= 10
    assert "earmark check my_codec:MyCodec" in recipe
    (tmp_path / "my_codec.py").write_text(source)
    code, said = earmark("check", "my_codec:MyCodec", cwd=tmp_path)
    assert code == 0, said
    assert said.strip().splitlines()[-1] == "my_codec:MyCodec: 24 passed, 4 not asked"


def test_an_encoder_is_checked_from_the_shell_and_from_python(tmp_path, monkeypatch):
    """A class with `latents` alone, in a file of its own beside nothing else."""
    (tmp_path / "my_encoder.py").write_text(ENCODER)
    code, said = earmark("check", "my_encoder:MyEncoder", cwd=tmp_path)
    assert code == 0, said
    assert said.strip().splitlines()[-1] == "my_encoder:MyEncoder: 21 passed, 7 not asked"
    monkeypatch.chdir(tmp_path)
    verdicts = {
        result.check.name: result.verdict for result in check("my_encoder:MyEncoder", only=("padding", "codes"))
    }
    assert (verdicts["padding"], verdicts["codes"]) == ("passed", "not asked")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["opus-13"], "error: unknown codec 'opus-13'; did you mean opus-12"),
        (["opus-12", "--only", "lenght"], "error: unknown check 'lenght'; did you mean length"),
        (["mimi-8"], "error: mimi-8: weights missing; run: hf download kyutai/mimi"),
        (["earmark.tests.own_codecs:Unloadable"], "error: codec failed: unloadable: cannot be loaded: OSError"),
    ],
)
def test_what_cannot_be_checked_is_one_line(words, message):
    done = CliRunner().invoke(app, ["check", *words])
    assert done.exit_code == 1
    assert done.output.startswith(message)
