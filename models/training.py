"""One training loop for every network, the flags that all training scripts share, and the choice of device."""

import csv
import itertools
import math
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, RandomSampler
from tqdm import tqdm

import cli
from models import checkpoint


class Parser(cli.Parser):
    """A training script's parser: the flags that all share. With --resume, the run's own flags are the defaults."""

    def __init__(
        self, description, *models, save_to, batch_size=None, num_epochs=None, lr=None, schedule=None, grad_clip=0.0
    ):
        super().__init__(description)
        self.models = models  # the classes that the script trains
        add = self.add_argument
        add("--save_to", default=save_to, help="run folder: checkpoints, log.csv, pictures")
        add("--num_epochs", type=cli.whole(1), default=num_epochs, help="passes over the training data in all")
        add("--batch_size", type=cli.whole(1), default=batch_size, help="examples a step")
        add("--max_per_epoch", type=cli.whole(1), help="at most so many batches an epoch")
        add("--lr", type=cli.real(0, above=True), default=lr, help="learning rate of Adam")
        add(
            "--schedule",
            choices=("constant", "cosine"),
            default=schedule,
            help="cosine: 5%% warm-up, then to --lr/1000",
        )
        add("--grad_clip", type=cli.real(0), default=grad_clip, help="limit on the gradient's total norm; 0: none")
        add("--seed", type=cli.whole(0), default=0, help="of weights, order, noise")
        add("--device", help="if not given: cuda, else mps, else cpu")
        add("--amp", action=cli.Switch, default=False, help="bfloat16 autocast")
        add("--compile", action=cli.Switch, default=False, help="torch.compile the model; of an LSTM, its cell")
        add("--resume", action=cli.Switch, default=False, help="go on with the run in --save_to, with its flags")
        add("--init_from", help="checkpoint whose weights to begin from")

    def parse_args(self, argv=None):
        args = super().parse_args(argv)
        if args.resume:
            last = Path(args.save_to) / "last.pt"
            if not last.exists():
                self.error(f"argument --resume: {last} is not there; leave --resume out to begin anew")
            self.set_defaults(
                **{**checkpoint.load(last, *self.models)["args"], "resume": True, "save_to": args.save_to}
            )
            args = super().parse_args(argv)
        return args


def start(args):
    """Claim the run folder, seed, choose the device. Raises UserError if the folder holds a run and --resume is off."""
    run = Path(args.save_to)
    if not args.resume and any((run / name).exists() for name in ("last.pt", "best.pt", "log.csv", "latents.hdf5")):
        raise cli.UserError(f"{run} holds a run already: go on with --resume, or name another --save_to")
    device = choose_device(args.device)
    torch.set_flush_denormal(True)  # numbers too small to matter slow a CPU down
    run.mkdir(parents=True, exist_ok=True)
    seed_all(args.seed, 0)
    return device


