"""One training and its folder: opening it, resuming, checkpoints by the clock, signals, the log."""

import csv
import math
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import torch

from runtime import files, processes
from runtime.device import choose_device, fast_bfloat16, seed_all, try_compiler
from runtime.errors import UserError
from training import checkpoint, flags
from training.drawing import Drawings

LEFT_BY_A_RUN = ("last.pt", "best.pt", "log.csv", "latents.hdf5")


def start(args):
    """Lock the run folder, join other processes, seed; return the device.

    Raises UserError if the folder holds a run and --resume is off, or if another process is at work
    in it.
    """
    folder = Path(args.save_to)
    device = choose_device(args.device)
    processes.join(device)
    if args.batch_size < processes.count():
        raise UserError(
            f"--batch_size {args.batch_size} gives {processes.count()} processes nothing to share"
        )
    if processes.rank() == 0:
        if not args.resume and any((folder / name).exists() for name in LEFT_BY_A_RUN):
            raise UserError(
                f"{folder} holds a run already: continue it with --resume, or name another "
                "--save_to"
            )
        files.lock_folder(folder)
    if args.amp is None:
        args.amp = fast_bfloat16(device)
    if args.compile:
        try_compiler(device)
    torch.set_flush_denormal(True)  # numbers too small to matter slow a CPU down
    seed_all(args.seed)
    return device


