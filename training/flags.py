"""The flags that all training scripts share, and how a run's own flags come back with --resume."""

import argparse
import itertools
import os
from pathlib import Path

from runtime import cli, files, limits
from training import checkpoint

PATHS = ("data_file", "cae", "deconv", "lstm", "init_from")  # flags that name files


class Steps:
    """The default of --num_epochs: as many as make N steps, whatever the dataset's size.

    least: but at least that many epochs.
    """

    def __init__(self, steps, least=1):
        self.steps = steps
        self.least = least

    def __str__(self):
        least = f"at least {self.least}, and " if self.least > 1 else ""
        return f"{least}as many as make {self.steps:,} steps"

    def epochs(self, per_epoch):
        """How many epochs that is, with `per_epoch` steps in each."""
        return max(round(self.steps / per_epoch), self.least)


class Parser(cli.Parser):
    """A training script's parser.

    models: the classes that the script trains; defaults: the value of each flag that the script
    does not leave alone; archs: {arch: {flag: value}}, the defaults that depend on --arch. With
    --resume, the run's own flags are the defaults.
    """

    resume_hint = "continue with --resume, or start over if there is no last.pt yet"

    def __init__(self, description, *models, archs=None, **defaults):
        super().__init__(description)
        self.models = models
        self.archs = archs or {}
        add = self.add_argument
        add("--save_to", help="run folder: checkpoints, log.csv, log.png, pictures")
        add("--num_epochs", type=limits.at_least(1), help="passes over the training data in all")
        add("--batch_size", type=limits.at_least(1), help="examples per step")
        add("--max_per_epoch", type=limits.at_least(1), help="at most N batches per epoch")
        add("--lr", type=limits.real(0, above=True), help="learning rate of Adam")
        schedule = "cosine: 5%% warm-up, then down to --lr/1000"
        add("--schedule", choices=("constant", "cosine"), help=schedule)
        norm = "limit on the gradient's total norm; 0: none"
        add("--grad_clip", type=limits.real(0), default=0.0, help=norm)
        minutes = "minutes between checkpoints within an epoch"
        add("--save_every", type=limits.real(0), default=10.0, help=minutes)
        add("--seed", type=limits.seed, default=0, help="of weights, order and noise")
        add("--device", help="if not given: cuda, else mps, else cpu")
        self.amp = add("--amp", action=cli.Switch, default=False)
        compiled = "torch.compile the model; of an LSTM, its cell, where it runs on a GPU"
        add("--compile", action=cli.Switch, default=False, help=compiled)
        resume = "continue the run in --save_to, with its flags"
        add("--resume", action=cli.Switch, default=False, help=resume)
        add("--init_from", help="checkpoint whose weights to start from")
        if archs:
            first = next(iter(archs))
            networks = "of the networks; --help beside it shows its defaults"
            add("--arch", choices=archs, default=first, help=networks)
        self.set_defaults(**defaults)

    def set_defaults(self, **defaults):
        super().set_defaults(**defaults)
        self.amp.help = "bfloat16 autocast"
        if self.amp.default is None:
            self.amp.help += "; if not given: where the hardware is fast at it"

    def parse_args(self, argv=None):
        self.set_early_defaults(argv)
        args = super().parse_args(argv)
        self.check_arch(args)
        last = Path(args.save_to) / "last.pt"
        if args.resume and not last.exists():
            self.error(f"argument --resume: {last} is not there; leave --resume out to start over")
        return args

    def check_arch(self, args):
        """Exit if a flag was given that only another --arch has. A run that is resumed has them."""
        if not self.archs or args.resume:
            return
        for name in dict.fromkeys(itertools.chain(*self.archs.values())):
            if name not in self.archs[args.arch] and getattr(args, name) is not None:
                archs = " or ".join(arch for arch in self.archs if name in self.archs[arch])
                self.error(f"--{name} is for --arch {archs}, not {args.arch}: leave it out")

    def set_early_defaults(self, argv):
        """Take the defaults that --arch and --resume bring.

        So that --help shows the values that will be used.
        """
        early = argparse.ArgumentParser(add_help=False, exit_on_error=False)
        early.error = lambda message: None  # the full parser will report it
        early.add_argument("--arch", default=self.get_default("arch"))
        early.add_argument("--resume", action=cli.Switch, default=False)
        early.add_argument("--save_to", default=self.get_default("save_to"))
        try:
            given, _ = early.parse_known_args(argv)
        except argparse.ArgumentError:
            return
        self.set_defaults(**self.archs.get(given.arch, {}))
        last = Path(given.save_to) / "last.pt"
        if given.resume and last.exists():
            flags = checkpoint.load(last, *self.models)["args"]
            self.set_stored(from_run_folder(flags, given.save_to), last)
            self.set_defaults(save_to=given.save_to)


def for_run_folder(args):
    """The flags as a checkpoint stores them.

    Paths are relative to the run folder, so that it resumes from anywhere.
    """
    flags = vars(args)
    paths = {name: files.relative(flags[name], args.save_to) for name in PATHS if flags.get(name)}
    return flags | paths


def from_run_folder(stored, run):
    """Stored flags with their paths as seen from the working directory."""
    paths = {name: found(stored[name], run) for name in PATHS if stored.get(name)}
    return stored | paths


def found(path, run):
    """A stored path as seen from here.

    Older code stored it relative to where the training was started.
    """
    placed = files.resolve(path, run)
    if os.path.exists(path) and not os.path.exists(placed):
        return path
    return placed
