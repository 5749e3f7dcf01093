"""One training loop for every network, the flags that all training scripts share, and the choice of device."""

import argparse
import csv
import math
import os
import signal
import sys
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

import cli
import files
import processes
from models import checkpoint, noise
from models.step import Recorded, adam, distributed, measure, set_lr, take_step

# Large tensors in huge pages, where Linux has them: in small ones, touching fresh memory is a fifth of a 2016 step.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")
PATHS = ("data_file", "cae", "deconv", "lstm", "init_from")  # flags that name files


class Steps:
    """The default of --num_epochs: as many epochs as make so many steps, whatever the dataset's size; at least `least`.

    per_epoch: the steps of an epoch.
    """

    def __init__(self, steps, least=1):
        self.steps, self.least = steps, least

    def __str__(self):
        least = f"{self.least}, or " if self.least > 1 else ""
        return f"{least}as many as make {self.steps:,} steps"

    def epochs(self, per_epoch):
        return max(round(self.steps / per_epoch), self.least)


class Parser(cli.Parser):
    """A training script's parser: the flags that all share.

    models: the classes that the script trains; defaults: of each flag that a script does not leave alone, its value,
    or with `archs`, {arch: {flag: value}}, those of the --arch given. With --resume, the run's own flags are the
    defaults.
    """

    way_on = "go on with --resume, or begin anew if there is no last.pt yet"

    def __init__(self, description, *models, archs=None, **defaults):
        super().__init__(description)
        self.models, self.archs = models, archs or {}
        add = self.add_argument
        add("--save_to", help="run folder: checkpoints, log.csv, pictures")
        add("--num_epochs", type=cli.whole(1), help="passes over the training data in all")
        add("--batch_size", type=cli.whole(1), help="examples a step")
        add("--max_per_epoch", type=cli.whole(1), help="at most so many batches an epoch")
        add("--lr", type=cli.real(0, above=True), help="learning rate of Adam")
        add("--schedule", choices=("constant", "cosine"), help="cosine: 5%% warm-up, then to --lr/1000")
        add("--grad_clip", type=cli.real(0), default=0.0, help="limit on the gradient's total norm; 0: none")
        add("--save_every", type=cli.real(0), default=10.0, help="minutes between checkpoints; each epoch ends in one")
        add("--seed", type=cli.seed, default=0, help="of weights, order, noise")
        add("--device", help="if not given: cuda, else mps, else cpu")
        self.amp = add("--amp", action=cli.Switch, default=False)
        add("--compile", action=cli.Switch, default=False, help="torch.compile the model; of an LSTM, its cell")
        add("--resume", action=cli.Switch, default=False, help="go on with the run in --save_to, with its flags")
        add("--init_from", help="checkpoint whose weights to begin from")
        if archs:
            add("--arch", choices=archs, default=next(iter(archs)), help="of the networks, see models/")
        self.set_defaults(**defaults)

    def set_defaults(self, **defaults):
        super().set_defaults(**defaults)
        where = "; if not given: where the hardware is fast at it" if self.amp.default is None else ""
        self.amp.help = "bfloat16 autocast" + where

    def parse_args(self, argv=None):
        self.set_early_defaults(argv)
        args = super().parse_args(argv)
        if args.resume and not (last := Path(args.save_to) / "last.pt").exists():
            self.error(f"argument --resume: {last} is not there; leave --resume out to begin anew")
        return args

    def set_early_defaults(self, argv):
        """Take the defaults that --arch and --resume bring, so that --help shows the values that will be used."""
        early = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        early.add_argument("--arch", default=self.get_default("arch"))
        early.add_argument("--resume", action=cli.Switch, default=False)
        early.add_argument("--save_to", default=self.get_default("save_to"))
        early.error = lambda message: None  # it will be told by the full parser
        with suppress(argparse.ArgumentError):
            given, _ = early.parse_known_args(argv)
            self.set_defaults(**self.archs.get(given.arch, {}))
            last = Path(given.save_to) / "last.pt"
            if given.resume and last.exists():
                flags = checkpoint.load(last, *self.models)["args"]
                paths = {name: found(flags[name], given.save_to) for name in PATHS if flags.get(name)}
                self.set_stored(flags | paths, last)
                self.set_defaults(save_to=given.save_to)


def stored(args):
    """The flags as a checkpoint has them: paths as seen from the run folder, so that it is resumed from anywhere."""
    flags = vars(args)
    return flags | {name: files.relative(flags[name], args.save_to) for name in PATHS if flags.get(name)}


