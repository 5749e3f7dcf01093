"""The latent LSTM against the original's tensors, and what must hold of its predictions."""

import functools
import math

import numpy as np
import pytest
import torch
from golden import assert_close, load
from torch.nn import functional as F

from models import losses, noise, peephole, peephole_cpu
from models.layouts import Vector
from models.losses import Mdn
from models.lstm import LatentLSTM, difference, integrate
from models.peephole import PeepholeSequence, SharedWeights, Steps
from runtime import native

GATES = ("ingate", "forgetgate", "cell", "outgate")
PEEPHOLES = ("ingate", "forgetgate", "outgate")


def ours(get, kl):
    """The original's parameters, or gradients, under our names and in our shapes."""
    named = {}
    for i in range(2):
        theirs = f"lstm_{i}."
        named |= {
            f"layers.{i}.weight_in": torch.cat(
                [get(f"{theirs}W_in_to_{gate}") for gate in GATES], 1
            ),
            f"layers.{i}.weight_hid": torch.cat(
                [get(f"{theirs}W_hid_to_{gate}") for gate in GATES], 1
            ),
            f"layers.{i}.bias": torch.cat([get(f"{theirs}b_{gate}") for gate in GATES]),
            f"layers.{i}.peepholes": torch.stack(
                [get(f"{theirs}W_cell_to_{gate}") for gate in PEEPHOLES]
            ),
            f"layers.{i}.cell_init": get(f"{theirs}cell_init")[0],
            f"layers.{i}.hid_init": get(f"{theirs}hid_init")[0],
        }
    projections = ("project_mu", "project_ls") if kl else ("project",)
    named["project.weight"] = torch.cat([get(f"{name}.W") for name in projections], 1).T
    named["project.bias"] = torch.cat([get(f"{name}.b") for name in projections])
    return named


class Golden:
    """One of the original's small LSTMs: its tensors, and our model with its parameters."""

    def __init__(self, name, **kwargs):
        self.tensors, self.kl = load(name), name == "z_vlstm"
        self.model = LatentLSTM(4, 6, 2, loss="kl" if self.kl else "mse", **kwargs).eval()
        self.model.load_state_dict(ours(lambda name: self.tensors[f"param:{name}"], self.kl))
        z = [self.tensors["z_in"]] + ([self.tensors["z_ls_in"]] if self.kl else [])
        target = [self.tensors["z_tgt"]] + ([self.tensors["z_ls_tgt"]] if self.kl else [])
        self.read, self.target = torch.stack(z, 2), torch.stack(target, 2)

    def outputs(self, prefix):
        names = ("output_mu", "output_ls") if self.kl else ("output",)
        return torch.stack([self.tensors[f"{prefix}{name}"] for name in names], 2)

    def check_gradients(self, prefix, scale):
        for name, expected in ours(lambda name: self.tensors[f"{prefix}:{name}"], self.kl).items():
            assert_close(scale * self.model.get_parameter(name).grad, expected)

    def loss(self):
        """Our loss of predicting the original's targets, which need not be the inputs one step
        later.
        """
        latents = torch.cat([self.read[:, :1], self.target], 1)
        read_sequence = self.model.read_sequence
        self.model.read_sequence = lambda sequence, *rest: read_sequence(self.read, *rest)
        return self.model(latents)["loss"]


@pytest.mark.parametrize("name", ["z_lstm", "z_vlstm"])
def test_outputs_states_loss_and_gradients(name):
    golden = Golden(name)
    prediction, states = golden.model.read_sequence(golden.read)
    assert_close(prediction, golden.outputs("det_"))
    for i, (hidden, cell) in enumerate(states[:-1]):
        assert_close(hidden, golden.tensors[f"det_hidfinal_{i}"])
        assert_close(cell, golden.tensors[f"det_cellfinal_{i}"])
    loss = golden.loss()
    loss.backward()
    batch = 2 if golden.kl else 1  # their KL is a sum over the batch, ours a mean
    assert_close(batch * loss, golden.tensors["det_loss"])
    golden.check_gradients("det_grad", batch)


