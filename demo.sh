#!/usr/bin/env bash
# ./demo.sh quick: predictions by the networks in pretrained/, in less than a minute; nothing is trained.
# Every stage, from nothing to predicted video: ./demo.sh (one bouncing digit, packaged digits) or ./demo.sh movie
# (packaged clips). Run again, it skips what is finished and resumes what is not.
set -euo pipefail
which=${1:-mnist}
case $which in quick | mnist | movie) ;; *) echo "usage: ./demo.sh [quick|mnist|movie]" >&2 && exit 2 ;; esac
source "$(dirname "$0")/recipes/stage.sh"

quick() {
    local pictures=picture_output/quick gesture
    echo "1/3 one bouncing digit"
    continue_digits vector $pictures/one_digit
    echo "2/3 two bouncing digits, each with its own part of the latent"
    continue_digits slots $pictures/two_digits --nums_per_image 2 --physics srivastava
    echo "3/3 two gestures, which no network was trained on"
    for gesture in night brother; do
        $python sample_video.py --film data/gestures/$gesture.mkv --start 0 --dest $pictures
    done
    echo "Look at the GIFs in $pictures (left: ground truth, right: prediction; red: no more frames are fed in)."
}

continue_digits() { # NETWORKS FOLDER FLAGS...: make a few test videos, and predict how they go on
    local frames=data/quick_$1.hdf5 restore=()
    [ -e $frames ] || $python moving_mnist.py --dest $frames --mnist sample --seqs 4 --split 0/0/100 "${@:3}"
    [ $1 = slots ] && restore=(--restore) # objects as the first ten frames show them
    $python sample_video.py --model pretrained/$1/lstm.pt --data_file $frames --context 10 --horizon 20 --dest $2 \
        ${restore[@]+"${restore[@]}"}
}

mnist() {
    local frames=data/demo.hdf5 vcae=runs/demo_vcae lstm=runs/demo_lstm pictures=picture_output/demo
    echo "1/5 bouncing digits"
    [ -e $frames ] || $python moving_mnist.py --dest $frames --mnist sample
    echo "2/5 the autoencoder: frames to 32 latents and back"
    autoencoder train_vcae.py $vcae --data_file $frames
    echo "3/5 the LSTM: the next latent, from true latents and from its own"
    train train_lstm.py $lstm --data_file $vcae/latents.hdf5
    echo "4/5 test videos and their predictions"
    $python sample_video.py --model $lstm/best.pt --context 10 --horizon 30 --dest $pictures
    $python sample_video.py --model $lstm/best.pt --context 10 --horizon 20 --dest $pictures --format png --scale 1 >/dev/null
    cp $vcae/pictures/reconstructions.png $pictures
    echo "5/5 how good the predictions are, beside rules that learn nothing"
    $python evaluate.py --model $lstm/best.pt --n 100 --dest $pictures
    echo "Look at $pictures: reconstructions.png, strips.png, horizon.png, and test_*.gif (left: ground truth, right: prediction)."
}

movie() {
    local frames=data/demo_movie.hdf5 run=runs/demo_movie pictures=picture_output/demo_movie
    local parents=(--cae ${run}_cae/best.pt --deconv ${run}_deconv/best.pt)
    echo "1/7 clips of an animation, gestures and bottles on a belt"
    if [ ! -e $frames ]; then
        packaged_films data/demo_films "school brother" "night no please sorry"
        # the trailer's last seconds are a title card
        $python movie_frames.py data/demo_films --fps 24 --shape 85x64 --end 46 --dest $frames
    fi
    echo "2/7 the convolutional autoencoder"
    train train_cae.py ${run}_cae --data_file $frames --num_epochs 6 ${fast[@]+"${fast[@]}"}
    echo "3/7 the deconvoluter: features to frames"
    train train_deconv.py ${run}_deconv --cae ${run}_cae/best.pt --num_epochs 6 ${fast[@]+"${fast[@]}"}
    echo "4/7 the VAE: features to 256 latents, four at each of 8 x 8 places, and back"
    autoencoder train_vae_on_convs.py ${run}_vae "${parents[@]}" --num_epochs 14 ${fast[@]+"${fast[@]}"}
    echo "5/7 the LSTM: the next latent, from true latents and from its own"
    train train_lstm.py ${run}_lstm --data_file ${run}_vae/latents.hdf5 --num_epochs 20
    echo "6/7 the LSTM and a painter, on the pixels of the frames to come"
    train train_jointly.py ${run}_joint --lstm ${run}_lstm/best.pt --num_epochs 80 ${fast[@]+"${fast[@]}"}
    echo "7/7 shots and their predictions"
    local split flags
    for split in train test; do # scenes that the networks were trained on, and scenes that they were not
        flags=(--model ${run}_joint/best.pt --split $split --context 8)
        $python sample_video.py "${flags[@]}" --horizon 20 --dest $pictures
        $python sample_video.py "${flags[@]}" --horizon 20 --dest $pictures --format png --scale 1 >/dev/null
        $python evaluate.py "${flags[@]}" --model ${run}_lstm/best.pt --stride 24 --dest ${pictures}_$split
    done
    cp ${run}_vae/pictures/reconstructions.png $pictures
    echo "Look at $pictures: reconstructions.png (after each network of the chain), and the GIFs (left: ground truth):"
    echo "test_* are shots that no network was trained on, train_* are shots that they were trained on."
    echo "${pictures}_test and ${pictures}_train have the measures."
}

$which
