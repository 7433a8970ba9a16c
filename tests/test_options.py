"""The command lines: the owner's commands, the recipes, YAML defaults, and messages for mistakes."""

import shlex

import pytest
from conftest import failure

import action_classification
import action_retrieval
import ntu_gendata
import pku_gendata
import pretraining
from feeder.data_sets import DATA_SETS

PRETRAINING = """--lr 0.01 --batch-size 64 --encoder-t 0.2 --encoder-k 8192 --schedule 351 --epochs 451
    --checkpoint-path ./checkpoints/pretrain/ --pre-dataset ntu60 --protocol cross_subject
    --skeleton-representation joint"""
CLASSIFICATION = """--lr 2 --batch-size 1024 --pretrained ./checkpoints/pretrain/checkpoint.pth.tar
    --finetune-dataset ntu60 --protocol cross_subject --finetune_skeleton_representation joint"""
RETRIEVAL = """--knn-neighbours 1 --pretrained ./checkpoints/pretrain/checkpoint.pth.tar
    --finetune-dataset ntu60 --protocol cross_subject --finetune-skeleton-representation joint"""
SCRIPTS = (pretraining, action_classification, action_retrieval, ntu_gendata, pku_gendata)


def parse(script, text):
    return script.get_parser().parse_args(shlex.split(text))


def config(folder, text):
    (folder / "mine.yaml").write_text(text)
    return f"--config {folder / 'mine.yaml'}"


def test_defaults_are_the_papers_recipe():
    args = parse(pretraining, "")
    assert vars(args) == vars(parse(pretraining, PRETRAINING))
    assert (args.momentum, args.weight_decay, args.encoder_dim, args.encoder_m) == (0.9, 1e-4, 128, 0.999)
    assert (args.hidden_size, args.num_head, args.num_layer, args.channels) == (2048, 8, 1, 64)
    args = parse(action_classification, CLASSIFICATION)
    assert (args.lr, args.batch_size, args.epochs, args.schedule) == (2, 1024, 80, [50, 70])
    assert args.weight_decay == 0 and args.finetune_skeleton_representation == ["joint"]
    args = parse(action_retrieval, RETRIEVAL)
    assert args.knn_neighbours == [1] and args.pretrained == ["./checkpoints/pretrain/checkpoint.pth.tar"]


def test_every_flag_of_the_reference_is_there():
    common = "-j 1 -p 5 --seed 1 --gpu 0 --protocol cross_view"
    training = "--epochs 3 --start-epoch 1 -b 8 --learning-rate 1 --schedule 1 2 --momentum 0.5 --wd 0.1"
    training = f"{common} {training} --cos --resume x"
    contrast = "--encoder-dim 8 --encoder-k 16 --encoder-m 0.9 --encoder-t 0.1 --skeleton-representation bone"
    args = parse(pretraining, f"{training} {contrast} --pre-dataset ntu120 --checkpoint-path y")
    assert (args.lr, args.weight_decay, args.batch_size, args.schedule) == (1, 0.1, 8, [1, 2])
    assert args.cos and args.workers == 1
    for stream in ("--finetune-skeleton-representation", "--skeleton_representation"):
        rest = f"--pretrained z --finetune_dataset pku_part2 {stream} motion"
        args = parse(action_classification, f"{training} {rest}")
        assert args.finetune_skeleton_representation == ["motion"]
        assert parse(action_retrieval, f"{common} --knn_neighbours 5 {rest}").knn_neighbours == [5]


def test_config_lies_between_recipe_and_command_line(tmp_path):
    flags = config(tmp_path, "lr: 1e-1\nencoder_t: 0.07\nschedule: [5, 9]\ncos: true\npairs: ti")
    args = parse(pretraining, f"{flags} --encoder-t 0.5")
    assert (args.lr, args.encoder_t, args.schedule, args.cos, args.epochs) == (0.1, 0.5, [5, 9], True, 451)
    assert args.pairs == ["ti"] and args.weight_decay == 1e-4


def test_the_recipe_of_a_variant_lies_between_recipe_and_config(tmp_path):
    flags = config(tmp_path, "finetune: true\nlr: 0.5\npretrained: [a, b]\n")
    for text, expected in {
        "": (2, 1024, 20, None),
        "--finetune": (0.01, 64, 1, [0.5, 1]),
        flags: (0.5, 64, 1, [0.5, 1]),
        f"{flags} --lr 3 --crop-ratio 0.2 1": (3, 64, 1, [0.2, 1]),
    }.items():
        args = parse(action_classification, text)
        assert (args.lr, args.batch_size, args.save_freq, args.crop_ratio) == expected, text
        assert args.finetune == (args.batch_size == 64) and args.epochs == 80


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("leraning-rate: 1", "unknown --leraning-rate, did you mean --learning-rate?"),
        ("lr: true", "--lr: expected a value"),
        ("epochs:", "--epochs: expected a value"),
        ("cos: 3", "--cos: expected true or false"),
        ("no_maskz: false", "unknown --no-maskz, did you mean --no-masks?"),
        ("lr: [1, 2]", "--lr/--learning-rate: invalid number value: '[1, 2]'"),
        ("config: other.yaml", "expected lines of 'flag: value', and no config"),
        ("[lr, 3]", "expected lines of 'flag: value', and no config"),
        ("a: \x00", "unacceptable character"),
        ("--local_rank=0", "torchrun"),
        ("--epochs 0", "error: --epochs: 0 is not at least 1 (see --help)"),
        ("--lr inf", "invalid number value: 'inf'"),
        ("--seed 99999999999999999999", "is not at least 0 and at most 9223372036854775807"),
    ],
)
def test_a_mistake_is_answered_in_one_line(tmp_path, capsys, text, message):
    flags = text if text.startswith("--") else config(tmp_path, text)
    code, line = failure(capsys, parse, pretraining, flags)
    assert code == 2 and message in line
    assert flags is text or f"error: {flags.split()[1]}: " in line, "the file is named"


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_shows_each_default_on_two_screens(script, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    parser = script.get_parser()
    with pytest.raises(SystemExit):
        parser.parse_args(["--help"])
    text = capsys.readouterr().out
    assert "None" not in text and len(text.splitlines()) <= 100 and max(map(len, text.splitlines())) <= 110
    args = vars(parser.parse_args([]))
    for value in (args[name] for name in args if name not in ("workers", "benchmark")):
        shown = " ".join(map(str, value)) if isinstance(value, list) else str(value)
        assert isinstance(value, bool | None) or f"({shown})" in " ".join(text.split())


def test_the_table_of_data_sets(capsys):
    assert str(DATA_SETS["ntu120"].split_folder("data", "cross_setup")) == "data/NTU-RGB-D-120-AGCN/xsetup"
    assert str(DATA_SETS["pku_part1"].split_folder("data", "cross_view")) == "data/pku_v1/xview"
    classes = dict(ntu60=60, ntu120=120, pku_part1=51, pku_part2=51, ui_prmd=10)
    assert {name: DATA_SETS[name].num_classes for name in classes} == classes
    for name, total in (("ntu60", 56578), ("ntu120", 113945), ("pku_part1", 21544)):
        counts = DATA_SETS[name].protocols.values()
        assert {sum(parts) for parts in counts} == {total}, "every protocol has all clips"
    with pytest.raises(SystemExit):
        pretraining.main(["--protocol", "cross_setup"])
    assert (
        "ntu60 has no protocol cross_setup: choose from cross_subject, cross_view" in capsys.readouterr().err
    )
