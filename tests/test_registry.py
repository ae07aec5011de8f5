"""The catalogue and the registry: every row is valid, and every mistake in a name or a class is explained."""

import importlib.util
import sys

import pytest
import yaml
from typer.testing import CliRunner

from earmark.cli import app
from earmark.codecs import registry
from earmark.codecs.contract import Info, capabilities_of
from earmark.codecs.registry import CatalogueError, CodecNotFoundError

BITRATES = {"encodec-24k-8": 6.0, "mimi-8": 1.1, "dac-24k-8": 6.0, "dac-44k-9": 7.75, "constant": 4.0}


def test_every_row_is_valid_and_its_class_can_do_what_it_says():
    for entry in registry.catalogue().values():
        cls = registry._import_adapter(entry.adapter)
        assert set(entry.info.capabilities) == set(capabilities_of(cls)), entry.name


# What the three papers measure, and what else is asked for; with the codebooks that are named.
PUBLISHED = """
    encodec-24k-8 encodec-48k-4 dac-24k-8 dac-24k-32 dac-44k-9 dac-16k-12 mimi-8 mimi-32 xcodec-hubert-general-8 yue-8
    xcodec2 neucodec higgs-v2-8 pockettts vibevoice-mean speechtokenizer-8 wavtokenizer-unify-40 semanticodec-8192
    snac-24k bigcodec maskgct-8 maskgct-12 flowdec-8 flowdec-10 stable-codec-1 stable-codec-4 baichuan-audio glm-4-voice
    focalcodec-50 vocos-8 lyra-3.2 lyra-6 lyra-9.2
    hubert-base wavlm-base-plus wav2vec2-base data2vec-audio-base whisper-base whisper-small qwen2-audio ast-audioset
    clap-htsat-unfused dasheng-base beats-iter3-plus byol-a byol-s ced-base atst-clip atst-frame msm-mae
"""


def test_what_was_published_has_a_row_and_a_command_that_makes_it_ready(tmp_path, monkeypatch):
    """On a machine that has no package, no checkout and no weights."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("EARMARK_HOME", "HF_HUB_CACHE", "EARMARK_WEIGHTS"):
        monkeypatch.setenv(name, str(tmp_path))
    shown = CliRunner().invoke(app, ["codecs"]).output
    for name in PUBLISHED.split():
        entry = registry.find(name)
        assert entry.proved in ("weights", "random", "stub")
        command = registry.status(entry).command
        assert command, name
        assert command in shown, name


def test_rows_that_were_proved_with_weights_are_those_whose_weights_are_had_offline():
    by_kind = {entry.family: entry.proved for entry in registry.catalogue().values()}
    assert by_kind["lyra"] == by_kind["tiny"] == by_kind["opus"] == "weights"
    fetched = [entry for entry in registry.catalogue().values() if entry.checkpoint]
    assert {entry.proved for entry in fetched} == {"random", "stub"}


@pytest.mark.parametrize(("name", "kbps"), BITRATES.items())
def test_bitrate_comes_from_the_codebooks(name, kbps):
    # EnCodec: 75 frames/s x 8 codebooks x 10 bits; Mimi: 12.5 x 8 x 11; DAC 44k: 44100 / 512 x 9 x 10
    assert registry.find(name).info.bitrate_kbps == pytest.approx(kbps, abs=0.005)


def test_an_unknown_name_gives_the_nearest():
    with pytest.raises(CodecNotFoundError, match=r"unknown codec 'opus-13'; did you mean opus-12"):
        registry.find("opus-13")


def test_a_misspelt_key_names_file_family_and_key(tmp_path, monkeypatch):
    row = {"family": "f", "title": "t", "adaptor": "a.b:C", "info": {}, "proved": "stub", "variants": {}}
    (tmp_path / "bad.yaml").write_text(yaml.safe_dump([row]))
    monkeypatch.setattr(registry, "CATALOGUE", tmp_path)
    with pytest.raises(CatalogueError, match=r"(?s)bad.yaml: family 'f'.*adaptor"):
        registry.catalogue.__wrapped__()


def test_variants_share_a_row():
    small, large = registry.find("mimi-8"), registry.find("mimi-32")
    assert small.adapter == large.adapter
    assert small.checkpoint == large.checkpoint
    assert (small.info.num_codebooks, large.info.num_codebooks) == (8, 32)


def test_absent_weights_say_how_to_get_them(tmp_path, monkeypatch):
    monkeypatch.setenv("EARMARK_HOME", str(tmp_path))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    status = registry.status(registry.find("mimi-8"))
    assert not status.ready
    assert str(status).startswith("weights missing; run: hf download kyutai/mimi")


def test_a_missing_package_says_what_to_install():
    entry = registry.find("opus-12").model_copy(update={"packages": ("no_such_package",)})
    assert str(registry.status(entry)) == "package missing; run: pip install no_such_package"


GOOD = """
import earmark
class Mine:
    info = earmark.Info(name="mine", sample_rate=16000)
    def __init__(self, info, device): ...
    def reconstruct(self, wav, lengths, seed): return wav, None
