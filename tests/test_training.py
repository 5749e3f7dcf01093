"""The training loop: exact resume, every example counted once, the best kept, the log derived."""

import argparse
import csv
import re
import shutil

import numpy as np
import pytest
import torch
from conftest import run
from golden import assert_close, load
from torch import nn

import train_lstm
import train_vcae
from models.lstm import LatentLSTM
from runtime.device import try_compiler
from runtime.errors import UserError
from training import checkpoint, loop, step
from training import run as runs
from training.flags import Parser, Steps


class Toy(nn.Module):
    """One weight to fit; records the batches it saw."""

    def __init__(self):
        super().__init__()
        self.config, self.weight, self.seen = {}, nn.Parameter(torch.zeros(1)), []

    def forward(self, x):
        self.seen.append((self.training, x.tolist()))
        return {"loss": (self.weight - x).square().mean(), "mean": x.mean()}


class Numbers(torch.utils.data.Dataset):
    def __init__(self, *values):
        self.values = torch.tensor(values, dtype=torch.float32)

    def __len__(self):
        return len(self.values)

    def __getitems__(self, indices):
        return self.values[indices]


def arguments(tmp_path, **kwargs):
    defaults = vars(
        Parser("", Toy, save_to=str(tmp_path), batch_size=4, num_epochs=3, lr=0.1).parse_args([])
    )
    return argparse.Namespace(**defaults | {"schedule": "constant"} | kwargs)


CPU = torch.device("cpu")


def test_every_example_is_used_once_and_means_are_weighted(tmp_path):
    """Fault 8 of the original: partial batches were skipped."""
    model = Toy()
    loop.fit(
        model, Numbers(*range(10)), Numbers(1.0, 2.0, 3.0, 4.0, 10.0), arguments(tmp_path), CPU, {}
    )
    epoch = [batch for train, batch in model.seen[:3]]
    assert sorted(x for batch in epoch for x in batch) == list(range(10))
    assert [len(batch) for batch in epoch] == [4, 4, 2]
    history = checkpoint.load(tmp_path / "last.pt", Toy)["history"]
    assert history[0]["train_mean"] == pytest.approx(4.5)
    assert history[0]["valid_mean"] == pytest.approx(4.0)
    assert epoch != [batch for train, batch in model.seen[5:8]]  # shuffled anew


def test_max_per_epoch_is_what_it_says(tmp_path):
    """Fault 8 of the original: one batch more."""
    model = Toy()
    loop.fit(
        model,
        Numbers(*range(100)),
        Numbers(1.0),
        arguments(tmp_path, max_per_epoch=2, num_epochs=2),
        CPU,
        {},
    )
    assert [train for train, _ in model.seen] == [True, True, False] * 2


def test_best_is_kept_and_the_log_is_the_history(tmp_path):
    """Fault 9 of the original: the last epoch was saved, not the best."""
    model = Toy()
    loop.fit(model, Numbers(5.0), Numbers(1.0), arguments(tmp_path, lr=0.5, num_epochs=8), CPU, {})
    best, last = (checkpoint.load(tmp_path / name, Toy) for name in ("best.pt", "last.pt"))
    losses = [row["valid_loss"] for row in last["history"]]
    assert len(best["history"]) == losses.index(min(losses)) + 1 < 8
    assert best["model"]["weight"].sub(1).square().item() == pytest.approx(min(losses))
    with open(tmp_path / "log.csv") as file:
        assert [float(row["valid_loss"]) for row in csv.DictReader(file)] == losses


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    values = [1.0] * 10
    with pytest.raises(
        UserError,
        match=r"epoch 1/3, step 1: .*last.pt \(epochs done: 0\) with --resume and a smaller",
    ):
        loop.fit(Toy(), Numbers(float("nan")), Numbers(1.0), arguments(tmp_path), CPU, {})
    args = arguments(tmp_path, save_every=0)
    with pytest.raises(
        UserError, match=r"in validation of epoch 1/3, step 2: start over with a smaller --lr$"
    ):
        loop.fit(Toy(), Numbers(*values), Numbers(1, 1, 1, 1, float("inf")), args, CPU, {})
    last = checkpoint.load(tmp_path / "last.pt", Toy)
    assert last["model"]["weight"].isfinite()
    assert not last["history"]


