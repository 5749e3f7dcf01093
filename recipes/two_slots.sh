#!/usr/bin/env bash
# Two digits in two slots of 16 numbers, srivastava physics, 10 frames -> 10.
# Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}two_slots
slots=runs/$name

frames data/$name.hdf5 --physics srivastava --nums_per_image 2 --seq_len 30 --seqs 10000
autoencoder train_vcae.py $slots --data_file data/$name.hdf5 --arch slots
train train_lstm.py ${slots}_lstm --data_file $slots/latents.hdf5 --num_epochs 120
measure picture_output/$name --model ${slots}_lstm/best.pt
