# What demo.sh and the recipes share. It is sourced: it changes to the repository's root and chooses a Python.
# QUICK=yes tries a recipe on a few videos and steps, in run folders of its own. Its figures mean nothing.
cd "$(dirname "${BASH_SOURCE[0]}")/.."

# Your own Python, in an active environment or not, if it meets requirements.txt; else that of .venv.
python=python3
if ! unmet=$(python3 -m runtime.requirements 2>&1); then
    python=.venv/bin/python
    if [ -n "${VIRTUAL_ENV:-${CONDA_PREFIX:-}}" ]; then
        echo "The active environment does not meet requirements.txt: ${unmet##*$'\n'}. Now .venv is used;" \
            "pip install -r requirements.txt, and yours will be." >&2
    fi
    ./install.sh
fi

fast=() # bfloat16 helps only where the processor multiplies it
grep -qs avx512_bf16 /proc/cpuinfo && fast=(--amp)

quick="" few_videos=() few_steps=()
if [ -n "${QUICK:-}" ]; then
    quick=quick_
    few_videos=(--seqs 40 --mnist sample)
    few_steps=(--num_epochs 1 --max_per_epoch 2)
fi
# An empty array is unbound to the bash of macOS, hence ${array[@]+"${array[@]}"}.

frames() { # FILE FLAGS...: make videos of bouncing digits, unless they are there
    [ -e "$1" ] || $python moving_mnist.py --dest "$1" "${@:2}" ${few_videos[@]+"${few_videos[@]}"}
}

train() { # SCRIPT RUN_FOLDER FLAGS...: start a training, or resume it
    local resume=()
    [ -e "$2/last.pt" ] && resume=(--resume)
    $python "$1" --save_to "$2" "${@:3}" ${few_steps[@]+"${few_steps[@]}"} ${resume[@]+"${resume[@]}"}
}

autoencoder() { # SCRIPT RUN_FOLDER FLAGS...: train it and encode all frames, unless that is done
    [ -e "$2/pictures/reconstructions.png" ] || train "$@" # its last file
}

packaged_films() { # FOLDER GESTURES GESTURES: copy the packaged clips to folders train, val and test in it,
    # these gestures to val and to test
    local film
    mkdir -p "$1"/{train,val,test}
    for film in bird eat help hungry milk learn student thanks want; do cp data/gestures/$film.mkv "$1/train"; done
    cp data/gestures/bottle-detection.mp4 "$1/train"
    cp data/big_buck_bunny/trailer.mp4 "$1/train/big_buck_bunny_trailer.mp4"
    for film in $2; do cp data/gestures/$film.mkv "$1/val"; done
    for film in $3; do cp data/gestures/$film.mkv "$1/test"; done
}

measure() { # FOLDER FLAGS...: run evaluate.py and print the models' rows of its table, and the table by film
    local tables
    tables=$($python evaluate.py --dest "$@")
    awk '/^$/ { by_film = 1 } by_film || /^\| predictor/ || /^\|---/ || /^\| runs\//' <<<"$tables"
    echo "All measures, and the rules that learn nothing beside them: $1/metrics.json, horizon.png, strips.png"
}
