#!/usr/bin/env bash
# From nothing to predicted video: every stage on moving MNIST, one digit a video, with the packaged digits.
# Run again, it skips what is finished and goes on with what is not.
set -euo pipefail
cd "$(dirname "$0")"

./install.sh
python=.venv/bin/python
frames=data/demo.hdf5 vcae=runs/demo_vcae lstm=runs/demo_lstm pictures=picture_output/demo
fast=()
grep -qs avx512_bf16 /proc/cpuinfo && fast=(--amp) # bfloat16 helps only where the processor multiplies it
train() { # SCRIPT RUN_FOLDER FLAGS...: begin a training, or go on with it
    local resume=()
    [ -e "$2/last.pt" ] && resume=(--resume)
    # an empty array is unbound to the bash of macOS
    $python "$1" --save_to "$2" "${@:3}" ${fast[@]+"${fast[@]}"} ${resume[@]+"${resume[@]}"}
}

echo "1/4 bouncing digits"
[ -e $frames ] ||
    $python moving_mnist.py --dest $frames --mnist sample --nums_per_image 1 --seqs 5000 --seq_len 40 --split 90/5/5
echo "2/4 the autoencoder: frames to 32 latents and back"
[ -e $vcae/pictures/reconstructions.png ] || # its last file
    train train_vcae.py $vcae --data_file $frames --arch deep --nfilts 16 --beta 0.5 --num_epochs 2
echo "3/4 the LSTM: the next latent, first from true latents, then from its own"
lstm_flags=(--data_file $vcae/latents.hdf5 --no-kl_loss --lstm_n_hid 512 --layers 1 --dropout 0 --schedule cosine)
train train_lstm.py ${lstm}_teacher "${lstm_flags[@]}" --lr 2e-3 --num_epochs 40
train train_lstm.py $lstm "${lstm_flags[@]}" --lr 1e-3 --num_epochs 20 --seq_length 20 --rollout 10 \
    --init_from ${lstm}_teacher/best.pt
echo "4/4 held-out videos and their prediction"
$python sample_video.py --model $lstm/best.pt --prime 10 --predict 30 --dest $pictures
$python sample_video.py --model $lstm/best.pt --prime 10 --predict 20 --dest $pictures --format png --scale 1 >/dev/null
cp $vcae/pictures/reconstructions.png $pictures
echo "Look at $pictures: reconstructions.png, and test_*.gif (left the truth, right the prediction)."
