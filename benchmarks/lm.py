"""The language model of `suites/test_perplexity.py`, by hand: `python -m earmark.benchmarks.lm ranking|speed`.

ranking  Does `quick` rank codecs as a run of ten times its steps does, and as the n-grams do? Kendall's tau over tiny
         at four K, Lyra at three rates and two controls, on LibriSpeech train-clean-100 (EARMARK_DATA), three seeds of
         split and model. What is done is kept in a file beside the store; `ranking table` prints it.
speed    Training tokens/s, tokens/s of a plain loop by transformers' Trainer on the same model and batches, what
         validation costs, peak memory; on CUDA the share of the GPU's peak in use (`--peak-tflops N`).

One thread. Load is printed with every figure, since both share the machine with whatever else runs.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy or torch is imported

import numpy as np

from earmark import paths
from earmark.codecs import registry
from earmark.data import cards
from earmark.lm import ngram, packing, protocol
from earmark.lm.evaluation import Losses, document_losses
from earmark.lm.protocol import Protocol

DATASET = "librispeech_train_clean_100"
CODECS = (
    "tiny-1", "lyra-3.2", "tiny-2", "lyra-6", "tiny-4", "lyra-9.2", "tiny-8", "random-codes", "constant",
)  # fmt: skip
SEEDS = (0, 1, 2)
LONGER = 10


def documents_of(codec: str, dataset: str = DATASET) -> tuple[list[packing.Document], list[int]]:
    from earmark.scoring.perplexity import tokens_of
    from earmark.store.store import Store

    card = next(card for card in cards.select([dataset]) if card.name == dataset)
    tokens = tokens_of(registry.find(codec), cards.load(card), Store(paths.home() / "store", "cpu", "benchmark"))
    return list(tokens.documents), list(tokens.codebook_sizes)


# -- ranking ----------------------------------------------------------------------------------------------------------


def overall(documents: list, sizes: list[int], nats: np.ndarray, tokens: np.ndarray) -> float:
    frames = np.array([item.codes.shape[1] for item in documents], float)
    logs, weights = Losses([], nats, tokens, frames, sizes).overall(True)
    return float(np.exp(np.average(logs, weights=weights)))


def perplexity(codec: str, how: str, seed: int) -> float:
    """The overall normalised perplexity by `ngram`, `quick` or `longer`."""
    documents, sizes = documents_of(codec)
    quick = protocol.find("quick")
    parts = packing.split([item.group for item in documents], quick.held_out, seed)
    asked = [documents[d] for d in parts[1]]
    if how == "ngram":
        return overall(asked, sizes, *ngram.losses([documents[d] for d in parts[0]], asked, sizes))
    from earmark.lm.training import train

    steps = quick.steps * (LONGER if how == "longer" else 1)
    chosen = quick.model_copy(update={"steps": steps, "validate_every": steps})
    with tempfile.TemporaryDirectory() as folder:
        corpus = packing.write(Path(folder), documents, sizes, "parallel")
        done = train(corpus, *parts, chosen, seed=seed)
        return overall(asked, sizes, *document_losses(done.model, corpus, parts[1], chosen))


def rank() -> None:
    """Do what is not done yet; a run that is stopped goes on where it was, and has whole seeds as far as it came."""
    kept = _kept()
    done = {(row["codec"], row["how"], row["seed"]) for row in _rows()}
    wanted = [(seed, how, codec) for seed in SEEDS for how in ("ngram", "quick", "longer") for codec in CODECS]
    for seed, how, codec in wanted:
        if (codec, how, seed) in done:
            continue
        start, cpu = time.perf_counter(), time.process_time()
        value = perplexity(codec, how, seed)
        row = {"codec": codec, "how": how, "seed": seed, "value": value, "load": os.getloadavg()[0]}
        row |= {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu}
        with kept.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(row, flush=True)


def _kept() -> Path:
    """Where results are kept, by the protocol that they were made with; remove it after a change of the sources."""
    from earmark.store import fingerprint

    address = fingerprint.digest(protocol.find("quick").model_dump())
    return paths.home() / f"lm-ranking-{address}.jsonl"


def _rows() -> list[dict[str, Any]]:
    return [json.loads(line) for line in _kept().read_text().splitlines()] if _kept().exists() else []


def table() -> None:
    """Means over seeds, and Kendall's tau of each pair of ways for each seed on the codecs that both have."""
    from scipy.stats import kendalltau

    rows = _rows()
    found = {(row["how"], row["seed"], row["codec"]): row for row in rows}
    hows = ("ngram", "quick", "longer")
    print("| codec | " + " | ".join(hows) + " | CPU seconds quick, longer |\n|---|---:|---:|---:|---:|")
    for codec in CODECS:
        cells = [[row["value"] for row in rows if (row["codec"], row["how"]) == (codec, how)] for how in hows]
        cost = [[row["cpu_seconds"] for row in rows if (row["codec"], row["how"]) == (codec, how)] for how in hows[1:]]
        texts = [f"{np.mean(cell):.1f} ({min(cell):.1f} to {max(cell):.1f})" if cell else "-" for cell in cells]
        costs = ", ".join(f"{np.mean(cell):.0f}" if cell else "-" for cell in cost)
        print(f"| {codec} | " + " | ".join(texts) + f" | {costs} |")
    for (one, other), seed in itertools.product(itertools.combinations(hows, 2), SEEDS):
        both = [codec for codec in CODECS if {(one, seed, codec), (other, seed, codec)} <= set(found)]
        if len(both) > 2:
            values = [[found[how, seed, codec]["value"] for codec in both] for how in (one, other)]
            print(f"{one} and {other}, seed {seed}, {len(both)} codecs: tau {kendalltau(*values).statistic:.3f}")


