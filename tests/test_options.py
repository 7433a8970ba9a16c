"""The command lines: the owner's commands, the recipes, YAML defaults, and messages for mistakes."""

import shlex

import pytest
from conftest import failure

import action_classification
import action_retrieval
import ntu_gendata
import pku_gendata
import pretraining
from options.datasets import DATA_SETS, split_folder

PRETRAINING = """--lr 0.01 --batch-size 64 --encoder-t 0.2 --encoder-k 8192 --checkpoint-path ./checkpoints/pretrain/
    --schedule 351 --epochs 451 --pre-dataset ntu60 --protocol cross_subject --skeleton-representation joint"""
CLASSIFICATION = """--lr 2 --batch-size 1024 --pretrained ./checkpoints/pretrain/checkpoint.pth.tar --finetune-dataset ntu60
    --protocol cross_subject --finetune_skeleton_representation joint"""
RETRIEVAL = """--knn-neighbours 1 --pretrained ./checkpoints/pretrain/checkpoint.pth.tar --finetune-dataset ntu60
    --protocol cross_subject --finetune-skeleton-representation joint"""
SCRIPTS = ((pretraining, PRETRAINING), (action_classification, CLASSIFICATION), (action_retrieval, RETRIEVAL))


def parse(script, text):
    return script.get_parser().parse_args(shlex.split(text))


def test_defaults_are_the_papers_recipe():
    args, stated = parse(pretraining, ""), parse(pretraining, PRETRAINING)
    assert vars(args) == vars(stated)
    assert (args.momentum, args.weight_decay, args.encoder_dim, args.encoder_m) == (0.9, 1e-4, 128, 0.999)
    assert (args.hidden_size, args.num_head, args.num_layer, args.channels) == (2048, 8, 1, 64)
    args = parse(action_classification, CLASSIFICATION)
    assert (args.lr, args.batch_size, args.epochs, args.schedule, args.weight_decay) == (
        2,
        1024,
        80,
        [50, 70],
        0,
    )
    assert parse(action_retrieval, RETRIEVAL).knn_neighbours == 1


def test_every_flag_of_the_reference_is_there():
    common = "-j 1 -p 5 --seed 1 --gpu 0 --protocol cross_view"
    training = "--epochs 3 --start-epoch 1 -b 8 --learning-rate 1 --schedule 1 2 --momentum 0.5 --wd 0.1 --cos --resume x"
    contrast = "--encoder-dim 8 --encoder-k 16 --encoder-m 0.9 --encoder-t 0.1 --skeleton-representation bone"
    args = parse(pretraining, f"{common} {training} {contrast} --pre-dataset ntu120 --checkpoint-path y")
    assert (args.lr, args.weight_decay, args.batch_size, args.schedule, args.cos, args.workers) == (
        1,
        0.1,
        8,
        [1, 2],
        True,
        1,
    )
    for spelling in (
        "--finetune-skeleton-representation",
        "--finetune_skeleton_representation",
        "--skeleton_representation",
    ):
        rest = f"--pretrained z --finetune_dataset pku_part2 {spelling} motion"
        assert (
            parse(action_classification, f"{common} {training} {rest}").finetune_skeleton_representation
            == "motion"
        )
        assert parse(action_retrieval, f"{common} --knn_neighbours 5 {rest}").knn_neighbours == 5


def test_config_lies_between_recipe_and_command_line(tmp_path):
    config = tmp_path / "mine.yaml"
    config.write_text("lr: 1e-1\nencoder_t: 0.07\nschedule: [5, 9]\ncos: true\n")
    args = parse(pretraining, f"--config {config} --encoder-t 0.5")
    assert (args.lr, args.encoder_t, args.schedule, args.cos, args.epochs) == (0.1, 0.5, [5, 9], True, 451)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("leraning-rate: 1\n", "unknown --leraning-rate, did you mean --learning-rate?"),
        ("batch-size: many\n", "--batch-size: invalid integer value: 'many'"),
        ("schedule: [3, x]\n", "--schedule: invalid integer value: 'x'"),
        ("lr: [1, 2]\n", "--learning-rate: invalid number value: '[1, 2]'"),
        ("lr: true\n", "--learning-rate: expected one argument"),
        ("checkpoint-path: false\n", "checkpoint-path has no value"),
        ("epochs:\n", "epochs has no value"),
        ("config: other.yaml\n", "config cannot be set in a file"),
        ("protocol: cross_objects\n", "invalid choice"),
        ("- 3\n", "no 'flag: value' lines"),
        ("a: \x00\n", "unacceptable character"),
    ],
)
def test_a_wrong_config_is_named(tmp_path, capsys, yaml, message):
    config = tmp_path / "mine.yaml"
    config.write_text(yaml)
    code, line = failure(capsys, parse, pretraining, f"--config {config}")
    assert code == 2 and message in line and str(config) in line


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("--bacth-size 3", "unknown --bacth-size, did you mean --batch-size?"),
        ("--epochs 0", "0 is not at least 1"),
        ("--lr nan", "nan is not above 0"),
        ("--seed 99999999999999999999", "is not at least 0 and at most 9223372036854775807"),
        ("--encoder-m 1.5", "1.5 is not at least 0 and at most 1"),
        ("--pre-dataset ntu61", "invalid choice: 'ntu61'"),
        ("--config nowhere.yaml", "nowhere.yaml: No such file"),
    ],
)
def test_a_mistake_gives_one_line(capsys, text, message):
    code, line = failure(capsys, parse, pretraining, text)
    assert code == 2 and message in line


def test_an_encoder_must_be_chosen(tmp_path, capsys):
    config = tmp_path / "mine.yaml"
    config.write_text("pretrained: x.tar\n")
    assert parse(action_retrieval, f"--config {config}").pretrained == "x.tar"
    for script, flags, message in [
        (action_classification, "", "choose one of --pretrained, --random-encoder (see"),
        (action_retrieval, "", "choose one of --pretrained, --random-encoder, --raw-coordinates (see"),
        (action_retrieval, "--pretrained x --random-encoder", "choose one of"),
        (action_retrieval, f"--config {config} --random-encoder", "choose one of"),
        (action_retrieval, "--raw-coordinates --bodies 1", "--raw-coordinates has no encoder: omit --bodies"),
    ]:
        code, line = failure(capsys, script.main, flags.split())
        assert code == 2 and message in line


@pytest.mark.parametrize("script", [*(script for script, _ in SCRIPTS), ntu_gendata, pku_gendata])
def test_help_shows_each_default_on_two_screens(script, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    parser = script.get_parser()
    text = parser.format_help()
    assert "None" not in text and len(text.splitlines()) <= 100 and max(map(len, text.splitlines())) <= 100
    words = " ".join(text.split())
    for action in parser._actions:
        default = action.default if isinstance(action.default, list) else [action.default]
        assert (
            action.nargs == 0
            or default == [None]
            or f"({' '.join(map(str, default))})" in words
            or "(all cores" in words
        )


def test_the_table_of_data_sets():
    assert str(split_folder("data", "ntu120", "cross_setup")) == "data/NTU-RGB-D-120-AGCN/xsetup"
    assert str(split_folder("data", "pku_part1", "cross_view")) == "data/pku_v1/xview"
    classes = dict(ntu60=60, ntu120=120, pku_part1=51, pku_part2=51, ui_prmd=10)
    assert {name: DATA_SETS[name].num_classes for name in classes} == classes
    with pytest.raises(
        ValueError, match="ntu60 has no protocol cross_setup: choose from cross_subject, cross_view"
    ):
        split_folder("data", "ntu60", "cross_setup")