@pytest.mark.parametrize("name", ["z_lstm", "z_vlstm"])
def test_dropout_on_each_layers_input(name, monkeypatch):
    golden = Golden(name)
    masks = [golden.tensors[f"train_dropout_mask_{i}"] for i in range(2)]
    monkeypatch.setattr(
        noise, "dropout", lambda x, p, training: x / (1 - p) * masks.pop(0) if training else x
    )
    golden.model.train()
    loss = golden.loss()
    loss.backward()
    batch = 2 if golden.kl else 1
    assert_close(batch * loss, golden.tensors["train_loss"])
    golden.check_gradients("train_grad", batch)


@pytest.mark.parametrize(
    ("clip", "prefix"), [(10.0, "det_grad"), (float("inf"), "noclip_det_grad")]
)
def test_gate_gradient_clipping(clip, prefix):
    golden = Golden("z_lstm_clip_active", clip=clip)
    loss = golden.loss() * golden.tensors["loss_multiplier"]
    loss.backward()
    assert_close(loss, golden.tensors["det_loss"])
    golden.check_gradients(prefix, 1)


@pytest.mark.parametrize("name", ["z_lstm", "z_vlstm"])
def test_one_step_from_a_given_state(name):
    golden = Golden(name)
    state = [
        (golden.tensors[f"state_in:hid_var_{i}"], golden.tensors[f"state_in:cell_var_{i}"])
        for i in range(2)
    ]
    prediction, state = golden.model.predict(golden.read[:, 0], [*state, torch.zeros(2, 1, 4)])
    assert_close(prediction[:, None], golden.outputs("step_fixed:"))
    for i, (hidden, cell) in enumerate(state[:-1]):
        assert_close(hidden, golden.tensors[f"step_state_out:hidfinal_{i}"])
        assert_close(cell, golden.tensors[f"step_state_out:cellfinal_{i}"])


@pytest.mark.parametrize("name", ["z_lstm", "z_vlstm"])
def test_free_running_carries_its_state(name):
    """Fault 1 of the original: its predictions came from one frame of past (`ar_orig_buggy`)."""
    golden = Golden(name)
    means = golden.model.rollout(golden.read[:1], 9)
    assert_close(means[:, 6:], golden.tensors["ar_fixed:seq"][..., :4])
    assert (means[:, 6:] - golden.tensors["ar_orig_buggy:seq"][..., :4]).abs().max() > 0.01


def test_kl_of_diagonal_gaussians():
    t = load("optim_losses")
    value = losses.kl_divergence(
        t["kl_p_mu"], t["kl_p_sigma"].log(), t["kl_q_mu"], t["kl_q_sigma"].log()
    ).sum()
    assert_close(value, t["kl_value"])


def in_two_parts(x, weight_in, weight_hid, bias, peepholes, hidden, cell, clip, kind):
    """Hiddens and the last cell, of the first two steps and the rest as two sequences with the same
    weights. kind: makes the steps.
    """
    saved_steps = []
    weights = SharedWeights.apply(saved_steps, weight_in, weight_hid, bias)
    steps = kind(*weights)
    hiddens = []
    for part in (x[:2], x[2:]):
        some, cell = PeepholeSequence.apply(
            part, weights[0], peepholes, hidden, cell, clip, steps, saved_steps
        )
        hidden = some[-1]
        hiddens.append(some)
    return torch.cat(hiddens), cell


def drawn_inputs(dtype, units, batch):
    """Those of `in_two_parts`: five steps of three numbers, weights, peepholes and the state."""
    sizes = (5, batch, 3), (3, 4 * units), (units, 4 * units), (4 * units,)
    inputs = [torch.randn(*size, dtype=dtype, requires_grad=True) for size in sizes]
    sizes = (3, units), (batch, units), (batch, units)
    return inputs + [torch.randn(*size, requires_grad=True) for size in sizes]


