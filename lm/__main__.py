"""Train on what a suite has packed, with all the devices that `accelerate launch` gives:

    accelerate launch --num_processes 8 -m earmark.lm FOLDER

FOLDER is the folder `work` beside the result in the store, which is there while a suite trains (stop it first; several
nodes need it shared). The suite, run again, goes on from the last checkpoint, and only judges where that is the end.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from earmark.lm import packing
from earmark.lm.protocol import Protocol
from earmark.lm.training import PLAN, train


def main(folder: Path) -> None:
    import torch
    from accelerate import PartialState

    plan = json.loads((folder / PLAN).read_text(encoding="utf-8"))
    protocol = Protocol.model_validate(plan["protocol"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = plan["documents"], plan["validation"]
    done = train(packing.read(folder), *parts, protocol, seed=plan["seed"], device=device, folder=folder)
    PartialState().destroy_process_group()  # threads of Gloo that still hold tensors at exit may abort the process
    print(f"{protocol.steps} steps, held-out loss {done.curve.validation[-1]:.4f} nats a token")


if __name__ == "__main__":
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / PLAN).is_file():
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
