"""The documents are true: commands parse, flags, files and links exist, examples run."""

import importlib
import re
import shlex
import shutil

import numpy as np
import pytest
import torch
from conftest import GOLDENS, ROOT
from torch.distributed.run import get_args_parser

from model import SCDNet

PAGES = [page for name in ("*.md", "docs/*.md", "tests/*.md") for page in ROOT.glob(name)]
TEXT = {str(page.relative_to(ROOT)): page.read_text() for page in PAGES}
PROSE = {page: re.sub(r"```.*?```", "", text, flags=re.S) for page, text in TEXT.items()}
SPANS = {page: re.findall(r"(?<!`)`([^`]+)`(?!`)", text) for page, text in PROSE.items()}
OTHER_TOOLS = {"venv", "pip", "pytest", "ruff", "mypy", "-c"}  # after `python -m`, or `python`

# The commands of a block with synthetic people and pre-training run here, with these arguments added to make
# them small.
SMALL = {
    "feeder.synthetic": "--classes 2 --subjects 3 --repetitions 1",
    "ntu_gendata.py": "--workers 1",
    "pretraining.py": "--epochs 1 --encoder-k 8 --batch-size 4 --workers 0 --device cpu",
    "action_classification.py": "--epochs 1 --batch-size 2 --workers 0 --device cpu",
    "action_retrieval.py": "--workers 0 --device cpu",
}


def commands(text):
    """Return (script or module, its arguments) of every `python` and `torchrun` command."""
    found = []
    for command in re.split(r"&&|\||;|\n|(?<!&)&(?!&)", text.replace("\\\n", " ")):
        command = re.sub(r"^\s*(srun |\w+=\S+ )*", "", command)
        if not command.startswith(("python ", "torchrun ")):
            continue
        program, *words = shlex.split(command, comments=True)
        if program == "torchrun":
            launch = get_args_parser().parse_args(words)
            words = [launch.training_script, *launch.training_script_args]
        elif words[0] == "-m":
            words = words[1:]
        if words[0] not in OTHER_TOOLS and "..." not in words:
            found.append((words[0], words[1:]))
    return found


def blocks(language):
    fence = rf"```{language}\n(.*?)```"
    return [(page, block) for page, text in TEXT.items() for block in re.findall(fence, text, re.S)]


SCRIPTS = [block for _, block in blocks("bash")]
INLINE = [" ".join(span.split()) for spans in SPANS.values() for span in spans]
COMMANDS = [command for text in SCRIPTS + INLINE for command in commands(text)]


def module_of(script):
    """Import "./script.py", or "package.module" as `python -m` runs it."""
    path = script.removeprefix("./").removesuffix(".py").replace(".", "/")
    name = f"{path}/__main__" if (ROOT / path).is_dir() else path
    return importlib.import_module(name.replace("/", "."))


@pytest.mark.parametrize("script, args", COMMANDS)
def test_a_command_parses(script, args, monkeypatch):
    monkeypatch.chdir(ROOT)
    module_of(script).get_parser().parse_args(args)


def test_flags_in_the_text_are_flags():
    patterns = ("*.py", "engine/*.py", "feeder/**/*.py", "tests/benchmarks/*.py")
    files = [file for pattern in patterns for file in ROOT.glob(pattern)]
    scripts = [str(file.relative_to(ROOT)) for file in files if "def get_parser(" in file.read_text()]
    parsers = [module_of(script).get_parser() for script in scripts] + [get_args_parser()]
    known = {flag for parser in parsers for flag in re.findall(r"--[a-z][\w-]*", parser.format_help())}
    for span in INLINE:
        if re.match(r"--|\w+\.py ", span):
            assert set(re.findall(r"(?<!\S)--[a-z][\w-]*", span)) <= known, span


@pytest.mark.parametrize("page, block", blocks("python"))
def test_a_python_example_runs(here, page, block):
    (here / "checkpoints" / "pretrain").mkdir(parents=True)
    net = SCDNet(dict(hidden_size=16, num_head=2, channels=4, frames=16, bodies=1), dim=8, K=24)
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, "checkpoints/pretrain/checkpoint.pth.tar")
    shutil.copy(GOLDENS / "raw" / "S001C001P001R001A001.skeleton", "clip.skeleton")
    clips = {f"x_{part}": np.random.default_rng(0).normal(size=(2, 300, 150)) for part in ("train", "test")}
    np.savez("NTU60_CS.npz", **clips, y_train=np.eye(60)[:2], y_test=np.eye(60)[:2])
    exec(compile(block, page, "exec"), {})


def test_the_first_steps_run(here):
    (text,) = [text for text in SCRIPTS if "feeder.synthetic" in text and "pretraining.py" in text]
    for script, args in commands(text):
        module_of(script).main([*args, *SMALL.get(script, "").split()])


@pytest.mark.parametrize("page", TEXT)
def test_links_and_files_exist(page):
    for file, anchor in re.findall(r"\]\((?!\w+:)([^)#\s]*)#?([^)\s]*)\)", TEXT[page]):
        target = (ROOT / page).parent / file if file else ROOT / page
        assert target.exists(), file
        if anchor:
            headings = re.sub(r"[^\w\n# -]", "", target.read_text()).lower()
            assert re.search(rf"^#+ {anchor.replace('-', '[ -]')}$", headings, re.M), f"{file}#{anchor}"
    for span in SPANS[page]:
        if re.fullmatch(r"(feeder|model|engine|options|tests|log|docs)/[\w/.]*", span):
            assert (ROOT / span).exists(), span
        if test := re.fullmatch(r"(test_\w+\.py)::(test_\w+)", span):
            assert re.search(rf"^def {test[2]}\(", (ROOT / "tests" / test[1]).read_text(), re.M), span
