"""Does the codec keep its promises? The contract that everything else in Earmark, and any language model, stands on.

The checks are `earmark.contract`'s, which `earmark check` asks too; each failure says what was expected, what came, on
which sound, and why it matters. The sounds are seeded, so that the suite needs no data. A codec is asked what it can
answer: tokens, sound and latents, those that it has. What is measured on the way (the look-ahead, the frame rate) is
among the test's properties.
"""

import pytest

from earmark.contract import CHECKS, Subject, judge

pytestmark = pytest.mark.suite("contract")
of_tokens = pytest.mark.suite("contract", needs="encode")
of_sound = pytest.mark.suite("contract", needs="reconstruct")
of_streams = pytest.mark.suite("contract", needs="stream")


@pytest.fixture
def ask(codec, store, record_property):
    """`ask(check)`: put a question of the contract to the codec."""
    store.adapter(codec)  # one that cannot be loaded is said here, in one line

    def put(name):
        result = judge(CHECKS[name], Subject(codec, store.device, lambda: store.adapter(codec)))
        for measure, value in result.measured.items():
            record_property(measure, value)
        answer(result)

    return put


def answer(result):
    """What pytest is told; a known failure is strict: where it passes, `judge` has made a failure of it."""
    if result.verdict == "failed":
        pytest.fail(result.message, pytrace=False)
    if result.verdict == "known failure":
        pytest.xfail(result.message)
    if result.verdict == "not asked":
        pytest.skip(result.message)


def test_capabilities(ask):
    """What the catalogue's row says that a codec can do is what its class can do."""
    ask("capabilities")


def test_shapes(ask):
    """Everything has its shape and dtype, for a batch of two lengths and for every kind of latents."""
    ask("shapes")


def test_length(ask):
    """What comes back covers the clip at every length around a frame, from one sample on."""
    ask("length")


def test_any_length(ask):
    """What comes back covers the clip at lengths drawn up to 30 s, on and around whole frames."""
    ask("any_length")


def test_frame_rate(ask):
    """Tokens and latents come at the declared frame rate, over one second as over ten."""
    ask("frame_rate")


@of_tokens
def test_codes(ask):
    """Codes lie in their codebooks, and each codebook has all the tokens that its stride promises."""
    ask("codes")


@of_sound
def test_bitrate_is_declared(ask):
    """The bits that are spent, side information included, are those that codebooks and frame rate promise."""
    ask("bitrate_is_declared")


@of_tokens
def test_fewer_codebooks(ask):
    """Where the codec is declared nested, lowering K gives a prefix of the codes."""
    ask("fewer_codebooks")


@of_sound
def test_range(ask):
    """Speech at half of full scale comes back within twice full scale."""
    ask("range")


def test_silence(ask):
    """Silence comes back finite, and at most twice as loud as speech does."""
    ask("silence")


def test_dc(ask):
    """A constant of half of full scale comes back finite."""
    ask("dc")


def test_full_scale(ask):
    """A sound that touches full scale comes back finite."""
    ask("full_scale")


def test_clipping(ask):
    """A clipped sound with the overshoot that a resampler gives it comes back finite."""
    ask("clipping")


def test_faint(ask):
    """A sound 100 dB below full scale comes back finite."""
    ask("faint")


def test_determinism(ask):
    """The same clip and seed give the same result to the bit, whatever was coded in between."""
    ask("determinism")


def test_batch_equals_single(ask):
    """A clip in a batch of other lengths gives what it gives alone."""
    ask("batch_equals_single")


def test_padding(ask):
    """What lies beyond a clip's length, zeros or anything else, does not reach it."""
    ask("padding")


def test_streaming(ask):
    """A later sound changes nothing earlier than the declared look-ahead; what is measured is in the report."""
    ask("streaming")


@of_streams
def test_stream_equals_whole(ask):
    """A clip that comes in chunks gives what it gives at once, whatever was streamed before."""
    ask("stream_equals_whole")


def test_half_precision(ask):
    """Under float16 autocast, latents, and the sound of the same tokens, stay within 10 % of float32."""
    ask("half_precision")


def test_devices_agree(ask):
    """The CPU gives what the GPU gives: tokens but for near-ties, sound of the same tokens and latents within 0.1 %."""
    ask("devices_agree")


def test_eval_mode(ask):
    """No part of the network is in training mode."""
    ask("eval_mode")


def test_gradients(ask):
    """Nothing that comes back carries gradients."""
    ask("gradients")


def test_input_is_left_alone(ask):
    """The sound and the lengths that a codec is given are afterwards what they were."""
    ask("input_is_left_alone")


def test_global_state(ask):
    """Building and calling it leaves dtype, device, threads, gradient mode and random generators alone."""
    ask("global_state")


def test_memory(ask):
    """Memory stays flat over 100 calls with short clips."""
    ask("memory")


def test_fresh_process(ask):
    """Rebuilt from its row in a fresh process, it gives the same tokens, sound and latents."""
    ask("fresh_process")


def test_not_finite(ask):
    """A clip with NaN or infinity is refused, and the clip after it is coded as ever."""
    ask("not_finite")
