#!/usr/bin/env bash
# Everything that needs a GPU, within a limit of time: the tests, the speed and memory of inference,
# of a batch of photos, of a training and of a detector, then a training of nano that goes on for the rest.
#
#   benchmarks/gpu.sh [--small] [-o FOLDER] [-t SECONDS] [-p PHOTOS]
#
# --small tries the script on a machine without a GPU. FOLDER (default: gpu-results) gets one JSON
# and one log a part, as soon as the part ends; a part that fails or takes too long does not stop the
# others. SECONDS (default: 520) is the time for all of it. PHOTOS is a folder that nano is trained on;
# without, that is left out. Python is $PYTHON, or python3; wheels in $WHEELS are installed first.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

small= out=gpu-results limit=520 photos=
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=--small ;;
        -o) out=$2; shift ;;
        -t) limit=$2; shift ;;
        -p) photos=$2; shift ;;
        *) echo "gpu.sh: unknown argument $1; see its first lines" >&2; exit 2 ;;
    esac
    shift
done
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
    timeout -k 5 "$most" "$@" >"$out/$name.json" 2>"$out/$name.log"
    local code=$?
    [ -s "$out/$name.json" ] || rm -f "$out/$name.json"
    echo "$name: exit status $code after $((SECONDS - began)) s"
    [ $code = 0 ] || { failed="$failed $name"; tail -n 3 "$out/$name.log" | sed "s/^/    /"; }
}

tests() { "$python" -m pytest -m gpu -p no:cacheprovider --no-header -q -n 0 tests/models tests/restoration tests/training tests/people >&2; }
speed() { "$python" benchmarks/gpu_inference.py $small "$@"; }
export -f tests speed
export python small

# nano's faithful end goes on: some steps tell the pace, then as many as there is time for. The model
# comes in pieces of 15 MB (cat nano.* > model.safetensors).
nano() {
    local device=cuda phase="crop: 192, batch: 32" first=60 began pace
    [ -z "$small" ] || { device=cpu phase="crop: 64, batch: 1" first=6; }
    steps() {
        part "nano-$1" "$2" "$python" -m hbr.apps.cli.main train nano/faithful-11 --device $device \
            --out "$out/nano-$1" --set "data.sources=[{photos: $photos}]" \
            --set "init={base: nano, fidelity: 1.0}" --set "validation.every=$3" \
            --set "data.workers=$(nproc)" --set precision=bfloat16 \
            --set "optim={lr: 3.0e-4, warmup: 2, decay: $(($3 / 2))}" \
            --set "phases=[{steps: $3, $phase}]"
    }
    began=$SECONDS
    steps pace 90 $first
    pace=$(((SECONDS - began) * 1000 / first)) # ms a step, the start included
    [ "$pace" -gt 0 ] || pace=1
    steps model "$(($(left) - 10))" $((($(left) - 40) * 1000 / pace))
    [ ! -f "$out/nano-model/model.safetensors" ] ||
        split -b 15M "$out/nano-model/model.safetensors" "$out/nano."
}

part tests 150 bash -c tests
part inference 150 bash -c "speed --detector"
part batch 60 "$python" benchmarks/batch_job.py $small
part training 90 "$python" benchmarks/training_gpu.py $small
part compiled 120 bash -c "speed --compile"
part training-speed 90 "$python" benchmarks/training_speed.py --rounds 1 --steps 4 $small
if [ -n "$photos" ]; then nano; else echo "nano: left out, no photos (-p)"; fi
echo "results in $out${failed:+; failed:$failed}"
[ -z "$failed" ]
