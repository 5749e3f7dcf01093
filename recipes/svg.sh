#!/usr/bin/env bash
# Two digits in two slots, svg physics, trained on 30 frames and run for a hundred: restored, as many videos stay
# coherent throughout as of the true ones, with an MSE of 12.3. 40 minutes on one CPU core.
# Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}svg
slots=runs/${name}_slots
videos=(--physics svg --nums_per_image 2)

frames data/$name.hdf5 "${videos[@]}" --seqs 6000 --seq_len 30 --split 90/5/5
frames data/${name}_long.hdf5 "${videos[@]}" --seqs 250 --seq_len 110 --split 10/10/80
autoencoder train_vcae.py $slots --data_file data/$name.hdf5 --arch slots
train train_lstm.py runs/${name}_lstm --data_file $slots/latents.hdf5 --no-peepholes --seq_length 21 --lr 4e-3 \
    --num_epochs 100
measure picture_output/$name --model runs/${name}_lstm/best.pt --data_file data/${name}_long.hdf5 --horizon 100 --n 100