class Run:
    """What a training has done so far, and what it leaves in its folder.

    history: a list of dicts of numbers, one per epoch; progress: of an epoch that was interrupted,
    as of `loop.run_pass`, else None; signals: those that came, see `stopping`.
    """

    def __init__(self, model, optimizer, args, parents, steps, examples, draw=None):
        """Take up the run to --resume, or the weights of --init_from, or leave a first checkpoint.

        steps: batches per epoch; examples: in the training set; draw: as of `loop.fit`. Raises
        UserError if a checkpoint does not fit.
        """
        self.folder = Path(args.save_to)
        self.model = model
        self.optimizer = optimizer
        self.args = args
        self.parents = parents
        self.steps = steps
        self.history = []
        self.progress = None
        self.signals = []
        self.clock = Clock()
        if args.resume:
            self.resume(examples)
        elif args.init_from:
            take_weights(
                model, checkpoint.load(args.init_from, type(model)), args.init_from, resume=False
            )
        if not args.resume:
            self.save()  # from here on there is something to resume
        if self.history:
            self.write_log()
        self.drawings = Drawings(self.folder, self.history, draw)
        if len(self.history) >= args.num_epochs:
            processes.say(
                f"{self.folder}: all {args.num_epochs} epochs are done; give a larger --num_epochs "
                "to continue"
            )

    def resume(self, examples):
        """Take up last.pt: weights, Adam's state, history, progress."""
        path = self.folder / "last.pt"
        last = checkpoint.load(path, type(self.model))
        take_weights(self.model, last, path, resume=True)
        for role, parent in self.parents.items():
            if last["parents"].get(role, {}).get("id") != parent.get("id"):
                raise UserError(
                    f"{self.folder} was begun with another {role}: start over in another --save_to"
                )
        state, progress = checkpoint.resume_state(last, self.model, path)
        # Adam's moments alone: rate and other settings are those of the flags.
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.history = last["history"]
        # Steps of an epoch can be skipped only if its batches are still the same.
        now = vars(self.args) | {"examples": examples}
        if progress and any(now[name] != value for name, value in progress["of"].items()):
            processes.say(
                f"epoch {len(self.history) + 1} starts over: its batches are different now"
            )
            progress = None
        if progress and processes.rank():  # what was counted so far counts once
            progress |= {"count": 0, "totals": dict.fromkeys(progress["totals"], 0.0)}
        self.progress = progress

    def save(self, progress=None):
        """Write last.pt. Raises NotFinite, and writes nothing, if the weights are not finite."""
        if not all(weight.isfinite().all() for weight in self.model.parameters()):
            epoch = len(self.history)
            place = f"epoch {epoch + 1}, step {progress['step']}" if progress else f"epoch {epoch}"
            raise NotFinite(f"the weights are not finite after {place}")
        self.write("last.pt", self.optimizer, progress)  # best.pt has neither
        self.clock.saved()

    def write(self, name, *state):
        checkpoint.save(
            self.folder / name,
            self.model,
            flags.for_run_folder(self.args),
            self.history,
            self.parents,
            *state,
        )

    def after_step(self, name, progress, to_save=None):
        """Save if it is time to, provided that the loss is finite; if a signal came, exit.

        name, progress: of the pass; to_save: the progress of the training pass, where this one is a
        validation.
        """
        validating = to_save is not None
        if not validating and (left := self.clock.tick(self.steps_left(progress))):
            epochs = f"{self.args.num_epochs} epochs of {self.steps} steps"
            processes.say(f"{self.folder}: {epochs}, about {left} of training to go")
        # Clocks differ, and a signal may reach one process alone: all do what one is to do.
        due = self.clock.minutes_since_saved() >= self.args.save_every
        due, number = processes.all_reduce([due, self.signals[0] if self.signals else 0], by="max")
        if due or number:
            loss = sum_over_processes(progress)["totals"]["loss"]
            check_finite(loss, name, progress["step"], validating)
            self.save(sum_over_processes(to_save or progress))
        if number:
            self.stop(number)

    def steps_left(self, progress):
        return (self.args.num_epochs - len(self.history)) * self.steps - progress["step"]

    def end_epoch(self, epoch, trained, validated):
        """Add an epoch to the history, write checkpoints, log, pictures; if a signal came, exit.

        trained, validated: the progress of its two passes.
        """
        trained = sum_over_processes(trained)
        validated = sum_over_processes(validated)
        row = {"epoch": epoch}
        row |= {
            f"train_{name}": total / trained["count"] for name, total in trained["totals"].items()
        }
        row |= {
            f"valid_{name}": total / validated["count"]
            for name, total in validated["totals"].items()
        }
        row |= {"seconds": trained["seconds"] + validated["seconds"], "waited": trained["waited"]}
        self.progress = None
        lowest_before = min((each["valid_loss"] for each in self.history), default=math.inf)
        self.history.append(row)
        processes.say("  ".join(f"{name} {value:.5g}" for name, value in row.items()))
        is_best = row["valid_loss"] < lowest_before
        if is_best:
            self.write("best.pt")
        self.save()
        self.write_log()
        self.stop_if_signalled()
        self.drawings.after_epoch(row["seconds"], is_best)
        self.stop_if_signalled()  # while drawing: after the last epoch nothing else would see it

    def stop_if_signalled(self):
        """If a signal came to any process, exit. All that is to be saved must be."""
        (number,) = processes.all_reduce([self.signals[0] if self.signals else 0], by="max")
        if number:
            self.stop(number)

    def stop(self, number):
        """Say how to continue, then exit with 128 + number, as a process killed by it does."""
        processes.wait()  # for the one that saves
        processes.say(f"stopped; {self.last_checkpoint()} continues with --resume")
        sys.exit(128 + int(number))

    def last_checkpoint(self):
        """last.pt and what it holds, as text."""
        last = checkpoint.load(self.folder / "last.pt", type(self.model))
        epochs = len(last["history"])
        step = (
            f", step {last['progress']['step']} of epoch {epochs + 1}" if last["progress"] else ""
        )
        return f"{self.folder / 'last.pt'} (epochs done: {epochs}{step})"

    @contextmanager
    def not_finite_explained(self):
        """In the block NotFinite becomes a UserError that says what to continue from."""
        try:
            yield
        except NotFinite as error:
            way_out = f"continue from {self.last_checkpoint()} with --resume and a smaller --lr"
            if error.validating:  # the weights of last.pt would only be validated again
                way_out = "start over with a smaller --lr"
                if self.history:
                    way_out += f", or from {self.folder / 'best.pt'} by --init_from"
            raise UserError(f"{error}: {way_out}") from None

    def write_log(self):
        """Write the history as log.csv, a line per epoch. Of several processes the first does."""
        if processes.rank():
            return
        with files.atomic_write(self.folder / "log.csv") as tmp, open(tmp, "w", newline="") as file:
            # A run of older code has fewer columns at first.
            writer = csv.DictWriter(file, self.history[-1], restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(self.history)


class Clock:
    """When the last checkpoint was written, and how long the training will take, said once."""

    def __init__(self):
        self.last_save = time.monotonic()
        self.began = None
        self.steps = 0
        self.told = False

    def saved(self):
        self.last_save = time.monotonic()

    def minutes_since_saved(self):
        return (time.monotonic() - self.last_save) / 60

    def tick(self, left):
        """Count a step, with `left` to go.

        Once, after ten seconds, returns text such as "7 minutes"; else None.
        """
        if self.began is None:  # the first step is slower
            self.began = time.monotonic()
            return None
        self.steps += 1
        passed = time.monotonic() - self.began
        if self.told or passed < 10:
            return None
        self.told = True
        minutes = math.ceil(passed / self.steps * left / 60)
        return f"{minutes} minutes" if minutes < 100 else f"{minutes / 60:.1f} hours"


class NotFinite(Exception):
    """The loss, of a training or a validation pass, or the weights are not finite."""

    def __init__(self, message, validating=False):
        super().__init__(message)
        self.validating = validating


def check_finite(loss, name, step, validating):
    """Raise NotFinite if the sum of losses up to a step of the pass `name` is not finite."""
    if not math.isfinite(loss):
        raise NotFinite(f"the loss is not finite in {name}, step {step}", validating)


def sum_over_processes(progress):
    """The progress of all processes, as plain numbers."""
    count, *totals = processes.all_reduce(
        [progress["count"], *map(float, progress["totals"].values())]
    )
    return progress | {
        "count": int(count),
        "totals": dict(zip(progress["totals"], totals, strict=True)),
    }


def take_weights(model, content, path, resume):
    """Load a checkpoint's weights into `model`.

    To resume, every value of the configuration must be the same; to start from them, the weights
    must fit. Raises UserError, naming what differs, if they do not.
    """
    stored_shapes = {name: weight.shape for name, weight in content["model"].items()}
    fits = stored_shapes == {name: weight.shape for name, weight in model.state_dict().items()}
    stored = flat(content["config"])
    wanted = flat(model.config)
    differs = [key for key, value in wanted.items() if stored.get(key, value) != value]
    if differs and (resume or not fits):
        pairs = (f"{key} {stored[key]} (the flags: {wanted[key]})" for key in differs)
        raise UserError(f"{path} has {', '.join(pairs)}: make the flags agree")
    model.load_state_dict(content["model"])


def flat(config):
    """A configuration in which those of a network's parts are no dicts: {"lstm": {"n_hid": 9}} as
    {"lstm: n_hid": 9}.
    """
    entries = {}
    for key, value in config.items():
        if isinstance(value, dict):
            entries |= {f"{key}: {name}": part for name, part in value.items()}
        else:
            entries[key] = value
    return entries


@contextmanager
def stopping(signals):
    """In the block the first SIGINT or SIGTERM is only put into the list `signals`.

    A second one ends the process at once.
    """
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    # One that is ignored, as a shell's background jobs ignore SIGINT, stays so.
    handlers = {
        number: handler
        for number, handler in handlers.items()
        if handler not in (None, signal.SIG_IGN)
    }

    def restore():
        for number, handler in handlers.items():
            signal.signal(number, handler)

    def remember(number, _):
        signals.append(number)
        restore()

    for number in handlers:
        signal.signal(number, remember)
    try:
        yield
    finally:
        restore()
