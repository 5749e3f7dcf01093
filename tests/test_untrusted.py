"""Files from anywhere: damaged or made up, each gives a result or one line; no traceback, hang,
crash or much memory.

The fuzz test reads mutated files in a process of its own, which may crash. To repeat what it found:
    PYTHONPATH=.:tests python tests/test_untrusted.py KIND:FIRST:COUNT FOLDER
"""

import faulthandler
import gzip
import os
import resource
import subprocess
import sys
import time
import traceback
import zipfile
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from PIL import Image
from test_movie_frames import SCENES, film

import movie_frames
import train_lstm
from data import hdf5, mnist
from data.augmented import FilmWindows
from data.generated import GeneratedVideos
from data.hdf5 import Frames, Windows
from evaluation.windows import read_windows
from models.cae import CAE, Deconvoluter
from models.codec import fits_together
from models.film import FilmPredictor
from models.joint import Joint
from models.lstm import LatentLSTM
from models.slots import SlotVAE
from models.vae import VAE, VCAE
from runtime.errors import UserError
from training import checkpoint
from training.step import adam
from training.trained import Trained, load_codec

ROOT = Path(__file__).parent.parent
COUNTS = {
    "checkpoint": 250,
    "hdf5": 250,
    "idx": 100,
    "npy": 50,
    "film": 60,
}  # mutations in CI; 20 times as many if slow
SECONDS, MEGABYTES = 20, 400  # for one mutation, for all of them
MODELS = (VCAE, SlotVAE, CAE, Deconvoluter, VAE, LatentLSTM, Joint, FilmPredictor)
ROW = {"epoch": 1, "valid_loss": 1.0}
ABOUT = {"source": "made up", "frame_rate": 10.0, "frame_skip": 1}


@pytest.mark.parametrize("times", [1, pytest.param(20, marks=pytest.mark.slow)])
def test_mutated_files_give_a_result_or_one_line(times, tmp_path):
    batches = [
        f"{kind}:{0 if times == 1 else count}:{count * times}" for kind, count in COUNTS.items()
    ]
    paths = os.pathsep.join((str(ROOT), str(ROOT / "tests")))
    command = [sys.executable, __file__, *batches, str(tmp_path)]
    done = subprocess.run(
        command, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True
    )
    print(*(line for line in done.stdout.splitlines() if " mutations, " in line), sep="\n")
    assert done.returncode == 0, (
        f"{done.stdout[-3000:]}{done.stderr[-3000:]}"
    )  # the last line names the mutation


def main(kind, first, count, folder):
    """Read `count` mutations of a kind, from number `first` on. True if each ended in a result or
    in one line.
    """
    folder.mkdir()
    originals, mutate, read = {
        "checkpoint": (make_checkpoints, mutate_checkpoint, read_checkpoint),
        "hdf5": (make_hdf5, mutate_hdf5, read_hdf5),
        "idx": (make_idx, mutate_idx, read_idx),
        "npy": (make_npy, mutate_bytes, read_npy),
        "film": (make_films, mutate_bytes, read_film),
    }[kind]
    originals = originals(folder)
    for path in originals:
        read(path)
    limit = (
        int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 4 * 2**30
    )
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
    faults, results, refused = 0, 0, 0
    for number in range(first, first + count):
        rng = np.random.default_rng([list(COUNTS).index(kind), number])
        original = originals[rng.integers(len(originals))]
        mutant = original.with_name(f"mutant{original.suffix}")
        print(f"{kind} {number}: {original.name}", end=", ", flush=True)
        print(mutate(rng, original, mutant), flush=True)
        faulthandler.dump_traceback_later(SECONDS, exit=True)
        try:
            read(mutant)
            results += 1
        except (UserError, OSError) as error:  # what cli.run prints
            refused += 1
            if "/" not in str(error) or len(str(error)) > 2000:
                print(f"FAULT: does not name the file, or too much else: {error!r}"[:2000])
                faults += 1
        except Exception:
            print("FAULT:", traceback.format_exc())
            faults += 1
        faulthandler.cancel_dump_traceback_later()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(
        f"{kind}: {count} mutations, {results} gave a result, {refused} one line, {faults} faults; "
        f"{time.perf_counter() - began:.1f} s, {grown:.0f} MB more memory"
    )
    return not faults and grown < MEGABYTES


