#!/bin/sh
# Trains river-tiny anew, part after part, and leaves it in OUT/model.safetensors:
#     configs/finetune/river-tiny.sh DATA OUT [PROCESSES]
# DATA is the folder of the data (see the model card), PROCESSES as many as there are cores or GPUs (2). It needs the
# extras train and recipe, and hours. A part that is done is not done again: the command may be given once more.
set -eu
data=$1 out=$2 processes=${3:-2}
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}" HF_HUB_OFFLINE=1
configs=$(dirname "$0")
before=
for part in river-tiny river-tiny-longer river-tiny-more river-tiny-mixed river-tiny-last river-tiny-prompts \
    river-tiny-repainted river-tiny-dark river-tiny-prompts-again; do
    folder=$out/$part
    config=$configs/${part%-again}.toml  # The prompts are learned once more when the encoder has changed.
    if [ ! -e "$folder/done" ]; then
        [ -e "$folder/state.pt" ] && resume=--resume || resume=
        python -m torch.distributed.run --standalone --nproc-per-node "$processes" -m geosam finetune \
            --config "$config" ${before:+--model "$before"} --data-root "$data" --out "$folder" $resume
        touch "$folder/done"
    fi
    before=$folder/model.safetensors
done
cp "$before" "$out/model.safetensors"