class Steep(Toy):
    """Its loss is finite where its gradient is not."""

    def forward(self, x):
        return {"loss": (self.weight - x).abs().sum().sqrt()}


def test_weights_that_are_not_finite_are_not_kept(tmp_path):
    """The loss is 0 at the first step, and the slope of the square root there is not finite."""
    with pytest.raises(
        UserError, match=r"weights are not finite after epoch 1, step 1: .*\(epochs done: 0\) with"
    ):
        loop.fit(Steep(), Numbers(0.0), Numbers(1.0), arguments(tmp_path, save_every=0), CPU, {})
    assert checkpoint.load(tmp_path / "last.pt", Steep)["model"]["weight"].isfinite()


def test_an_epoch_of_other_batches_begins_anew(tmp_path, capsys):
    class Stop(Toy):
        def forward(self, x):
            if len(self.seen) == 2:
                raise KeyboardInterrupt
            return super().forward(x)

    Stop.__name__ = "Toy"
    with pytest.raises(KeyboardInterrupt):
        loop.fit(
            Stop(), Numbers(*range(10)), Numbers(1.0), arguments(tmp_path, save_every=0), CPU, {}
        )
    model = Toy()
    args = arguments(tmp_path, resume=True, batch_size=5, num_epochs=1)
    loop.fit(model, Numbers(*range(10)), Numbers(1.0), args, CPU, {})
    assert [len(batch) for train, batch in model.seen if train] == [5, 5]
    assert "epoch 1 starts over" in capsys.readouterr().out


def test_a_run_of_older_code_gets_new_columns(tmp_path):
    args = arguments(tmp_path)
    loop.fit(Toy(), Numbers(1.0), Numbers(1.0), args, CPU, {})
    last = torch.load(tmp_path / "last.pt")
    for row in last["history"][:1]:
        del row["waited"]
    torch.save(last, tmp_path / "last.pt")
    args.resume = True
    loop.fit(Toy(), Numbers(1.0), Numbers(1.0), args, CPU, {})
    with open(tmp_path / "log.csv") as file:
        waited = [row["waited"] for row in csv.DictReader(file)]
    assert waited[0] == ""
    assert all(waited[1:])


def test_what_could_not_be_loaded_again_is_refused_before_training(tmp_path):
    """A night of training would be lost to a hyper-parameter whose limits nobody wrote down."""

    class Decayed(Toy):
        def __init__(self, weight_decay=0.1):
            super().__init__()
            self.config["weight_decay"] = weight_decay

    model = Decayed()
    with pytest.raises(
        UserError, match=r"weight_decay has no line in CONFIG of training/checkpoint_checks\.py"
    ):
        loop.fit(model, Numbers(1.0), Numbers(1.0), arguments(tmp_path), CPU, {})
    assert not model.seen
    with pytest.raises(UserError, match="args: tags is a list"):
        loop.fit(Toy(), Numbers(1.0), Numbers(1.0), arguments(tmp_path, tags=["a"]), CPU, {})
    with pytest.raises(UserError, match="could not be loaded again"):
        checkpoint.save(
            tmp_path / "best.pt", LatentLSTM(4, 8, 1), {"frame_skip": 1}, [], parents={}
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("examples", "max_per_epoch", "least", "epochs"),
    [(8, None, 1, 5), (20, None, 1, 2), (99, None, 1, 1), (20, 1, 1, 10), (99, None, 3, 3)],
)
def test_epochs_by_steps(tmp_path, examples, max_per_epoch, least, epochs):
    """Ten steps of four examples each are as many epochs as the dataset's size makes of them, at
    least one.
    """
    args = arguments(tmp_path, num_epochs=Steps(10, least), max_per_epoch=max_per_epoch)
    loop.fit(Toy(), Numbers(*range(examples)), Numbers(1.0), args, CPU, {})
    assert len(checkpoint.load(tmp_path / "last.pt", Toy)["history"]) == epochs == args.num_epochs


def test_the_time_to_go_is_told_once(monkeypatch):
    now, clock = [0.0], runs.Clock()
    monkeypatch.setattr(runs.time, "monotonic", lambda: now[0])
    said = []
    for left in range(200, 0, -1):
        said.append(clock.tick(left))
        now[0] += 3
    assert [text for text in said if text] == ["10 minutes"]
    assert said.index("10 minutes") == 4, (
        "the first step is not counted, and ten seconds have to pass"
    )