def found(path, run):
    """A stored path from here. Older code stored it as seen from where the training was begun."""
    placed = files.resolve(path, run)
    return path if os.path.exists(path) and not os.path.exists(placed) else placed


def start(args):
    """Claim the run folder, join other processes, seed, choose the device.

    Raises UserError if the folder holds a run and --resume is off, or if another process is at work in it.
    """
    run, device = Path(args.save_to), choose_device(args.device)
    processes.join(device)
    if args.batch_size < processes.count():
        raise cli.UserError(f"--batch_size {args.batch_size} gives {processes.count()} processes nothing to share")
    if processes.rank() == 0:
        if not args.resume and any((run / name).exists() for name in ("last.pt", "best.pt", "log.csv", "latents.hdf5")):
            raise cli.UserError(f"{run} holds a run already: go on with --resume, or name another --save_to")
        files.claim(run)
    if args.amp is None:
        args.amp = fast_bfloat16(device)
    if args.compile:
        try_compiler(device)
    torch.set_flush_denormal(True)  # numbers too small to matter slow a CPU down
    seed_all(args.seed)
    return device


def try_compiler(device):
    """Raise UserError if torch.compile does not work here, which would be told in a hundred lines and after a while."""
    size = int.from_bytes(os.urandom(2), "big") + 8  # a kernel for it is in no cache
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(size, device=device))
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise cli.UserError(
            f"--compile does not work here ({reason:.100}): install a C++ compiler, or give --no-compile"
        ) from None


def create(kind, device, *args, **config):
    """A network of the class `kind`, made of the other arguments.

    Raises UserError, before anything is allocated, if training it takes more memory than the machine has.
    """
    with torch.device("meta"):
        size = sum(weight.numel() * weight.itemsize for weight in kind(*args, **config).parameters())
    if device.type == "cuda":
        room = torch.cuda.get_device_properties(device).total_memory
    else:
        room = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * size > room:
        raise MemoryError(f"weights, gradients and Adam's moments take {4 * size / 1e9:.0f} GB of {room / 1e9:.0f}")
    return kind(*args, **config)


def choose_device(name=None):
    """The torch device: the one named, or else cuda, else mps, else cpu. Raises UserError if it cannot be used."""
    if name in (None, "cuda") and torch.cuda.is_available() and "LOCAL_RANK" in os.environ:
        name = f"cuda:{os.environ['LOCAL_RANK']}"  # torchrun's processes have one each
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        one = torch.ones(1, device=name)
        one.item()  # of some devices, such as "meta", there are shapes and no numbers
        if one.is_cuda:
            torch.cuda.set_device(torch.device(name).index or 0)  # streams and graphs are the current device's
    except (RuntimeError, AssertionError):
        raise cli.UserError(f"--device {name} cannot be used on this machine; try cpu") from None
    return torch.device(name)


def fast_bfloat16(device):
    """Whether the device has instructions of its own for products in bfloat16."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and torch.cpu._is_avx512_bf16_supported()


def seed_all(*seeds):
    """Seed torch by some numbers: a run's seed, epoch and step."""
    seed = int(np.random.SeedSequence(seeds).generate_state(1, np.uint64)[0]) >> 1
    torch.default_generator.manual_seed(seed)  # torch.manual_seed takes a hundred times as long
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
    elif torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)


