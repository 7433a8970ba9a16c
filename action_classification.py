"""Classification: train a linear layer on a frozen, pre-trained encoder; with --finetune, train both.

    python action_classification.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

The features of the frozen encoder are computed once, on a deterministic crop, and every epoch
trains on them. --finetune uses the recipe options/finetune.yaml and trains on random crops.
"""

import copy
import math
import time
from argparse import Namespace
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.utils.data import Subset

from engine import checkpoint as checkpoints
from engine import evaluation
from engine.device import pick_device, set_threads
from engine.features import (
    BATCH_SIZE,
    Task,
    clip_batches,
    extract_features,
    feature_batches,
    open_task,
    save_features,
)
from engine.files import save_npz
from engine.meters import Meter, progress_line
from engine.results import RESULT, mean_of, write_rows
from engine.runlog import Run, RunLog
from engine.training import random_states, restore_random_states, seed_everything, set_learning_rate
from engine.visualisation import report_classes
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.dataset import Batches, make_loader
from model import DownstreamModel, Encoder
from options import flags
from options.datasets import DATA_SETS
from options.parser import Parser, listed, positive_fraction, positive_int

Features = tuple[Tensor, Tensor] | None  # of training and test set, (N, 2 d)
Samples = Callable[
    [], Iterable[tuple[Tensor, Tensor]]
]  # returns the batches of an epoch: inputs and labels, on the device


