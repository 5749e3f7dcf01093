#!/usr/bin/env bash
# Two digits in two slots of 16 numbers, srivastava physics, 10 frames -> 10: an MSE of 22.0, restored 13.8 (SEED=1).
# 70 minutes on 2 cores, beside other work.
# Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}two_slots
slots=runs/$name${SEED:+_seed$SEED} # SEED: of all trainings; the videos stay the same
lstm=(--data_file $slots/latents.hdf5 --no-peepholes --seq_length 21 --transpose --seed ${SEED:-0})

frames data/$name.hdf5 --physics srivastava --nums_per_image 2 --seq_len 30 --seqs 18000 --split 16/1/1
autoencoder train_vcae.py $slots --data_file data/$name.hdf5 --arch slots --max_per_epoch 3750 --seed ${SEED:-0}
train train_lstm.py ${slots}_teacher "${lstm[@]}" --lr 4e-3 --num_epochs 60
train train_lstm.py ${slots}_lstm "${lstm[@]}" --rollout 10 --lr 1e-3 --grad_clip 1000 --num_epochs 40 \
    --init_from ${slots}_teacher/best.pt
measure picture_output/${slots#runs/} --model ${slots}_lstm/best.pt
