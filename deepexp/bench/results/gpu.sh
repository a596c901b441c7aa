#!/usr/bin/env bash
# What has to be seen on a CUDA device: the tests that need one, then the figures, about ten minutes on an H100.
#
#   deepexp/bench/results/gpu.sh FOLDER      from the top of the repository; DEEPEXP_DATA holds MNIST
#
# FOLDER gets a file for each command. Everything is done, and the exit status is 1 if anything failed.
# PYTHON (python3) must find deepexp or be called at the top of the repository with its dependencies installed.
set -uo pipefail
[ $# -eq 1 ] || { sed -n '2,8p' "$0" >&2; exit 2; }
out=$1 python=${PYTHON:-python3} status=0
mkdir -p "$out"
export PYTHONPATH="${PYTHONPATH:-}:$PWD:$PWD/deepexp/plugins"

note() { # NAME COMMAND …: its output goes to a file and, at the end of each, its last lines to the terminal
    local name=$1 began=$SECONDS
    shift
    "$@" >"$out/$name.txt" 2>&1 || { echo "FAILED: $*" && status=1; }
    echo "== $name ($((SECONDS - began)) s): $*"
    grep -v '^measuring' "$out/$name.txt" | tail -n 14
}
bench() { # NAME OVERRIDE …
    local name=$1
    shift
    note "$name" "$python" -m deepexp bench step device=cuda seconds=1 rounds=5 epoch_rounds=0 "$@"
}

nvidia-smi --query-gpu=name,driver_version --format=csv >"$out/gpu.txt"
note tests "$python" -m pytest -q -p no:cacheprovider -m gpu tests

resnet=(experiment=resnet20_cifar10 data=synthetic data.channels=3 data.height=32 data.width=32
    data.train_samples=20000 batch_size=128 augment=none)
monster=(model=monster model.pretrained=false data=mnist data.subset=20000 batch_size=128
    'freeze=[{pattern: features.*, share: 0.5}]')
for graph in false true; do
    for precision in fp32 tf32 bf16; do
        bench "mnist_net-$precision-$graph" data=mnist precision=$precision cuda_graph=$graph
        bench "monster-$precision-$graph" "${monster[@]}" precision=$precision cuda_graph=$graph
        bench "resnet20-$precision-$graph" "${resnet[@]}" precision=$precision cuda_graph=$graph
    done
done
compiled=(precision=bf16 cuda_graph=true compile=true)
bench mnist_net-compiled data=mnist "${compiled[@]}"
bench monster-compiled "${monster[@]}" "${compiled[@]}"
bench resnet20-compiled "${resnet[@]}" "${compiled[@]}"
note epoch "$python" -m deepexp bench epoch device=cuda data=mnist cuda_graph=true against=all
note sweep "$python" -m deepexp bench sweep device=cuda data=mnist data.subset=10000 epochs=2 seed=0,1,2,3
exit $status
