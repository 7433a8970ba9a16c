"""Classification: train a linear layer on a frozen, pre-trained encoder; with --finetune, train both.

    python action_classification.py --pretrained checkpoints/pretrain --finetune-dataset ntu60

The features of the frozen encoder are computed once, on a deterministic crop, and every epoch trains on them.
--finetune uses the recipe options/finetune.yaml and trains on random crops. --evaluate tests classifiers.
"""

import copy
import itertools
import time
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, Subset

from engine.checkpoint import find_previous, lock_folder
from engine.classification import Classifier, Epoch, report
from engine.device import set_up
from engine.encoders import describe_encoder, open_classifier, open_encoders, stream_of
from engine.evaluation import balanced_subset, repeat_seed
from engine.features import BATCH_SIZE, Split, crop, extract_features, open_both
from engine.meters import Meter, progress_line
from engine.results import RESULT
from engine.runlog import Run, RunLog
from engine.training import seed_everything, set_learning_rate
from feeder.augmentations import STREAMS
from feeder.cli import UserError, script
from feeder.data_sets import DATA_SETS, PROTOCOL_FOLDERS
from feeder.dataset import Batches, make_loader
from model import DownstreamModel, Encoder
from options import flags
from options.parser import Parser, positive_fraction, positive_int


def get_parser() -> Parser:
    """Return the argument parser of linear evaluation and fine-tuning."""
    parser = Parser("linear", __doc__, variants=("finetune",))
    flags.add_data_flags(parser, "--finetune-dataset", (DATA_SETS, PROTOCOL_FOLDERS, STREAMS), several=True)
    flags.add_encoder_flags(parser)
    add = parser.add_argument_group("training").add_argument
    add("--evaluate", action="store_true", help="only test the classifiers of --pretrained")
    add("--finetune", action="store_true", help="train the encoder too; if it is random: supervised learning")
    text = "share of the labels to train on, balanced over the classes"
    add("--label-fraction", type=positive_fraction, default=1.0, metavar="F", help=text)
    text = "times to train each classifier, with different seeds and label subsets"
    add("--repeats", type=positive_int, default=1, metavar="R", help=text)
    text = "share of a clip that the random crops of --finetune keep (none: centre crop)"
    add("--crop-ratio", type=positive_fraction, nargs=2, metavar=("LOW", "HIGH"), help=text)
    flags.add_optimizer_flags(parser)
    flags.add_checkpoint_flags(parser, save_freq=20)
    flags.add_run_flags(parser)
    return parser