def results_in_two_parts(kind, dtype, units, clip=0.02, batch=4, seed=0):
    """Hiddens, the last cell and all gradients of five steps."""
    torch.manual_seed(seed)
    inputs = drawn_inputs(dtype, units, batch)
    hiddens, cell = in_two_parts(*inputs, clip, kind)
    (hiddens.float().square().sum() + cell.square().sum()).backward()
    return [hiddens, cell, *(x.grad for x in inputs)]


def test_backward_is_the_derivative():
    torch.manual_seed(0)
    sizes = (5, 3, 4), (4, 8), (2, 8), (8,), (3, 2), (3, 2), (3, 2)
    inputs = [torch.randn(*size, dtype=torch.float64, requires_grad=True) for size in sizes]
    assert torch.autograd.gradcheck(lambda *x: in_two_parts(*x, float("inf"), Steps), inputs)


def assert_same_steps(ours, theirs, dtype):
    for one, other in zip(ours, theirs, strict=True):
        # A gradient is a sum of bfloat16 numbers, any of which may be rounded the other way.
        scale = other.abs().max().item()
        tolerance = 1e-5 if dtype == torch.float32 else 2e-2
        torch.testing.assert_close(one, other, atol=tolerance * scale, rtol=tolerance)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from within torch
def test_fused_kernels_compute_the_same(dtype):
    fused = functools.partial(Steps, kernels=peephole.fused())
    ours, theirs = (results_in_two_parts(kind, dtype, units=8) for kind in (fused, Steps))
    assert_same_steps(ours, theirs, dtype)


TYPES = [torch.float32, torch.bfloat16]


@pytest.fixture(params=TYPES, ids=str)
def blocks(request):
    """A type that `peephole_cpu.Blocks` takes on this machine."""
    try:
        peephole_cpu.functions(request.param)
    except (OSError, RuntimeError) as error:
        pytest.skip(str(error))
    peephole_cpu.check(request.param, Steps)
    return request.param


@pytest.mark.parametrize(("units", "batch"), [(16, 1), (96, 131)])
@pytest.mark.parametrize("clip", [0.02, float("inf")])
def test_blocks_compute_the_same(blocks, units, batch, clip):
    kinds = peephole_cpu.Blocks, Steps
    ours, theirs = (results_in_two_parts(kind, blocks, units, clip, batch) for kind in kinds)
    for one, other in zip(ours, theirs, strict=True):
        distance = (one - other).float().norm() / other.float().norm()
        assert distance < (1e-5 if blocks == torch.float32 else 5e-2)


@pytest.mark.parametrize("free", [0, 2])
def test_the_lstm_runs_in_blocks(blocks, free, monkeypatch):
    torch.manual_seed(0)
    latents = torch.randn(3, 6, 2, 5)
    model = LatentLSTM(5, n_hid=16, dropout=0, free=free)
    for layer in model.layers:
        torch.nn.init.normal_(layer.bias)
    assert peephole_cpu.works(blocks, Steps)
    used = []
    forward = peephole_cpu.Blocks.forward

    def watched(*args):
        used.append(True)
        return forward(*args)

    monkeypatch.setattr(peephole_cpu.Blocks, "forward", watched)
    results = []
    for turn in range(2):
        if turn == 1:
            monkeypatch.setattr(peephole_cpu, "takes", lambda *_: False)
        model.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=blocks == torch.bfloat16):
            loss = model(latents)["loss"]
        loss.backward()
        results.append([loss.detach(), *(x.grad.clone() for x in model.parameters())])
        assert len(used) == 2 * (1 + free)  # layers, sequences
    for ours, theirs in zip(*results, strict=True):
        distance = (ours - theirs).norm() / theirs.norm()
        assert distance < (1e-5 if blocks == torch.float32 else 5e-2)


def test_blocks_saturate(blocks):
    """Gates far from 0 are 0 or 1, not infinite."""
    torch.manual_seed(0)
    weight_in, weight_hid = 1e4 * torch.randn(4, 64).to(blocks), torch.zeros(16, 64, dtype=blocks)
    x = torch.randn(3, 5, 4).to(blocks)
    results = []
    for kind in (peephole_cpu.Blocks, Steps):
        hiddens = torch.zeros(4, 5, 16, dtype=blocks)
        cells = torch.zeros(4, 5, 16)
        steps = kind(weight_in, weight_hid, torch.zeros(64))
        gates = steps.forward(x, torch.zeros(3, 16), hiddens, cells)
        results.append((gates, hiddens, cells))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("blocks", [torch.float32], indirect=True)
