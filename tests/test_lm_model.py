"""The language model and its training: the paper's, proved; boundaries; resume after a kill; controls."""

import math
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from earmark.lm import packing
from earmark.lm import protocol as protocols
from earmark.lm.packing import Document
from earmark.tests.helpers import PATIENCE_S
from earmark.tests.lm_sources import documents, markov_documents

torch = pytest.importorskip("torch")

SMALL = {"num_hidden_layers": 1, "hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 2}


pytestmark = pytest.mark.usefixtures("one_thread")


def small(**changes):
    quick = protocols.find("quick")
    size = quick.size.model_copy(update=SMALL)
    return quick.model_copy(
        update={"size": size, "context": 64, "batch": 4, "steps": 12, "validate_every": 4} | changes
    )


def built(sizes=(11, 7), size=None, seed=0):
    from earmark.lm.model import TokenLM

    torch.manual_seed(seed)
    return TokenLM(sizes, size or small().size).eval()


def batch_of(folder, items, sizes, ordering="parallel", context=64):
    from earmark.lm.training import tensors

    corpus = packing.write(folder, items, sizes, ordering)
    rows = [*packing.rows(corpus.pieces(range(len(items)), context), context)]
    return tensors(packing.collate(corpus, rows), "cpu"), corpus


# -- the paper's model ------------------------------------------------------------------------------------------------


def test_the_paper_model_has_about_a_hundred_million_parameters():
    """10 layers of 768: by hand from the paper's figures, and the model built without memory."""
    from earmark.lm.model import TokenLM, parameters

    with torch.device("meta"):
        model = TokenLM((1024,) * 8, protocols.find("paper").size)
    attention = 768 * 768 + 768 + 2 * (768 * 128 + 128) + 768 * 768  # 2 of 12 heads of 64 for keys and values; biases
    layer = attention + 3 * 768 * 3072 + 2 * 768
    around = 8 * 1025 * 768 + 8 * 768 * 768 + 8 * (768 * 1024 + 1024) + 768
    assert parameters(model) == 10 * layer + around
    assert 95e6 < parameters(model) < 105e6


def test_the_paper_protocol_is_the_paper_s():
    paper = protocols.find("paper")
    size = paper.size
    assert (size.num_hidden_layers, size.hidden_size, size.intermediate_size) == (10, 768, 3072)
    assert (size.num_attention_heads, size.num_key_value_heads) == (12, 2)
    assert size.rope_parameters["rope_theta"] == 1e6
    assert (paper.learning_rate, paper.betas, paper.eps, paper.weight_decay) == (1e-4, (0.8, 0.99), 1e-5, 0.01)
    assert (paper.warmup_steps, paper.schedule, paper.steps, paper.batch) == (50, "constant", 100_000, 80)
    assert (paper.precision, paper.held_out, paper.start) == ("bf16", 0.1, "even")
    assert [paper.rate_at(step) for step in (0, 24, 49, 50, 99_999)] == pytest.approx([2e-6, 5e-5, 1e-4, 1e-4, 1e-4])


def test_one_step_equals_a_hand_built_reference(tmp_path):
    """Loss, gradients and AdamW's step of the packed model against Qwen2's layers fed document by document."""
    from earmark.lm.training import _accelerator, _Run, loss_of  # fmt: skip

    items, protocol = documents([9, 14, 5], sizes=(11, 7)), small(batch=8, clip_norm=None, start="even")
    corpus = packing.write(tmp_path, items, (11, 7), "parallel")
    run = _Run(corpus, [0, 1, 2], protocol, 3, _accelerator(protocol, "cpu"))
    before = {name: value.clone() for name, value in run.bare.named_parameters()}
    gradients = _reference_gradients(run.bare, items)
    packed = next(run.batches())
    run.step(packed, 0)
    rate = protocol.rate_at(0)
    for name, after in run.bare.named_parameters():
        # AdamW by hand at its first step: m / (1 - b1) = g and v / (1 - b2) = g^2, whatever the size of g
        gradient = gradients[name]
        np.testing.assert_allclose(after.grad, gradient, rtol=1e-3, atol=1e-6, err_msg=name)
        moved = before[name] * (1 - rate * protocol.weight_decay) - rate * gradient / (gradient.abs() + protocol.eps)
        np.testing.assert_allclose(after.detach(), moved.detach(), atol=2e-2 * rate, err_msg=name)
    batch, _ = batch_of(tmp_path / "again", items, (11, 7))
    assert float(loss_of(built((11, 7)), batch).detach()) == pytest.approx(math.log(77) / 2, abs=0.1)


def _reference_gradients(model, items):
    """The mean loss over all tokens, each document alone, by torch's own functions on the model's weights."""
    nats, tokens = 0.0, 0
    for item in items:
        codes = torch.from_numpy(item.codes)  # [K, T]
        parts = []
        for table, of in zip(model.embeddings, codes, strict=True):
            start = torch.full((1,), table.num_embeddings - 1)
            parts.append(table.weight[torch.cat([start, of[:-1]])])
        hidden = torch.cat(parts, 1) @ model.project.weight.T
        states = model.backbone(inputs_embeds=hidden[None]).last_hidden_state[0]  # transformers' own causal mask
        for head, of in zip(model.heads, codes, strict=True):
            logits = states @ head.weight.T + head.bias
            nats = nats - logits.log_softmax(1)[torch.arange(len(of)), of].sum()
            tokens += len(of)
    gradients = torch.autograd.grad(nats / tokens, [*model.parameters()])
    return dict(zip(dict(model.named_parameters()), gradients, strict=True))


def test_a_batch_is_overfitted(tmp_path):
    """Sixty steps of the paper's recipe, small and at a high rate: random tokens, learnt by heart or not at all."""
    from earmark.lm.training import train

    items = documents([30] * 4, sizes=(16, 16))
    paper = protocols.find("paper")
    size = paper.size.model_copy(update=SMALL | {"hidden_size": 64})
    protocol = paper.model_copy(
        update={"size": size, "context": 64, "batch": 4, "steps": 60, "validate_every": 60}
        | {"warmup_steps": 5, "learning_rate": 1e-2}
    )
    corpus = packing.write(tmp_path, items, (16, 16), "parallel")
    done = train(corpus, [0, 1, 2, 3], [0, 1, 2, 3], protocol)
    assert done.curve.validation[-1] < 0.1 < math.log(16)


# -- boundaries -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ordering", ["parallel", "delay", "flattened"])
def test_a_document_is_predicted_as_if_it_were_alone(tmp_path, ordering):
    from earmark.lm.evaluation import document_losses

    items, model = documents([9, 14, 5, 30], sizes=(11, 7)), built()
    for part in (*model.embeddings, *model.heads):
        torch.nn.init.normal_(part.weight)  # far from even, so that context matters
    together = packing.write(tmp_path / "all", items, (11, 7), ordering)
    nats, tokens = document_losses(model, together, [0, 1, 2, 3], small(context=250))
    for d, item in enumerate(items):
        alone = packing.write(tmp_path / str(d), [item], (11, 7), ordering)
        expected, count = document_losses(model, alone, [0], small(context=250))
        np.testing.assert_allclose(nats[d], expected[0], rtol=1e-4)
        assert tokens[d].tolist() == count[0].tolist() == [item.codes.shape[1]] * 2


@pytest.mark.parametrize("ordering", ["parallel", "delay", "flattened"])
def test_nothing_is_predicted_from_itself_or_from_what_comes_after(tmp_path, ordering):
    from earmark.lm.model import token_losses

    item, model = documents([12], sizes=(11, 7))[0], built()
    torch.nn.init.normal_(model.embeddings[0].weight)
    batch, corpus = batch_of(tmp_path / "one", [item], (11, 7), ordering)
    place = int(np.nonzero(corpus.steps[:, 0] == item.codes[0, 6])[0][-1])
    steps = np.array(corpus.steps.T)
    place = int(np.flatnonzero(steps[0] >= 0)[6])  # the step of codebook 0's token of frame 6
    changed = item._replace(codes=item.codes.copy())
    changed.codes[0, 6] = (changed.codes[0, 6] + 1) % 11
    other, _ = batch_of(tmp_path / "two", [changed], (11, 7), ordering)
    with torch.no_grad():
        one, two = ([of.log_softmax(-1) for of in model(b.inputs, b.document, b.position)] for b in (batch, other))
        assert token_losses(one, batch.targets).shape == batch.targets.shape
    for of_one, of_two in zip(one, two, strict=True):
        np.testing.assert_array_equal(of_one[:, : place + 1], of_two[:, : place + 1])
        assert not torch.allclose(of_one[:, place + 1], of_two[:, place + 1])


def test_nothing_is_learned_from_what_is_held_out(tmp_path):
    """Whatever its tokens are, the weights that training ends with are the same, and so are those that it starts at."""
    from earmark.lm.training import train

    items, ends = documents([20] * 8, sizes=(11, 7)), []
    other = [item._replace(codes=item.codes * 0 + 3) if d > 5 else item for d, item in enumerate(items)]
    for name, told in (("a", items), ("b", other)):
        corpus = packing.write(tmp_path / name, told, (11, 7), "parallel")
        done = train(corpus, [0, 1, 2, 3, 4, 5], [6, 7], small(steps=3, validate_every=1))
        ends.append((done.model.state_dict(), done.curve.validation))
    assert all(torch.equal(value, ends[1][0][name]) for name, value in ends[0][0].items())
    assert ends[0][1] != ends[1][1]


# -- controls with a known answer -------------------------------------------------------------------------------------


def trained_bits(folder, items, sizes, **changes):
    """Bits a token of each codebook, as a small model predicts the held-out groups."""
    from earmark.lm.evaluation import document_losses
    from earmark.lm.training import train

    protocol = small(**changes)
    corpus = packing.write(folder, items, sizes, "parallel")
    parts = packing.split(corpus.groups, 0.1, 0)
    done = train(corpus, *parts, protocol)
    nats, tokens = document_losses(done.model, corpus, parts[1], protocol)
    return nats.sum(0) / tokens.sum(0) / np.log(2)


def test_constant_codes_have_a_perplexity_of_one_and_random_ones_of_v(tmp_path):
    """In one model: what is known about a codebook must not suffer from the other."""
    rng = np.random.default_rng(0)
    codes = np.stack([np.zeros((60, 200), int), rng.integers(0, 256, (60, 200))], 1)
    items = [Document(f"d{d}", f"g{d % 10}", of) for d, of in enumerate(codes)]
    constant, random = trained_bits(tmp_path, items, (256, 256), context=256, steps=40)
    assert 2**constant == pytest.approx(1, abs=0.01)
    assert random == pytest.approx(8, abs=0.1)


def test_the_entropy_of_a_markov_source_is_reached(tmp_path):
    """16 entries, 30 000 tokens: within 2 % of the entropy rate, and not below it by more than chance."""
    items, entropy = markov_documents(entries=16, count=100, length=300)
    assert trained_bits(tmp_path, items, (16,), context=300, steps=120, learning_rate=1e-2)[0] == pytest.approx(
        entropy, rel=0.02
    )


# -- training ---------------------------------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_numbers_and_leaves_the_global_generator_alone(tmp_path):
    items = documents([20] * 8, sizes=(11, 7))
    state = torch.get_rng_state()
    first = trained_bits(tmp_path / "a", items, (11, 7))
    assert torch.equal(torch.get_rng_state(), state)
    np.testing.assert_array_equal(first, trained_bits(tmp_path / "b", items, (11, 7)))


def test_a_loss_that_is_no_number_is_an_error_and_not_a_score(tmp_path):
    from earmark.lm.training import DivergedError

    with pytest.raises(DivergedError, match="diverged: its loss is"):
        trained_bits(tmp_path, documents([20] * 8, sizes=(11, 7)), (11, 7), learning_rate=1e20, clip_norm=None)


def test_a_start_that_is_worse_than_a_guess_is_an_error(tmp_path):
    from earmark.lm.training import DivergedError

    with pytest.raises(DivergedError, match="where an even guess takes at most"):
        trained_bits(tmp_path, documents([20] * 8, sizes=(11, 7)), (11, 7), learning_rate=3.0, warmup_steps=1)


KILLED = """
import sys, torch
from pathlib import Path
from earmark.lm import packing
from earmark.tests.test_lm_model import small
from earmark.lm.training import train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
train(packing.read(folder), [0, 1, 2, 3, 4, 5], [6, 7], small(steps=100000, checkpoint_every=3), folder=folder,
      beat=lambda doing: print(doing, flush=True))
"""


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path):
    """The process is killed in the middle of training; what another makes of its checkpoint is what one makes alone."""
    from earmark.lm.training import CHECKPOINT, train

    items = documents([20] * 8, sizes=(11, 7))
    corpus = packing.write(tmp_path, items, (11, 7), "parallel")
    endless, parts = small(steps=100_000, checkpoint_every=3), ([0, 1, 2, 3, 4, 5], [6, 7])
    child = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    for line in child.stdout:
        if "step 8 " in line:
            break
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    child.stdout.close()
    assert (tmp_path / CHECKPOINT).is_file()
    at = torch.load(tmp_path / CHECKPOINT, weights_only=True)["step"]

    class EnoughError(Exception):
        pass

    def stop_at(step):
        def beat(doing):
            if f"step {step} " in doing:
                raise EnoughError

        return beat

    def until(folder, step):
        """Train to a step of the same endless protocol, through a checkpoint."""
        with pytest.raises(EnoughError):
            train(corpus, *parts, endless, folder=folder, beat=stop_at(step + 1))
        return torch.load(folder / CHECKPOINT, weights_only=True)

    end = at + 30
    resumed, whole = until(tmp_path, end), until(tmp_path / "whole", end)
    assert resumed["step"] == whole["step"] == end
    assert resumed["curve"] == whole["curve"]
    assert len(whole["curve"]["step"]) >= 8
    for name, value in whole["model"].items():
        assert torch.equal(value, resumed["model"][name]), name