def fit(model, train, valid, args, device, parents, prepare=lambda batch: (batch,)):
    """Train `model` with Adam and leave last.pt, best.pt (lowest validation loss) and log.csv in `args.save_to`.

    model: `model(*inputs)` returns a dict of scalars, means over the batch, the objective "loss" first.
    train, valid: datasets that give a whole batch for a list of indices (`__getitems__`).
    parents: what the checkpoints say they were built on. prepare(batch on the device) -> inputs, without gradient.
    Each step is seeded by (seed, epoch, step), so that a resumed run equals an unbroken one. SIGINT and SIGTERM finish
    the step, save, and exit. Of several processes each takes its share of every batch.
    Raises UserError if a checkpoint to go on from does not fit, or the loss stops being finite.
    """
    run, history, progress = Path(args.save_to), [], None
    steps = len(range(0, len(train), args.batch_size)[: args.max_per_epoch])
    if isinstance(args.num_epochs, Steps):
        args.num_epochs = args.num_epochs.epochs(steps)
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
        state, progress = checkpoint.way_on(last, model, run / "last.pt")
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
        history = last["history"]
        now = {**vars(args), "examples": len(train)}
        if progress and any(now[name] != value for name, value in progress["of"].items()):
            processes.say(f"epoch {len(history) + 1} begins anew: its batches are others now")
            progress = None
        if progress and processes.rank():  # what was counted so far counts once
            progress |= {"count": 0, "totals": dict.fromkeys(progress["totals"], 0.0)}
    if args.compile:
        model.compile()

    network = distributed(model, device)
    recorded = Recorded if network is model else lambda step: step
    train_step = recorded(partial(take_step, network, args, optimizer))
    valid_step = recorded(partial(measure, model, args))
    one_pass = partial(run_epoch, model, args, device, prepare)
    saved, clock = time.monotonic(), Clock()

    def save(progress=None):
        nonlocal saved
        if not all(weight.isfinite().all() for weight in model.parameters()):
            at = f"epoch {len(history) + 1}, step {progress['step']}" if progress else f"epoch {len(history)}"
            raise NotFinite(f"the weights are not finite after {at}")
        checkpoint.save(run / "last.pt", model, stored(args), history, parents, optimizer, progress)
        saved = time.monotonic()

    def kept():
        last = checkpoint.load(run / "last.pt", type(model))
        step = f", step {last['progress']['step']} of epoch {len(last['history']) + 1}" if last["progress"] else ""
        return f"{run / 'last.pt'} (epochs done: {len(last['history'])}{step})"

    def after_step(name, seen, done=None):
        """Save if it is time to, unless the loss of what was seen is not finite; if a signal came, end then.

        done: the progress to save, where what was seen is of a validation.
        """
        if done is None and (left := clock.tick(args.num_epochs * steps - len(history) * steps - seen["step"])):
            processes.say(f"{run}: {args.num_epochs} epochs of {steps} steps, about {left} of training to go")
        due = time.monotonic() - saved >= 60 * args.save_every
        due, number = processes.together([due, asked[0] if asked else 0], by="max")
        if due or number:
            check(merged(seen)["totals"], name, seen["step"])
            save(merged(done or seen))
        if number:
            stop(number)

    def stop(number):
        processes.wait()  # for the one that saves
        processes.say(f"stopped; {kept()} goes on with --resume")
        sys.exit(128 + int(number))

    if not args.resume:
        save()  # from here on there is something to resume
    elif history:
        write_log(run / "log.csv", history)
    if len(history) >= args.num_epochs:
        processes.say(f"{run}: all {args.num_epochs} epochs are done; give a larger --num_epochs to go on")
    try:
        with stopping() as asked:
            for epoch in range(len(history) + 1, args.num_epochs + 1):
                name = f"epoch {epoch}/{args.num_epochs}"
                done = one_pass(train, epoch, name, train_step, after_step, optimizer, progress)
                tested = one_pass(valid, 0, f"validation of {name}", valid_step, partial(after_step, done=done))
                done, tested, progress = merged(done), merged(tested), None
                row = {"epoch": epoch}
                row |= {f"train_{name}": total / done["count"] for name, total in done["totals"].items()}
                row |= {f"valid_{name}": total / tested["count"] for name, total in tested["totals"].items()}
                row |= {"seconds": done["seconds"] + tested["seconds"], "waited": done["waited"]}
                history.append(row)
                processes.say("  ".join(f"{name} {value:.5g}" for name, value in row.items()))
                if min(history, key=lambda r: r["valid_loss"]) is row:
                    checkpoint.save(run / "best.pt", model, stored(args), history, parents)
                save()
                write_log(run / "log.csv", history)
                if number := processes.together([asked[0] if asked else 0], by="max")[0]:
                    stop(number)
    except NotFinite as error:
        way_on = f"go on from {kept()} with --resume and a smaller --lr"
        if "validation" in str(error):  # of weights that would only be validated again
            way_on = "begin anew with a smaller --lr" + f", or from {run / 'best.pt'} by --init_from" * bool(history)
        raise cli.UserError(f"{error}: {way_on}") from None
    finally:
        noise.share = (0, 1, 1)
    processes.wait()


class Clock:
    """Says once, after the first ten seconds, how long the rest of the training will take."""

    def __init__(self):
        self.began, self.steps, self.told = None, 0, False

    def tick(self, left):
        """Count a step, with `left` to go -> text such as "7 minutes", or None if it is not the time to say it."""
        if self.began is None:  # the first step is slower
            self.began = time.monotonic()
            return None
        self.steps, passed = self.steps + 1, time.monotonic() - self.began
        if self.told or passed < 10:
            return None
        self.told, minutes = True, math.ceil(passed / self.steps * left / 60)
        return f"{minutes} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


class NotFinite(Exception):
    """Says where."""


