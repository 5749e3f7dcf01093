"""Pictures while training goes on: they cost next to nothing, change nothing, and the last is drawn."""

import os
import signal
from functools import partial

import pytest
import torch
from PIL import Image
from test_training import CPU, Numbers, Toy, arguments

from data import pictures
from runtime.errors import UserError
from training import checkpoint, drawing, loop

EPOCH = 30  # seconds


def take(clock, seconds, drawn, path, history=None):
    clock[0] += seconds
    drawn.append(path.name)


def test_drawing_takes_at_most_a_hundredth_of_the_time_trained(tmp_path, monkeypatch):
    clock = [0.0]
    drawn = []
    monkeypatch.setattr(drawing.time, "perf_counter", lambda: clock[0])
    monkeypatch.setattr(drawing, "save_losses", partial(take, clock, 0.1, drawn))
    drawings = drawing.Drawings(tmp_path, [], partial(take, clock, 2.0, drawn))
    for epoch in range(1, 101):
        drawings.after_epoch(EPOCH, is_best=True)
        if epoch > 8:  # the first picture took four times as long as it was thought to
            assert clock[0] <= 0.01 * EPOCH * epoch + 1e-6
    assert 8 <= drawn.count("best.png") <= 14
    assert drawn.count("log.png") > 50
    before = len(drawn)
    drawings.finish()
    drawings.finish()
    assert len(drawn) - before <= 2


def test_only_the_first_process_draws(tmp_path, monkeypatch):
    monkeypatch.setattr(drawing.processes, "rank", lambda: 1)
    drawings = drawing.Drawings(tmp_path, [], lambda path: pytest.fail("it drew"))
    drawings.after_epoch(1e6, is_best=True)
    drawings.finish()
    assert not list(tmp_path.iterdir())


def fit(tmp_path, draw, **kwargs):
    """Train from 0 towards 5, where validation is best at 1. Returns the model."""
    model = Toy()
    args = arguments(tmp_path, lr=0.5, **{"num_epochs": 8, **kwargs})
    loop.fit(model, Numbers(*[5.0] * 10), Numbers(1.0), args, CPU, {}, draw=draw)
    return model


def test_the_best_epoch_is_drawn_at_the_end(tmp_path):
    """A training of a second has no time for it before."""
    drawn = []

    def draw(path):
        drawn.append((path, len(checkpoint.load(tmp_path / "best.pt", Toy)["history"])))

    fit(tmp_path, draw)
    history = checkpoint.load(tmp_path / "last.pt", Toy)["history"]
    best = min(history, key=lambda row: row["valid_loss"])["epoch"]
    assert drawn == [(tmp_path / "pictures" / "best.png", best)]
    assert best < 8
    Image.open(tmp_path / "log.png").load()


def test_drawing_changes_nothing_of_the_training(tmp_path, monkeypatch):
    """Not even if a picture draws random numbers."""
    without = fit(tmp_path / "without", None)
    monkeypatch.setattr(drawing, "SHARE", float("inf"))
    drawn = []
    with_pictures = fit(tmp_path / "with", lambda path: drawn.append(torch.rand(1)))
    assert drawn
    assert with_pictures.seen == without.seen
    assert torch.equal(with_pictures.weight, without.weight)


def test_a_picture_that_fails_is_told_once(tmp_path, monkeypatch, capsys):
    def draw(path):
        raise UserError("codec.pt is not there")

    monkeypatch.setattr(drawing, "SHARE", float("inf"))
    fit(tmp_path, draw)
    assert capsys.readouterr().out.count("best.png is not drawn: codec.pt is not there") == 1
    assert len(checkpoint.load(tmp_path / "last.pt", Toy)["history"]) == 8


@pytest.mark.parametrize("error", [MemoryError(), torch.OutOfMemoryError("CUDA out of memory")])
def test_a_training_outlives_a_picture_that_does_not_fit_into_memory(tmp_path, capsys, error):
    def draw(path):
        raise error

    fit(tmp_path, draw)
    assert "best.png is not drawn: not enough memory" in capsys.readouterr().out


def test_a_signal_while_the_last_epoch_is_drawn_counts(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(drawing, "SHARE", float("inf"))
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, lambda path: os.kill(os.getpid(), signal.SIGTERM), num_epochs=1)
    assert stop.value.code == 128 + signal.SIGTERM
    assert "(epochs done: 1) continues with --resume" in capsys.readouterr().out


def test_a_run_that_ended_before_its_pictures_draws_them(tmp_path):
    fit(tmp_path, None)
    (tmp_path / "log.png").unlink()
    drawn = []
    fit(tmp_path, drawn.append, resume=True)
    assert drawn == [tmp_path / "pictures" / "best.png"]
    assert (tmp_path / "log.png").exists()


@pytest.mark.parametrize(
    ("losses", "scale"), [([2.0], "log"), ([2.0, 1e-3], "log"), ([2.0, 0.0, -1.0], "linear")]
)
def test_losses_are_on_a_logarithmic_scale_if_all_are_positive(
    tmp_path, monkeypatch, losses, scale
):
    scales = []
    original = pictures.Figure.savefig

    def savefig(figure, *args, **kwargs):
        scales.append(figure.axes[0].get_yscale())
        original(figure, *args, **kwargs)

    monkeypatch.setattr(pictures.Figure, "savefig", savefig)
    for names in (("train_loss", "valid_loss"), ("valid_loss",)):
        pictures.save_losses(tmp_path / "log.png", [dict.fromkeys(names, x) for x in losses])
    assert scales == [scale, scale]
    Image.open(tmp_path / "log.png").load()
