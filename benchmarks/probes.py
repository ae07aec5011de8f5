"""Probes against PyPI's `xares` on the same work, by hand: `python -m earmark.benchmarks.probes PYTHON`.

PYTHON is an interpreter that has `xares` and all that Earmark needs. The work: ESC-10 and FSDD (EARMARK_DATA), log-mel
features, five folds, MLP with the epoch chosen as published, nearest neighbours. Each side is a process of its own,
from its start to its last score; both read the published files, compute the same log-mel (`codecs.baselines.LogMel`),
and keep it on disk as each is made to. They take turns. `xares` reads its audio from tar files, which are written
before the clock runs. Its torchaudio needs FFmpeg to read a file; where that is not here, libsndfile reads for it.

    --turns N    so many times each; the seconds are compared turn by turn
    --seeds N    each MLP from so many seeds: the means of the accuracies with their 95 % intervals, and the difference
"""

from __future__ import annotations

import argparse
import io
import json
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy or torch is imported

DATASETS = {"esc10": "sound", "fsdd": "digit"}
FOLDS = 5
FIRST_SEED = 42  # the default of `xares`
Accuracies = dict[str, list[float]]  # of a dataset and learner, one a seed


def items_of(name: str) -> Any:
    """The labelled clips of a dataset in five folds: the published ones of ESC-10, ours by clip of FSDD."""
    from earmark.data import cards
    from earmark.data.schema import HeldOut, Task
    from earmark.scoring.probes import labelled

    dataset = cards.load(cards.cards()[name])
    rule = HeldOut(column="fold") if name == "esc10" else HeldOut(folds=FOLDS, by="path")
    task = Task(name=DATASETS[name], kind="classification", target="label", held_out=rule)
    return labelled(dataset, task)


def write_tars(root: Path) -> None:
    """The clips as `xares` reads them: a tar a fold, each clip's file with its label as JSON."""
    for name in DATASETS:
        items = items_of(name)
        classes, folder = sorted(set(items.labels)), root / name
        folder.mkdir(parents=True)
        for fold in range(1, FOLDS + 1):
            with tarfile.open(folder / f"wds-audio-fold-{fold}-000000.tar", "w") as tar:
                for at, (clip, label, side) in enumerate(zip(items.clips, items.labels, items.sides, strict=True)):
                    if side == str(fold):
                        _add(tar, f"{at:04}{clip.path.suffix}", clip.path.read_bytes())
                        _add(tar, f"{at:04}.json", json.dumps({"label": classes.index(label)}).encode())
        (folder / ".audio_tar_ready").touch()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def ours(root: Path, seeds: int) -> Accuracies:
    from earmark.codecs import registry
    from earmark.probes import protocol as protocols
    from earmark.scoring.probes import read_out
    from earmark.store.store import Store

    store, entry = Store(root / "store", "cpu", "benchmark"), registry.find("logmel")
    recipes = protocols.load("xares-as-published").recipes
    recipes["classification"] = recipes["classification"].model_copy(update={"seeds": seeds})
    found: Accuracies = {}
    for name in DATASETS:
        items = items_of(name)
        for learner, protocol in {"mlp": "xares-as-published", "knn": "xares-knn"}.items():
            right = read_out(entry, "unquantized", items, protocol, store).said.argmax(-1) == items.targets().values
            found[f"{name} {learner}"] = right.mean(1).tolist()
    return found