def test_sums_over_many_rows_are_exact(blocks):
    """The gradients of biases and peepholes are sums over all steps of all sequences."""
    ours = results_in_two_parts(peephole_cpu.Blocks, torch.float32, 16, 0.05, batch=1000)
    torch.manual_seed(0)
    inputs = [x.detach().double().requires_grad_() for x in drawn_inputs(torch.float32, 16, 1000)]
    hiddens, cell = in_two_parts(*inputs, 0.05, Steps)
    (hiddens.square().sum() + cell.square().sum()).backward()
    for one, other in zip(ours[5:7], [inputs[3].grad, inputs[4].grad], strict=True):
        assert (one - other).norm() < 2e-6 * other.norm()


@pytest.mark.parametrize("takes", [True, False])
def test_given_gradients_are_read_only(blocks, takes):
    """They may have gaps, as those of a sum."""
    kind = peephole_cpu.Blocks if takes else Steps
    inputs = drawn_inputs(blocks, 16, 4)
    outputs = in_two_parts(*inputs, float("inf"), kind)
    ones = [torch.ones((), dtype=x.dtype).expand(x.shape) for x in outputs]
    dense = [each.contiguous() for each in ones]
    results = []
    for given in (ones, dense):
        results.append(torch.autograd.grad(outputs, inputs, given, retain_graph=True))
        assert all((each == 1).all() for each in given)
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_inputs_of_another_number_are_refused(blocks):
    steps = peephole_cpu.Blocks(
        *(torch.zeros(n, 64, dtype=blocks) for n in (4, 16)), torch.zeros(64)
    )
    states = torch.zeros(2, 3, 16, dtype=blocks), torch.zeros(2, 3, 16)
    with pytest.raises(ValueError, match="6 inputs"):
        steps.forward(torch.zeros(1, 3, 6, dtype=blocks), torch.zeros(3, 16), *states)


def test_no_sequences_give_nothing(blocks):
    results = results_in_two_parts(peephole_cpu.Blocks, blocks, 16, batch=0)
    assert not any(each.any() for each in results)


def test_wrong_results_are_refused(blocks, capsys):
    class Wrong(Steps):
        def backward(self, *args):
            da, dh, d_bias, d_peepholes = super().backward(*args)
            return da, dh, d_bias, d_peepholes + 1

    peephole_cpu.say_once.cache_clear()
    assert not peephole_cpu.works(blocks, Wrong)
    assert "its results are wrong" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("weight", "peepholes"),
    [
        (torch.zeros(24, 96), torch.zeros(3, 24)),
        (torch.zeros(32, 128).double(), torch.zeros(3, 32)),
        (torch.zeros(32, 128).half(), torch.zeros(3, 32)),
        (torch.zeros(32, 128), torch.zeros(3, 32).double()),
    ],
    ids=["24 units", "double", "half", "double peepholes"],
)
def test_other_layers_run_eagerly(weight, peepholes):
    assert not peephole_cpu.takes(weight, peepholes, Steps)


def test_threads_change_no_bit(blocks, set_threads):
    results = []
    for threads in (1, 3):
        set_threads(threads)
        results.append(peephole_cpu.small_case(peephole_cpu.Blocks, blocks, batch=300))
    assert all(torch.equal(*pair) for pair in zip(*results, strict=True))


def test_blocks_pass_on_what_is_not_a_number(blocks):
    """The training loop stops at a loss that is NaN: no clamp may hide it."""
    nan = torch.tensor(float("nan"))
    last = torch.tensor(-1, dtype=torch.int32).view(torch.float32)  # of NaN's many patterns
    for x, bias in ((nan, nan), (nan, torch.zeros(())), (torch.zeros(()), last)):
        weight = torch.zeros(32, 4 * 32, dtype=blocks)
        steps = peephole_cpu.Blocks(weight, weight, bias.repeat(4 * 32))
        hiddens = torch.zeros(2, 2, 32, dtype=blocks)
        cells = torch.zeros(2, 2, 32)
        steps.forward(x.to(blocks).repeat(1, 2, 32), torch.zeros(3, 32), hiddens, cells)
        assert hiddens[1].isnan().all()
        assert cells[1].isnan().all()