@contextmanager
def stopping():
    """In the block the first SIGINT or SIGTERM is only put into the list that it gives; a second one ends at once."""
    asked, before = [], {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    before = {number: handler for number, handler in before.items() if handler not in (None, signal.SIG_IGN)}

    def restore():
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number, _):
        asked.append(number)
        restore()

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        restore()


def run_epoch(model, args, device, prepare, dataset, epoch, name, take, after_step, optimizer=None, progress=None):
    """One pass over the dataset by the step `take`, training if there is an optimizer; of a batch this process's share.

    after_step(name, progress) is called after each step. progress, of a pass that was interrupted, and what
    is returned: {"step": steps taken, "count": examples seen, "totals": {name: sum over examples}, "seconds": time that
    it took, "waited": how much of it for examples to be read, "of": what decides on the batches}. Raises NotFinite,
    with the pass's name, if the loss is not.
    """
    model.train(optimizer is not None)
    if hasattr(dataset, "set_epoch"):
        dataset.set_epoch(epoch)
    seed_all(args.seed, epoch)
    order, size = torch.randperm(len(dataset)), args.batch_size
    starts = range(0, len(order), size)[: args.max_per_epoch]
    decides = {name: getattr(args, name) for name in ("seed", "batch_size", "max_per_epoch")}
    progress = progress or {"step": 0, "count": 0, "totals": {}, "seconds": 0.0, "waited": 0.0}
    progress["of"], taken, coming = decides | {"examples": len(dataset)}, progress["step"], None
    bar = tqdm(total=len(starts), initial=taken, desc=name, unit="batch", leave=False, disable=processes.rank() or None)
    began = time.perf_counter()
    for batch, rows in read_ahead(dataset, (order[start : start + size] for start in starts[taken:])):
        read = time.perf_counter()
        seed_all(args.seed, epoch, taken + 1)
        first, end, _ = noise.share = *processes.share(rows), rows
        with torch.no_grad():
            inputs = prepare(batch.to(device, non_blocking=True))
        if optimizer:
            set_lr(optimizer, args, (epoch - 1 + taken / len(starts)) / args.num_epochs)
        # Added up on the device. The sum before is looked at, not this one, lest the device wait for what comes next.
        outputs, before = take(*inputs), progress["totals"]
        totals = {key: before.get(key, 0.0) + value * (end - first) for key, value in outputs.items()}
        check(coming() if coming else {}, name, taken)
        coming, taken = on_its_way(totals), taken + 1
        progress |= {
            "step": taken,
            "count": progress["count"] + end - first,
            "totals": totals,
            "seconds": progress["seconds"] + time.perf_counter() - began,
            "waited": progress["waited"] + read - began,
        }
        after_step(name, progress)
        bar.update()
        began = time.perf_counter()
    check(progress["totals"], name, taken)
    return progress


def on_its_way(totals):
    """A function that waits for the sum of losses, and for nothing that a GPU is given to do later."""
    loss = totals["loss"]
    copy, event = loss.to("cpu", non_blocking=loss.is_cuda), torch.cuda.Event() if loss.is_cuda else None
    if event:
        event.record()

    def arrived():
        if event:
            event.synchronize()
        return {"loss": copy}

    return arrived


def check(totals, name, step):
    """Raise NotFinite if the sum of losses so far is not."""
    if not math.isfinite(totals.get("loss", 0)):
        raise NotFinite(f"the loss is not finite in {name}, step {step}")


def merged(progress):
    """The progress of all processes, as plain numbers."""
    count, *totals = processes.together([progress["count"], *map(float, progress["totals"].values())])
    return progress | {"count": int(count), "totals": dict(zip(progress["totals"], totals, strict=True))}


def read_ahead(dataset, batches):
    """Yield this process's share of each batch of indices, and how many examples the batch has.

    A thread reads it while the one before it is used.
    """

    def read(indices):
        first, end = processes.share(len(indices))
        batch = dataset.__getitems__(indices[first : max(end, first + 1)].tolist())  # never nothing
        return (batch.pin_memory() if torch.cuda.is_available() else batch), len(indices)

    with ThreadPoolExecutor(1) as thread:
        waiting = deque()
        for indices in batches:
            waiting.append(thread.submit(read, indices))
            if len(waiting) == 2:
                yield waiting.popleft().result()
        yield from (batch.result() for batch in waiting)


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
    """Write the history as CSV, a line per epoch. Of several processes the first does."""
    if processes.rank():
        return
    with files.whole(path) as partial, open(partial, "w", newline="") as file:
        writer = csv.DictWriter(file, history[-1], restval="", extrasaction="ignore")  # older code had other columns
        writer.writeheader()
        writer.writerows(history)
