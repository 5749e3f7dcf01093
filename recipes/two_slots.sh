#!/usr/bin/env bash
# Two digits in two slots of 16 numbers, srivastava physics, 10 frames -> 10: an MSE of 38.9 from 8,000 videos, and of
# 34.5 from 18,000. 50 and 90 minutes on 2 CPU cores. Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

name=${quick}two_slots
slots=runs/$name
videos=(--physics srivastava --nums_per_image 2 --seq_len 30)
lstm=(--data_file $slots/latents.hdf5 --loss distance --residual second --no-peepholes --batch_size 64 --seq_length 21)

teacher_then_rollout() { # NAME EPOCHS EPOCHS FLAGS...: teacher forcing, then 10 frames of each window in free running
    train train_lstm.py $1_teacher "${lstm[@]}" "${@:4}" --rollout 0 --lr 5e-3 --num_epochs $2
    train train_lstm.py $1_lstm "${lstm[@]}" "${@:4}" --rollout 10 --lr 2e-3 --num_epochs $3 \
        --init_from $1_teacher/best.pt
    measure picture_output/${1#runs/} --model $1_lstm/best.pt
}

frames data/$name.hdf5 "${videos[@]}" --seqs 10000
frames data/${name}_more.hdf5 "${videos[@]}" --seqs 20000 --split 90/5/5
autoencoder train_vcae.py $slots --data_file data/$name.hdf5 --arch slots
teacher_then_rollout $slots 80 80 --lstm_n_hid 128
# A finished training that is resumed on more videos only encodes them. The test videos are the same.
[ -e ${slots}_more_teacher/last.pt ] || train train_vcae.py $slots --data_file data/${name}_more.hdf5
teacher_then_rollout ${slots}_more 40 60 --lstm_n_hid 256