def linear_probe(
    layer: nn.Linear,
    optimizer: Optimizer,
    train: tuple[Tensor, Tensor],
    test_x: Tensor,
    batches: Batches,
    args: Namespace,
) -> Iterator[Epoch]:
    """Train a linear layer on features of a frozen encoder; yield each epoch, with its weights in the layer.

    Args:
        layer: the linear layer, on the device of the features.
        optimizer: the optimiser of the layer.
        train: features (N, 2 d) and labels (N,).
        test_x: features of the test set, (M, 2 d).
        batches: the order of the training samples.
        args: --start-epoch, --epochs, --batch-size, and the flags of the learning rate.
    """
    x, y = train
    for epoch in range(args.start_epoch, args.epochs):
        lr, total = set_learning_rate(optimizer, args, epoch), 0.0

        # train; the order of the samples is copied to the device once
        batches.seek(epoch)
        order = torch.tensor([row for rows in batches for row in rows]).to(x.device)
        for rows in order.split(args.batch_size):
            loss = F.cross_entropy(layer(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(rows)

        # test
        with torch.no_grad():
            scores = layer(test_x).cpu()
        yield epoch, lr, float(total) / len(order), scores


def finetune(
    classifier: Classifier, loader: DataLoader, test_loader: DataLoader, log: RunLog
) -> Iterator[Epoch]:
    """Train encoder and linear layer on clips; yield each epoch, with its weights in the model.

    Args:
        classifier: model, optimiser, stream, generator of the crops, first epoch and options.
        loader: clips of the training set.
        test_loader: clips of the test set, in the order of the data set.
        log: prints a line every --print-freq steps.
    """
    model, optimizer, args = classifier.model, classifier.optimizer, classifier.args
    device = model.fc.weight.device
    for epoch in range(classifier.epoch, args.epochs):
        lr = set_learning_rate(optimizer, args, epoch)
        meters = {"Time": Meter("6.3f"), "Loss": Meter(".4e"), "Acc@1": Meter("6.2f")}

        # train
        loader.sampler.seek(epoch)
        model.train()
        before = time.perf_counter()
        for step, batch in enumerate(loader):
            x = crop(batch, model.encoder, classifier.stream, device, args.crop_ratio, classifier.generator)
            y = batch.labels.to(device, non_blocking=True)
            scores = model(x)
            loss = F.cross_entropy(scores, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            meters["Loss"].update(loss.detach(), len(x))
            meters["Acc@1"].update(100 * (scores.detach().argmax(dim=1) == y).float().mean(), len(x))
            meters["Time"].update(time.perf_counter() - before)
            before = time.perf_counter()
            if step % args.print_freq == 0:  # reads the meters from the device
                log.print(progress_line(epoch, step, len(loader), meters))

        # test
        yield epoch, lr, meters["Loss"].mean(), class_scores(model, classifier.stream, test_loader)


@torch.no_grad()
def class_scores(model: DownstreamModel, stream: str, loader: DataLoader) -> Tensor:
    """Put the model in evaluation mode and return the scores (N, classes) of all clips, on the CPU."""
    model.eval()
    device = model.fc.weight.device
    return torch.cat([model(crop(batch, model.encoder, stream, device)) for batch in loader]).cpu()


@script
def main(argv: list[str] | None = None) -> None:
    """Train and evaluate a classifier for each stream and repeat; report accuracies and the fusion."""
    # options
    parser = get_parser()
    args = parser.parse_args(argv)
    check_options(parser, args)
    data_set = DATA_SETS[args.finetune_dataset]
    flags.check_protocol(parser, args.finetune_dataset, args.protocol, data_set.protocols)
    folder = data_set.split_folder(args.data_path, args.protocol)
    device = set_up(args.device, args.gpu, args.threads)

    # data
    num_classes = data_set.num_classes
    split = open_both(folder, num_classes)
    loaders = split.loaders(BATCH_SIZE, args.workers, device)
    if args.evaluate:
        return evaluate(args, split, loaders[1], device)

    # checkpoint to resume; an existing folder is locked from here until the end of the run
    kind = "linear" if not args.finetune else "supervised" if args.random_encoder else "finetune"
    streams = args.finetune_skeleton_representation
    run = Run(kind, args.finetune_dataset, args.protocol, "+".join(streams))
    lock = lock_folder(args.checkpoint_path) if Path(args.checkpoint_path).is_dir() else None
    names = training_names(args)
    previous, *_ = [find_previous(run, args, name, replaceable=not args.finetune) for _, _, name in names]
    start = previous.checkpoint["epoch"]  # with --resume there is only one training
    reported = previous.log_folder and (previous.log_folder / RESULT).is_file()
    if start > args.epochs or (start == args.epochs and (reported or not previous.path)):
        where = previous.path or "--start-epoch"
        return print(f"nothing to do: epoch {start} of --epochs {args.epochs} ({where})")

    # encoders, and the samples whose labels are used in each training
    seed = seed_everything(previous.checkpoint.get("seed", args.seed))
    encoders = dict(zip(streams, open_encoders(args, seed), strict=True))
    seeds = [repeat_seed(seed, repeat) for repeat in range(args.repeats)]
    subsets = [balanced_subset(split.train.labels, args.label_fraction, own_seed) for own_seed in seeds]
    recipe = get_parser().parse_args(["--finetune"] if args.finetune else [])
    record = {"seed": seed, "data": split.describe(), "setup": flags.changed_flags(args, recipe)}
    record["encoders"] = [origin for _, origin in encoders.values()]

    with RunLog(run, args, record, previous) as log, lock or lock_folder(args.checkpoint_path):
        samples = f"{len(split.train)} training and {len(split.test)} test samples of {folder}"
        log.print(f"{samples}, {device}, seed {seed}", f"log in {log.folder}", *split.notes, *previous.notes)
        scores, kept, features = [], {}, None
        for stream, repeat, name in names:
            encoder, origin = encoders[stream]
            if repeat == 0:
                log.print(f"{stream} stream, encoder: {describe_encoder(origin, run, stream)}")
            if name or args.label_fraction < 1:
                share = f"{len(subsets[repeat])} of {len(split.train)} labels"
                log.print(f"{name or stream}: {share}, drawn with seed {seeds[repeat]}")

            # the classifier: a copy of the encoder or, if it is random, a new one for each repeat
            seed_everything(seeds[repeat])
            own = copy.deepcopy(encoder) if args.pretrained else Encoder(**encoder.sizes)
            if args.random_encoder and repeat:
                origin = {"task": "random", "seed": seeds[repeat]}
            model = DownstreamModel(own, num_classes).to(device)
            classifier = Classifier(name, stream, seeds[repeat], model, origin, args)
            if previous.path:
                classifier.restore(previous)

            # train; the features of a frozen encoder are computed once if all repeats share it
            if not args.finetune and (repeat == 0 or args.random_encoder):
                features = extract_features(own, stream, loaders, device, log, args.print_freq)
            scores.append(train(classifier, split, subsets[repeat], loaders[1], features, log))
            if repeat == 0:
                kept[stream] = features
                if args.finetune and args.save_features:
                    kept[stream] = extract_features(own, stream, loaders, device, log, args.print_freq)
        report(split, torch.stack(scores).unflatten(0, (len(streams), args.repeats)), kept, args, log)


def train(
    classifier: Classifier,
    split: Split,
    rows: np.ndarray,
    test_loader: DataLoader,
    features: list[Tensor] | None,
    log: RunLog,
) -> Tensor:
    """Train a classifier with the labels of some training samples, on features or, if None, on clips.

    Return the scores of the test set after the last and after the best epoch, (2, N, classes), on the CPU.
    """
    args, model, device = classifier.args, classifier.model, classifier.model.fc.weight.device
    batches = Batches(len(rows), args.batch_size, classifier.seed)
    if features:
        x = features[0][torch.from_numpy(rows).to(device)]
        y = torch.from_numpy(split.train.labels[rows]).to(device)
        epochs = linear_probe(model.fc, classifier.optimizer, (x, y), features[1], batches, args)
    else:
        loader = make_loader(Subset(split.train, rows), batches, args.workers, device.type == "cuda")
        epochs = finetune(classifier, loader, test_loader, log)
    last = classifier.fit(epochs, torch.from_numpy(split.test.labels), log)
    if last is None:  # the earlier run ended before it reported
        last = class_scores(model, classifier.stream, test_loader)
    best = classifier.best["best_scores"]
    return torch.stack([last, last if best is None else best])


def evaluate(args: Namespace, split: Split, loader: DataLoader, device: torch.device) -> None:
    """Test a trained classifier for each stream; report the same figures as after training."""
    streams = args.finetune_skeleton_representation
    classifiers = [open_classifier(path) for path in args.pretrained]
    origins = [origin for _, origin in classifiers]
    for path, origin, stream in zip(args.pretrained, origins, streams, strict=True):
        trained = [*origin["run"][1:3], stream_of(origin)]
        if trained != [args.finetune_dataset, args.protocol, stream]:
            raise UserError(f"{path} was trained on {', '.join(trained)}: set data set, protocol and stream")
    kinds = {(origin["task"], origin["options"]["label_fraction"]) for origin in origins}
    if len(kinds) > 1:
        raise UserError("the classifiers differ in task or share of labels: evaluate them one by one")
    (task, labels), setups = kinds.pop(), dict.fromkeys(origin["setup"] for origin in origins)
    best = " weights of the epoch that is best on the test set"
    setup = f"{'; '.join(setups)} --evaluate{best if any('best_on_test' in o for o in origins) else ''}"
    record = {"seed": origins[0]["seed"], "data": split.describe(), "setup": setup.strip(), "labels": labels}
    record["encoders"] = [encoder for origin in origins for encoder in origin["encoders"]]
    run = Run(task, args.finetune_dataset, args.protocol, "+".join(streams))
    with RunLog(run, args, record) as log:
        log.print(f"{len(split.test)} test samples of {split.test.folder}, {device}")
        log.print(f"log in {log.folder}", *split.notes)
        pairs = zip(classifiers, streams, strict=True)
        scores = [class_scores(model.to(device), stream, loader) for (model, _), stream in pairs]
        report(split, torch.stack(scores)[:, None, None], {}, args, log)


def check_options(parser: Parser, args: Namespace) -> None:
    """Exit with status 2 if options contradict each other."""
    flags.check_encoder_flags(parser, args)
    flags.check_warmup(parser, args)
    several = len(args.finetune_skeleton_representation) > 1 or args.repeats > 1
    if args.crop_ratio and (not args.finetune or args.crop_ratio[0] > args.crop_ratio[1]):
        parser.error("--crop-ratio LOW HIGH needs --finetune and LOW at most HIGH")
    if args.resume and not args.finetune:
        parser.error("--resume continues --finetune; a linear layer can be trained again in seconds")
    if args.resume and several:
        parser.error("--resume continues a single training: omit it with several streams or --repeats")
    if args.evaluate:
        unused = "finetune resume save_features".split()
        if not args.pretrained or any(getattr(args, name) for name in unused) or flags.given_sizes(args):
            parser.error("--evaluate tests the classifiers of --pretrained: set it, and no training flags")
        if args.repeats > 1 or args.label_fraction < 1:
            parser.error("--evaluate trains nothing: omit --repeats and --label-fraction")


def training_names(args: Namespace) -> list[tuple[str, int, str]]:
    """Return stream, repeat and name of each training; the name is "" if there is only one."""
    streams, names = args.finetune_skeleton_representation, []
    for stream, repeat in itertools.product(streams, range(args.repeats)):
        parts = [stream] if len(streams) > 1 else []
        parts += [f"repeat{repeat}"] if args.repeats > 1 else []
        names.append((stream, repeat, "/".join(parts)))
    return names


if __name__ == "__main__":
    main()
