#!/usr/bin/env bash
# The recipe of 2016: two digits in 2016 physics, its autoencoder with 32 latents, its LSTM of 1,024 x 2 units, by KL
# divergence and by squared error: an MSE of 164 and 157, 10 frames -> 10. 105 minutes on one CPU core; on a GPU give
# more: SEQS=10000 EPOCHS=12 LSTM_EPOCHS=400 recipes/original.sh
# Run again with the same sizes, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

seqs=${SEQS:-1000} # videos, of which a tenth are for testing
epochs=${EPOCHS:-8} # of the autoencoder; in 2016 twelve
lstm_epochs=${LSTM_EPOCHS:-60} # of each LSTM; in 2016 one

name=${quick}original
vcae=runs/${name}_vcae
lstm=(--data_file $vcae/latents.hdf5 --lstm_n_hid 1024 --layers 2 --dropout 0.3 --rollout 0 --seq_length 30)
lstm+=(--lr 1e-4 --schedule constant --num_epochs $lstm_epochs)

frames data/$name.hdf5 --nums_per_image 2 --seq_len 30 --seqs $seqs
autoencoder train_vcae.py $vcae --data_file data/$name.hdf5 --arch 2016 --z_dim 32 --num_epochs $epochs \
    ${fast[@]+"${fast[@]}"}
train train_lstm.py runs/${name}_kl "${lstm[@]}" --loss kl
train train_lstm.py runs/${name}_mse "${lstm[@]}" --loss mse
# --forget: each also without its state, as the 2016 code sampled by mistake
measure picture_output/$name --model runs/${name}_kl/best.pt --model runs/${name}_mse/best.pt --forget