class NoInfo: ...
class Thief(Mine):
    info = earmark.Info(name="opus-12", sample_rate=16000)
class Secret(Mine):
    info = earmark.Info(name="secret", sample_rate=16000)
    def latents(self, wav, lengths, kind, seed): ...
class Boaster(Mine):
    info = earmark.Info(name="boaster", sample_rate=16000, latent_kinds=("unquantized",))
class Idle:
    info = earmark.Info(name="idle", sample_rate=16000)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    (tmp_path / "own_codec_under_test.py").write_text(GOOD)
    monkeypatch.chdir(tmp_path)
    yield "own_codec_under_test"
    sys.modules.pop("own_codec_under_test", None)
    sys.path.remove(str(tmp_path))


def test_a_class_of_your_own_is_found_from_the_current_folder(own):
    entry = registry.find(f"{own}:Mine")
    assert entry.own
    assert entry.info.capabilities == ("reconstruct",)
    assert type(registry.load(entry, "cpu")).__name__ == "Mine"


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("NoInfo", CatalogueError, "expected a class attribute `info = earmark.Info"),
        ("Thief", CatalogueError, "the name 'opus-12' is the catalogue's"),
        ("Idle", CatalogueError, "has none of encode, decode, reconstruct, latents"),
        ("Secret", CatalogueError, "has latents but no latent_kinds"),
        ("Boaster", CatalogueError, "has latent_kinds but no latents"),
        ("Absent", CodecNotFoundError, "own_codec_under_test has no Absent"),
        ("mine", CodecNotFoundError, "own_codec_under_test has no mine; did you mean Mine"),
    ],
)
def test_a_class_that_is_no_codec_is_explained(own, name, error, message):
    with pytest.raises(error, match=message):
        registry.find(f"{own}:{name}")


@pytest.mark.parametrize("file", ["mine.py", "./deep/mine.py", "deep/mine"])
def test_a_file_in_place_of_a_module_is_said_how_to_write(file):
    with pytest.raises(CodecNotFoundError, match=r"expected a module and not a file; write (deep\.)?mine:Mine$"):
        registry.find(f"{file}:Mine")


def test_a_module_that_is_not_there_is_named(own):
    with pytest.raises(CodecNotFoundError, match=r"cannot import nowhere .*; run this in the folder that holds it"):
        registry.find("nowhere:Mine")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import nowhere", r"cannot import own_codec_under_test \(No module named 'nowhere'\)$"),
        ("import earmark; earmark.Infos", "importing own_codec_under_test raised AttributeError: .*Infos"),
    ],
)
def test_a_module_that_fails_says_why_and_not_where_to_look_for_it(own, tmp_path, line, message):
    (tmp_path / f"{own}.py").write_text(line)
    with pytest.raises((CodecNotFoundError, CatalogueError), match=message):
        registry.find(f"{own}:Mine")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"codebook_sizes": "8*1024"}, "expected K x V such as '8x1024'"),
        ({"codebook_sizes": "8x1024"}, "need a frame_rate"),
        ({"codebook_sizes": "8x1024", "frame_rate": 50, "strides": (1, 2)}, "2 strides for 8 codebooks"),
        ({"sample_rat": 1}, "Extra inputs are not permitted"),
    ],
)
def test_an_info_that_does_not_agree_with_itself_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        Info(**({"name": "x", "sample_rate": 16000} | fields))


def test_strides_count_in_the_bitrate():
    # SNAC 24 kHz: 47 frames/s of 12 bits at strides 4, 2, 1 -> 47 * 12 * (1/4 + 1/2 + 1) = 987 bit/s
    info = Info(name="x", sample_rate=24000, frame_rate=47, codebook_sizes="3x4096", strides=(4, 2, 1))
    assert info.bitrate_kbps == pytest.approx(0.987)


def test_tokens_a_second_count_each_codebook_at_its_own_rate():
    """Strides 4, 2, 1 at 84 frames/s: 21 + 42 + 84."""
    info = Info(name="a", sample_rate=24000, frame_rate=84, codebook_sizes="3x4096", strides=(4, 2, 1))
    assert info.token_rate == 147
    assert Info(name="b", sample_rate=24000).token_rate is None
