#!/usr/bin/env bash
# Two digits in one vector of 64 numbers, srivastava physics, 10 frames -> 10: an MSE of 77.2 trained jointly, 112.5
# without. 100 minutes on one CPU core. Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}two_digits
vcae=runs/${name}_vcae lstm=runs/${name}_lstm joint=runs/${name}_joint
videos=(--physics srivastava --nums_per_image 2 --seq_len 30)

frames data/$name.hdf5 "${videos[@]}" --seqs 10000
frames data/${name}_more.hdf5 "${videos[@]}" --seqs 18000 --split 16/1/1
autoencoder train_vcae.py $vcae --data_file data/$name.hdf5 --nfilts 24 --z_dim 64 --num_epochs 2
# The LSTM overfits sooner than the autoencoder. A finished training that is resumed on more videos only encodes them.
[ -e $lstm/last.pt ] || train train_vcae.py $vcae --data_file data/${name}_more.hdf5
train train_lstm.py $lstm --data_file $vcae/latents.hdf5 --residual second --seq_length 30 --rollout 0 --num_epochs 60
train train_jointly.py $joint --lstm $lstm/best.pt --amp --num_epochs 48 --max_per_epoch 250
measure picture_output/$name --model $joint/lstm.pt --model $lstm/best.pt