def mutate_bytes(rng, original, mutant):
    """Write a copy with one to three changes: where headers are, more often than elsewhere. Returns
    what was done.
    """
    data, done = bytearray(original.read_bytes()), []
    for _ in range(rng.integers(1, 4)):
        size = len(data) or 1
        start = int(rng.integers([size, min(size, 600), min(size, 100)][rng.integers(3)]))
        start = (
            size - 1 - start if rng.random() < 0.2 else start
        )  # archives have their index at the end
        part = slice(start, start + int(rng.integers(1, 33)))
        how = ("bit", "byte", "ones", "zeros", "cut", "delete", "insert", "repeat")[rng.integers(8)]
        if how == "bit":
            data[start : start + 1] = bytes(
                b ^ (1 << int(rng.integers(8))) for b in data[start : start + 1]
            )
        elif how in ("byte", "insert"):
            data[start : start + (how == "byte")] = rng.bytes(1 if how == "byte" else 9)
        elif how in ("ones", "zeros"):
            data[part] = (b"\xff" if how == "ones" else b"\0") * len(data[part])
        elif how in ("cut", "delete"):
            del data[start : None if how == "cut" else part.stop]
        else:
            data[start:start] = data[part] * int(rng.integers(1, 200))
        done.append(f"{how} at {start}")
    mutant.write_bytes(data)
    return " ".join(done)


# Single cases: what was done to a file, and what the line says

