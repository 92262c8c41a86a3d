#!/usr/bin/env bash
# Everything that needs a GPU, within a limit of time: the speed and memory of inference, of a detector,
# of a training and of a batch of photos, the tests, then a training of nano's two ends for the rest.
#
#   benchmarks/gpu.sh [--small] [-o FOLDER] [-t SECONDS] [-n 'FAITHFUL SHARP'] [PART…]
#
# PART is inference, training, batch, tests or nano; without, all of them in this order. By name alone:
# training-speed, compiled and compiled-batch, which compile for minutes. --small tries the script on a
# machine without a GPU. FOLDER (default: gpu-results) gets one JSON and one log a part, as soon as the
# part ends; a part that fails or takes too long does not stop the others. SECONDS (default: 520) is the
# time for all of it. nano needs the photos of its recipes and the weights of `hbr fetch vgg16`; -n is
# the number of steps of each end, and without it half of the time that is left goes to each. With the
# same FOLDER, a training that was stopped resumes. Python is $PYTHON, or python3; wheels in $WHEELS are
# installed first. $COMMIT names the commit where the repository is a copy.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

small= out=gpu-results limit=520 steps=
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=--small ;;
        -o) out=$2; shift ;;
        -t) limit=$2; shift ;;
        -n) steps=$2; shift ;;
        -*) echo "gpu.sh: unknown option $1; see its first lines" >&2; exit 2 ;;
        *) break ;;
    esac
    shift
done
[ $# -gt 0 ] || set -- inference training batch tests nano
python=${PYTHON:-python3}
mkdir -p "$out"
if [ -n "${WHEELS:-}" ]; then
    site=$(mktemp -d)
    "$python" -m pip install -q --no-index --no-deps --no-compile --target "$site" "$WHEELS"/*.whl || exit 1
    export PYTHONPATH=$site${PYTHONPATH:+:$PYTHONPATH}
fi
export PYTHONPATH=$PWD/src${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1
[ -z "$small" ] || export HBR_TEST_GPU=cpu
failed=

left() { echo $((limit - SECONDS)); }

# part NAME MOST COMMAND…: what it prints to stdout is NAME.json, the rest NAME.log
part() {
    local name=$1 most=$2 began=$SECONDS
    shift 2
    if [ "$(left)" -lt 10 ]; then
        echo "$name: left out, no time is left"
        return
    fi
    [ "$most" -le "$(left)" ] || most=$(left)
    timeout -k 15 "$most" "$@" >"$out/$name.json" 2>"$out/$name.log"
    local code=$?
    [ -s "$out/$name.json" ] || rm -f "$out/$name.json"
    echo "$name: exit status $code after $((SECONDS - began)) s"
    [ $code = 0 ] || { failed="$failed $name"; tail -n 3 "$out/$name.log" | sed "s/^/    /"; }
}

tests() { "$python" -m pytest -m gpu -p no:cacheprovider --no-header -q -n 0 tests/models tests/restoration tests/training tests/people >&2; }
export -f tests
export python

hbr() { "$python" -m hbr.apps.cli.main "$@"; }

# end_of_nano NAME RECIPE BATCH SECONDS STEPS LOSS SETTING…: a training, in FOLDER/NAME, whose first steps
# have a loss of their own; without STEPS, 60 steps tell how many there is time for. The model comes in
# pieces of 15 MB (cat NAME.* > model.safetensors).
end_of_nano() {
    local name=$1 recipe=$2 phase="crop: 192, batch: $3" most=$4 n=$5 loss=$6 began=$SECONDS device=cuda
    shift 6
    [ -z "$small" ] || { phase="crop: 64, batch: 2" device=cpu && set -- "$@" --set data.workers=1; }
    training() {
        part "$1" "$3" "$python" -m hbr.apps.cli.main train "$recipe" --device $device --out "$out/$1" \
            --set "phases=[{steps: $(($2 / 12 + 1)), $phase, loss: $loss}, {steps: $(($2 - $2 / 12 - 1)), $phase}]" \
            --set "optim.warmup=$(($2 / 20))" --set "optim.decay=$(($2 / 2))" "${@:4}"
    }
    [ -n "$n" ] || n=$(cat "$out/$name.steps" 2>/dev/null)
    if [ -z "$n" ]; then
        training "$name-pace" 60 90 "$@"
        n=$(awk -v s=$((SECONDS - began)) -v most="$most" 'BEGIN { print int((most - s - 15) / (s / 60)) }')
    fi
    echo "$n" >"$out/$name.steps"
    training "$name" "$n" "$most" "$@"
    [ ! -f "$out/$name/model.safetensors" ] ||
        split -b 15M "$out/$name/model.safetensors" "$out/$name."
}

nano() {
    local ends="$out/nano-ends" most
    mkdir -p "$ends"
    hbr models extract nano --fidelity 1 -o "$ends/faithful.safetensors" >/dev/null
    hbr models extract nano --fidelity 0 -o "$ends/sharp.safetensors" >/dev/null
    most=$((($(left) - 20) / 2))
    end_of_nano faithful nano/faithful-12 72 $most "${steps% *}" null --set "init=$ends/faithful.safetensors"
    [ -f "$out/faithful/model.safetensors" ] || return
    end_of_nano sharp nano/sharp-10 48 "$(($(left) - 10))" "${steps#* }" "{l1: 0.6, lpips: 1.5}" --set "init={
        base: $out/faithful/model.safetensors, difference: [$ends/faithful.safetensors, $ends/sharp.safetensors]}"
}

for name in "$@"; do
    case $name in
        inference) part inference 120 "$python" benchmarks/gpu_inference.py $small --detector ;;
        training) part training 120 "$python" benchmarks/training_gpu.py $small ;;
        batch) part batch 60 "$python" benchmarks/batch_job.py $small ;;
        training-speed) part training-speed 90 "$python" benchmarks/training_speed.py --rounds 1 --steps 4 $small ;;
        compiled) part compiled 240 "$python" benchmarks/gpu_inference.py $small --compile --batches 1 ;;
        compiled-batch) part compiled-batch 240 "$python" benchmarks/gpu_inference.py $small --compile --batches 16 ;;
        tests) part tests 150 bash -c tests ;;
        nano) nano ;;
        *) echo "gpu.sh: unknown part $name; see its first lines" >&2; exit 2 ;;
    esac
done
echo "results in $out${failed:+; failed:$failed}"
[ -z "$failed" ]
