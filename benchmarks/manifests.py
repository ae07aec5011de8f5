"""How long a manifest of 100 000 clips takes to read, by hand: `python -m earmark.benchmarks.manifests`.

Prints a row of a Markdown table for each format: CPU and wall seconds, the median of five fresh reads.
"""

from __future__ import annotations

import csv
import json
import statistics
import tempfile
import time
from pathlib import Path

from earmark.data.manifest import read_manifest, write_manifest

CLIPS, TURNS = 100_000, 5


def rows() -> list[dict[str, str]]:
    return [
        {
            "path": f"part{n % 100}/{n}.flac", "dataset": "big", "sha256": f"{n:064x}", "seconds": "3.2",
            "split": "train", "speaker": f"s{n % 500}", "label": f"l{n % 50}", "sample_rate": "16000", "channels": "1",
            "transcript": "the boat left the bay before the thick fog came down",
        }
        for n in range(CLIPS)
    ]  # fmt: skip


def write(folder: Path) -> list[Path]:
    found = rows()
    write_manifest(folder / "manifest.parquet", found)
    with (folder / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(found[0]))
        writer.writeheader()
        writer.writerows(found)
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    return sorted(folder.glob("manifest.*"))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        for path in write(Path(folder)):
            taken = []
            for _ in range(TURNS):
                read_manifest.cache_clear()
                cpu, wall = time.process_time(), time.perf_counter()
                assert len(read_manifest(path)["big"]) == CLIPS
                taken.append((time.process_time() - cpu, time.perf_counter() - wall))
            cpu_s, wall_s = (statistics.median(column) for column in zip(*taken, strict=True))
            print(f"| {path.suffix} | {path.stat().st_size / 1e6:.1f} | {cpu_s:.2f} | {wall_s:.2f} |")


if __name__ == "__main__":
    main()
