"""Measure data preparation: CPU time against NumPy's text reader, two processes against one, and the peak memory.

    python tests/benchmarks/bench_gendata.py [--files 1000] [--samples 20000] [--folder /tmp]

The memory run writes 3.6 GB for each of both protocols at 20,000 samples to a temporary folder, removed at the end.
"""

import argparse
import contextlib
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))
from feeder.preparation import generate, ntu  # noqa: E402

CLIPS = ((84, 1), (71, 1), (103, 1), (62, 2), (118, 1), (48, 1), (90, 2))  # (frames, bodies), about NTU's mix


def raw_text(frames: int, bodies: int, rng: np.random.Generator) -> str:
    """Return a `.skeleton` file with numbers as long as the real ones."""
    lines = [str(frames)]
    walk = rng.normal(0, 0.01, (frames, bodies, 25, 11)).cumsum(0) + rng.normal(0.5, 0.5, (bodies, 25, 11))
    for frame in walk:
        lines.append(str(bodies))
        for place, joints in enumerate(frame):
            lines += [f"7205759403793{place:04d} 0 1 1 1 1 0 0.02764709 0.05745083 2", "25"]
            lines += [" ".join(f"{number:.7g}" for number in joint) + " 2" for joint in joints]
    return "\n".join(lines) + "\n"


def write_raw(folder: Path, count: int) -> Path:
    """Write a few templates and link them under `count` sample names; return the folder of the links."""
    rng = np.random.default_rng(0)
    links = folder / f"raw{count}"
    links.mkdir()
    templates = []
    for number, clip in enumerate(CLIPS):
        templates.append(folder / f"template{number}")
        templates[-1].write_text(raw_text(*clip, rng))
    names = (f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}.skeleton"
             for r in (1, 2) for s in range(1, 18) for p in range(1, 41) for a in range(1, 61) for c in (1, 2, 3))  # fmt: skip
    wanted = (name for name in names if name[:20] not in ntu.missing_samples("ntu60"))
    for number in range(count):
        (links / next(wanted)).symlink_to(templates[number % len(templates)])
    return links


def cpu_seconds(run) -> float:
    before = time.process_time()
    run()
    return time.process_time() - before


def bench_cpu(folder: Path, count: int) -> None:
    """Print the CPU time per file for both protocols and what np.loadtxt takes for the joint lines of the same files."""
    sources, _ = ntu.list_sources(sorted(write_raw(folder, count).iterdir()), "ntu60", ["xsub", "xview"])
    texts = [source.path.read_text().split("\n") for source in sources[: len(CLIPS)]]
    lines = [[line for line in text if line.count(" ") == 11] for text in texts]

    def prepare() -> None:
        generate.generate(sources, ntu.read_clips, folder / "cpu", ["xsub", "xview"], 1)

    def loadtxt() -> None:
        for number in range(count):
            np.loadtxt(lines[number % len(lines)], usecols=(0, 1, 2))

    pairs = [(cpu_seconds(prepare) / count, cpu_seconds(loadtxt) / count) for _ in range(3)]
    for ours, theirs in pairs:
        print(f"CPU per file: {ours * 1e3:.3f} ms, np.loadtxt {theirs * 1e3:.3f} ms, ratio {ours / theirs:.2f}")


def bench_workers(folder: Path, count: int) -> None:
    """Print the wall time with one and two processes, in turns."""
    sources, _ = ntu.list_sources(sorted((folder / f"raw{count}").iterdir()), "ntu60", ["xsub", "xview"])
    for _ in range(3):
        seconds = []
        for workers in (1, 2):
            start = time.perf_counter()
            generate.generate(sources, ntu.read_clips, folder / "workers", ["xsub", "xview"], workers)
            seconds.append(time.perf_counter() - start)
        ratio = f"ratio {seconds[0] / seconds[1]:.2f} (load {os.getloadavg()[0]:.1f})"
        print(f"1 process {seconds[0]:.2f} s, 2 processes {seconds[1]:.2f} s, {ratio}")


def tree_memory(root: int) -> int:
    """Return the resident bytes of a process and its children, shared pages counted once for each."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with contextlib.suppress(OSError):
            fields = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
            if root in (int(fields["Pid"]), int(fields["PPid"])) and "VmRSS" in fields:
                total += int(fields["VmRSS"].split()[0]) * 1024
    return total


def bench_memory(folder: Path, count: int) -> None:
    """Print the peak memory of the process tree of a run with two workers."""
    raw, out = write_raw(folder, count), folder / "memory"
    command = [sys.executable, str(ROOT / "ntu_gendata.py"), "--data-path", str(raw), "--out-folder", str(out)]
    start = time.perf_counter()
    process = subprocess.Popen([*command, "--workers", "2"], stdout=subprocess.PIPE, text=True)
    text = io.StringIO()
    reader = threading.Thread(target=lambda: text.write(process.stdout.read()))
    reader.start()
    peak = 0
    while process.poll() is None:
        peak = max(peak, tree_memory(process.pid))
        time.sleep(0.05)
    reader.join()
    print(text.getvalue())
    print(f"{count} samples, both protocols: {time.perf_counter() - start:.1f} s, peak memory {peak / 2**20:.0f} MiB")


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=1000, help="for CPU and wall time")
    parser.add_argument("--samples", type=int, default=20000, help="for memory; 0 leaves it out")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    return parser


def main() -> None:
    args = get_parser().parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        bench_cpu(Path(name), args.files)
        bench_workers(Path(name), args.files)
        if args.samples:
            bench_memory(Path(name), args.samples)


if __name__ == "__main__":
    main()