def test_states_take_the_type_and_batch_of_the_inputs(blocks):
    *inputs, hidden, cell = drawn_inputs(blocks, 16, 4)
    expected = in_two_parts(*inputs, hidden, cell.bfloat16().float(), 1.0, peephole_cpu.Blocks)
    for kind in (torch.bfloat16, torch.float64):
        state = hidden, cell.bfloat16().to(kind)
        ours = in_two_parts(*inputs, *state, 1.0, peephole_cpu.Blocks)
        assert all(torch.equal(*pair) for pair in zip(ours, expected, strict=True))
    with pytest.raises(RuntimeError):
        in_two_parts(*inputs, hidden[:3], cell[:3], 1.0, peephole_cpu.Blocks)


def test_without_a_compiler_one_line_says_so(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "/no/such/compiler")
    for function in (peephole_cpu.functions, peephole_cpu.works, peephole_cpu.say_once):
        monkeypatch.setattr(peephole_cpu, function.__name__, functools.cache(function.__wrapped__))
    weight = torch.zeros(32, 4 * 32)
    for each in (weight, weight, weight.bfloat16()):
        assert not peephole_cpu.takes(each, torch.zeros(3, 32), Steps)
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "/no/such/compiler" in said[0]


def test_the_library_is_built_once_for_this_source(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source = tmp_path / "one.cpp"
    source.write_text('extern "C" int one() { return 1; }')
    try:
        assert native.load(source).one() == 1
    except (OSError, RuntimeError) as error:
        pytest.skip(str(error))
    monkeypatch.setenv("CXX", "/no/such/compiler")
    assert native.load(source).one() == 1
    source.write_text('extern "C" int one() { return 2; }')
    with pytest.raises(OSError, match="/no/such/compiler"):
        native.load(source)
    assert len(list((tmp_path / "cache").rglob("*"))) == 2  # its folder, and the library


def sequences(model, frames=8, videos=3, seed=0):
    torch.manual_seed(seed)
    return torch.randn(videos, frames, 2, model.z_dim)


KINDS = [
    {},
    {"loss": "mse"},
    {"diffs": True},
    {"loss": "mse", "diffs": True},
    {"residual": "first", "loss": "mse"},
    {"residual": "second"},
    {"residual": "second", "diffs": True},
    {"peepholes": False},
    {"peepholes": False, "loss": "mse", "diffs": True, "layers": 1},
    {"loss": "weighted"},
    {"loss": "mdn", "mixtures": 3, "residual": "second"},
    {"loss": "mdn", "mixtures": 2, "diffs": True},
    {"residual": "paced", "loss": "mse"},
    {"residual": "paced", "loss": "mse", "grid": [1, 3]},
    {"residual": "second", "grid": [3, 1], "peepholes": False},
    {"residual": "objects", "slots": 1, "peepholes": False},
]


@pytest.fixture(params=KINDS, ids=str)
def model(request):
    torch.manual_seed(1)
    return LatentLSTM(3, 5, **{"layers": 2, **request.param}).eval()


def test_step_by_step_equals_at_once(model):
    latents = sequences(model)
    at_once = model.latent(model.read_sequence(difference(latents) if model.diffs else latents)[0])
    state, steps = None, []
    for t in range(latents.shape[1]):
        before = latents[:, t, 0]
        prediction, state = model.predict(latents[:, t], state)
        steps.append(prediction[:, 0] - before if model.diffs else prediction[:, 0])
    steps = torch.stack(steps[1:] if model.diffs else steps, 1)
    torch.testing.assert_close(steps, at_once[:, :, 0], rtol=1e-4, atol=1e-5)


def test_rollout_depends_on_all_of_the_past(model):
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(3)  # at initialisation the state fades within a few steps
    latents = sequences(model, frames=10)
    changed = latents.clone()
    changed[:, 0] += 1
    frame_20 = [model.rollout(context, 10)[:, 19] for context in (latents, changed)]
    assert (frame_20[0] - frame_20[1]).abs().max() > 1e-6


def test_rollout_begins_with_the_first_mean_and_one_step_predictions(model):
    latents = sequences(model)
    means = model.rollout(latents, 4)
    assert means.shape == (3, 12, 3)
    assert torch.equal(means[:, 0], latents[:, 0, 0])
    later = latents.clone()
    later[:, 5:] += 1  # what comes later cannot change a prediction
    assert torch.equal(model.rollout(later, 4)[:, :6], means[:, :6])


def test_free_running_training_does_what_sampling_does(model):
    latents = sequences(model)
    latents[
        :, :, 1
    ] = -3  # sure posteriors: no variance has to be negative when differences are integrated
    model.free = 4
    means = model.rollout(latents[:, :3], 5)
    truth = latents[:, :, 0]
    error = (means - truth)[:, 1:]
    if (
        model.diffs
    ):  # the loss is on differences, of the truth in the context and of the prediction after it
        before = torch.cat([truth[:, :3], means[:, 3:-1]], dim=1)
        error = ((means[:, 1:] - before) - truth.diff(dim=1))[:, 1:]
    expected = error.square().sum(-1).mean()
    torch.testing.assert_close(model(latents)["squared_error"], expected, rtol=1e-4, atol=1e-5)


def test_differences_are_integrated():
    """Fault 7 of the original. A network that predicts a constant difference continues a path of
    constant velocity.
    """
    model = LatentLSTM(3, 5, 1, loss="mse", diffs=True).eval()
    velocity = torch.tensor([0.5, -1.0, 0.25])
    torch.nn.init.zeros_(model.project.weight)
    model.project.bias.data = velocity
    path = velocity * torch.arange(12.0)[:, None] + 7
    context = torch.stack([path[:6], torch.zeros(6, 3)], 1)[None]
    assert_close(model.rollout(context, 6)[0, 2:], path[2:])


@pytest.mark.parametrize(
    ("residual", "goes_on"), [("none", 0), ("first", 0), ("paced", 0), ("second", 1)]
)
def test_what_a_silent_network_predicts(residual, goes_on):
    """With nothing added by the network: zero, the last mean, or what the last difference leads to."""
    model = LatentLSTM(3, 5, 1, residual=residual).eval()
    torch.nn.init.zeros_(model.project.weight)
    velocity = torch.tensor([0.5, -1.0, 0.25])
    path = velocity * torch.arange(12.0)[:, None] + 7
    context = torch.stack([path[:6], torch.zeros(6, 3)], 1)[None]
    last = torch.zeros(3) if residual == "none" else path[5]
    steps = torch.arange(1.0, 7)[:, None]
    assert_close(model.rollout(context, 6)[0, 6:], last + goes_on * steps * velocity)


def test_differences_have_the_variance_of_a_difference():
    torch.manual_seed(0)
    latents = torch.randn(2, 5, 2, 3)
    steps = difference(latents)
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((100_000, 2)) * np.exp(latents[0, :2, 1, 0].numpy())
    assert steps[0, 0, 1, 0].exp() == pytest.approx(np.std(noise[:, 1] - noise[:, 0]), rel=0.02)
    torch.testing.assert_close(integrate(latents[:, 0], steps[:, 0]), latents[:, 1])


def test_loss_falls_on_what_can_be_learned(model):
    torch.manual_seed(0)
    phase = torch.rand(16, 1, 1) * 6
    path = torch.sin(phase + torch.arange(12.0)[:, None] * torch.tensor([0.3, 0.5, 0.7]))
    latents = torch.stack([path, torch.full_like(path, -2.0)], 2)
    adam = torch.optim.Adam(model.parameters(), 0.02)
    losses = []
    for _ in range(60):
        loss = model(latents)["loss"]
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert (
        F.mse_loss(model.rollout(latents[:, :8], 1)[:, 8], latents[:, 8, 0])
        < latents[:, 8, 0].var()
    )


def mixture_output(means, deviations, weights):
    """An output (1, 1, K, 2 z_dim + 1) from means and deviations (K, z_dim) and weights (K,)."""
    parts = [torch.as_tensor(part, dtype=torch.float32) for part in (means, deviations, weights)]
    return torch.cat([parts[0], parts[1].log(), parts[2].log()[:, None]], dim=1)[None, None]


def test_mixture_density_by_hand():
    output = mixture_output([[0, 1], [2, -1]], [[0.5, 2], [1, 0.1]], [0.3, 0.7])
    z = torch.tensor([0.4, -0.8])
    gaussians = [
        math.prod(
            math.exp(-0.5 * ((x - m) / s) ** 2) / (s * math.sqrt(2 * math.pi)) for x, m, s in rows
        )
        for rows in ([(0.4, 0, 0.5), (-0.8, 1, 2)], [(0.4, 2, 1), (-0.8, -1, 0.1)])
    ]
    expected = math.log(0.3 * gaussians[0] + 0.7 * gaussians[1])
    found = Mdn(2, Vector(2)).log_prob(output, z[None, None])
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_mixture_density_far_out_is_finite():
    """Far from every Gaussian, and with log-sigmas and logits that a network may put out."""
    model = LatentLSTM(2, 4, 1, loss="mdn", mixtures=3)
    model.project.bias.data.view(3, 5).copy_(
        torch.tensor([[0, 0, -80.0, 60, 300], [9, 9, 0, 0, -300], [0, 1, 2, 3, 4]])
    )
    loss = model(1e3 * torch.randn(2, 6, 2, 2))["loss"]
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(weight.grad).all() for weight in model.parameters())