def theirs(root: Path, seeds: int) -> Accuracies:
    import torch
    from xares.task import TaskConfig, XaresTask

    from earmark.codecs import registry

    _read_without_ffmpeg(items_of("fsdd").clips[0].path)
    model = registry.load(registry.find("logmel"), "cpu")

    class LogMelEncoder(torch.nn.Module):
        sampling_rate, output_dim, hop_size_in_ms = 16_000, 64, 10

        def forward(self, audio: torch.Tensor) -> torch.Tensor:
            frames = torch.stack([model.of_clip(clip, 0).T for clip in audio])
            return frames if seeds == 1 else frames.mean(1, keepdim=True)  # all that its MLP takes of them, read faster

    def task(name: str, seed: int) -> XaresTask:
        config = TaskConfig(
            name=name,
            env_root=root,
            private=False,
            encoder=LogMelEncoder(),
            k_fold_splits=[*range(1, FOLDS + 1)],
            label_processor=lambda said: said["label"],
            output_dim=len(set(items_of(name).labels)),
            eval_weight=1,
            seed=FIRST_SEED + seed,
        )
        config.ckpt_dir_name = f"checkpoints-{seed}"  # or a finished score would be read again
        return XaresTask(config)

    found: Accuracies = {}
    for name in DATASETS:
        (mlp, _), (knn, _) = task(name, 0).run()
        further = [float(task(name, seed).run_mlp()[0]) for seed in range(1, seeds)]
        found |= {f"{name} mlp": [float(mlp), *further], f"{name} knn": [float(knn)]}
    return found


def _read_without_ffmpeg(sample: Path) -> None:
    """Let torchaudio read by libsndfile where its own decoder cannot read a sample."""
    import torch
    import torchaudio

    def load(file: Any, **_: Any) -> tuple[torch.Tensor, int]:
        import soundfile

        wav, rate = soundfile.read(file, dtype="float32", always_2d=True)
        return torch.from_numpy(wav.T.copy()), rate

    try:
        torchaudio.load(str(sample))
    except (ImportError, RuntimeError):
        torchaudio.load = load


def run(side: str, python: str, tars: Path, seeds: int) -> tuple[float, float, Accuracies]:
    """Wall seconds and processor seconds of a side's whole process, and its accuracies."""
    with tempfile.TemporaryDirectory() as folder:
        for name in DATASETS:  # the tars by link, so that each run starts with nothing made
            (Path(folder) / name).mkdir()
            for path in (tars / name).iterdir():
                (Path(folder) / name / path.name).symlink_to(path)
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        command = [python, "-m", "earmark.benchmarks.probes", "--side", side, "--folder", folder, "--seeds", str(seeds)]
        done = subprocess.run(command, capture_output=True, text=True)
        wall, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise RuntimeError(f"{side}: {done.stderr[-3000:]}")
    processor = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, processor, json.loads(done.stdout.splitlines()[-1])


def interval(values: list[float]) -> str:
    """The mean over seeds and its 95 % interval by Student's t."""
    from scipy import stats

    low, high = stats.ttest_1samp(values, 0).confidence_interval()
    return f"{sum(values) / len(values):.3f} [{low:.3f}, {high:.3f}]"


def compare(theirs: Accuracies, ours: Accuracies) -> None:
    """Print of each dataset and learner both means over seeds and by how much ours is higher (Welch's interval)."""
    from scipy import stats

    for name in theirs:
        if len(ours[name]) > 1:
            low, high = stats.ttest_ind(ours[name], theirs[name], equal_var=False).confidence_interval()
            higher = sum(ours[name]) / len(ours[name]) - sum(theirs[name]) / len(theirs[name])
            pair = f"theirs {interval(theirs[name])}, ours {interval(ours[name])}"
            print(f"{name}: {pair}, higher by {higher:.3f} [{low:.3f}, {high:.3f}]")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", nargs="?")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--side", choices=("ours", "theirs"))
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.side:
        print(json.dumps({"ours": ours, "theirs": theirs}[options.side](options.folder, options.seeds)))
        return
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_tars(Path(folder))
        for turn in range(options.turns):
            pair = {
                "theirs": run("theirs", options.python, Path(folder), options.seeds),
                "ours": run("ours", sys.executable, Path(folder), options.seeds),
            }
            rows.append(pair)
            for side, (wall, processor, found) in pair.items():
                print(f"turn {turn + 1} {side}: {wall:.1f} s, {processor:.1f} s of processor, {found}", flush=True)
            compare(pair["theirs"][2], pair["ours"][2])
    for name, seconds in {"wall": lambda of: of[0], "processor": lambda of: of[1]}.items():
        ratios = [seconds(row["ours"]) / seconds(row["theirs"]) for row in rows]
        print(f"{name}: {median(ratios):.2f} of the time ({min(ratios):.2f} to {max(ratios):.2f})")


if __name__ == "__main__":
    main()
