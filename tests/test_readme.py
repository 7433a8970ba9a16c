"""Every command and flag of the READMEs parses, their Python runs, every file and test they name is there."""

import importlib.util
import re
import shlex

import pytest
import torch
from conftest import ROOT
from torch.distributed.run import get_args_parser

from engine.results import MARKERS, table
from feeder.arrays import open_split
from model import SCDNet
from model.reference import is_reference
from options.datasets import DATA_SETS, DataSet

README, TESTS_README = ((ROOT / name).read_text() for name in ("README.md", "tests/README.md"))
TEXT = README + TESTS_README
SPANS = re.findall(r"(?<!`)`([^`]+)`(?!`)", re.sub(r"```.*?```", "", TEXT, flags=re.S))
TOOLS = {"venv", "pytest", "ruff", "mypy"}  # of others, run by `python -m`


def commands():
    for span in SPANS:
        if span.startswith("python ") and "..." not in span:
            yield shlex.split(" ".join(span.split()))
    for block in re.findall(r"```bash\n(.*?)```", TEXT, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|(?<!&)&(?!&)", line):  # one command after another, or in the background
                words = shlex.split(part, comments=True)
                yield words[1:] if words[:1] == ["srun"] else words


PYTHON = [words for words in commands() if words[:1] in (["python"], ["torchrun"]) and not TOOLS.intersection(words[2:3])]


def parser_of(words):
    """The parser and the arguments of a `python script.py ...`, `python -m package.module ...` or `torchrun script.py ...`."""
    if words[0] == "torchrun":
        launch = get_args_parser().parse_args(words[1:])
        words = ["python", launch.training_script, *launch.training_script_args]
    if words[1] == "-m":
        name = f"{words[2]}.__main__" if words[2] == "feeder.synthetic" else words[2]
        return importlib.import_module(name).get_parser(), words[3:]
    path = ROOT / words[1]
    assert path.is_file(), path
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_parser(), words[2:]


@pytest.mark.parametrize("words", PYTHON, ids=" ".join)
def test_a_command_parses(words):
    parser, args = parser_of(words)
    parser.parse_args(args)


def test_the_commands_are_found():
    assert {"pretraining.py", "./pretraining.py", "ntu_gendata.py", "pku_gendata.py"} & {words[1] for words in PYTHON}
    assert {"tests/benchmarks/bench_pretraining.py"} <= {words[1] for words in PYTHON}
    assert len(PYTHON) >= 40 and sum(words[0] == "torchrun" for words in PYTHON) == 2


def test_flags_in_the_text_are_flags():
    known = {"--nproc_per_node", "--help", "--write", "--mean", "--beside"}
    for words in PYTHON:
        known.update(parser_of(words)[0]._option_string_actions)
    for span in SPANS:
        for flag in re.findall(r"^--[a-z][\w-]*", span):
            assert flag in known, flag


def test_the_worked_example_is_a_data_set(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "SplitWriter" in block]
    exec(compile(example, "README.md", "exec"), {})
    (row,) = re.findall(r'^    "my_data": (DataSet\(.*\)),$', README, re.M)
    data_set = eval(row, {"DataSet": DataSet})
    for part, count in (("train", 40), ("val", 20)):
        split = open_split(tmp_path / "data" / data_set.folder / "xsub", part)
        assert len(split.labels) == count and max(split.labels) < data_set.num_classes
    assert "my_data" not in DATA_SETS


def test_a_checkpoint_goes_to_the_reference_as_told(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "checkpoints" / "pretrain").mkdir(parents=True)
    net = SCDNet(dict(hidden_size=16, num_head=2, channels=4), dim=8, K=24)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, "checkpoints/pretrain/checkpoint.pth.tar")
    (example,) = [block for block in re.findall(r"```python\n(.*?)```", README, re.S) if "to_reference" in block]
    exec(compile(example, "README.md", "exec"), {})
    made = torch.load("for_reference.pth.tar", weights_only=True)
    assert made["epoch"] == 3 and is_reference(made["state_dict"])


def test_the_tests_of_the_parity_page_exist():
    named = re.findall(r"`(test_\w+\.py)::(test_\w+)`", TESTS_README)
    assert len(named) > 30
    for file, name in named:
        assert re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.M), (file, name)


def test_the_table_of_results_is_that_of_the_logs():
    start, end = MARKERS
    assert README.split(f"\n{start}\n")[1].split(f"\n{end}\n")[0] == table(ROOT / "log" / "ui_prmd", mean=True, beside=True)


def test_files_and_make_targets_exist():
    for name in re.findall(r"`((?:feeder|model|engine|options|tests|log)/[\w/.]*)`", TEXT):
        assert (ROOT / name).exists(), name
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make (\w+)", TEXT, re.M)) <= set(targets)
    for anchor in re.findall(r"\]\(#([\w-]+)\)", README):
        headings = [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)]
        assert anchor in headings, anchor
