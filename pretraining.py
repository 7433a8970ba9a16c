"""Pre-train SCD-Net on a data set, without labels.

    python pretraining.py --pre-dataset ntu60 --protocol cross_subject --skeleton-representation joint

Without further flags this is the paper's recipe. The checkpoint goes to --checkpoint-path after every epoch, the log to a
folder of its own in --log-dir. `--resume auto` goes on with the checkpoint found there, if any.
"""

import time
from pathlib import Path

import torch
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader

from engine.checkpoint import NAME, find_checkpoint, load_weights, remembered_sizes, restore_optimizer, save_checkpoint
from engine.cli import script
from engine.contrast_statistics import ContrastStatistics
from engine.device import pick_device, random_states, restore_random_states, seed_everything
from engine.errors import RunError
from engine.memory import keep_freed_memory
from engine.meters import Meter, progress_line
from engine.runlog import Run, RunLog
from engine.schedule import learning_rate, set_learning_rate
from engine.stick_figures import show_views
from feeder.augmentations import STREAMS, PretrainingViews
from feeder.dataset import Batches, SkeletonDataset, make_loader
from model import SCDNet
from options.datasets import split_folder
from options.flags import add_data_flags, add_optimizer_flags, add_run_flags, add_size_flags, given_sizes
from options.parser import Parser, fraction, positive_float, positive_int


def get_parser() -> Parser:
    """Return the command line of pre-training."""
    parser = Parser(recipe="pretraining", description=__doc__)
    add_data_flags(parser, "--pre-dataset", ("--skeleton-representation",), STREAMS)
    add_size_flags(parser, note="defaults are the paper's: 2048, 8, 1, 64")
    group = parser.add_argument_group("contrast")
    group.add_argument("--encoder-dim", type=positive_int, metavar="N", help="size of the embeddings (%(default)s)")
    group.add_argument("--encoder-k", type=positive_int, metavar="K", help="keys in each queue, a multiple of the batch "
                       "(%(default)s)")  # fmt: skip
    group.add_argument("--encoder-m", type=fraction, metavar="m", help="momentum of the key encoder (%(default)s)")
    group.add_argument("--encoder-t", type=positive_float, metavar="T", help="temperature (%(default)s)")
    add_optimizer_flags(parser)
    group = parser.add_argument_group("checkpoints")
    group.add_argument("--checkpoint-path", metavar="DIR", help="where checkpoint.pth.tar is kept (%(default)s)")
    group.add_argument("--resume", metavar="PATH", help="a checkpoint to go on with, ours or the reference's; auto takes the "
                       "one in --checkpoint-path, if there is one")  # fmt: skip
    group.add_argument("--save-freq", type=positive_int, default=1, metavar="N", help="epochs between checkpoints; the last "
                       "epoch is always saved (%(default)s)")  # fmt: skip
    add_run_flags(parser)
    parser.load_recipe()
    return parser


@script
def main(argv: list[str] | None = None) -> None:
    """Pre-train as the command line says."""
    parser = get_parser()
    args = parser.parse_args(argv)
    if args.encoder_k % args.batch_size:
        parser.error(f"--encoder-k {args.encoder_k} is not a multiple of --batch-size {args.batch_size}")
    try:
        folder = split_folder(args.data_path, args.pre_dataset, args.protocol)
    except ValueError as error:
        parser.error(str(error))
    checkpoint, resumed = find_checkpoint(args.resume, args.checkpoint_path)
    start_epoch = checkpoint.get("epoch", args.start_epoch)
    if start_epoch >= args.epochs:
        print(f"nothing left to do: epoch {start_epoch} of --epochs {args.epochs}")
        return

    # data
    keep_freed_memory()
    args.seed = seed_everything(checkpoint.get("seed", args.seed))
    device = pick_device(args.device, args.gpu)
    dataset = SkeletonDataset(folder, "train")
    views = PretrainingViews(args.skeleton_representation)
    batches = Batches(len(dataset), args.batch_size, args.seed, drop_last=True)
    if not len(batches):
        raise RunError(f"{folder} has {len(dataset)} training samples, fewer than one --batch-size of {args.batch_size}")
    loader = make_loader(dataset, batches, args.workers, pin_memory=device.type == "cuda")

    # model and optimiser
    try:
        net = SCDNet(given_sizes(args), args.encoder_dim, args.encoder_k, args.encoder_m, args.encoder_t).to(device)
    except ValueError as error:
        parser.error(str(error))
    optimizer = SGD(net.encoder_q.parameters(), args.lr, args.momentum, weight_decay=args.weight_decay)
    generator = torch.Generator().manual_seed(args.seed)
    if resumed:
        restore(net, optimizer, generator, checkpoint, resumed)

    # epochs
    run = Run("pretraining", args.pre_dataset, args.protocol, args.skeleton_representation)
    path = Path(args.checkpoint_path) / NAME
    continued = resumed == path and checkpoint.get("run") == list(run)
    with RunLog(args.log_dir, run, args, checkpoint.get("log_folder") if continued else None, start_epoch) as log:
        log.print(f"{len(dataset)} samples of {folder}, {len(batches)} steps an epoch on {device}, seed {args.seed}")
        log.print(f"log in {log.folder}")
        for note in [*dataset.notes, *([f"resumed from {resumed} at epoch {start_epoch}"] if resumed else [])]:
            log.print(note)
        if not continued:
            show_views(log, dataset, views, args.seed)
        for epoch in range(start_epoch, args.epochs):
            batches.epoch = epoch
            set_learning_rate(optimizer, learning_rate(args.lr, epoch, args.epochs, args.schedule, args.cos))
            figures = train_epoch(net, loader, views, generator, optimizer, epoch, args.print_freq, device, log)
            log.metrics(epoch, **figures, lr=optimizer.param_groups[0]["lr"])
            if (epoch + 1) % args.save_freq == 0 or epoch + 1 == args.epochs:
                save_checkpoint(path, dict(
                    epoch=epoch + 1, state_dict=net.state_dict(), optimizer=optimizer.state_dict(), sizes=net.sizes,
                    options=vars(args), run=list(run), log_folder=str(log.folder), seed=args.seed,
                    random=random_states(), views=generator.get_state(),
                ))  # fmt: skip
        log.print(f"checkpoint: {path}")


