"""Classification: a linear layer on a frozen, pre-trained encoder; with --finetune both are trained.

    python action_classification.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

The frozen encoder is in evaluation mode and the crop deterministic, so its features are computed
once; every epoch then trains on them. --finetune takes the recipe options/finetune.yaml; its input
is the same deterministic crop, so that what changes between the two is the encoder alone. Started
by torchrun, N processes share the computation of the features.
"""

import copy
from argparse import Namespace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import SGD

from engine.checkpoint import (
    NAME,
    check_run,
    find_checkpoint,
    get_encoder,
    load_weights,
    restore_optimizer,
    same_file,
    save_checkpoint,
)
from engine.checkpoint_folder import CheckpointFolder
from engine.classifier import ClipBatches, FeatureBatches, class_scores, train_epoch
from engine.device import pick_device
from engine.distributed import check_alike, launched, process_group, rank
from engine.downstream import Features, Task, open_task, origin_notes, save_features
from engine.feature_cache import weights_digest
from engine.features import CLIPS
from engine.metrics import accuracy
from engine.outcome import Outcome, figures_of, fuse, report_accuracies, save_scores
from engine.report import report_classes
from engine.results import read_run
from engine.runlog import NoLog, Run, RunLog
from engine.subset import Subset, balanced_subset, describe_subset
from engine.training import learning_rate, random_states, restore_random_states, seed_everything, set_learning_rate
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.dataset import Batches, make_loader
from model import DownstreamModel
from options.datasets import DATA_SETS
from options.flags import (
    DOWNSTREAM_REPRESENTATION,
    add_checkpoint_flags,
    add_data_flags,
    add_encoder_flags,
    add_optimizer_flags,
    add_run_flags,
    add_training_flags,
    check_encoder_flags,
    check_training_flags,
    given_folder,
    given_sizes,
    task_name,
)
from options.parser import Parser, listed


class Trial(NamedTuple):
    """One training of several: of one stream, in one of `--repeats`."""

    place: int  # of the stream among the streams
    stream: str
    repeat: int
    label: str  # before the names of its figures; empty where it is the only one
    folder: Path  # of its checkpoint


def get_parser() -> Parser:
    """Return the command line of linear evaluation and fine-tuning."""
    parser = Parser(recipe="linear", description=__doc__, variants=("finetune",))
    add_data_flags(parser, "--finetune-dataset", DOWNSTREAM_REPRESENTATION, STREAMS)
    add_encoder_flags(parser)
    add_training_flags(parser)
    add_optimizer_flags(parser)
    add_checkpoint_flags(parser, save_freq=20)
    add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Train and evaluate as the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    check_encoder_flags(parser, args)
    check_training_flags(parser, args)
    if launched() > 1 and (args.finetune or args.no_feature_cache):
        parser.error("--finetune and --no-feature-cache are for one process: several share the extraction of features alone")
    folder = given_folder(parser, args, args.finetune_dataset)
    device = pick_device(args.device, args.gpu)
    with process_group(device), CheckpointFolder(args.checkpoint_path, not rank()) as checkpoints:
        classify(args, folder, device, checkpoints)