CHECKPOINTS = [
    ("vcae.pt", ("config", "n_hid"), 2**19, "its config asks for"),  # 2 TB
    ("vcae.pt", ("config", "n_hid"), 10**12, "config: n_hid is 10"),
    ("lstm.pt", ("config", "layers"), 10**9, "config: layers is 10"),
    ("lstm.pt", ("config", "layers"), 7, "layers.1.bias is missing, its config asks for"),
    ("lstm.pt", ("config", "n_hid"), True, "config: n_hid is True"),
    ("lstm.pt", ("config", "loss"), "huber", "config: loss is huber"),
    ("lstm.pt", ("config", "dropout"), float("nan"), "config: dropout is nan"),
    ("lstm.pt", ("config", "width"), 5, "config: width"),
    ("joint.pt", ("config", "vcae", "z_dim"), 10**12, "config: z_dim is 10"),
    ("lstm.pt", ("model", "project.bias"), torch.zeros(1).expand(2**38), "its config asks for"),
    ("lstm.pt", ("model", "project.bias"), torch.full((8,), torch.nan), "weights are not finite"),
    (
        "lstm.pt",
        ("model", "project.bias"),
        torch.zeros(8).half(),
        "project.bias is (torch.float16, 8)",
    ),
    (
        "slots.pt",
        ("model", "seek.6.bias"),
        torch.ones(1),
        "6.bias is (torch.float32, 1), its config asks for none",
    ),
    ("lstm.pt", ("args", "frame_skip"), 0, "frame_skip is 0"),
    ("lstm.pt", ("parents", "codec"), {}, "is not a complete checkpoint ('path')"),
    ("lstm.pt", ("parents", "frames", "frame_rate"), 0, "its frame_rate is 0"),
    ("lstm.pt", ("parents", "frames", "frame_rate"), float("nan"), "its frame_rate is nan"),
    ("half.pt", ("model", "mu.weight"), torch.full((4, 4), torch.nan).half(), "are not finite"),
    ("half.pt", ("model", "mu.weight"), torch.ones(4, 4).double(), "its config asks for"),
    ("lstm.pt", ("history",), [{}], "history"),
    ("lstm.pt", ("format",), 1, "is a checkpoint of format 1, and this code reads format 2"),
    ("lstm.pt", ("format",), 10**500, "is not a checkpoint made by"),
    ("lstm.pt", ("kind",), 10**500, "is not a checkpoint made by"),
    ("lstm.pt", ("config", "n_hid"), 10**500, "is not a complete checkpoint"),
    ("lstm.pt", ("format",), 3, "is a checkpoint of format 3, and this code reads format 2"),
    ("deconv.pt", ("optimizer", "state", 0, "exp_avg"), torch.zeros(1), "has no training state"),
    ("cae.pt", ("optimizer",), {}, "has no training state"),
    ("of_grid.pt", ("config", "grid"), [4, 5], "config: a grid of [4, 5] does not go with"),
    ("of_grid.pt", ("config", "grid"), [4, 4], "its config asks for"),
    ("of_grid.pt", ("config", "grid"), [10**500, 1], "is not a complete checkpoint"),
    ("of_grid.pt", ("config", "grid"), [0, 8], "config: grid is [0, 8]"),
    ("of_grid.pt", ("config", "grid"), [8], "config: grid is [8]"),
    ("of_grid.pt", ("config", "grid"), [8.0, 8.0], "config: grid is [8.0, 8.0]"),
    ("of_grid.pt", ("config", "grid"), [True, 64], "config: grid is [True, 64]"),
    ("of_grid.pt", ("config", "grid"), "88", "config: grid is 88"),
    ("of_grid.pt", ("config", "grid"), 8, "config: grid is 8"),
    ("of_grid.pt", ("config", "grid"), torch.zeros(0), "config: grid is tensor"),
    ("of_grid.pt", ("config", "slots"), 2, "does not go with the rest"),
    ("of_grid.pt", ("config", "loss"), "mdn", "does not go with the rest"),
    ("of_grid.pt", ("config", "diffs"), True, "does not go with the rest"),
    ("film.pt", ("config", "lstm", "grid"), [], "the LSTM's latents have no grid"),
    ("film.pt", ("config", "lstm", "grid"), [4, 4], "its config asks for"),
    ("film.pt", ("config", "lstm", "n_hid"), 10**12, "config: n_hid is 10"),
    ("film.pt", ("config", "lstm"), [], "is not a complete checkpoint"),
    ("film.pt", ("config", "lstm"), {}, "is not a complete checkpoint"),
    ("film.pt", ("config", "channels"), 0, "config: channels is 0"),
    ("film.pt", ("config", "channels"), 3, "its config asks for"),
    ("film.pt", ("config", "shown"), 0, "config: shown is 0"),
    ("film.pt", ("args", "frame_skip"), 0, "frame_skip is 0"),
    ("film.pt", ("parents", "codec"), {}, "is not a complete checkpoint ('path')"),
    ("film.pt", ("parents", "codec", "path"), "vcae.pt", "is not the codec that these latents"),
    ("grid.pt", ("config", "z_dim"), 65, "65 does not divide into 8 x 8 places: take 64"),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoints")
    make_checkpoints(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "where", "value", "says"), CHECKPOINTS, ids=[f"{c[0]} {c[1]}" for c in CHECKPOINTS]
)
def test_a_checkpoint_is_validated_before_a_model_is_built(checkpoints, name, where, value, says):
    content = part = torch.load(checkpoints / name)
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    torch.save(content, checkpoints / "mutant.pt")
    with pytest.raises(UserError) as error:
        read_checkpoint(checkpoints / "mutant.pt")
    assert says in str(error.value)


STORED = [
    ("batch_size", -5),
    ("batch_size", "many"),
    ("lr", float("nan")),
    ("loss", "huber"),
    ("peepholes", 1),
    ("amp", ""),
]


@pytest.mark.parametrize(("name", "value"), STORED)
def test_stored_flags_are_validated_as_given_ones(name, value):
    parser = train_lstm.flags()
    stored = vars(
        parser.parse_args(["--lr", "0.5", "--no-peepholes", "--device", "cpu", "--num_epochs", "3"])
    )
    parser.set_stored(stored | {"of_older_code": 1}, "last.pt")
    assert vars(parser.parse_args([])) == stored
    with pytest.raises(UserError, match=f"last.pt has --{name}"):
        parser.set_stored(stored | {name: value}, "last.pt")