def test_help_shows_what_will_be_used(capsys):
    for arch, lr in (("deep", "0.002"), ("2016", "3e-05"), ("slots", "0.0015")):
        with pytest.raises(SystemExit):
            train_vcae.flags().parse_args(["--arch", arch, "--help"])
        words = " ".join(capsys.readouterr().out.split())
        assert f"learning rate of Adam (default: {lr})" in words
        assert train_vcae.flags().parse_args(["--arch", arch]).lr == float(lr)


def test_help_of_a_run_shows_its_own_flags(chain, capsys):
    with pytest.raises(SystemExit):
        train_vcae.flags().parse_args(["--resume", "--save_to", str(chain / "vcae"), "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert re.search(r"numbers per latent[^()]*\(default: 6\)", text)


@pytest.mark.parametrize(("step", "little"), [(0.01, True), (1.0, False)])
def test_whether_latents_change_little(step, little):
    torch.manual_seed(0)
    walk = torch.randn(50, 1, 2, 8) + step * torch.randn(50, 12, 2, 8)
    assert train_lstm.changes_little(Numbers(*walk.tolist())) is little


@pytest.mark.parametrize(
    ("train", "valid", "skip", "length"),
    [
        ([60] * 4, [60], 1, 20),  # long enough
        ([60] * 4, [60], 3, 20),
        ([30] * 11 + [377, 498], [30, 28], 3, 10),  # half of the videos, not of the frames
        ([60] * 4, [12], 1, 12),  # as long as validation allows
        ([1, 2], [2], 1, 3),  # the least that can be trained on; refused later
    ],
)
def test_usual_length_of_a_window(train, valid, skip, length):
    starts = [np.cumsum([0, *lengths]) for lengths in (train, valid)]
    assert train_lstm.usual_length(*starts, skip) == length


@pytest.mark.slow
def test_compile_without_a_compiler(monkeypatch):
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", ("/no/such/compiler",))
    with pytest.raises(UserError, match="--compile does not work here"):
        try_compiler(CPU)


def test_cosine_schedule_warms_up_and_falls():
    args = argparse.Namespace(lr=2.0, schedule="cosine")
    optimizer = torch.optim.Adam([nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1), fused=True)
    rates = []
    for done in range(1000):
        step.set_lr(optimizer, args, done / 1000)
        rates.append(optimizer.param_groups[0]["lr"].item())
    assert max(rates) == pytest.approx(2.0)
    assert rates.index(max(rates)) == 50
    assert rates[0] == rates[-1] == pytest.approx(0.002)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="records on a GPU alone")
@pytest.mark.parametrize(("loss", "amp"), [("mse", False), ("mse", True), ("mdn", False)])
def test_recorded_steps_are_the_same_steps(tmp_path, monkeypatch, loss, amp):
    """With noise, dropout, a schedule, clipping, a last batch of another size, and a second epoch."""

    def trained(name):
        torch.manual_seed(0)
        model = LatentLSTM(4, n_hid=16, loss=loss, free=2)
        latents = Numbers(*torch.randn(70, 8, 2, 4).tolist())
        options = {
            "save_to": str(tmp_path / name),
            "batch_size": 8,
            "grad_clip": 1.0,
            "schedule": "cosine",
            "amp": amp,
        }
        (tmp_path / name).mkdir()
        loop.fit(model, latents, latents, arguments(tmp_path, **options), torch.device("cuda"), {})
        return model.state_dict()

    recorded = trained("recorded")
    monkeypatch.setattr(loop, "Recorded", lambda step: step)
    for name, weight in trained("plain").items():
        torch.testing.assert_close(recorded[name], weight)


def test_adam_and_the_norm_constraint_are_the_originals():
    """Adam for gradients well above its epsilon, which Lasagne scales differently in the first
    steps.
    """
    t = load("optim_losses")
    parameter = nn.Parameter(t["adam_params"][0, 3:].clone())
    adam = torch.optim.Adam([parameter], lr=t["adam_lr"].item())
    for grad, expected in zip(t["adam_grads"], t["adam_params"][1:], strict=True):
        parameter.grad = grad[3:].clone()
        adam.step()
        assert_close(parameter, expected[3:])
    for size in ("big", "small"):
        parameters = [nn.Parameter(torch.zeros_like(t[f"tnc_{size}_in{i}"])) for i in range(2)]
        for i, p in enumerate(parameters):
            p.grad = t[f"tnc_{size}_in{i}"].clone()
        nn.utils.clip_grad_norm_(parameters, 10)
        for i, p in enumerate(parameters):
            assert_close(p.grad, t[f"tnc_{size}_out{i}"])


class Killed(BaseException):
    pass


STAGES = {
    "vcae": (train_vcae, ["--arch", "deep", "--nfilts", 2, "--z_dim", 4, "--L", 2]),
    "vcae-2016": (train_vcae, ["--arch", "2016", "--nfilts", 1, "--n_hid", 5, "--z_dim", 4]),
    "lstm": (train_lstm, ["--seq_length", 4, "--lstm_n_hid", 6, "--schedule", "cosine"]),
}


@pytest.mark.parametrize("stage", STAGES)
def test_resumed_equals_unbroken(chain, tmp_path, monkeypatch, stage):
    script, flags = STAGES[stage]
    data = chain / ("vcae/latents.hdf5" if stage == "lstm" else "frames.hdf5")
    flags = ["--data_file", data, "--batch_size", 7, "--num_epochs", 4, "--device", "cpu", *flags]
    run(script, "--save_to", tmp_path / "unbroken", *flags)

    save = checkpoint.save

    def killed_after_two_epochs(path, model, args, history, *rest):
        if len(history) == 3:
            raise Killed
        save(path, model, args, history, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save", killed_after_two_epochs)
        with pytest.raises(Killed):
            run(script, "--save_to", tmp_path / "broken", *flags)
    torch.rand(100)  # nothing depends on the state of the generator
    run(script, "--save_to", tmp_path / "broken", "--resume")  # the run's own flags are remembered

    for name in ("last.pt", "best.pt"):
        ours, theirs = (torch.load(tmp_path / folder / name) for folder in ("broken", "unbroken"))
        assert all(torch.equal(ours["model"][key], theirs["model"][key]) for key in theirs["model"])
        for row, other in zip(ours["history"], theirs["history"], strict=True):
            timed = {"seconds": 0, "waited": 0}
            assert row | timed == other | timed
    if stage != "lstm":
        latents = [
            (tmp_path / folder / "latents.hdf5").read_bytes() for folder in ("broken", "unbroken")
        ]
        assert latents[0] == latents[1]


def test_a_renamed_run_is_the_one_resumed(chain, tmp_path):
    shutil.copytree(chain, tmp_path / "moved")
    shutil.copytree(chain / "lstm", tmp_path / "moved" / "renamed")
    before = (chain / "lstm" / "last.pt").read_bytes()
    run(train_lstm, "--save_to", tmp_path / "moved" / "renamed", "--resume", "--num_epochs", 3)
    assert (
        len(
            checkpoint.load(tmp_path / "moved" / "renamed" / "last.pt", train_lstm.LatentLSTM)[
                "history"
            ]
        )
        == 3
    )
    assert (chain / "lstm" / "last.pt").read_bytes() == before


def test_init_from_begins_with_the_weights(chain, tmp_path):
    """Fault 9 of the original: `--init_from` raised."""
    flags = [
        "--data_file",
        chain / "vcae" / "latents.hdf5",
        "--seq_length",
        6,
        "--lstm_n_hid",
        8,
        "--device",
        "cpu",
    ]
    trained = checkpoint.load(chain / "lstm" / "best.pt", train_lstm.LatentLSTM)
    run(
        train_lstm,
        *flags,
        "--init_from",
        chain / "lstm" / "best.pt",
        "--save_to",
        tmp_path,
        "--num_epochs",
        1,
        "--lr",
        1e-9,
    )
    begun = checkpoint.load(tmp_path / "last.pt", train_lstm.LatentLSTM)
    for name, weight in trained["model"].items():
        torch.testing.assert_close(begun["model"][name], weight, atol=1e-6, rtol=0)
