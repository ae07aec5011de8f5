"""Trains `tiny`. Two CPU cores take hours, a GPU less.

    EARMARK_DATA=... python -m earmark.training.tiny --out runs/tiny --steps 60000 --decay 12000 --compile

It can be killed at any time: the same command goes on from the last checkpoint, to the same losses. The learning rate
is constant until the last `--decay` steps, so a run may also be made longer or cut short by another `--steps`.

Writes to --out: log.jsonl (one line a hundred steps), checkpoint.pt, and tiny.safetensors, the moving average of the
weights, which is what is used.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from earmark.codecs.tiny.model import BOOKS, HOP, Network
from earmark.training import losses, watch
from earmark.training.codebooks import Codebooks
from earmark.training.tiny_data import Crops

RATE, BETAS, WARM_UP = 1e-3, (0.8, 0.99), 100  # AdamW; steps of linear warm-up
CLIP = 1.0  # of the gradient's norm
AVERAGE = 0.999  # of the weights' moving average, a step
FREE = 200  # first steps, without the quantiser
START_BATCHES = 25  # whose latents start the codebooks
WEIGHTS = {"mel": 1.0, "complex": 20.0, "magnitude": 4.0, "loudness": 0.5, "commitment": 0.25}
SCALES_A_STEP = 2  # of losses.SCALES, drawn at random


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=60000)
    parser.add_argument("--decay", type=int, default=12000, help="last steps, over which the learning rate goes to 0")
    parser.add_argument("--stop", type=int, help="end here all the same, as a kill would: what a shorter run was")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--frames", type=int, default=50, help="of a crop; 50 are a second")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--every", type=int, default=100, help="steps between log lines")
    parser.add_argument("--save", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--watch", type=int, default=0, help="steps between scores of held-out speech; 0: none")
    parser.add_argument("--files", type=int, help="train on the first files of the list only")
    parser.add_argument("--free", type=int, default=FREE, help="first steps without the quantiser")
    parser.add_argument("--weights", type=json.loads, default={}, help='other loss weights: {"complex": 1}')
    parser.add_argument("--compile", action="store_true", help="compile encoder and decoder: twice as fast on a CPU")
    args = parser.parse_args(argv)
    if args.save % args.every:
        parser.error("--save must be a multiple of --every, or a resumed run would log means of fewer steps")
    return args


class Training:
    """Everything that a checkpoint holds, and the step."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(args.seed)
        self.args, self.step = args, 0
        self.network = Network().to(args.device)
        self.average = copy.deepcopy(self.network)
        self.books = Codebooks(self.network.quantiser.codebooks)
        self.optimiser = torch.optim.AdamW(self.network.parameters(), lr=RATE, betas=BETAS)
        self.encoder: Any = torch.compile(self.network.encoder) if args.compile else self.network.encoder
        self.decoder: Any = torch.compile(self.network.decoder) if args.compile else self.network.decoder
        self.crops = Crops(args.seed, args.frames * HOP, args.files)
        self.weights = WEIGHTS | args.weights

    def state(self) -> dict[str, Any]:
        """Draws depend on seed and step alone, so there is no state of a random generator."""
        return {
            "step": self.step,
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "books": self.books.state(),
            "optimiser": self.optimiser.state_dict(),
        }

    def load(self, path: Path) -> None:
        """Go on from a checkpoint."""
        state = torch.load(path, map_location=self.args.device, weights_only=True)
        self.step = state["step"]
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.books.load(state["books"])
        self.optimiser.load_state_dict(state["optimiser"])

    def one_step(self) -> dict[str, float]:
        """One step of the optimiser; its losses."""
        if self.step == self.args.free:
            self._start_books()
        self._set_rate()
        parts = self._losses(self._batch(self.step), np.random.default_rng([self.args.seed, 1, self.step]))
        loss = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        self.optimiser.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), CLIP)
        self.optimiser.step()
        self.step += 1
        self._follow()
        return {"loss": loss.item(), "norm": norm.item()} | {name: part.item() for name, part in parts.items()}

    def _batch(self, step: int) -> Tensor:
        return self.crops.batch(step, self.args.batch).to(self.args.device)

    def _losses(self, wav: Tensor, draw: np.random.Generator) -> dict[str, Tensor]:
        """Each loss of a batch [B, L]; the generator draws codebooks and scales."""
        latents = self.encoder(wav)
        commitment = latents.new_zeros(())
        if self.step >= self.args.free:
            latents, commitment = self.books(latents, self._used(len(wav), draw), self._generator())
        estimate = self.decoder(latents)
        scales = draw.choice(list(losses.SCALES), SCALES_A_STEP, replace=False)
        rows = [losses.at_scale(wav, estimate, int(scale)) for scale in scales]
        mel, complex_, magnitude = (torch.stack(column).mean() for column in zip(*rows, strict=True))
        loudness = losses.disturbance(wav, estimate)
        parts = {"mel": mel, "complex": complex_, "magnitude": magnitude, "loudness": loudness}
        return parts | {"commitment": commitment}

    def _used(self, size: int, draw: np.random.Generator) -> Tensor:
        """How many codebooks each clip uses, int64 [size]: all of them half of the time, else 1 to all."""
        some = np.where(draw.random(size) < 0.5, BOOKS, draw.integers(1, BOOKS + 1, size))
        return torch.from_numpy(some).to(self.args.device)

    def _generator(self) -> torch.Generator:
        return torch.Generator().manual_seed(self.args.seed * 1_000_003 + self.step)

    @torch.no_grad()
    def _start_books(self) -> None:
        """k-means on the latents of batches that training has not seen."""
        latents = [self.encoder(self._batch(10**9 + i)) for i in range(START_BATCHES)]
        self.books.start(torch.cat(latents).flatten(0, 1), self._generator())

    def _set_rate(self) -> None:
        left = (self.args.steps - self.step) / max(1, self.args.decay)
        for group in self.optimiser.param_groups:
            group["lr"] = RATE * min(1.0, (self.step + 1) / WARM_UP, left)

    @torch.no_grad()
    def _follow(self) -> None:
        """Move the average towards the weights; sooner at the start."""
        weight = 1 - min(AVERAGE, (1 + self.step) / (10 + self.step))
        averaged, now = self.average.state_dict().values(), self.network.state_dict().values()
        torch._foreach_lerp_(list(averaged), list(now), weight)


