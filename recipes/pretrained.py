"""Store a trained LSTM and its codec as pretrained weights.

python -m recipes.pretrained runs/lstm/best.pt pretrained/vector leaves lstm.pt and, of digits,
vcae.pt or, of a film, vae.pt, cae.pt and deconv.pt. They are checkpoints like those of a run, in
half precision and without what only training needs. Their frames are looked for in data/.
"""

from pathlib import Path

from data.hdf5 import Videos
from models.cae import CAE, Deconvoluter, parse_spec
from models.film import FilmPredictor
from models.lstm import LatentLSTM
from models.slots import SlotVAE
from models.vae import VAE, VCAE
from runtime import cli, files
from training import checkpoint
from training.trained import Trained, load_parent

KINDS = (LatentLSTM, FilmPredictor, VCAE, SlotVAE, VAE, CAE, Deconvoluter)


def flags():
    parser = cli.Parser(__doc__)
    model = "checkpoint of train_lstm.py or train_jointly.py; its codec is found by it"
    parser.add_argument("model", help=model)
    parser.add_argument("dest", help="folder, whose files of the same names are replaced")
    return parser


def main(args):
    trained = Trained(args.model, "cpu")  # whose networks belong together
    dest = Path(args.dest)
    lstm = checkpoint.load(args.model, LatentLSTM, FilmPredictor)
    codec_path = checkpoint.parent_path(args.model, lstm, "codec")
    codec = checkpoint.load(codec_path, VCAE, SlotVAE, VAE)
    rate = Videos(trained.data_file, "train", "frames").attributes["frame_rate"]
    frames = {
        "path": files.relative(Path("data") / Path(trained.data_file).name, dest),
        "frame_rate": rate,
    }
    name = "vcae.pt"
    parents = {}
    if codec["kind"] == "VAE":
        name = "vae.pt"
        deconv = load_parent(codec, codec_path, "deconv", Deconvoluter)
        cae = load_parent(codec, codec_path, "cae", CAE)
        cut_after(cae, deconv["config"]["split_layer"])
        parents["cae"] = store(dest / "cae.pt", cae, {"frames": frames})
        parents["deconv"] = store(dest / "deconv.pt", deconv, parents)
    codec = store(dest / name, codec, parents)
    store(dest / "lstm.pt", lstm, {"codec": codec, "frames": frames})
    Trained(dest / "lstm.pt", "cpu")  # they still do
    size = sum(path.stat().st_size for path in dest.glob("*.pt"))
    print(f"{dest}: {size / 1e6:.2f} MB")


def cut_after(cae, layer):
    """Leave out the layers after `layer` of a CAE's content: no later stage needs them."""
    config = cae["config"]
    names = [name for name, _, _ in parse_spec(config["specstr"])]
    words = config["specstr"].split(",")[: names.index(layer) + 1]
    cae["config"] = config | {"specstr": ",".join(words)}
    kept = CAE(**cae["config"]).state_dict()
    cae["model"] = {name: cae["model"][name] for name in kept}


def store(path, content, parents):
    """Write a checkpoint's content to `path`. Returns how one beside it names it as a parent."""
    model = checkpoint.build(content, *KINDS)
    needed = {name: value for name, value in content["args"].items() if name == "frame_skip"}
    checkpoint.save(path, model, needed, [], parents, half=True)
    return checkpoint.parent(path, checkpoint.load(path, type(model)), path.parent)


if __name__ == "__main__":
    cli.run(main, flags())