# -- speed ------------------------------------------------------------------------------------------------------------


def speed(name: str, steps: int, turns: int, peak_tflops: float | None) -> None:
    """Turns of ours and of Trainer's loop on the tokens of tiny-8, then validation and memory."""
    import torch

    torch.set_num_threads(1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    documents, sizes = documents_of("tiny-8", "librispeech_test_other")
    chosen = protocol.find(name).model_copy(update={"steps": steps, "validate_every": 10**9, "warmup_steps": 1})
    if name == "paper":  # a CPU does a hundredth of a step of the whole batch while a GPU does it all
        chosen = chosen.model_copy(update={"batch": 10} if device == "cuda" else {"batch": 1, "context": 128})
    parts = packing.split([item.group for item in documents], chosen.held_out, 0)
    with tempfile.TemporaryDirectory() as folder:
        corpus = packing.write(Path(folder), documents, sizes, "parallel")
        done = [(_ours(corpus, parts, chosen, device), _trainer(corpus, parts, chosen, device)) for _ in range(turns)]
        for ours, theirs in done:
            print(f"{name}: ours {ours:.0f} tokens/s, Trainer {theirs:.0f}, {ours / theirs:.2f} times as fast")
        _validation(corpus, (parts[0], parts[1][:2]) if name == "paper" else parts, chosen, device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the process {peak:.0f} MB, load {os.getloadavg()[0]:.1f}")
    if device == "cuda":
        _utilisation(corpus, chosen, done[-1][0], peak_tflops)


def _batches(corpus: Any, parts: Any, chosen: Protocol) -> Iterator[Any]:
    pieces = corpus.pieces(parts[0], chosen.context)
    return itertools.islice(packing.training_batches(pieces, chosen.context, chosen.batch, 0), chosen.steps)


def _ours(corpus: Any, parts: Any, chosen: Protocol, device: str) -> float:
    """Tokens/s of the steps alone: what is validated at the end is not in it."""
    from earmark.lm.training import _accelerator, _Run

    run = _Run(corpus, parts[0], chosen, 0, _accelerator(chosen, device))
    batches = [*_batches(corpus, parts, chosen)]
    run.step(batches[0], 0)
    start, before = time.perf_counter(), run.tokens
    for at, packed in enumerate(batches[1:], 1):
        run.step(packed, at)
    return (run.tokens - before) / (time.perf_counter() - start)


def _trainer(corpus: Any, parts: Any, chosen: Protocol, device: str) -> float:
    """Tokens/s of transformers' Trainer on the same model and the same rows, between its first step and its last."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments

    from earmark.lm.model import TokenLM
    from earmark.lm.training import loss_of, tensors

    batches = [*_batches(corpus, parts, chosen)]
    marks: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    class Plain(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> Any:
            return loss_of(model, packing.Batch(**inputs))

        def get_train_dataloader(self) -> Any:
            items: Any = [tensors(packing.collate(corpus, packed), "cpu")._asdict() for packed in batches]
            return self.accelerator.prepare(torch.utils.data.DataLoader(items, batch_size=None))

    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder,
            max_steps=len(batches),
            learning_rate=chosen.learning_rate,
            weight_decay=chosen.weight_decay,
            max_grad_norm=chosen.clip_norm or 0.0,
            bf16=device == "cuda" and chosen.precision == "bf16",
            use_cpu=device == "cpu",
            report_to=[],
            save_strategy="no",
            logging_strategy="no",
            disable_tqdm=True,
        )
        model: Any = TokenLM(corpus.codebook_sizes, chosen.size)
        Plain(model, arguments, train_dataset=[0] * len(batches), callbacks=[Clock()]).train()
    tokens = sum(corpus.tokens(row) for packed in batches[1:] for row in packed)
    return tokens / (marks[-1] - marks[0])


def _validation(corpus: Any, parts: Any, chosen: Protocol, device: str) -> None:
    from earmark.lm.model import TokenLM

    model = TokenLM(corpus.codebook_sizes, chosen.size).to(device)
    start = time.perf_counter()
    _, tokens = document_losses(model, corpus, parts[1], chosen)
    took = time.perf_counter() - start
    print(f"validation: {tokens.sum():.0f} tokens in {took:.2f} s, {tokens.sum() / took:.0f} tokens/s")


def _utilisation(corpus: Any, chosen: Protocol, rate: float, peak_tflops: float | None) -> None:
    """Model FLOPs utilisation: what the model's products need, over what the GPU could do in that time."""
    import torch

    from earmark.lm.model import TokenLM, flops_per_step

    model = TokenLM(corpus.codebook_sizes, chosen.size)
    done = flops_per_step(model, chosen.context) * rate / len(corpus.codebook_sizes)
    peak = f", {done / peak_tflops / 1e10:.0f} % of its peak" if peak_tflops else "; --peak-tflops gives the share"
    memory = torch.cuda.max_memory_allocated() / 2**20
    print(f"{torch.cuda.get_device_name()}: {done / 1e12:.1f} TFLOP/s{peak}; peak {memory:.0f} MB on it")


def main() -> None:
    what, *rest = [*sys.argv[1:], "table"]
    if what == "ranking":
        if rest == ["table"]:
            rank()
        table()
    elif what == "speed":
        at = sys.argv.index("--peak-tflops") + 1 if "--peak-tflops" in sys.argv else 0
        peak = float(sys.argv[at]) if at else None
        speed("quick", 20, 3, peak)
        speed("paper", 4, 1, peak)
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