def test_samples_of_a_mixture_have_its_moments():
    model = LatentLSTM(2, 4, 1, loss="mdn", mixtures=2)
    output = mixture_output([[0, 1], [2, -1]], [[0.5, 1], [0.5, 0.1]], [0.25, 0.75]).expand(
        20000, -1, -1, -1
    )
    torch.manual_seed(0)
    samples = model.latent(output, temperature=1.0)
    assert samples.shape == (20000, 1, 1, 2)
    samples = samples.flatten(1)
    torch.testing.assert_close(samples.mean(0), torch.tensor([1.5, -0.5]), rtol=0, atol=0.03)
    torch.testing.assert_close(samples.var(0), torch.tensor([1.0, 1.0075]), rtol=0, atol=0.04)
    torch.testing.assert_close(model.latent(output)[0].flatten(), torch.tensor([1.5, -0.5]))
    cold = model.latent(output, temperature=0.25).flatten(1)
    share = (cold[:, 0] > 1).float().mean().item()
    assert share == pytest.approx(3**4 / (1 + 3**4), abs=0.01)


def test_temperature_zero_is_the_likeliest_gaussian_whatever_the_seed():
    model = LatentLSTM(2, 4, 1, loss="mdn", mixtures=2)
    output = mixture_output([[0, 1], [2, -1]], [[0.5, 1], [0.5, 0.1]], [0.25, 0.75])
    for seed in range(5):
        torch.manual_seed(seed)
        assert model.latent(output, temperature=0).flatten().tolist() == [2, -1]


