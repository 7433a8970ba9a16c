"""Kill a pre-training at random moments; check that its checkpoint is intact and that it continues.

    python tests/kill_pretraining.py --data-path data --kills 200 --workers 2

Works in the current folder, which should be empty. Every step is saved, so at most one may be lost. A forked
child trains, because it starts at once. Half of the kills come at any moment after its start, the others
shortly after it first saved.
"""

import argparse
import os
import random
import re
import signal
import sys
import time
from pathlib import Path

import torch._dynamo  # noqa: F401  imported by the first optimiser: otherwise seconds in each child
from conftest import CONTRAST

import pretraining
from engine.checkpoint import load_checkpoint

CHECKPOINT = Path("ck/checkpoint.pth.tar")


def start(flags: list[str]) -> int:
    """Return the id of a new process that trains."""
    pid = os.fork()
    if pid:
        return pid
    try:
        sys.stdout = open(os.devnull, "w")
        pretraining.main(flags)
        os._exit(0)
    except BaseException as error:
        print("the training failed:", repr(error), file=sys.stderr)
    finally:
        os._exit(1)


def written() -> int:
    """Return when the checkpoint was written, 0 if there is none."""
    return CHECKPOINT.stat().st_mtime_ns if CHECKPOINT.exists() else 0


def position() -> tuple[int, int]:
    """Return the number of steps in the checkpoint and in the log."""
    text = "".join(path.read_text() for path in Path("log").glob("*/log.txt"))
    found = re.findall(r"^Epoch: \[(\d+)\]\[ *(\d+)/(\d+)\]\t.*\n", text, re.M)
    lines = [[int(number) for number in numbers] for numbers in found]
    logged = max(epoch * steps + step + 1 for epoch, step, steps in lines)
    checkpoint = load_checkpoint(CHECKPOINT)
    return checkpoint["epoch"] * lines[0][2] + checkpoint["step"], logged


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data-path", required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--workers", default="0")
    args = parser.parse_args()
    flags = f"--data-path {args.data_path} {CONTRAST} --epochs 60 --workers {args.workers}"
    flags += " --resume auto --print-freq 1 --save-minutes 1e-9"
    rng, done = random.Random(0), 0
    for kill in range(args.kills):
        before, pid = written(), start(flags.split())
        # every second time, wait until the child saves or ends
        ended = os.WEXITED | os.WNOHANG | os.WNOWAIT
        while kill % 2 and written() == before and os.waitid(os.P_PID, pid, ended) is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.3 if kill % 2 else 1.0))
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        assert status in (signal.SIGKILL, 0), f"kill {kill}: the training ended by itself, {status}"
        if not CHECKPOINT.exists():
            assert not done, f"kill {kill}: the checkpoint is gone"
            continue
        saved, logged = position()
        assert saved >= max(done, logged - 1), f"kill {kill}: steps are lost"
        done = saved
    assert done, "no kill came late enough for a step"
    print(f"{args.kills} kills, no broken checkpoint, {done} steps done")


if __name__ == "__main__":
    main()