def test_a_compressed_checkpoint_is_refused(checkpoints):
    """torch would take the compressed bytes for the weights."""
    with (
        zipfile.ZipFile(checkpoints / "cae.pt") as old,
        zipfile.ZipFile(checkpoints / "packed.pt", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            new.writestr(entry.filename, old.read(entry))
    with pytest.raises(UserError, match=r"packed\.pt cannot be read as a checkpoint"):
        checkpoint.load(checkpoints / "packed.pt", CAE)


def test_networks_that_do_not_fit_together_are_refused(checkpoints):
    cae, deconv, vae = (
        torch.load(checkpoints / f"{name}.pt")["config"] for name in ("cae", "deconv", "vae")
    )
    assert fits_together(vae, cae, deconv)
    assert not fits_together(vae, cae, {**deconv, "split_layer": "conv1"})
    assert not fits_together(vae, {**cae, "side": 17}, deconv)
    assert not fits_together(
        vae, cae, {**deconv, "specstr": "4-5,p-999,6-3"}
    )  # would paint 4 megapixels


def test_hdf5_of_the_older_format_is_refused_unopened(tmp_path):
    with h5py.File(tmp_path / "old.hdf5", "w", libver=("earliest", "v108")) as file:
        file.attrs.update({"format": 1, "kind": "frames"})
    with pytest.raises(
        UserError,
        match=r"old\.hdf5 is HDF5 of format 1 .*, and this code reads format 2: make it again",
    ):
        Frames(tmp_path / "old.hdf5", "train")


GRIDS = [
    ({"grid_rows": None}, "a grid has grid_rows and grid_columns"),
    ({"grid_columns": None}, "a grid has grid_rows and grid_columns"),
    ({"grid_rows": 0}, "attribute grid_rows is 0"),
    ({"grid_rows": 2**20}, "attribute grid_rows is 1048576"),
    ({"grid_rows": 3.0}, "attribute grid_rows is 3.0"),
    ({"grid_columns": np.bytes_("2")}, "attribute grid_columns is 2"),
    ({"grid_rows": 5}, "do not divide into 1 slots or 10 places"),
    ({"slots": 2}, "a grid has grid_rows and grid_columns, and no slots"),
]


@pytest.mark.parametrize(("changed", "says"), GRIDS, ids=[str(changed) for changed, _ in GRIDS])
def test_a_grid_that_latents_do_not_have_is_refused(tmp_path, changed, says):
    path = make_hdf5(tmp_path)[-1]
    with h5py.File(path, "r+") as file:
        for name, value in changed.items():
            file.attrs.pop(name, None)
            if value is not None:
                file.attrs[name] = value
    with pytest.raises(UserError, match=says) as error:
        read_hdf5(path)
    assert "of_grid.hdf5" in str(error.value)


def test_all_metadata_of_hdf5_has_checksums(tmp_path):
    """Where no byte of a row is, a changed bit is either refused or lies in what nobody reads."""
    frames = make_hdf5(tmp_path)[0]
    data, whole = frames.read_bytes(), Frames(frames, "valid").attributes
    for at in range(0, 600):
        frames.write_bytes(data[:at] + bytes([data[at] ^ 4]) + data[at + 1 :])
        try:
            assert Frames(frames, "valid").attributes == whole
        except UserError:
            continue


def test_idx_is_unpacked_to_a_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "LIMIT", 2**16)
    (tmp_path / "x.gz").write_bytes(gzip.compress(bytes([0, 0, 8, 1, 0, 2, 0, 0]) + bytes(2**17)))
    with pytest.raises(UserError, match="not a complete IDX file"):
        mnist.read_idx(tmp_path / "x")


def test_a_data_file_does_not_name_a_folder_to_download_to(tmp_path):
    path = make_hdf5(tmp_path)[0]
    with h5py.File(path, "r+") as file:
        file.attrs["mnist"] = np.bytes_(os.fsencode(tmp_path / "elsewhere"))
    with pytest.raises(UserError, match=r"elsewhere.* is not there"):
        GeneratedVideos(path, "train", 4, seed=0)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize(
    "begin",
    ["#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n", "ffconcat version 1.0\nfile a.ts\n"],
)
def test_lists_of_films_are_refused(tmp_path, begin):
    """A live one has no end: ffmpeg would wait for it to go on."""
    film(tmp_path / "a.ts", list(SCENES), codec="mpeg2video", pixels="yuv420p", rate=25)
    (tmp_path / "list.m3u8").write_text(begin)
    with pytest.raises(UserError, match=r"list\.m3u8 is a list of other files"):
        read_film(tmp_path / "list.m3u8")


def test_pictures_that_claim_a_hundred_megapixels_are_refused(tmp_path):
    Image.new("1", (12000, 9000)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match=r"0\.png is not a picture"):
        read_film(tmp_path / "0.png")


def test_films_long_as_a_thread_are_refused(tmp_path):
    Image.new("L", (2000, 8)).save(tmp_path / "0.png")
    with pytest.raises(UserError, match="times as long as wide"):
        read_film(tmp_path / "0.png")


# Checkpoints

NASTY = [
    None, True, -1, 0, 1, 3, 64, 10**9, 2**70, -2.5, 1e300, float("nan"), float("inf"), "", "deep", "nonsense", "a\nb",
    "x" * 5000, "9-9", "p-99999", "9" * 900, "1," * 400 + "1", b"?", [], [0], [1, 16, 10**9], [2**15] * 3, {},
    {"a": {}}, torch.zeros(0), torch.zeros(1).expand(10**12), torch.zeros(3, dtype=torch.float16),
    torch.full((4,), torch.nan), torch.eye(3).to_sparse(), torch.zeros(3, device="meta"),
]  # fmt: skip


def make_checkpoints(folder):
    make_hdf5(folder)

    def save(name, model, **parents):
        parents = {
            role: checkpoint.parent(folder / path, checkpoint.load(folder / path, *MODELS), folder)
            for role, path in parents.items()
        } | {"frames": {"path": "frames.hdf5"}}
        optimizer = adam(model, 1e-3, torch.device("cpu"))
        sum(weight.sum() for weight in model.parameters()).backward()
        optimizer.step()
        half = name == "half.pt"
        flags = {"frame_skip": 1, "lr": 0.1}
        path = folder / name
        checkpoint.save(path, model.eval(), flags, [ROW], parents, optimizer, half=half)
        return path

    torch.manual_seed(0)
    vcae, spec = VCAE((1, 16, 16), 4, 4, "deep", 1), "4-5,p-2,6-3"
    lstm = LatentLSTM(4, 3, 1)
    of_grid = LatentLSTM(64, 3, 1, loss="mse", residual="paced", grid=[8, 8])
    paths = [
        save("vcae.pt", vcae),
        save("half.pt", vcae),
        save("shallow.pt", VCAE((1, 16, 16), 4, 4, nfilts=1)),
        save("slots.pt", SlotVAE((1, 16, 16), 6, 2, 8, n_hid=8, passes=1)),
        save("cae.pt", CAE(spec, 1, 16)),
        save("deconv.pt", Deconvoluter(spec, "conv3", 1), cae="cae.pt"),
        save("vae.pt", VAE((6, 4, 4), 4, 5), cae="cae.pt", deconv="deconv.pt"),
        save("lstm.pt", lstm, codec="vcae.pt"),
        save(
            "mdn.pt",
            LatentLSTM(4, 3, 1, loss="mdn", peepholes=False, residual="second"),
            codec="vcae.pt",
        ),
        save(
            "of_slots.pt",
            LatentLSTM(
                6, 3, 1, loss="distance", residual="second", slots=2, frame_shape=(1, 16, 16)
            ),
            codec="slots.pt",
        ),
        save("joint.pt", Joint(vcae.config, lstm.config)),
        save("grid.pt", VCAE((1, 16, 16), 64, arch="grid", nfilts=1)),
        save("of_grid.pt", of_grid, codec="grid.pt"),
        save("film.pt", FilmPredictor(of_grid.config, 1), codec="grid.pt"),
    ]
    return paths


def read_checkpoint(path):
    """Use the file as the scripts do."""
    content = checkpoint.load(path, *MODELS)
    model, kind = checkpoint.build(content, *MODELS), content["kind"]
    if "optimizer" in content:
        optimizer, state = (
            adam(model, 1e-3, torch.device("cpu")),
            checkpoint.resume_state(content, model, path)[0],
        )
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
    if kind in ("LatentLSTM", "FilmPredictor"):
        trained = Trained(path, torch.device("cpu"))
        context = read_windows(
            trained.data_file, "test", 3, trained.skip, crop=trained.codec.frame_shape[1:]
        )[0]
        trained.predict(context / np.float32(255), np.zeros_like(context[:, :2], np.float32))
    elif kind in ("VCAE", "SlotVAE", "VAE"):
        codec = load_codec(path, torch.device("cpu"))
        frames = Frames(path.with_name("frames.hdf5"), "test", codec.frame_shape[1:])
        latents = codec.encode_videos(frames.video(0)[None])
        codec.decode(latents[:, :, 0])
    elif kind == "CAE":
        side = content["config"]["side"]
        frames = Frames(checkpoint.parent_path(path, content, "frames"), "test", (side, side))
        model.reconstruct(model.shifted(frames.video(0)))
    elif kind == "Deconvoluter":
        cae = checkpoint.load(checkpoint.parent_path(path, content, "cae"), CAE)
        fits_together({"feature_shape": [6, 4, 4]}, cae["config"], content["config"])


def mutate_checkpoint(rng, original, mutant):
    """Bytes of the file; or of the pickle in it, under the right checksum; or a value of what is
    stored.
    """
    how = rng.integers(3)
    if how == 0:
        return mutate_bytes(rng, original, mutant)
    if how == 1:
        with zipfile.ZipFile(original) as old:
            parts = {entry.filename: old.read(entry) for entry in old.infolist()}
        name = next(name for name in parts if name.endswith("data.pkl"))
        mutant.write_bytes(parts[name])
        done, parts[name] = mutate_bytes(rng, mutant, mutant), mutant.read_bytes()
        with zipfile.ZipFile(
            mutant, "w", rng.choice([zipfile.ZIP_STORED] * 4 + [zipfile.ZIP_DEFLATED])
        ) as new:
            for name, part in parts.items():
                new.writestr(name, part)
        return f"pickle {done}"
    content = torch.load(original)
    where, trail = content, []
    while True:
        keys = list(where) if isinstance(where, dict) else list(range(len(where)))
        key = keys[rng.integers(len(keys))]
        trail.append(key)
        if not isinstance(where[key], (dict, list)) or not where[key] or rng.random() < 0.1:
            break
        where = where[key]
    value = NASTY[rng.integers(len(NASTY))]
    if rng.random() < 0.1:
        del where[key]
        value = "gone"
    else:
        where[key] = value
    torch.save(content, mutant)
    return f"{trail} is {value!r:.80}"


# HDF5

VALUES = [
    -1, 0, 1, 5, 9, 2**40, 2.5, -1.0, 1e300, float("nan"), float("inf"), True, np.zeros(3), np.zeros((0,)),
    np.uint64(2**63), np.float16(1), np.bytes_("svg"), np.bytes_("nonsense"), np.bytes_("../.."), np.bytes_(b"\xff\n"),
    np.bytes_("x" * 10000), "of any length", ["a", "b"], np.array((1, 2), "i4,f4"), h5py.Empty("f4"), np.longdouble(1),
]  # fmt: skip


def make_hdf5(folder):
    rng = np.random.default_rng(0)
    paths = make_idx(folder)
    digits = {"mnist": str(paths[0].parent), "physics": "srivastava", "num_sz": 8, "frame_size": 16}
    about = {**ABOUT, **digits, "nums_per_image": 1}
    with hdf5.create(folder / "frames.hdf5", "frames", about, replace=True) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/frames"] = rng.integers(0, 256, (8, 1, 16, 16), np.uint8)
            file[f"{split}/starts"] = np.array([0, 3, 8])
            file[f"{split}/labels"] = np.zeros((2, 1), np.uint8)
            file[f"{split}/positions"] = np.full((8, 1, 2), 4, np.float32)
    with hdf5.create(folder / "film.hdf5", "frames", ABOUT, replace=True) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/frames"] = rng.integers(0, 256, (8, 1, 16, 16), np.uint8)
            file[f"{split}/starts"] = np.array([0, 3, 8])
            file[f"{split}/films"] = np.array([b"a.mp4", b"b.mp4"])
    about = {**ABOUT, "codec": "vcae.pt", "codec_id": "x", "data_file": "frames.hdf5"}
    about |= {"slots": 2, "frame_height": 16, "frame_width": 16}
    with hdf5.create(folder / "latents.hdf5", "latents", about, replace=True) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/latents"] = rng.standard_normal((2, 8, 2, 6)).astype(np.float32)
            file[f"{split}/starts"] = np.array([0, 3, 8])
    grid = {"grid_rows": 3, "grid_columns": 2}
    about = {**about, **grid}
    del about["slots"]
    with hdf5.create(folder / "of_grid.hdf5", "latents", about, replace=True) as file:
        for split in hdf5.SPLITS:
            file[f"{split}/latents"] = rng.standard_normal((1, 8, 2, 12)).astype(np.float32)
            file[f"{split}/starts"] = np.array([0, 3, 8])
    names = ("frames.hdf5", "film.hdf5", "latents.hdf5", "of_grid.hdf5")
    return [folder / name for name in names]


def read_hdf5(path):
    try:
        frames = Frames(path, "train")
    except UserError as error:
        if "not a frames file" not in str(error):
            raise
        windows = Windows(path, "train", 3, 1, seed=0)
        windows.__getitems__(range(len(windows)))
        train_lstm.layout_config(windows)
        return
    frames.__getitems__(list(range(len(frames))))
    frames.video(0)
    Frames(path, "train", (8, 8), seed=0).evenly_spaced(3)
    read_windows(path, "test", 3)
    windows = FilmWindows(path, "train", 3, 1, frames.shape[1:], seed=0)
    windows.__getitems__(range(len(windows)))
    if "physics" in frames.attributes:
        GeneratedVideos(path, "valid", 4, seed=0).__getitems__([0])


def mutate_hdf5(rng, original, mutant):
    """Bytes; or an attribute; or a dataset."""
    how = rng.integers(3)
    if how == 0:
        return mutate_bytes(rng, original, mutant)
    mutant.write_bytes(original.read_bytes())
    with h5py.File(mutant, "r+") as file:
        if how == 1:
            names = list(file.attrs)
            name, value = names[rng.integers(len(names))], VALUES[rng.integers(len(VALUES))]
            del file.attrs[name]
            if rng.random() < 0.9:
                file.attrs[name] = value
            return f"{name} is {value!r:.50}"
        split = hdf5.SPLITS[rng.integers(3)]
        names = list(file[split])
        name = f"{split}/{names[rng.integers(len(names))]}"
        data, dtype, shape = file[name][:], file[name].dtype, file[name].shape
        del file[name]
        done = REPLACEMENTS[rng.integers(len(REPLACEMENTS))]
        if done == "soft link":
            file[name] = h5py.SoftLink(f"/valid/{name.split('/')[1]}")
        elif done == "external link":
            file[name] = h5py.ExternalLink(original.name, name)
        elif done == "virtual":
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = h5py.VirtualSource(original, name, shape)
            file.create_virtual_dataset(name, layout)
        elif done == "external storage":
            file.create_dataset(
                name, shape, dtype, external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)]
            )
        elif done == "objects":
            file.create_dataset(name, shape, h5py.string_dtype())
        elif done == "compound":
            file.create_dataset(name, shape, "i4,f8")
        elif done == "never written":
            file.create_dataset(name, (2**40, *shape[1:]), dtype)
        elif done == "chunks never written":
            file.create_dataset(name, (2**40, *shape[1:]), dtype, chunks=shape)
        elif done == "gzip bomb":
            file.create_dataset(
                name,
                (2**28 // (data[:1].nbytes or 1), *shape[1:]),
                dtype,
                compression=1,
                chunks=True,
            )
            file[name][: len(data)] = data
        elif done == "compressed":
            file.create_dataset(name, data=data, compression="gzip")
        elif done == "group":
            file.create_group(name)
        elif done == "scalar":
            file[name] = 1
        elif done == "empty":
            file[name] = h5py.Empty("u1")
        elif done == "other shape":
            file[name] = rng.permutation(data.reshape(-1)).reshape(rng.permutation(shape))
        elif done == "other values":
            file[name] = np.frombuffer(rng.bytes(data.nbytes), dtype).reshape(shape)
        return f"{name}: {done}"


REPLACEMENTS = (
    "soft link", "external link", "virtual", "external storage", "objects", "compound", "never written", "gzip bomb",
    "chunks never written", "compressed", "group", "scalar", "empty", "other shape", "other values", "nothing",
)  # fmt: skip


# IDX, NPY, films


def make_idx(folder):
    rng, paths = np.random.default_rng(0), []
    (folder / "mnist").mkdir(exist_ok=True)
    for name, shape in (("images-idx3-ubyte", (20, 28, 28)), ("labels-idx1-ubyte", (20,))):
        for part in ("train", "t10k"):
            content = rng.integers(0, 10, shape, np.uint8).tobytes()
            content = bytes([0, 0, 8, len(shape)]) + np.array(shape, ">i4").tobytes() + content
            paths += [folder / "mnist" / f"{part}-{name}", folder / f"{part}-{name}.gz"]
            paths[-2].write_bytes(content)
            paths[-1].write_bytes(gzip.compress(content))
    return paths


def mutate_idx(rng, original, mutant):
    """Bytes of the file; or of what is packed in it; or a size that it states."""
    if (how := rng.integers(3)) == 0:
        return mutate_bytes(rng, original, mutant)
    packed = original.suffix == ".gz"
    mutant.write_bytes(gzip.decompress(original.read_bytes()) if packed else original.read_bytes())
    if how == 1:
        done = mutate_bytes(rng, mutant, mutant)
    else:
        data = mutant.read_bytes()
        at, size = (
            4 * int(rng.integers(1, 1 + data[3])),
            int(rng.choice([-1, 0, 1, 19, 21, 2**16, 2**31 - 1])),
        )
        mutant.write_bytes(data[:at] + np.array(size, ">i4").tobytes() + data[at + 4 :])
        done = f"size {size} at {at}"
    if packed:
        mutant.write_bytes(gzip.compress(mutant.read_bytes()))
    return done


def read_idx(path):
    mnist.read_idx(path).sum()


def make_npy(folder):
    np.save(folder / "videos.npy", np.zeros((6, 3, 8, 8), np.uint8))
    return [folder / "videos.npy"]


def read_npy(path):
    read_windows(path, "test", 4, count=2)[0].sum()


def make_films(folder):
    pictures = [SCENES[i // 6] for i in range(12)]
    paths = [
        film(folder / "lossless.mkv", pictures),
        film(folder / "x264.mp4", pictures, codec="libx264", pixels="yuv420p"),
        film(folder / "mjpeg.avi", pictures, codec="mjpeg", pixels="yuvj420p"),
        film(folder / "mpeg2.ts", pictures, codec="mpeg2video", pixels="yuv420p", rate=25),
        film(folder / "palette.gif", pictures, codec="gif", pixels="rgb8"),
    ]
    for suffix in ("png", "jpg"):
        (folder / suffix).mkdir()
        for k in range(2):
            paths.append(folder / suffix / f"{k}.{suffix}")
            Image.fromarray(SCENES[k]).save(paths[-1])
    return paths


def read_film(path):
    """What the stage does; of a picture, with the others in its folder."""
    dest = path.with_name("made.hdf5")
    dest.unlink(missing_ok=True)
    named = path.parent if path.suffix in (".png", ".jpg") else path
    argv = [
        named,
        "--dest",
        dest,
        "--frame_size",
        8,
        "--crop_bars",
        "--split",
        "1/0/0",
        "--min_frames",
        1,
    ]
    movie_frames.main(movie_frames.flags().parse_args([str(arg) for arg in argv]))


if __name__ == "__main__":
    torch.set_num_threads(1)
    *batches, folder = sys.argv[1:]
    for kind, first, count in (batch.split(":") for batch in batches):
        if not main(kind, int(first), int(count), Path(folder) / kind):
            sys.exit(1)