def get_parser() -> Parser:
    """Return the command line of linear evaluation and fine-tuning."""
    parser = Parser(recipe="linear", description=__doc__, variants=("finetune",))
    flags.add_data_flags(parser, "--finetune-dataset", STREAMS, several=True)
    flags.add_encoder_flags(parser)
    add = parser.add_argument_group("training").add_argument
    add(
        "--finetune",
        action="store_true",
        help="train the encoder too; with --random-encoder: supervised, from scratch",
    )
    share = "share of the labels to train on, balanced over the classes (%(default)s)"
    add("--label-fraction", type=positive_fraction, default=1.0, metavar="F", help=share)
    add(
        "--repeats",
        type=positive_int,
        default=1,
        metavar="R",
        help="trainings with different seeds and labels (%(default)s)",
    )
    crop = "share of a training clip that --finetune crops at random, smallest and largest (centre crop if not set)"
    add("--crop-ratio", type=positive_fraction, nargs=2, metavar=("LOW", "HIGH"), help=crop)
    flags.add_optimizer_flags(parser)
    flags.add_checkpoint_flags(parser, save_freq=20)
    flags.add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Train and evaluate a classifier for each stream and repeat; report their accuracies and their fusion."""
    # options
    parser = get_parser()
    args = parser.parse_args(argv)
    flags.check_encoder_flags(parser, args)
    streams = listed(args.finetune_skeleton_representation)
    flags.check_warmup(parser, args)
    if args.crop_ratio and (not args.finetune or args.crop_ratio[0] > args.crop_ratio[1]):
        parser.error("--crop-ratio LOW HIGH is for --finetune, with LOW at most HIGH")
    if args.resume is not None and (len(streams) > 1 or args.repeats > 1):
        parser.error("--resume continues a single training: omit it with several streams or --repeats")
    folder, num_classes = (
        flags.given_folder(parser, args, args.finetune_dataset),
        DATA_SETS[args.finetune_dataset].num_classes,
    )
    task_name = "linear" if not args.finetune else "supervised" if args.random_encoder else "finetune"
    run = Run(task_name, args.finetune_dataset, args.protocol, "+".join(streams))

    # checkpoint to resume; a linear layer is quickly trained again, so it may replace that of an earlier run
    names = {stream: trial_names(args, stream, len(streams) > 1) for stream in streams}
    for name in [name for trials in names.values() for name in trials]:  # only one with --resume
        trial_folder = Path(args.checkpoint_path, name)
        checkpoint, path = checkpoints.find_checkpoint(
            args.resume, trial_folder, None if args.finetune else "linear"
        )
    before, notes = checkpoint.get("options", {}), checkpoints.check_run(checkpoint, run, vars(args), path)
    epoch = checkpoint.get("epoch", args.start_epoch)
    log_folder = checkpoints.resumed_log(checkpoint, path, args.checkpoint_path)
    if epoch >= args.epochs and (not checkpoint or log_folder and (log_folder / RESULT).is_file()):
        return print(f"nothing to do: epoch {epoch} of --epochs {args.epochs} ({path or '--start-epoch'})")

    # data and encoders, checked before anything is written
    device, seed = pick_device(args.device, args.gpu), checkpoint.get("seed", args.seed)
    set_threads(args.threads)
    task = open_task(run, folder, num_classes, listed(args.pretrained), flags.given_sizes(args), device, seed)
    evaluation.balanced_subset(
        task.train.labels, args.label_fraction, task.record["seed"]
    )  # refuses empty classes
    for entry in ("data", "origins"):
        if before.get(entry, task.record[entry]) != task.record[entry]:
            raise UserError(
                f"{path} was started with other {entry}: choose another --checkpoint-path, or omit --resume"
            )
    vars(args).update(task.record, changes=before.get("changes", []) + notes)

    with (
        checkpoints.lock_folder(args.checkpoint_path),
        RunLog(args.log_dir, run, args, log_folder, epoch) as log,
    ):
        (log.folder / RESULT).unlink(missing_ok=True)
        log.print(
            f"{len(task.train)} training and {len(task.test)} test samples of {folder}, {device}, seed {args.seed}"
        )
        for note in (f"log in {log.folder}", *task.train.notes, *task.test.notes, *notes):
            log.print(note)

        # for each stream: features once, then a classifier for each repeat
        scores = []
        for stream, encoder, origin in zip(streams, task.encoders, args.origins, strict=True):
            log.print(
                f"{stream} stream, encoder: {evaluation.describe_encoder(origin, args.protocol, stream)}"
            )
            features = None
            for repeat in range(args.repeats):
                seed = seed_everything(evaluation.repeat_seed(args.seed, repeat))
                own = (
                    copy.deepcopy(encoder) if args.pretrained else Encoder(**encoder.sizes)
                )  # random: one for each repeat
                model = DownstreamModel(own, num_classes).to(device)
                if not args.finetune and (features is None or args.random_encoder):
                    features = extract_features(task, model.encoder, stream, args.workers)
                scores.append(
                    train(
                        args,
                        task,
                        stream,
                        model,
                        features,
                        seed,
                        names[stream][repeat],
                        checkpoint,
                        path,
                        log,
                    )
                )
                if repeat == 0:
                    first = features
                    if args.save_features:
                        found = features or extract_features(task, model.encoder, stream, args.workers)
                        save_features(log.folder, task, stream, found)
        all_scores = torch.stack(scores).unflatten(0, (len(streams), args.repeats))
        report(args, task, all_scores, first[1] if first and len(streams) == 1 else None, log)


def trial_names(args: Namespace, stream: str, several: bool) -> list[str]:
    """Return the name of each training of a stream, which is its folder in --checkpoint-path: "" if there is only one."""
    trials = [f"repeat{repeat}" for repeat in range(args.repeats)] if args.repeats > 1 else [""]
    return ["/".join(filter(None, [stream if several else "", trial])) for trial in trials]


def train(
    args: Namespace,
    task: Task,
    stream: str,
    model: DownstreamModel,
    features: Features,
    seed: int,
    name: str,
    checkpoint: dict,
    path: Path | None,
    log: RunLog,
) -> Tensor:
    """Train one classifier, on features or, if they are None, on clips; evaluate it on the test set after each epoch.

    `seed` determines the label subset and the order of the batches; `name` is "" for a single training. Return the scores (2,
    N, classes) of the test set after the last epoch and after the epoch with the best accuracy, on the CPU.
    """
    labels, rows = (
        torch.from_numpy(task.test.labels),
        evaluation.balanced_subset(task.train.labels, args.label_fraction, seed),
    )
    if name or args.label_fraction < 1:
        log.print(f"{name or stream}: {len(rows)} of {len(task.train)} labels, drawn with seed {seed}")

    # optimiser, and the state of the checkpoint
    classifier = model if args.finetune else model.fc
    optimizer = SGD(classifier.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    if checkpoint:
        checkpoints.load_weights(model, checkpoint["state_dict"], path)
        checkpoints.restore_optimizer(optimizer, model, checkpoint, path)
    generator = torch.Generator().manual_seed(seed)  # of random crops
    if "random" in checkpoint:
        restore_random_states(checkpoint["random"], path, generator)

    # samples: features on the device, or clips from loaders
    batches, in_order = Batches(len(rows), args.batch_size, seed), Batches(len(task.test), BATCH_SIZE)
    if features:
        x, y = (
            features[0][torch.from_numpy(rows).to(task.device)],
            torch.from_numpy(task.train.labels[rows]).to(task.device),
        )
        train_samples, test_samples = (
            partial(feature_batches, x, y, batches),
            partial(iter, [(features[1], labels)]),
        )
    else:
        pin_memory, how = task.device.type == "cuda", (stream, model.encoder.sizes, task.device)
        loader = make_loader(Subset(task.train, rows), batches, args.workers, pin_memory)
        train_samples = partial(clip_batches, loader, *how, args.crop_ratio, generator)
        test_samples = partial(clip_batches, make_loader(task.test, in_order, args.workers, pin_memory), *how)

    prefix, folder = f"{name}/" if name else "", Path(args.checkpoint_path, name)
    best_acc1, best_scores, scores = checkpoint.get("best_acc1", -1.0), checkpoint.get("best_scores"), None
    best: dict = {}  # since the last checkpoint
    about = dict(run=list(task.run), options=vars(args), log_folder=str(log.folder), seed=args.seed)
    for epoch in range(checkpoint.get("epoch", args.start_epoch), args.epochs):
        # train
        batches.epoch, lr = epoch, set_learning_rate(optimizer, args, epoch)
        loss = train_epoch(classifier, train_samples, batches, optimizer, args.print_freq, log)

        # evaluate
        scores = class_scores(classifier, test_samples)
        if not math.isfinite(loss) or not scores.isfinite().all():
            raise UserError(
                f"loss or class scores are not finite in epoch {epoch}: stopped; try a lower --lr"
            )
        acc1, acc5 = evaluation.accuracy(scores, labels), evaluation.accuracy(scores, labels, k=5)
        if acc1 > best_acc1:
            best_acc1, best_scores = acc1, scores
            best = {"epoch": epoch + 1, "weights": {n: t.clone() for n, t in classifier.state_dict().items()}}
        log.print(f" * Acc@1 {acc1:.3f} Acc@5 {acc5:.3f}")
        log.metrics(
            epoch, **{f"{prefix}loss": loss, f"{prefix}acc1": acc1, f"{prefix}acc5": acc5, f"{prefix}lr": lr}
        )

        # save
        if (epoch + 1) % args.save_freq == 0 or epoch + 1 == args.epochs:
            state = dict(epoch=epoch + 1, state_dict=model.state_dict(), optimizer=optimizer.state_dict())
            state |= dict(sizes={"encoder": model.encoder.sizes}, random=random_states(generator))
            state |= dict(best_acc1=best_acc1, best_scores=best_scores)
            checkpoints.save_checkpoint(folder / checkpoints.NAME, state | about)
            if best:  # for --pretrained; without an optimiser, it cannot be resumed
                layer = "" if args.finetune else "fc."
                weights = model.state_dict() | {
                    layer + name: tensor for name, tensor in best["weights"].items()
                }
                state |= dict(epoch=best["epoch"], state_dict=weights, optimizer={})
                checkpoints.save_checkpoint(folder / checkpoints.BEST, state | about)
                best = {}
    if scores is None:  # the earlier run stopped before writing its result
        scores = class_scores(classifier, test_samples)
    return torch.stack([scores, scores if best_scores is None else best_scores])


def train_step(classifier: nn.Module, x: Tensor, y: Tensor, optimizer: Optimizer) -> tuple[Tensor, Tensor]:
    """Do one step without waiting for the device; return the loss and the accuracy in percent as 0-d tensors."""
    scores = classifier(x)
    loss = F.cross_entropy(scores, y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), 100 * (scores.detach().argmax(dim=1) == y).float().mean()


def train_epoch(
    classifier: nn.Module,
    samples: Samples,
    batches: Batches,
    optimizer: Optimizer,
    print_freq: int,
    log: RunLog,
) -> float:
    """Train for one epoch, print a line every `print_freq` steps, return the mean loss."""
    classifier.train()
    meters = {"Time": Meter("6.3f"), "Loss": Meter(".4e"), "Acc@1": Meter("6.2f")}
    before = time.perf_counter()
    for step, (x, y) in enumerate(samples()):
        loss, acc1 = train_step(classifier, x, y, optimizer)
        meters["Loss"].update(loss, len(x))
        meters["Acc@1"].update(acc1, len(x))
        meters["Time"].update(time.perf_counter() - before)
        before = time.perf_counter()
        if step % print_freq == 0:  # reads the meters from the device
            log.print(progress_line(batches.epoch, step, len(batches), meters))
    return meters["Loss"].mean()


@torch.no_grad()
def class_scores(classifier: nn.Module, samples: Samples) -> Tensor:
    """Return the scores (N, classes) of all samples, in evaluation mode, on the CPU."""
    classifier.eval()
    return torch.cat([classifier(x) for x, _ in samples()]).cpu()


def report(args: Namespace, task: Task, scores: Tensor, features: Tensor | None, log: RunLog) -> None:
    """Print the accuracies of the streams, of their fusion and of the classes; write the scores, then the result.

    `scores` are (streams, repeats, 2, N, classes), of the last and of the best epoch; TensorBoard shows the `features`.
    """
    test, run, labels = task.test, task.run, torch.from_numpy(task.test.labels)
    fused, rows = evaluation.fuse(scores, args.stream_weights), []  # (repeats, 2, N, classes)
    parts = dict(zip(task.streams, scores, strict=True)) | {
        run.stream: fused
    }  # a single stream is its own fusion
    for stream, found in parts.items():
        row = evaluation.result_row(run, vars(args), stream, run.task, **evaluation.summarise(found, labels))
        last, best = mean_of([row], "acc1", 3), mean_of([row], "best_acc1", 3)
        log.print(
            f"{stream}: Acc@1 of the last epoch {last}; of the epoch best on the test set {best} (what papers report)"
        )
        rows.append(row)

    # the first repeat in detail
    predictions = fused[0, 0].argmax(dim=1)
    last, best = scores[:, 0].unbind(dim=1)  # (streams, N, classes)
    arrays = dict(names=np.array(test.names), labels=test.labels, predictions=predictions.numpy())
    arrays |= dict(streams=np.array(task.streams), scores=last.numpy(), best_scores=best.numpy())
    save_npz(log.folder / "predictions.npz", **arrays)
    report_classes(log, task, predictions, features)
    log.metrics(best_acc1=rows[-1]["best_acc1"], last_acc1=rows[-1]["acc1"])
    write_rows(log.folder, rows)


if __name__ == "__main__":
    main()
