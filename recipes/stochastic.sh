#!/usr/bin/env bash
# One digit whose bounces are random, one Gaussian beside a mixture of five: an MSE of 82.4 and 87.0, log p of 287.8 and
# 359.4 (minus valid_loss in log.csv). 10 minutes on 2 CPU cores.
# Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}stochastic
vcae=runs/${name}_vcae
lstm=(--data_file $vcae/latents.hdf5 --loss mdn --residual second --lstm_n_hid 256 --seq_length 30)
lstm+=(--rollout 0 --lr 1e-3 --num_epochs 30)

frames data/$name.hdf5 --physics svg-stochastic --seqs 6000 --seq_len 30
autoencoder train_vcae.py $vcae --data_file data/$name.hdf5 --num_epochs 1
train train_lstm.py runs/${name}_5 "${lstm[@]}" --mixtures 5
train train_lstm.py runs/${name}_1 "${lstm[@]}" --mixtures 1
measure picture_output/$name --model runs/${name}_5/best.pt --model runs/${name}_1/best.pt --samples 20 --n 200
