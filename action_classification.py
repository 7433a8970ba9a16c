"""Classification: train a linear layer on a frozen, pre-trained encoder; with --finetune, train both.

    python action_classification.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

The features of the frozen encoder are computed once, on a deterministic crop, and every epoch
trains on them. --finetune takes the recipe options/finetune.yaml and trains on the same crop.
"""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Collection
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Subset

from engine import evaluation, features
from engine.checkpoint import (
    NAME,
    check_run,
    find_checkpoint,
    get_encoder,
    load_weights,
    lock_folder,
    restore_optimizer,
    resumed_log,
    save_checkpoint,
)
from engine.device import pick_device
from engine.meters import Meter, progress_line
from engine.records import read_run
from engine.runlog import Run, RunLog
from engine.training import learning_rate, random_states, restore_random_states, seed_everything, set_learning_rate
from engine.visualisation import report_classes
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.dataset import Batches
from model import DownstreamModel, Encoder
from options import flags
from options.datasets import DATA_SETS
from options.parser import Parser, listed, positive_fraction, positive_int

Features = tuple[Tensor, Tensor] | None  # (N, 2 d) of the training and the test set; None to train on clips
Samples = Collection[tuple[Tensor, Tensor | None]]  # batches of inputs and labels, on the device


def get_parser() -> Parser:
    """Return the command line of linear evaluation and fine-tuning."""
    parser = Parser(recipe="linear", description=__doc__, variants=("finetune",))
    flags.add_data_flags(parser, "--finetune-dataset", flags.DOWNSTREAM_REPRESENTATION, STREAMS)
    flags.add_encoder_flags(parser)
    group = parser.add_argument_group("training")
    group.add_argument("--finetune", action="store_true", help="train encoder and linear layer together, with the recipe "
                       "options/finetune.yaml; with --random-encoder: supervised training from scratch")  # fmt: skip
    group.add_argument("--label-fraction", type=positive_fraction, default=1.0, metavar="F", help="train on this share of the "
                       "labels, balanced over the classes (%(default)s)")  # fmt: skip
    group.add_argument("--repeats", type=positive_int, default=1, metavar="R", help="train with R seeds and label subsets, and "
                       "print mean and standard deviation (%(default)s)")  # fmt: skip
    flags.add_optimizer_flags(parser)
    flags.add_checkpoint_flags(parser, save_freq=20)
    flags.add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Open data, encoders and the checkpoint to continue, then classify."""
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args)
    streams = listed(args.finetune_skeleton_representation)
    if args.resume is not None and (len(streams) > 1 or args.repeats > 1):
        parser.error("--resume continues a single training: leave it out with several streams or --repeats")
    folder, num_classes = flags.given_folder(parser, args, args.finetune_dataset), DATA_SETS[args.finetune_dataset].num_classes
    device = pick_device(args.device, args.gpu)
    name = "linear" if not args.finetune else "supervised" if args.random_encoder else "finetune"
    run = Run(name, args.finetune_dataset, args.protocol, "+".join(streams))

    # checkpoint to resume; a linear layer is quickly trained again and replaces that of an earlier run
    checkpoint, path = find_checkpoint(args.resume, args.checkpoint_path, replace=not args.finetune)
    notes = check_run(checkpoint, run, vars(args), path)
    epoch = checkpoint.get("epoch", args.start_epoch)
    if epoch >= args.epochs and (not checkpoint or read_run(Path(checkpoint.get("log_folder", "")))):
        return print(f"nothing left to do: epoch {epoch} of --epochs {args.epochs}")

    # data and encoders; whatever does not fit ends the run before it writes anything
    task = features.open_task(folder, num_classes, streams, listed(args.pretrained), flags.given_sizes(args), device,
                              checkpoint.get("seed", args.seed))  # fmt: skip
    args.seed, args.data, args.origins = task.seed, task.data, task.origins
    evaluation.balanced_subset(task.train.labels, args.label_fraction, args.seed)
    features.check_continuation(checkpoint, path, args.label_fraction, args.data, args.origins)
    log_folder = resumed_log(checkpoint, path, args.checkpoint_path)
    with lock_folder(args.checkpoint_path), RunLog(args.log_dir, run, args, log_folder, epoch) as log:
        log.print(f"{len(task.train)} training and {len(task.test)} test samples of {folder}, {device}, seed {args.seed}")
        log.print(f"log in {log.folder}")
        for note in notes + features.notes_of(task, run, streams, listed(args.pretrained)):
            log.print(note)
        classify(args, run, task, checkpoint, path, log)


def trial_name(args: Namespace, stream: str, repeat: int) -> str:
    """Return the name of one of several trainings, such as "bone/repeat1"; "" for a single one."""
    words = [stream] if len(listed(args.finetune_skeleton_representation)) > 1 else []
    return "/".join([*words, f"repeat{repeat}"] if args.repeats > 1 else words)


def classify(args: Namespace, run: Run, task: features.Task, checkpoint: dict, path: Path | None, log: RunLog) -> None:
    """Train and evaluate a classifier for each stream and repeat; report their accuracies, their fusion and the classes."""
    streams, labels = listed(args.finetune_skeleton_representation), torch.from_numpy(task.test.labels)
    num_classes = DATA_SETS[run.data_set].num_classes
    for part in (task.train, task.test) if args.finetune else ():  # frozen features are checked themselves
        features.check_coordinates(part)
    scores: list[list[evaluation.Scores]] = [[] for _ in streams]
    for stream, encoder, found in zip(streams, task.encoders, scores, strict=True):
        frozen: Features = None
        for repeat in range(args.repeats):
            seed, name = evaluation.repeat_seed(args.seed, repeat), trial_name(args, stream, repeat)
            model, optimizer = build(args, encoder, num_classes, seed, task.device, checkpoint, path)
            if not args.finetune and (frozen is None or args.random_encoder):  # once, unless each repeat has its own encoder
                frozen = features.extract_both(task, model.encoder, stream, args.workers)
            found.append(train(args, run, task, stream, model, optimizer, frozen, seed, checkpoint, name, log))
            if name:
                log.metrics(stream=stream, repeat=repeat, **evaluation.summarise(found[-1:], labels))
            if args.save_features and repeat == 0:
                both = frozen or features.extract_both(task, model.encoder, stream, args.workers)
                for part, x in zip((task.train, task.test), both, strict=True):
                    features.save_features(log, stream, part, x, model.fc(x).argmax(dim=1))

    predictions = evaluation.report_scores(log, task.test, streams, scores, args.stream_weights)
    shown = frozen[1] if frozen and len(streams) == 1 else None
    report_classes(log, run.data_set, num_classes, task.test.names, labels, predictions, shown)


def build(
    args: Namespace, encoder: Encoder, num_classes: int, seed: int, device: torch.device, checkpoint: dict, path: Path | None
) -> tuple[DownstreamModel, SGD]:
    """Return model and optimiser, fresh from the seed or as in the checkpoint; sets all random generators."""
    seed_everything(seed)
    own = copy.deepcopy(encoder) if args.pretrained else get_encoder(None, flags.given_sizes(args))[0]
    model = DownstreamModel(own, num_classes)
    if checkpoint:
        load_weights(model, checkpoint["state_dict"], path)
    model.to(device)
    learned = model if args.finetune else model.fc
    optimizer = SGD(learned.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    if checkpoint:
        restore_optimizer(optimizer, model, checkpoint, path)
    if "random" in checkpoint:
        restore_random_states(checkpoint["random"])
    return model, optimizer


def train(
    args: Namespace, run: Run, task: features.Task, stream: str, model: DownstreamModel, optimizer: Optimizer,
    frozen: Features, seed: int, checkpoint: dict, name: str, log: RunLog,
) -> evaluation.Scores:  # fmt: skip
    """Train one classifier, evaluate it on the test set after each epoch, and return its test scores.

    `seed` decides the label subset and the order of the batches; `name` is that of this training among several, or "".
    """
    classifier, labels = model if args.finetune else model.fc, torch.from_numpy(task.test.labels)
    if name:
        log.print(f"{name}, seed {seed}")
    rows = evaluation.balanced_subset(task.train.labels, args.label_fraction, seed)
    if args.label_fraction < 1:
        log.print(evaluation.describe_subset(task.train.labels, rows, seed))

    # samples: features on the device, or clips from loaders
    batches = Batches(len(rows), args.batch_size, seed)
    if frozen:
        x = frozen[0][torch.from_numpy(rows).to(task.device)]
        y = torch.from_numpy(task.train.labels[rows]).to(task.device)
        train_samples, test_samples = features.FeatureBatches(x, y, batches), [(frozen[1], None)]
    else:
        how, in_order = (args.workers, stream, model.encoder.sizes, task.device), Batches(len(task.test), features.BATCH_SIZE)
        train_samples = features.ClipBatches(Subset(task.train, rows), batches, *how)
        test_samples = features.ClipBatches(task.test, in_order, *how)

    start_epoch, prefix = checkpoint.get("epoch", args.start_epoch), f"{name}/" if name else ""
    best_acc1, best_scores = checkpoint.get("best_acc1", -1.0), checkpoint.get("best_scores")
    for epoch in range(start_epoch, args.epochs):
        # train
        batches.epoch, lr = epoch, learning_rate(args.lr, epoch, args.epochs, args.schedule, args.cos)
        set_learning_rate(optimizer, lr)
        loss = train_epoch(classifier, train_samples, optimizer, epoch, args.print_freq, log)

        # evaluate
        scores = class_scores(classifier, test_samples)
        acc1, acc5 = evaluation.accuracy(scores, labels), evaluation.accuracy(scores, labels, k=5)
        if acc1 > best_acc1:
            best_acc1, best_scores = acc1, scores
        log.print(f" * Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
        log.metrics(epoch, **{f"{prefix}loss": loss, f"{prefix}acc1": acc1, f"{prefix}acc5": acc5, f"{prefix}lr": lr})

        # save
        if (epoch + 1) % args.save_freq == 0 or epoch + 1 == args.epochs:
            save_checkpoint(Path(args.checkpoint_path, name, NAME), dict(
                epoch=epoch + 1, state_dict=model.state_dict(), optimizer=optimizer.state_dict(), seed=args.seed,
                sizes={"encoder": model.encoder.sizes}, options=vars(args), best_acc1=best_acc1, best_scores=best_scores,
                run=list(run), log_folder=str(log.folder), random=random_states(),
            ))  # fmt: skip
    if start_epoch >= args.epochs:  # the earlier run stopped before it had written its result
        scores = class_scores(classifier, test_samples)
    return evaluation.Scores(scores, scores if best_scores is None else best_scores)


def train_step(classifier: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer) -> tuple[Tensor, Tensor]:
    """Take one step; return the loss and the accuracy in percent, as 0-d tensors. Nothing here waits for the device."""
    scores = classifier(x)
    loss = F.cross_entropy(scores, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), 100 * (scores.detach().argmax(dim=1) == y).float().mean()


def train_epoch(
    classifier: nn.Module, samples: Samples, optimizer: Optimizer, epoch: int, print_freq: int, log: RunLog
) -> float:
    """Train for one epoch, print a line every `print_freq` steps, return the mean loss; raise UserError if it is not finite."""
    classifier.train()
    meters = {"Time": Meter("6.3f"), "Loss": Meter(".4e"), "Acc@1": Meter("6.2f")}
    before = time.perf_counter()
    for step, (x, y) in enumerate(samples):
        loss, acc1 = train_step(classifier, x, y, optimizer)
        meters["Loss"].update(loss, len(x))
        meters["Acc@1"].update(acc1, len(x))
        meters["Time"].update(time.perf_counter() - before)
        before = time.perf_counter()
        if step % print_freq == 0:  # reads the meters from the device
            log.print(progress_line(epoch, step, len(samples), meters))
    loss = meters["Loss"].mean()
    if not math.isfinite(loss):
        raise UserError(f"the loss is {loss} in epoch {epoch}: stopped; a lower --lr may help")
    return loss


def class_scores(classifier: nn.Module, samples: Samples) -> Tensor:
    """Return the scores (N, classes) of all samples, in evaluation mode, on the CPU; raise UserError if one is not finite."""
    classifier.eval()
    with torch.no_grad():
        scores = torch.cat([classifier(x) for x, _ in samples]).cpu()
    if not torch.isfinite(scores).all():
        raise UserError("class scores are not finite: stopped; a lower --lr may help")
    return scores


if __name__ == "__main__":
    main()