def restore(net: SCDNet, optimizer: Optimizer, generator: torch.Generator, checkpoint: dict, path: Path) -> None:
    """Put model, optimiser and generators where `checkpoint` left them; the reference's has no generators.

    Raises:
        RunError: the checkpoint is of other sizes.
    """
    for name, value in remembered_sizes(checkpoint).items():
        if net.sizes["encoder"][name] != value:
            raise RunError(f"{path} has {name} {value}, the run {net.sizes['encoder'][name]}")
    load_weights(net, checkpoint["state_dict"], path)
    restore_optimizer(optimizer, net, checkpoint, path)
    if "random" in checkpoint:
        restore_random_states(checkpoint["random"])
        generator.set_state(checkpoint["views"])


def train_epoch(
    net: SCDNet,
    loader: DataLoader,
    views: PretrainingViews,
    generator: torch.Generator,
    optimizer: Optimizer,
    epoch: int,
    print_freq: int,
    device: torch.device,
    log: RunLog,
) -> dict[str, float]:
    """Train for one epoch; return its mean loss, Acc@1 in percent (a query finds its key before all the queue), seconds,
    samples a second and the means of `ContrastStatistics`.

    Raises:
        RunError: the loss or a weight is not finite.
    """
    net.train()
    time_meter, data_meter = Meter("Time", "6.3f"), Meter("Data", "6.3f")
    loss_meter, acc_meter = Meter("Loss", ".4e"), Meter("Acc@1", "6.2f")
    statistics = ContrastStatistics(net.T)
    pending = []  # losses and accuracies still on the device: reading each step's would wait for the device
    started = before = time.perf_counter()
    for step, batch in enumerate(loader):
        data_meter.update(time.perf_counter() - before)
        q, k = views(batch.x.to(device, non_blocking=True), batch.num_frames, generator)
        logits = net(q, k)
        losses = net.loss(logits)
        loss = sum(losses.values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

        pending.append(torch.stack([loss.detach(), mean_accuracy(logits)]))
        time_meter.update(time.perf_counter() - before)
        before = time.perf_counter()
        if step % print_freq == 0 or step + 1 == len(loader):
            for value, acc1 in torch.stack(pending).tolist():
                loss_meter.update(value, len(q))
                acc_meter.update(acc1, len(q))
            pending.clear()
            statistics.update(logits, losses, net.queues)
            if not torch.isfinite(torch.tensor(loss_meter.total)):
                raise RunError(f"the loss is {loss_meter.value} at epoch {epoch}, step {step}: stopped, the last checkpoint "
                               "stands; a lower --lr may help")  # fmt: skip
            log.print(progress_line(epoch, step, len(loader), [time_meter, data_meter, loss_meter, acc_meter]))
    if not all(torch.isfinite(p).all() for p in net.encoder_q.parameters()):
        raise RunError(f"weights are not finite after epoch {epoch}: stopped, the last checkpoint stands; try a lower --lr")
    seconds = time.perf_counter() - started
    figures = {"loss": loss_meter.mean, "acc1": acc_meter.mean, "seconds": seconds}
    return figures | {"samples_per_second": loss_meter.count / seconds} | statistics.means()


def mean_accuracy(logits: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the share in percent of queries whose key ranks first, over the four pairs; a scalar on their device."""
    first = [(x.detach().argmax(dim=1) == 0).float().mean() for x in logits.values()]
    return 100 * torch.stack(first).mean()


if __name__ == "__main__":
    main()
