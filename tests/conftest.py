import pytest
import torch

import moving_mnist
import train_lstm
import train_vcae


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tiny networks are faster on one thread, and their results do not depend on how many the machine has."""
    torch.set_num_threads(1)


def run(stage, *argv):
    """Run a stage in-process: its `main` on the flags given."""
    stage.main(stage.flags().parse_args([str(arg) for arg in argv]))


@pytest.fixture(scope="session")
def chain(tmp_path_factory):
    """A folder in which every MNIST stage has run on tiny data."""
    root = tmp_path_factory.mktemp("chain")
    frames, vcae, lstm = root / "frames.hdf5", root / "vcae", root / "lstm"
    run(moving_mnist, "--mnist", "sample", "--dest", frames, "--seqs", 20, "--seq_len", 8, "--split", "60/20/20")
    small = ["--num_epochs", 2, "--batch_size", 5, "--device", "cpu"]
    run(train_vcae, "--data_file", frames, "--save_to", vcae, "--arch", "deep", "--nfilts", 4, "--z_dim", 6, *small)
    small += ["--seq_length", 6, "--lstm_n_hid", 8]
    run(train_lstm, "--data_file", vcae / "latents.hdf5", "--save_to", lstm, *small)
    return root
