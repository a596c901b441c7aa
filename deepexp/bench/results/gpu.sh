#!/usr/bin/env bash
# What has to be seen on a CUDA device: the tests that need one, then the figures. Each of the 15 steps takes about half
# a minute (four processes start for it).
#
#   deepexp/bench/results/gpu.sh FOLDER [PART …]      from the top of the repository; DEEPEXP_DATA holds MNIST
#
# PART: tests, step, eager, compiled, epoch, sweep; all of them by default.
# FOLDER gets a file for each command. Everything is done, and the exit status is 1 if anything failed.
# PYTHON (python3) must find deepexp or be called at the top of the repository with its dependencies installed.
set -uo pipefail
[ $# -ge 1 ] || { sed -n '2,9p' "$0" >&2; exit 2; }
out=$1 parts=" ${*:2} " python=${PYTHON:-python3} status=0
for part in "${@:2}"; do
    [[ " tests step eager compiled epoch sweep " == *" $part "* ]] || {
        echo "$part: there is no such part; tests, step, eager, compiled, epoch, sweep" >&2
        exit 2
    }
done
mkdir -p "$out"
export PYTHONPATH="${PYTHONPATH:-}:$PWD:$PWD/deepexp/plugins"

note() { # NAME COMMAND …: its output goes to a file and, at the end of each, its last lines to the terminal
    local name=$1 began=$SECONDS
    shift
    "$@" >"$out/$name.txt" 2>&1 || { echo "FAILED: $*" && status=1; }
    echo "== $name ($((SECONDS - began)) s): $*"
    grep -v '^measuring' "$out/$name.txt" | tail -n 30
}
wanted() { # PART
    [[ "$parts" == "  " || "$parts" == *" $1 "* ]]
}
bench() { # NAME OVERRIDE …
    local name=$1
    shift
    note "$name" "$python" -m deepexp bench step device=cuda seconds=0.5 rounds=5 epoch_rounds=0 profile=true "$@"
}

"$python" -c 'import google_crc32c' 2>/dev/null || echo "google-crc32c is not installed: each update costs 20 µs more"
nvidia-smi --query-gpu=name,driver_version --format=csv >"$out/gpu.txt"
wanted tests && note tests "$python" -m pytest -q -p no:cacheprovider -n 8 -m gpu tests

three() { # SUFFIX OVERRIDE …: the lecture's net, Monster and ResNet-20
    local suffix=$1
    shift
    bench "mnist_net-$suffix" data=mnist "$@"
    bench "monster-$suffix" model=monster model.pretrained=false data=mnist data.subset=20000 batch_size=128 \
        'freeze=[{pattern: features.*, share: 0.5}]' "$@"
    bench "resnet20-$suffix" experiment=resnet20_cifar10 data=synthetic data.channels=3 data.height=32 data.width=32 \
        data.train_samples=20000 batch_size=128 augment=none "$@"
}
if wanted step; then
    for precision in fp32 tf32 bf16; do three "$precision" precision=$precision cuda_graph=true; done
fi
wanted eager && three eager cuda_graph=false
wanted compiled && three compiled precision=bf16 cuda_graph=true compile=true
wanted epoch && note epoch "$python" -m deepexp bench epoch device=cuda data=mnist cuda_graph=true against=all
wanted sweep && note sweep "$python" -m deepexp bench sweep device=cuda data=mnist data.subset=10000 epochs=2 seed=0,1,2,3
exit $status
