"""`python -m engine.results log`: one Markdown table of every evaluation in a log folder, beside the published figures."""

import argparse
import json
from pathlib import Path

import yaml

from engine.cli import script
from engine.errors import RunError

# Top-1 in percent as SCD-Net's paper has it; joint stream. The linear figure is the best test epoch.
PUBLISHED = {
    ("linear", "ntu60", "cross_subject"): 86.6,
    ("linear", "ntu60", "cross_view"): 91.7,
    ("linear", "ntu120", "cross_subject"): 76.9,
    ("linear", "ntu120", "cross_setup"): 80.1,
    ("linear", "pku_part1", "cross_subject"): 91.9,
    ("linear", "pku_part2", "cross_subject"): 54.0,
    ("retrieval", "ntu60", "cross_subject"): 76.2,
    ("retrieval", "ntu60", "cross_view"): 86.8,
    ("retrieval", "ntu120", "cross_subject"): 59.8,
    ("retrieval", "ntu120", "cross_setup"): 65.7,
}
HEADER = ("task", "data set", "protocol", "stream", "encoder", "seed", "Acc@1", "best on test", "published", "run")


def read_run(folder: Path) -> dict | None:
    """Return {"run", "options", "result"} of a run's folder, None where it has no result (pre-training, or unfinished)."""
    try:
        record = yaml.safe_load((folder / "options.yaml").read_text())
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        result = json.loads(lines[-1]) if lines else {}
        known = {"task", "data_set", "protocol", "stream"} <= record["run"].keys() and "seed" in record["options"]
        finished = "last_acc1" in result or "knn_acc1" in result
    except (OSError, ValueError, yaml.YAMLError, TypeError, KeyError, AttributeError):
        return None  # another program's file, or a run that was killed
    return record | {"result": result} if known and finished else None


def row(folder: Path, record: dict) -> tuple[str, ...]:
    """Return the cells of a run under `HEADER`."""
    run, options, result = record["run"], record["options"], record["result"]
    task = run["task"] if run["task"] != "retrieval" else f"{options['knn_neighbours']}-NN retrieval"
    comparable = run["stream"] == "joint" and options.get("knn_neighbours", 1) == 1
    published = PUBLISHED.get((run["task"], run["data_set"], run["protocol"])) if comparable else None
    best = result.get("best_acc1")
    kinds = {"random_encoder": "random", "raw_coordinates": "none (raw coordinates)"}
    encoder = next((kind for flag, kind in kinds.items() if options.get(flag)), "pre-trained")
    return (
        task, run["data_set"], run["protocol"], run["stream"], encoder,
        str(options["seed"]), f"{result.get('last_acc1', result.get('knn_acc1')):.1f}", "" if best is None else f"{best:.1f}",
        "" if published is None else f"{published:.1f}", folder.name,
    )  # fmt: skip


def table(log_dir: Path) -> str:
    """Return the Markdown table of all finished evaluations below `log_dir`, sorted by task and data.

    Raises:
        RunError: there are none.
    """
    folders = sorted(path.parent for path in log_dir.rglob("options.yaml"))
    rows = [row(folder, record) for folder in folders if (record := read_run(folder))]
    if not rows:
        raise RunError(f"no finished evaluation in {log_dir}")
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [HEADER, ["---"] * len(HEADER), *sorted(rows)])


def get_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(prog="python -m engine.results", description=__doc__)
    parser.add_argument("log_dir", nargs="?", type=Path, default=Path("log"), help="folder of runs (%(default)s)")
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    print(table(get_parser().parse_args(argv).log_dir))


if __name__ == "__main__":
    main()
