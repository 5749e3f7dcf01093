"""What users get wrong: one line that names the file or flag, exit code 2, and nothing overwritten."""

import shutil

import h5py
import numpy as np
import pytest
import torch

import evaluate
import moving_mnist
import sample_video
import train_cae
import train_jointly
import train_lstm
import train_vae_on_convs
import train_vcae
from data import hdf5
from runtime import cli

MNIST, VCAE, LSTM, JOINT, SAMPLE, EVALUATE = (
    moving_mnist,
    train_vcae,
    train_lstm,
    train_jointly,
    sample_video,
    evaluate,
)


@pytest.fixture
def place(chain, tmp_path):
    """A copy of the finished chain, with foreign and broken files beside it."""
    for name in ("vcae", "lstm"):
        shutil.copytree(chain / name, tmp_path / name)
    shutil.copy(chain / "frames.hdf5", tmp_path)
    (tmp_path / "text").write_text("not what you think")
    (tmp_path / "text.npy").write_text("not what you think")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "nowhere.hdf5").symlink_to("/no/such/place.hdf5")
    torch.save({"weights": torch.zeros(2)}, tmp_path / "foreign.pt")
    (tmp_path / "only_best").mkdir()
    shutil.copy(chain / "vcae" / "best.pt", tmp_path / "only_best")
    whole = (tmp_path / "lstm" / "best.pt").read_bytes()
    (tmp_path / "cut.pt").write_bytes(whole[: len(whole) // 2])

    def changed(name, change):
        shutil.copy(tmp_path / "frames.hdf5", tmp_path / name)
        with h5py.File(tmp_path / name, "r+") as file:
            change(file)

    def rank(file):
        del file["train/frames"]
        file["train/frames"] = np.zeros((96, 64, 64), np.uint8)

    def dtype(file):
        del file["train/frames"]
        file["train/frames"] = np.zeros((96, 1, 64, 64), np.float32)

    def starts(file):
        file["train/starts"][-1] = 1000

    def no_starts(file):
        del file["train/starts"]
        file["train/starts"] = np.zeros(0, np.int64)

    def empty_split(file):
        del file["valid"]

    def channels_last(file):
        del file["train/frames"]
        file["train/frames"] = np.zeros((96, 24, 40, 3), np.uint8)

    changed("channels_last.hdf5", channels_last)
    changed("rank.hdf5", rank)
    changed("dtype.hdf5", dtype)
    changed("starts.hdf5", starts)
    changed("no_starts.hdf5", no_starts)
    changed("no_valid.hdf5", empty_split)
    changed("silent.hdf5", lambda file: file.attrs.pop("frame_rate"))
    changed("format.hdf5", lambda file: file.attrs.update({"format": 99}))
    with h5py.File(tmp_path / "foreign.hdf5", "w", libver="latest") as file:
        file["x"] = np.zeros(3)
    with h5py.File(tmp_path / "small.hdf5", "w", libver="latest") as file:
        file.attrs.update({"format": hdf5.FORMAT, "frame_rate": 10.0, "frame_skip": 1})
        file.attrs.update({"kind": np.bytes_("frames"), "source": np.bytes_("x")})
        file["test/frames"], file["test/starts"] = (
            np.zeros((40, 1, 32, 32), np.uint8),
            np.array([0, 40]),
        )
    content = torch.load(tmp_path / "lstm" / "best.pt")
    content["config"]["diffs"] = True
    torch.save(content, tmp_path / "diffs.pt")
    content = torch.load(tmp_path / "vcae" / "best.pt")
    content["model"]["mu.bias"] += 1
    (tmp_path / "retrained").mkdir()
    torch.save(content, tmp_path / "retrained" / "best.pt")
    return tmp_path


# stage, flags (relative names are files in `place`), what the line must say
CASES = [
    (MNIST, "--seqs 0", "--seqs"),
    (MNIST, "--seqs many", "--seqs"),
    (MNIST, "--physics newton", "--physics"),
    (MNIST, "--split 80/20", "--split"),
    (MNIST, "--split 0/0/0", "--split"),
    (MNIST, "--num_sz 64", "--num_sz 64"),
    (
        MNIST,
        "--num_sz 22 --frame_size 28",
        "6 pixels of room in --frame_size 28, and --physics 2016 needs 8",
    ),
    (MNIST, "--num_sz 513", "--num_sz: takes a whole number from 1 to 512"),
    (MNIST, "--frame_size 4097", "--frame_size: takes a whole number from 2 to 4096"),
    (MNIST, "--nums_per_image 1025", "--nums_per_image: takes a whole number from 1 to 1024"),
    (MNIST, "--seqs 99999999999999999999", "--seqs"),
    (MNIST, "--seed 18446744073709551616", "--seed"),
    (MNIST, "--dest @new.avi", "--filetype"),
    (MNIST, "--filetype npz --dest @new.hdf5", "new.hdf5 is named hdf5, not npz"),
    (MNIST, "--dest @nowhere.hdf5", "nowhere.hdf5 exists already"),
    (MNIST, "--mnist @text", "text is a file: name the folder"),
    (MNIST, "--dest @text/new.hdf5", "name another"),
    (MNIST, "--dest @frames.hdf5 --mnist sample", "frames.hdf5 exists already"),
    (MNIST, "--nonsense 1", "--nonsense"),
    (VCAE, "--data_file @missing.hdf5", "missing.hdf5 is not there"),
    (VCAE, "--data_file @text", "text cannot be read"),
    (VCAE, "--data_file @empty", "empty cannot be read"),
    (VCAE, "--data_file @foreign.hdf5", "foreign.hdf5 is not a frames file"),
    (
        VCAE,
        "--data_file @format.hdf5",
        "format.hdf5 is HDF5 of format 99 (or foreign), and this code reads format 2",
    ),
    (VCAE, "--data_file @vcae/latents.hdf5", "latents.hdf5 is not a frames file"),
    (VCAE, "--data_file @rank.hdf5", "rank.hdf5: train/frames is uint8 (96, 64, 64)"),
    (VCAE, "--data_file @dtype.hdf5", "dtype.hdf5: train/frames is float32"),
    (VCAE, "--data_file @starts.hdf5", "starts.hdf5: train/starts"),
    (VCAE, "--data_file @no_starts.hdf5", "no_starts.hdf5: train/starts"),
    (VCAE, "--data_file @no_valid.hdf5", "no_valid.hdf5 has no videos in its valid split"),
    (VCAE, "--data_file @silent.hdf5", "silent.hdf5 does not say its frame_rate"),
    (VCAE, "--data_file @channels_last.hdf5", "(24, 40, 3) with their channels last"),
    (VCAE, "--save_to @text", "text is no folder that can be written to"),
    (VCAE, "--save_to @only_best", "only_best holds a run already"),
    (VCAE, "--L 1001", "--L: takes a whole number from 1 to 1000"),
    (VCAE, "--beta 1e10", "--beta"),
    (VCAE, "--fsize 4097", "--fsize"),
    (VCAE, "--arch 2016 --n_hid 1000000", "not enough memory"),
    (VCAE, "--arch 2016 --fsize 4", "--fsize 4 is even"),
    (VCAE, "--arch slots --nfilts 4", "--nfilts is for --arch deep or grid or 2016, not slots"),
    (VCAE, "--fsize 5", "--fsize is for --arch 2016, not deep"),
    (VCAE, "--lr 0", "--lr"),
    (VCAE, "--lr nan", "--lr"),
    (VCAE, "--batch_size -3", "--batch_size"),
    (VCAE, "--binary maybe", "--binary"),
    (VCAE, "--device abacus", "--device abacus"),
    (VCAE, "--device meta", "--device meta"),
    (VCAE, "--slots 3", "--slots is for --arch slots, not deep"),
    (VCAE, "--save_to @vcae", "vcae holds a run already"),
    (VCAE, "--save_to @nowhere --resume", "--resume"),
    (VCAE, "--save_to @vcae --resume --z_dim 9", "z_dim 6 (the flags: 9)"),
    (VCAE, "--save_to @lstm --resume", "is a checkpoint of train_lstm.py; one of train_vcae.py or"),
    (VCAE, "--arch deep --init_from @vcae/best.pt", "z_dim 6 (the flags: 32)"),
    (LSTM, "--data_file @frames.hdf5", "frames.hdf5 is not a latents file"),
    (LSTM, "--data_file @vcae/latents.hdf5 --seq_length 9", "--seq_length 9"),
    (LSTM, "--data_file @vcae/latents.hdf5 --seq_length 8 --frame_skip 2", "--frame_skip 2"),
    (LSTM, "--data_file @vcae/latents.hdf5 --seq_length 2", "--seq_length"),
    (
        LSTM,
        "--data_file @vcae/latents.hdf5 --rollout 4",
        "--rollout 4 leaves no context in --seq_length 6",
    ),
    (LSTM, "--data_file @vcae/latents.hdf5 --dropout 1", "--dropout"),
    (LSTM, "--data_file @vcae/latents.hdf5 --layers 65", "--layers"),
    (LSTM, "--data_file @vcae/latents.hdf5 --mixtures 1001", "--mixtures"),
    (LSTM, "--data_file @vcae/latents.hdf5 --lstm_n_hid 1000000", "lower --lstm_n_hid"),
    (LSTM, "--data_file @vcae/latents.hdf5 --loss huber", "--loss"),
    (JOINT, "--lstm @missing.pt", "missing.pt is not there"),
    (JOINT, "--lstm @vcae/best.pt", "is a checkpoint of train_vcae.py; one of train_lstm.py is"),
    (JOINT, "--lstm @lstm/best.pt --save_to @lstm", "lstm holds a run already"),
    (
        JOINT,
        "--lstm @lstm/best.pt --seq_length 9 --rollout 8",
        "--rollout 8 leaves no context in --seq_length 9",
    ),
    (JOINT, "--lstm @lstm/best.pt --shown 1", "--shown"),
    (JOINT, "--lstm @diffs.pt", "diffs.pt was trained with --diffs"),
    (SAMPLE, "--model @lstm/best.pt --temperature 1", "train with --loss mdn, not mse"),
    (SAMPLE, "--model @missing.pt", "missing.pt is not there"),
    (SAMPLE, "--model @lstm", "lstm is a folder: name the checkpoint in it"),
    (SAMPLE, "--model @foreign.pt", "foreign.pt is not a checkpoint"),
    (SAMPLE, "--model @cut.pt", "cut.pt cannot be read"),
    (SAMPLE, "--model @text", "text cannot be read"),
    (SAMPLE, "--model @vcae/best.pt", "is a checkpoint of train_vcae.py; one of train_lstm.py or"),
    (SAMPLE, "--model @lstm/best.pt --context 9", "lower --context to 8"),
    (
        SAMPLE,
        "--model @lstm/best.pt --data_file @small.hdf5",
        "small.hdf5 has frames 32 x 32, smaller than 64 x 64",
    ),
    (SAMPLE, "--model @lstm/best.pt --n 0", "--n"),
    (SAMPLE, "--model @lstm/best.pt --fps 1e300", "--fps"),
    (EVALUATE, "", "give --model, --data_file or both"),
    (
        EVALUATE,
        "--model @vcae/best.pt",
        "is a checkpoint of train_vcae.py; one of train_lstm.py or",
    ),
    (EVALUATE, "--model @lstm/best.pt", "--context and --horizon need 20"),
    (EVALUATE, "--data_file @missing.npy", "missing.npy is not there"),
    (EVALUATE, "--data_file @text.npy", "text.npy cannot be read as an array of videos"),
    (
        EVALUATE,
        "--data_file @frames.hdf5 --context 3 --horizon 3 --save_predictions @text",
        "text exists already",
    ),
]
DEFAULTS = {
    MNIST: "--dest @new.hdf5 --mnist sample --seqs 3",
    VCAE: "--data_file @frames.hdf5 --save_to @new --num_epochs 1 --device cpu --arch deep",
    LSTM: "--data_file @vcae/latents.hdf5 --save_to @new --seq_length 6 --lstm_n_hid 8 --device cpu",
    JOINT: "--lstm @lstm/best.pt --save_to @new --device cpu",
    EVALUATE: "--dest @new --device cpu",
    SAMPLE: "--dest @new --device cpu --context 6",
}


def contents(folder):
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def fails(stage, flags, place, capsys):
    """Run a stage that must fail; what it says, after checking that it says it properly."""
    before = contents(place)
    argv = [word.replace("@", f"{place}/") for word in flags.split()]
    with pytest.raises(SystemExit) as stop:
        cli.run(stage.main, stage.flags(), argv)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.rstrip("\n").split("\n")
    assert len(lines) == 1
    assert " error: " in lines[0]
    assert contents(place) == before
    return lines[0]


@pytest.mark.parametrize(
    ("stage", "flags", "says"), CASES, ids=[f"{s.__name__} {f}" for s, f, _ in CASES]
)
def test_one_line_and_nothing_overwritten(stage, flags, says, place, capsys):
    # a flag given twice counts as the second says; --resume wants the run's own flags
    defaults = "" if "--resume" in flags else DEFAULTS[stage]
    assert says in fails(stage, f"{defaults} {flags}", place, capsys)


def test_latents_of_another_codec_are_refused(place, capsys):
    """A codec trained anew would decode noise."""
    shutil.copy(place / "retrained" / "best.pt", place / "vcae" / "best.pt")
    said = fails(SAMPLE, f"{DEFAULTS[SAMPLE]} --model @lstm/best.pt", place, capsys)
    assert "not the codec that these latents come from" in said


def test_a_run_is_not_resumed_on_latents_of_another_codec(place, capsys):
    with h5py.File(place / "vcae" / "latents.hdf5", "r+") as file:
        file.attrs["codec_id"] = np.bytes_("another")
    flags = "--save_to @lstm --resume --data_file @vcae/latents.hdf5 --num_epochs 5"
    assert "begun with another codec" in fails(LSTM, flags, place, capsys)


def test_crops_have_a_limit(capsys):
    """They are taken after training: too many must not be found out then."""
    with pytest.raises(SystemExit):
        train_vae_on_convs.flags().parse_args(["--crops", "1001"])
    assert "--crops: takes a whole number from 1 to 1000" in capsys.readouterr().err


def test_too_large_a_spec_is_told_by_its_flag(place, capsys):
    flags = "--data_file @frames.hdf5 --save_to @cae --device cpu --specstr 99999999-5"
    assert "lower --specstr" in fails(train_cae, flags, place, capsys)


@pytest.mark.parametrize("text", ["--flag", "--flag true", "--flag True", "--no-flag false"])
def test_switches_take_the_old_words(text):
    parser = cli.Parser("")
    parser.add_argument("--flag", action=cli.Switch, default=False)
    assert parser.parse_args(text.split()).flag is True
    assert parser.parse_args(["--no-flag"]).flag is False
