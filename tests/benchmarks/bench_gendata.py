"""Measure data preparation: CPU time of NTU files against a bare read of their columns, and peak memory.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_gendata.py [--files 1000] [--samples 20000] [--videos 40]

The memory run writes 3.6 GB for each of both protocols to a temporary folder, which it removes.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from itertools import product
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


def write_ntu(folder: Path, count: int) -> Path:
    """Write a few templates and link them under `count` sample names; return the folder of the links."""
    links = folder / f"raw{count}"
    links.mkdir()
    for number, clip in enumerate(CLIPS):
        (folder / f"template{number}").write_text(raw_text(*clip, np.random.default_rng(number)))
    numbers = product((1, 2), range(1, 18), range(1, 41), range(1, 61), (1, 2, 3))
    names = (f"S{s:03d}C{c:03d}P{p:03d}R{r:03d}A{a:03d}" for r, s, p, a, c in numbers)
    wanted = (name for name in names if name not in ntu.missing_samples("ntu60"))
    for number in range(count):
        (links / f"{next(wanted)}.skeleton").symlink_to(folder / f"template{number % len(CLIPS)}")
    return links


def write_pku(folder: Path, videos: int) -> Path:
    """Write a download of part 1 with videos of 7,000 frames and 34 segments each."""
    walk = np.random.default_rng(0).normal(0, 0.01, (7000, 150)).cumsum(0)
    skeleton = "\n".join(" ".join(f"{number:.6f}" for number in frame) for frame in walk)
    label = "".join(f"{row + 1},{row * 200},{row * 200 + 190},2\n" for row in range(34))
    names = [f"{number:04d}-L" for number in range(2, videos + 2)]
    for kind, text in (("PKU_Skeleton_Renew", skeleton), ("Train_Label_PKU_final", label)):
        (folder / "pku" / kind).mkdir(parents=True)
        for name in names:
            (folder / "pku" / kind / f"{name}.txt").write_text(text)
    lists = f"Training videos:\n{', '.join(names)}\nValidataion videos:\n"
    (folder / "pku/cross-subject.txt").write_text(lists)
    return folder / "pku"


def bench_cpu(folder: Path, count: int) -> None:
    """Print CPU times per file: the reader, the whole preparation for both protocols, a bare column read."""
    sources = ntu.list_sources(ntu.find_files([write_ntu(folder, count)]), "ntu60", ["xsub", "xview"])
    texts = [source.path.read_text().split("\n") for source in sources[: len(CLIPS)]]
    lines = [[line for line in text if line.count(" ") == 11] for text in texts]

    def read() -> None:
        for source in sources:
            ntu.read_bodies(source.path)

    def prepare() -> None:
        generate.generate(sources, ntu.read_clips, folder / "cpu", ["xsub", "xview"])

    def read_columns() -> None:
        for number in range(count):
            np.loadtxt(lines[number % len(lines)], usecols=(0, 1, 2))

    for _ in range(5):
        reader, whole, bare = (1e3 * cpu_time(run) / count for run in (read, prepare, read_columns))
        ratios = f"{reader / bare:.2f} and {whole / bare:.2f} times a column read of {bare:.3f} ms"
        print(f"CPU per file: reader {reader:.3f} ms, preparation {whole:.3f} ms, {ratios}")


def cpu_time(run) -> float:
    """Return the CPU time of a call in seconds."""
    start = time.process_time()
    run()
    return time.process_time() - start


def bench_memory(script: str, raw: Path, *flags: str) -> None:
    """Print the peak memory of the process tree of a script, shared pages counted once for each process."""
    paths = ["--data-path", str(raw), "--out-folder", str(raw.parent / f"{script}.out")]
    start, peak = time.perf_counter(), 0
    process = subprocess.Popen(
        [sys.executable, str(ROOT / script), *paths, *flags], stdout=subprocess.DEVNULL
    )
    while process.poll() is None:
        rows = subprocess.run(["ps", "-A", "-o", "pid=,ppid=,rss="], capture_output=True, text=True).stdout
        pids = [[int(word) for word in row.split()] for row in rows.splitlines()]
        peak = max(peak, sum(rss for pid, parent, rss in pids if process.pid in (pid, parent)))
        time.sleep(0.05)
    seconds = time.perf_counter() - start
    print(f"{script} {' '.join(flags)}: {seconds:.1f} s, peak memory {peak / 2**10:.0f} MiB")


def get_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=1000, help="of NTU, for CPU time")
    parser.add_argument("--samples", type=int, default=20000, help="of NTU, for memory; 0 leaves it out")
    parser.add_argument("--videos", type=int, default=40, help="of PKU-MMD, for memory; 0 leaves it out")
    parser.add_argument("--folder", type=Path, help="where the temporary folder goes")
    return parser


if __name__ == "__main__":
    args = get_parser().parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        bench_cpu(Path(name), args.files)
        if args.samples:
            bench_memory("ntu_gendata.py", write_ntu(Path(name), args.samples), "--workers", "2")
        if args.videos:
            flags = ("--benchmark", "xsub", "--workers", "12")
            bench_memory("pku_gendata.py", write_pku(Path(name), args.videos), *flags)
