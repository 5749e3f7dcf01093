"""The pictures that a training leaves while it goes on, and how much time they may take."""

import math
import time
from functools import partial

from data.pictures import save_losses
from runtime import cli, processes
from runtime.errors import UserError

LOG = "log.png"
BEST = "pictures/best.png"
SHARE = 0.01  # of the time trained so far
FIRST = 0.5  # seconds that a picture is taken to need before it has been drawn


class Drawings:
    """log.png, the losses by epoch, and pictures/best.png, what best.pt makes of held-out data.

    Drawing takes at most SHARE of the time trained so far; what is not drawn then is drawn at the
    end. Both times are this process's: a run that is resumed counts anew. Of several processes the
    first draws.
    """

    def __init__(self, folder, history, draw):
        """history: of the run, which adds to it; draw(path): makes pictures/best.png, or None."""
        self.folder = folder
        self.draws = {LOG: partial(save_losses, history=history)}
        if draw:
            self.draws[BEST] = draw
        self.outdated = {LOG, BEST} if history else set()
        self.takes = {LOG: FIRST, BEST: FIRST}  # seconds, as of the last time
        self.spent = 0.0
        self.trained = 0.0

    def after_epoch(self, seconds, is_best):
        """Draw what has changed, if there is time for it."""
        self.trained += seconds
        self.outdated |= {LOG, BEST} if is_best else {LOG}
        self.draw_outdated(SHARE * self.trained)

    def finish(self):
        """Draw what has changed since it was drawn."""
        self.draw_outdated(math.inf)

    def draw_outdated(self, limit):
        """limit: seconds that all drawing may have taken."""
        for name in sorted(self.outdated & self.draws.keys()):
            if processes.rank() == 0 and self.spent + self.takes[name] <= limit:
                self.draw(name)

    def draw(self, name):
        """Draw a picture. If that fails, say why, once: training goes on without it."""
        began = time.perf_counter()
        try:
            self.draws[name](self.folder / name)
        except (UserError, RuntimeError, MemoryError) as error:
            if not isinstance(error, UserError) and not cli.out_of_memory(error):
                raise
            reason = error if isinstance(error, UserError) else "not enough memory"
            processes.say(f"{self.folder / name} is not drawn: {reason}")
            del self.draws[name]
        self.takes[name] = time.perf_counter() - began
        self.spent += self.takes[name]
        self.outdated.remove(name)