# As `python -m earmark.lm`. What still holds the other processes at exit aborts now and then, in one run of many.
RUN_AND_LET_GO = """
import runpy, torch
runpy.run_module("earmark.lm", run_name="__main__")
assert not torch.distributed.is_initialized()
"""


def test_two_processes_train_as_one_does(tmp_path):
    """The same batches, shared: the same weights but for the order of sums; and the same held-out loss."""
    from earmark.lm.training import CHECKPOINT, train, write_plan

    items, protocol = (
        documents([20, 31, 7, 40, 12, 25, 33, 18], sizes=(11, 7)),
        small(steps=6, batch=3, validate_every=3),
    )
    corpus, parts = packing.write(tmp_path, items, (11, 7), "parallel"), ([0, 1, 2, 3, 4, 5], [6, 7])
    write_plan(tmp_path, *parts, protocol, 0)
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", "--no-python"]
    launch += ["--local_addr", "127.0.0.1"]  # not this machine's name, which nothing may know where there is no network
    launch += [sys.executable, "-c", RUN_AND_LET_GO, str(tmp_path)]
    done = subprocess.run(
        launch, capture_output=True, text=True, timeout=PATIENCE_S, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("held-out loss") == 2
    train(corpus, *parts, protocol, folder=tmp_path / "one")
    one, two = (torch.load(at / CHECKPOINT, weights_only=True) for at in (tmp_path / "one", tmp_path))
    assert two["tokens"] == one["tokens"]
    for key in ("training", "validation"):
        assert two["curve"][key] == pytest.approx(one["curve"][key], rel=1e-4)
    for name, value in one["model"].items():
        np.testing.assert_allclose(two["model"][name], value, atol=1e-4, err_msg=name)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    from earmark.lm.training import train
    from earmark.metrics import MetricError

    items = documents([20] * 8, sizes=(11, 7))
    corpus = packing.write(tmp_path, items, (11, 7), "parallel")
    train(corpus, [0, 1], [2, 3], small(steps=2), folder=tmp_path)
    with pytest.raises(MetricError, match="of another protocol, corpus or seed"):
        train(corpus, [0, 1], [2, 3], small(steps=4), folder=tmp_path)
