"""The command line of all stages: flags, their defaults in --help, errors in one line."""

import argparse
import os
import signal
import sys
import threading

import torch

from runtime import processes, requirements
from runtime.device import THREAD
from runtime.errors import Terminated, UserError

# Flags that decide how much memory is needed, the likeliest first.
SIZES = (
    "n_hid",
    "lstm_n_hid",
    "nfilts",
    "specstr",
    "batch_size",
    "scale",
    "n",
    "horizon",
    "seq_len",
    "frame_size",
)


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Shows each flag's default, where it has one."""

    def _get_help_string(self, action):
        return action.help if action.default is None else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """An argument parser that shows defaults and reports a wrong flag in one line, exit code 2."""

    resume_hint = "nothing half made is left; start over with the same command"

    def __init__(self, description):
        super().__init__(description=description, formatter_class=HelpFormatter)

    def explain(self, name, text):
        """Add `text` to the help of a flag that was added already."""
        next(action for action in self._actions if action.dest == name).help += text

    def error(self, message):
        self.exit(2, f"{self.prog}: error: {message}\n")

    def sizes(self):
        """The flags that decide how much memory is needed, as text."""
        names = [action.dest for action in self._actions if action.dest in SIZES]
        return ", ".join(f"--{name}" for name in sorted(names, key=SIZES.index))

    def set_stored(self, values, path):
        """Take the flags stored in the file at `path` as defaults.

        Raises UserError if the value of one is not allowed.
        """
        for action in self._actions:
            if (value := values.get(action.dest)) is None:
                continue
            try:
                wanted = (
                    bool
                    if isinstance(action, Switch)
                    else str
                    if action.type is None
                    else (int, float)
                )
                if not isinstance(value, wanted) or (
                    isinstance(value, bool) and wanted is not bool
                ):
                    raise argparse.ArgumentError(action, "type")
                self._check_value(action, self._get_value(action, str(value)))
            except argparse.ArgumentError:
                raise UserError(
                    f"{path} has --{action.dest} {value!s:.50}, which is no value of it"
                ) from None
            self.set_defaults(**{action.dest: value})


class Switch(argparse.BooleanOptionalAction):
    """`--flag`, `--no-flag`, and `--flag true` or `--flag false` as the 2016 scripts had it."""

    def __init__(self, option_strings, dest, **kwargs):
        super().__init__(option_strings, dest, **kwargs)
        self.nargs = "?"

    def __call__(self, parser, namespace, value, option_string=None):
        if value is None:
            value = "true"
        if value.lower() not in ("true", "false"):
            parser.error(f"argument {option_string}: takes true or false, not {value!r}")
        setattr(
            namespace, self.dest, (value.lower() == "true") != option_string.startswith("--no-")
        )


def out_of_memory(error):
    """Whether the error is that there was not enough memory.

    Python, NumPy and PyTorch (on a GPU, on a CPU) each say it in their own way.
    """
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "DefaultCPUAllocator" in str(
        error
    )


def run(main, parser, argv=None):
    """Parse the command line and call `main(args)`.

    What the user can fix ends in one line and exit code 2.
    """

    def terminate(*_):
        raise Terminated

    signal.signal(signal.SIGTERM, terminate)
    try:
        requirements.check_versions()
        main(parser.parse_args(argv))
    except (UserError, OSError) as error:
        message = " ".join(str(error).splitlines())  # one line, whatever the names in it
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except (RuntimeError, MemoryError) as error:
        if processes.lost(error):
            message = f"another process of this run has ended; {parser.resume_hint}"
        elif out_of_memory(error):
            reason = str(error).split("] . ")[-1].splitlines()[0] if str(error) else "an array"
            message = f"not enough memory ({reason:.100}): lower {parser.sizes()}"
        else:
            raise
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        sys.exit(2)
    except (KeyboardInterrupt, Terminated) as stop:
        print(f"\n{parser.prog}: interrupted; {parser.resume_hint}", file=sys.stderr)
        code = 143 if isinstance(stop, Terminated) else 130
        if any(thread.name.startswith(THREAD) for thread in threading.enumerate()):
            sys.stdout.flush()
            os._exit(code)  # sys.exit would wait for what they have begun
        sys.exit(code)