def choose_device(name=None):
    """The torch device: the one named, or else cuda, else mps, else cpu. Raises UserError if it cannot be used."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        if torch.empty(1, device=name).is_cuda:
            torch.cuda.set_device(torch.device(name).index or 0)  # streams and graphs are the current device's
    except (RuntimeError, AssertionError):
        raise cli.UserError(f"--device {name} cannot be used on this machine; try cpu") from None
    return torch.device(name)


def seed_all(seed, epoch):
    """Seed torch for one epoch of one run."""
    torch.manual_seed(int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0]) >> 1)


def fit(model, train, valid, args, device, parents, prepare=lambda batch: (batch,)):
    """Train `model` with Adam and leave last.pt, best.pt (lowest validation loss) and log.csv in `args.save_to`.

    model: `model(*inputs)` returns a dict of scalars, means over the batch, the objective "loss" first.
    train, valid: datasets that give a whole batch for a list of indices (`__getitems__`).
    parents: what the checkpoints say they were built on. prepare(batch on the device) -> inputs, without gradient.
    Epochs are seeded by (seed, epoch) and validation by the seed alone, so that a resumed run equals an unbroken one.
    Raises UserError if a checkpoint to go on from does not fit, or the loss stops being finite.
    """
    run, history = Path(args.save_to), []
    model.to(device)
    optimizer = adam(model, args.lr, device)
    if args.init_from and not args.resume:
        take_weights(model, checkpoint.load(args.init_from, type(model)), args.init_from, resume=False)
    if args.resume:
        last = checkpoint.load(run / "last.pt", type(model))
        take_weights(model, last, run / "last.pt", resume=True)
        for role, parent in parents.items():
            if last["parents"].get(role, {}).get("id") != parent.get("id"):
                raise cli.UserError(f"{run} was begun with another {role}: name another --save_to and begin anew")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": last["optimizer"]["state"]})
        history = last["history"]
    if args.compile:
        model.compile()

    if len(history) >= args.num_epochs:
        print(f"{run}: all {args.num_epochs} epochs are done; give a larger --num_epochs to go on")
    train_step = Recorded(partial(take_step, model, args, optimizer))
    valid_step = Recorded(partial(measure, model, args))
    for epoch in range(len(history) + 1, args.num_epochs + 1):
        began = time.perf_counter()
        row = {"epoch": epoch}
        means, waited = run_epoch(model, train, args, device, prepare, epoch, train_step, optimizer)
        row |= {f"train_{name}": value for name, value in means.items()}
        means, _ = run_epoch(model, valid, args, device, prepare, 0, valid_step)
        row |= {f"valid_{name}": value for name, value in means.items()}
        row |= {"seconds": time.perf_counter() - began, "waited": waited}
        print("  ".join(f"{name} {value:.5g}" for name, value in row.items()), flush=True)
        if not math.isfinite(row["train_loss"] + row["valid_loss"]):
            go_on = f", and go on from epoch {epoch - 1} with --resume" if history else ""
            raise cli.UserError(f"the loss is not finite in epoch {epoch} of {run}: lower --lr{go_on}")

        history.append(row)
        best = min(history, key=lambda r: r["valid_loss"])
        if best is row:
            checkpoint.save(run / "best.pt", model, vars(args), history, parents)
        checkpoint.save(run / "last.pt", model, vars(args), history, parents, optimizer)
        write_log(run / "log.csv", history)


def adam(model, lr, device):
    """Adam of a model on `device`. Its rate is a tensor, so that a recorded step reads it anew."""
    rate = torch.tensor(lr, device=device)
    return torch.optim.Adam(model.parameters(), lr=rate, fused=True, capturable=device.type == "cuda")


def take_step(model, args, optimizer, *inputs):
    """One step of training. Returns what the model does, detached."""
    optimizer.zero_grad(set_to_none=True)
    with torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        scalars = model(*inputs)
    scalars["loss"].backward()
    if args.grad_clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.grad_clip)
    optimizer.step()
    return {key: value.detach() for key, value in scalars.items()}


def measure(model, args, *inputs):
    """What the model returns, without gradients."""
    with torch.no_grad(), torch.autocast(inputs[0].device.type, torch.bfloat16, enabled=args.amp):
        return model(*inputs)


class Recorded:
    """A step that on a GPU is recorded as a CUDA graph and replayed: one launch in place of thousands.

    The first three calls run as they are: libraries settle in them, and the optimizer makes its state. The fourth
    records. Inputs of another shape (an epoch's last batch) or on another device run as they are, too. What a replay
    returns is overwritten by the next.
    """

    def __init__(self, step):
        self.step, self.calls, self.shapes, self.graph = step, 0, None, None

    def __call__(self, *inputs):
        shapes = [x.shape for x in inputs]
        self.shapes = self.shapes or shapes
        if not inputs[0].is_cuda or shapes != self.shapes:
            return self.step(*inputs)
        self.calls += 1
        if self.calls <= 3:  # on a stream of its own, as recording is
            here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
            aside.wait_stream(here)
            with torch.cuda.stream(aside):
                outputs = self.step(*inputs)
            here.wait_stream(aside)
            return outputs
        if not self.graph:
            self.graph, self.inputs = torch.cuda.CUDAGraph(), [x.clone() for x in inputs]
            with torch.cuda.graph(self.graph, capture_error_mode="thread_local"):  # another thread reads
                self.outputs = self.step(*self.inputs)
        for mine, x in zip(self.inputs, inputs, strict=True):
            mine.copy_(x)
        self.graph.replay()
        return self.outputs


def run_epoch(model, dataset, args, device, prepare, epoch, take, optimizer=None):
    """One pass over the dataset by the step `take`, training if there is an optimizer.

    Returns the means over all examples, and the seconds for which it waited for them to be read.
    """
    model.train(optimizer is not None)
    seed_all(args.seed, epoch)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    loader = DataLoader(
        dataset,
        args.batch_size,
        sampler=Shuffled(dataset),
        collate_fn=lambda batch: batch,
        pin_memory=device.type == "cuda",
    )
    steps = min(len(loader), args.max_per_epoch or len(loader))
    totals, count, waited = {}, 0, 0.0
    name = f"epoch {epoch}/{args.num_epochs}" if optimizer else "validation"
    batches = read_ahead(itertools.islice(loader, steps))
    for step in tqdm(range(steps), desc=name, unit="batch", leave=False, disable=None):
        began = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - began
        with torch.no_grad():
            inputs = prepare(batch.to(device, non_blocking=True))
        if optimizer:
            set_lr(optimizer, args, (epoch - 1 + step / steps) / args.num_epochs)
        # Added up on the device: reading a number back at every step would make the device wait.
        for key, value in take(*inputs).items():
            totals[key] = totals.get(key, 0) + value * len(batch)
        count += len(batch)
    return {key: float(value) / count for key, value in totals.items()}, waited


class Shuffled(RandomSampler):
    """torch's order, but not as a list of Python's numbers: of three million frames that takes 120 MB."""

    def __iter__(self):
        generator = torch.Generator().manual_seed(int(torch.empty((), dtype=torch.int64).random_()))
        yield from map(int, torch.randperm(len(self), generator=generator).numpy())


def read_ahead(batches):
    """The same batches, each read by a thread while the one before it is used.

    The first is read alone: until then a sampler draws its seed from the generator that training draws from, too.
    """
    batches = iter(batches)
    with ThreadPoolExecutor(1) as thread:
        batch = thread.submit(next, batches, None).result()
        while batch is not None:
            coming = thread.submit(next, batches, None)
            yield batch
            batch = coming.result()


def set_lr(optimizer, args, progress):
    """Set the learning rate for the share `progress`, in [0, 1), of the whole training."""
    share = 1.0
    if args.schedule == "cosine":
        warm_up = 0.05
        share = (
            progress / warm_up
            if progress < warm_up
            else 0.5 + 0.5 * math.cos(math.pi * (progress - warm_up) / (1 - warm_up))
        )
    for group in optimizer.param_groups:
        group["lr"].fill_(args.lr * max(share, 1e-3))


def take_weights(model, content, path, resume):
    """Load a checkpoint's weights into `model`.

    To resume, every value of the configuration must be the same; to begin from them, the weights must fit. Raises
    UserError, naming what differs, if they do not.
    """
    theirs = {name: weight.shape for name, weight in content["model"].items()}
    fits = theirs == {name: weight.shape for name, weight in model.state_dict().items()}
    differs = [key for key, value in model.config.items() if content["config"].get(key, value) != value]
    if differs and (resume or not fits):
        pairs = (f"{key} {content['config'].get(key)} (the flags: {model.config[key]})" for key in differs)
        raise cli.UserError(f"{path} has {', '.join(pairs)}: make the flags agree")
    model.load_state_dict(content["model"])


def write_log(path, history):
    """Write the history as CSV, a line per epoch."""
    partial = path.with_name(path.name + ".part")
    with open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, history[-1], restval="")  # a run begun by older code may lack a column
        writer.writeheader()
        writer.writerows(history)
    os.replace(partial, path)
