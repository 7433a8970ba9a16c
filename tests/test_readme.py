"""Every command of the README parses, every file it names is there, and its counts are the code's."""

import importlib
import re
import shlex

import pytest
from conftest import ROOT
from torch.distributed.run import get_args_parser

from engine.results import MARKERS, table

README = (ROOT / "README.md").read_text()


def commands():
    for block in re.findall(r"```bash\n(.*?)```", README, re.S):
        for line in block.replace("\\\n", " ").splitlines():
            for part in re.split(r"&&|(?<!&)&(?!&)", line):  # one command after another, or in the background
                words = shlex.split(part, comments=True)
                yield words[1:] if words[:1] == ["srun"] else words


PYTHON = [words for words in commands() if words[:1] in (["python"], ["torchrun"]) and words[1:3] != ["-m", "venv"]]


def parser_of(words):
    """The parser and the arguments of a `python script.py ...`, `python -m package.module ...` or `torchrun script.py ...`."""
    if words[0] == "torchrun":
        launch = get_args_parser().parse_args(words[1:])
        words = ["python", launch.training_script, *launch.training_script_args]
    if words[1] == "-m":
        return importlib.import_module(words[2]).get_parser(), words[3:]
    name = words[1].removeprefix("./")
    assert (ROOT / name).is_file(), name
    return importlib.import_module(name.removesuffix(".py")).get_parser(), words[2:]


@pytest.mark.parametrize("words", PYTHON, ids=" ".join)
def test_a_command_parses(words):
    parser, args = parser_of(words)
    parser.parse_args(args)


def test_the_commands_are_found():
    assert {"pretraining.py", "./pretraining.py", "ntu_gendata.py", "pku_gendata.py"} & {words[1] for words in PYTHON}
    assert len(PYTHON) >= 8 and sum(words[0] == "torchrun" for words in PYTHON) == 2


def test_the_table_of_results_is_that_of_the_logs():
    start, end = MARKERS
    assert README.split(f"\n{start}\n")[1].split(f"\n{end}\n")[0] == table(ROOT / "log" / "ui_prmd", mean=True)


def test_files_and_make_targets_exist():
    for name in re.findall(r"`((?:feeder|model|engine|options|tests)/[\w/.]*)`", README):
        assert (ROOT / name).exists(), name
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"^make (\w+)", README, re.M)) <= set(targets)
    for anchor in re.findall(r"\]\(#([\w-]+)\)", README):
        headings = [re.sub(r"[^\w -]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.*)$", README, re.M)]
        assert anchor in headings, anchor