def save(training: Training, out: Path) -> None:
    """Checkpoint and averaged weights; a run killed here leaves the old ones whole."""
    torch.save(training.state(), out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    weights = {name: tensor.cpu().contiguous() for name, tensor in training.average.state_dict().items()}
    save_file(weights, out / "tiny.tmp", {"steps": str(training.step)})
    (out / "tiny.tmp").replace(out / "tiny.safetensors")


class Log:
    """log.jsonl: means over `every` steps, on the screen too. What came after the checkpoint is forgotten."""

    def __init__(self, path: Path, step: int) -> None:
        self.path, self.start = path, time.monotonic()
        self.rows: list[dict[str, float]] = []
        old = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in old if line.endswith("}")]  # a kill may have cut the last one
        path.write_text("".join(f"{line}\n" for line in whole if json.loads(line)["step"] <= step))

    def add(self, row: dict[str, float]) -> None:
        self.rows.append(row)

    def flush(self, training: Training) -> None:
        """Write the means of what was added."""
        means = {name: round(float(np.mean([row[name] for row in self.rows])), 6) for name in self.rows[0]}
        pace = len(self.rows) / (time.monotonic() - self.start)
        self.write(means | {"restarts": training.books.restarts, "steps_per_s": round(pace, 2)}, training.step)
        self.rows, self.start, training.books.restarts = [], time.monotonic(), 0

    def write(self, values: dict[str, float], step: int) -> None:
        line = json.dumps({"step": step} | values)
        with self.path.open("a") as file:
            file.write(line + "\n")
        print(line, flush=True)


def main(argv: list[str] | None = None) -> None:
    """Train until `--steps`, or `--stop`."""
    args = arguments(argv)
    args.out.mkdir(parents=True, exist_ok=True)
    training = Training(args)
    if (args.out / "checkpoint.pt").exists():
        training.load(args.out / "checkpoint.pt")
    log = Log(args.out / "log.jsonl", training.step)
    last = min(args.steps, args.stop or args.steps)
    while training.step < last:
        log.add(training.one_step())
        if training.step % args.every == 0:
            log.flush(training)
        if training.step % args.save == 0 or training.step == last:
            save(training, args.out)
        if args.watch and training.step % args.watch == 0:
            log.write(watch.scores(training.average), training.step)


if __name__ == "__main__":
    main()