def classify(args: Namespace, folder: Path, device: torch.device, checkpoints: CheckpointFolder) -> None:
    """Train and evaluate on the arrays in `folder`; of several processes all train alike, and rank 0 writes."""
    streams = listed(args.finetune_skeleton_representation)
    trials = list_trials(args, streams)
    run = Run(task_name(args), args.finetune_dataset, args.protocol, "+".join(streams))
    first, resumed = find_checkpoint(args.resume, trials[0].folder)
    check_run(first, run, vars(args), resumed)
    last = find_checkpoint(args.resume, trials[-1].folder)[0]
    finished = last.get("epoch", args.start_epoch)
    check_alike("the checkpoint: --checkpoint-path is one folder for all", [first.get("epoch"), finished])
    if finished >= args.epochs and (not last or read_run(Path(last.get("log_folder", "")))):
        if not rank():
            print(f"nothing left to do: epoch {finished} of --epochs {args.epochs}")
        return

    # data and encoders; what does not fit ends the run here, before it writes anything
    task = open_task(folder, DATA_SETS[args.finetune_dataset].num_classes, streams, listed(args.pretrained),
                     given_sizes(args), device, first.get("seed", args.seed))  # fmt: skip
    args.seed, args.origins = task.seed, task.origins
    for trial in trials:
        balanced_subset(task.parts[0].labels, args.label_fraction, args.seed + trial.repeat)
        if args.resume:
            build(args, run, task, trial)

    # trainings, and what they come to
    continued = len(trials) == 1 and same_file(resumed, trials[0].folder / NAME) and "run" in first
    earlier, start_epoch = (first.get("log_folder"), first["epoch"]) if continued else (None, 0)
    del first, last  # frees the memory
    checkpoints.claim()
    with NoLog() if rank() else RunLog(args.log_dir, run, args, earlier, start_epoch) as log:
        train, test = task.parts
        log.print(f"{len(train)} training and {len(test)} test samples of {folder}, {task.device}, seed {args.seed}")
        log.print(f"log in {log.folder}")
        for note in train.notes + test.notes + origin_notes(run, streams, listed(args.pretrained), task.origins):
            log.print(note)
        for trial in trials if args.resume != "auto" else ():
            CheckpointFolder(trial.folder, not rank()).set_aside(resumed, log.print)
        features_of = Features(task, log, args.feature_cache, args.workers)
        outcomes: list[list[Outcome]] = [[] for _ in streams]
        for trial in trials:
            outcomes[trial.place].append(train_one(args, run, task, trial, features_of, log))
        save_scores(log, test, streams, outcomes, args.stream_weights)
        labels = torch.from_numpy(test.labels)
        report_accuracies(log, streams, outcomes, labels, args.stream_weights)
        predictions = fuse([repeats[0] for repeats in outcomes], args.stream_weights).last.argmax(dim=1)
        computed = len(streams) == 1 and not (args.finetune or args.no_feature_cache)
        features = features_of(streams[0], task.encoders[0])[1][0] if computed else None
        if not rank():
            report_classes(log, run.data_set, task.num_classes, test.names, labels, predictions, features)


def list_trials(args: Namespace, streams: list[str]) -> list[Trial]:
    """Return all trainings of the run, those of a stream one after the other; several have a folder of their own each."""
    trials = []
    for place, stream in enumerate(streams):
        for repeat in range(args.repeats):
            words = [stream] * (len(streams) > 1) + [f"repeat{repeat}"] * (args.repeats > 1)
            trials.append(Trial(place, stream, repeat, "/".join(words), Path(args.checkpoint_path, *words)))
    return trials