def test_two_ways_to_go_on_want_a_mixture():
    """A walk of steps +1 or -1, by chance: one Gaussian cannot be likelier than log sigma 1, two
    can.
    """
    loss = {}
    for mixtures in (1, 5):
        torch.manual_seed(0)
        model = LatentLSTM(1, 8, 1, dropout=0, loss="mdn", mixtures=mixtures, residual="first")
        optimizer = torch.optim.Adam(model.parameters(), 2e-2)
        for _ in range(150):
            walk = (2.0 * torch.randint(2, (32, 10, 1)) - 1 + 0.05 * torch.randn(32, 10, 1)).cumsum(
                1
            )
            value = model(torch.stack([walk, walk], 2))["loss"]
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        loss[mixtures] = value.item() / 9
    assert loss[1] > 1.3  # 0.5 log(2 pi e) = 1.42 nats
    assert loss[5] < 0.5


def test_samples_differ_and_their_primed_part_does_not():
    torch.manual_seed(1)
    model = LatentLSTM(3, 5, 1, loss="mdn", mixtures=2).eval()
    latents = sequences(model)
    first, second = (model.rollout(latents, 4, temperature=1.0) for _ in range(2))
    assert torch.equal(first[:, :8], second[:, :8])
    assert (first[:, 8:] != second[:, 8:]).all()


