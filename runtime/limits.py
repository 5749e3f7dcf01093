"""What a flag may be, and what a file may hold: the same limits for both."""

import argparse


def at_least(least, most=2**31 - 1):
    """An argparse type: a whole number from `least` to `most`.

    By default `most` is what any file format can store.
    """

    def parse(text):
        try:
            value = int(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            too_large = value is not None and value > most
            bounds = (
                f"from {least} to {most}"
                if too_large or most < 2**31 - 1
                else f"of at least {least}"
            )
            raise argparse.ArgumentTypeError(f"takes a whole number {bounds}, not {text!r:.50}")
        return value

    return parse


seed = at_least(0, 2**63 - 1)


def real(low, high=float("inf"), above=False):
    """An argparse type: a finite number in [low, high], or in (low, high] with `above`."""

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not (low < value if above else low <= value) or value > high or value == float("inf"):
            bounds = f"{'above' if above else 'from'} {low:g}" + (
                f" to {high:g}" if high < float("inf") else ""
            )
            raise argparse.ArgumentTypeError(f"takes a number {bounds}, not {text!r:.50}")
        return value

    return parse


def limited(allowed):
    """The argparse type of what a file may hold.

    That is a range of whole numbers, or the (low, high) of a number.
    """
    return at_least(allowed[0], allowed[-1]) if type(allowed) is range else real(*allowed)


def fits(value, allowed):
    """Whether a value read from a file is within what is allowed.

    That is text (`str`), one of a set, of a range, or a number in (low, high).
    """
    if allowed is str:
        return type(value) is str
    if type(allowed) is tuple:
        return type(value) in (int, float) and allowed[0] <= value <= allowed[1]
    return type(value) is type(next(iter(allowed))) and value in allowed


def shares(text):
    """An argparse type: three shares such as 80/10/10."""
    parts = text.split("/")
    if len(parts) != 3 or not all(p.isdecimal() for p in parts) or not any(map(int, parts)):
        raise argparse.ArgumentTypeError(f"takes three shares such as 80/10/10, not {text!r}")
    return text