def build(args: Namespace, run: Run, task: Task, trial: Trial) -> tuple[DownstreamModel, SGD, dict]:
    """Return model, optimiser, and the checkpoint that they and the random generators go on from.

    Where there is none the last is nothing but "start", the digest of the encoder that the training begins from.

    Raises:
        UserError: the checkpoint does not fit, or is of another run.
    """
    checkpoint, path = find_checkpoint(args.resume, trial.folder)
    seed_everything(args.seed + trial.repeat)
    encoder = copy.deepcopy(task.encoders[trial.place]) if args.pretrained else get_encoder(None, given_sizes(args))[0]
    start = weights_digest(encoder)
    if path and "run" in checkpoint:
        check_run(checkpoint, run, vars(args), path)
        check_samples(args, len(task.parts[1]), checkpoint, path)
        if checkpoint.get("start") != start:
            raise UserError(f"{path} began from another encoder; give another --checkpoint-path, or leave --resume out")
    model = DownstreamModel(encoder, task.num_classes)
    if path:
        load_weights(model, checkpoint["state_dict"], path)
    model.to(task.device)
    learns = model if args.finetune else model.fc
    optimizer = SGD(learns.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    if path:
        restore_optimizer(optimizer, model, checkpoint, path)
    if "random" in checkpoint:
        restore_random_states(checkpoint["random"])
    return model, optimizer, {"start": start} | checkpoint


def check_samples(args: Namespace, test_samples: int, checkpoint: dict, path: Path) -> None:
    """Raise UserError where a checkpoint of ours was trained on another share of the labels, or tested on other clips."""
    fraction, scores = checkpoint["options"].get("label_fraction", 1.0), checkpoint.get("best_scores")
    if fraction != args.label_fraction:
        raise UserError(f"{path} is of another run: --label-fraction {fraction:g}; give another --checkpoint-path")
    if scores is not None and len(scores) != test_samples:
        raise UserError(f"{path} was made with {len(scores)} test samples, not {test_samples}; give another --checkpoint-path")


def open_samples(
    args: Namespace, task: Task, trial: Trial, model: DownstreamModel, features_of: Features, log: RunLog
) -> tuple[Batches, FeatureBatches | ClipBatches, list | ClipBatches]:
    """Return the order of the training samples, these samples, and the test samples: features, or clips for the long way."""
    (train, test), seed = task.parts, args.seed + trial.repeat
    rows = balanced_subset(train.labels, args.label_fraction, seed)
    if args.label_fraction < 1:
        log.print(describe_subset(train.labels, rows, seed))
    batches = Batches(len(rows), args.batch_size, seed)
    if args.finetune or args.no_feature_cache:
        pin = task.device.type == "cuda"
        train_loader = make_loader(Subset(train, rows), batches, args.workers, pin)
        test_loader = make_loader(test, Batches(len(test), CLIPS), args.workers, pin)
        how = model, trial.stream, task.device, not args.finetune
        return batches, ClipBatches(train_loader, *how), ClipBatches(test_loader, *how)
    (features, labels), tested = features_of(trial.stream, model.encoder)
    taken = torch.from_numpy(rows).to(task.device)
    return batches, FeatureBatches(features, labels, batches, taken), [tested]


def train_one(args: Namespace, run: Run, task: Task, trial: Trial, features_of: Features, log: RunLog) -> Outcome:
    """Train on the training part from where the checkpoint stands, evaluate on the test part after each epoch.

    Raises:
        UserError: the loss or a score is not finite; the last checkpoint stands.
    """
    model, optimizer, checkpoint = build(args, run, task, trial)
    batches, train, test = open_samples(args, task, trial, model, features_of, log)
    classifier = model if args.finetune else model.fc
    start_epoch, before = checkpoint.get("epoch", args.start_epoch), f"{trial.label}/" if trial.label else ""
    best_acc1, best_scores = checkpoint.get("best_acc1", -1.0), checkpoint.get("best_scores")
    if trial.label:
        log.print(f"{trial.label}, seed {args.seed + trial.repeat}")
    for epoch in range(start_epoch, args.epochs):
        batches.epoch = epoch
        set_learning_rate(optimizer, learning_rate(args.lr, epoch, args.epochs, args.schedule, args.cos))
        loss = train_epoch(classifier, train, optimizer, epoch, args.print_freq, log)
        scores, labels = evaluate(classifier, test, epoch)
        acc1, acc5 = accuracy(scores, labels), accuracy(scores, labels, k=5)
        if acc1 > best_acc1:
            best_acc1, best_scores = acc1, scores
        log.print(f" * Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
        log.metrics(epoch, **{f"{before}loss": loss, f"{before}acc1": acc1, f"{before}acc5": acc5,
                              f"{before}lr": optimizer.param_groups[0]["lr"]})  # fmt: skip
        if not rank() and ((epoch + 1) % args.save_freq == 0 or epoch + 1 == args.epochs):
            save_checkpoint(trial.folder / NAME, dict(
                epoch=epoch + 1, state_dict=model.state_dict(), optimizer=optimizer.state_dict(), seed=args.seed,
                sizes={"encoder": model.encoder.sizes}, options=vars(args), best_acc1=best_acc1, best_scores=best_scores,
                run=list(run), log_folder=str(log.folder), random=random_states(), start=checkpoint["start"],
            ))  # fmt: skip
    if start_epoch >= args.epochs:
        scores, labels = evaluate(classifier, test, start_epoch)
    outcome = Outcome(scores, scores if best_scores is None else best_scores)
    if trial.label:
        log.metrics(stream=trial.stream, repeat=trial.repeat, **figures_of([outcome], labels))
    if args.save_features and trial.repeat == 0:
        for part, (features, _) in zip(task.parts, features_of(trial.stream, model.encoder), strict=True):
            save_features(log, trial.stream, part, features, model.fc(features).argmax(dim=1))
    return outcome


def evaluate(classifier: torch.nn.Module, test: list | ClipBatches, epoch: int) -> tuple[Tensor, Tensor]:
    """Return the scores (N, classes) of the test samples and their labels (N,), on the CPU.

    Raises:
        UserError: a score is not finite.
    """
    scores, labels = class_scores(classifier, test)
    if not torch.isfinite(scores).all():
        raise UserError(f"scores are not finite after epoch {epoch}: stopped; a lower --lr may help")
    return scores.cpu(), labels.cpu()


if __name__ == "__main__":
    main()