def of_a_grid(rows=7, columns=9, numbers=2, **config):
    """An LSTM of a grid, with weights large enough that what is read makes a difference."""
    torch.manual_seed(1)
    config = {"loss": "mse", "residual": "paced", "layers": 1, "dropout": 0.0, **config}
    model = LatentLSTM(rows * columns * numbers, 5, grid=[rows, columns], **config)
    torch.nn.init.normal_(model.project.weight)
    return model.eval()


def as_maps(latents, model):
    """Latents (..., z_dim) as maps (..., numbers, rows, columns)."""
    return latents.unflatten(-1, (model.layout.width, *model.layout.shape))


def test_a_grid_is_folded_into_places_and_back():
    model = of_a_grid(2, 3, 4)
    latents = sequences(model)
    folded = model.layout.fold(latents)
    assert folded.shape == (3 * 6, 8, 2, 4)
    maps = as_maps(latents, model)  # (B, T, rows, n, 2, 3)
    assert torch.equal(folded[6 + 5], maps[1, ..., 1, 2])  # the last place of the second video
    assert torch.equal(model.layout.unfold(folded), latents)


def test_a_place_reads_two_places_around_it_in_every_step():
    model = of_a_grid()
    latents = sequences(model, frames=4, videos=1)
    changed = latents.clone()
    as_maps(changed, model)[:, 0, 0, :, 3, 4] += 1  # the centre place, in the first frame
    before, after = (as_maps(model.rollout(z, 2)[0], model) for z in (latents, changed))
    differs = (before != after).any(1)  # (T + 2, rows, columns)
    near = torch.zeros(7, 9, dtype=torch.bool)
    near[1:6, 2:7] = True
    for t in (1, 2, 3, 4):  # predictions from true latents
        assert torch.equal(differs[t], near)
    assert differs[5].all()  # from a predicted one, which differs in all of `near`


def test_what_moves_by_a_place_is_predicted_a_place_further():
    """Away from the edges, where zeros are read."""
    model = of_a_grid()
    latents = sequences(model, frames=5)
    maps = as_maps(latents, model)
    moved = maps.roll((1, -1), (4, 5)).flatten(3)
    before, after = (as_maps(model.rollout(z, 1), model) for z in (latents, moved))
    expected = before.roll((1, -1), (3, 4))
    inner = (..., slice(3, 5), slice(2, 6))
    torch.testing.assert_close(after[:, 1:][inner], expected[:, 1:][inner])


def test_a_grid_takes_frames_of_another_size():
    model = of_a_grid(3, 3)
    latents = sequences(of_a_grid(3, 6), frames=4)
    model.layout.shape = (3, 6)
    assert model.rollout(latents, 2).shape == (3, 6, 36)


@pytest.mark.parametrize("config", [{"loss": "weighted"}, {"loss": "kl"}])
def test_clipped_gradients_of_a_grid_do_not_depend_on_the_batch(config):
    gradients = []
    for copies in (1, 3):
        model = of_a_grid(2, 3, clip=0.5, **config)
        latents = sequences(model, videos=1)
        model(latents.repeat(copies, 1, 1, 1))["loss"].backward()
        gradients.append(model.layers[0].weight_in.grad)
    torch.testing.assert_close(*gradients)
    free = of_a_grid(2, 3, clip=math.inf, **config)
    free(latents)["loss"].backward()
    assert not torch.allclose(free.layers[0].weight_in.grad, gradients[0]), "nothing was clipped"
