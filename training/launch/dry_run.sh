#!/usr/bin/env bash
# Tries the scripts of Tables 2 and 4 and of the figures from end to end, on generated data, from random weights and with next
# to no training:
#   training/launch/dry_run.sh OUT [2] [4] [figures]
# Minutes on one CPU core, no network; a second start computes nothing anew. The numbers mean nothing. METHODS as in the
# scripts; what else is set here is what the scripts take.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
[ $# -ge 1 ] || { echo "usage: $0 OUT [2] [4] [figures]" >&2; exit 2; }
for part in "${@:2}"; do
  case $part in
    2 | 4 | figures) ;;
    *) echo "error: $part: expected some of 2 4 figures" >&2; exit 2 ;;
  esac
done
METHODS=${METHODS:-padim rd4ad simplenet regad}
if [ $# -eq 1 ]; then set -- "$1" 2 4 figures; fi

[ -d "$1/data/Industrial" ] || python "$here/toy_datasets.py" "$1/data" --size 64 --train 10 --test 2
[ -f "$1/data/wafers.npz" ] || python -m tabzoo.data toy-wafers "$1/data/wafers.npz" --per-class 5 \
  --classes Center Donut Edge-Loc Edge-Ring Loc Near-full Scratch Random
export OUT=$1 WAFERS=$1/data/wafers.npz MVTEC=$1/data/MVTec_AD BTAD=$1/data/BTAD KSDD2=$1/data/KSDD2 INDUSTRIAL=$1/data/Industrial
unset TAB_MVTEC TAB_INDUSTRIAL RECIPE_MVTEC RECIPE_INDUSTRIAL SEEDS METHOD
export IMAGENET=random IMAGENET_A1=''
export PRETRAIN_FLAGS="--init random --text-model ViT-S-16-alt --text-pretrained untrained --projection linear
  --prompts $here/dry_run_prompts.yaml --epochs 1 --batch-size 10 --lr 0.05 --resize 72 --crop 64 --amp off --workers 0 --log-every 1"
BENCHMARK_FLAGS='--resize 64 --crop 64 --workers 0'
for method in $METHODS; do
  case $method in
    rd4ad) BENCHMARK_FLAGS+=' --rd4ad-epochs 1' ;;
    simplenet) BENCHMARK_FLAGS+=' --simplenet-meta-epochs 1 --simplenet-gan-epochs 2' ;;
    regad) BENCHMARK_FLAGS+=' --regad-epochs 1 --regad-batch-size 4 --regad-steps 2 --regad-draws 1' ;;
  esac
done
export METHODS BENCHMARK_FLAGS
export CLASSIFY_FLAGS='--budget quick --size 32 --epochs 1 --seeds 0 --labels 100 --workers 0'
export FIGURES_FLAGS="--prompts $here/dry_run_prompts.yaml"
export EMBED_FLAGS='--resize 64 --crop 64 --synthesis cutpaste'

for part in "${@:2}"; do
  if [ "$part" = figures ]; then
    case " $METHODS " in *" rd4ad "*) ;; *) export METHOD=padim ;; esac
    "$here/reproduce_figures.sh"
    continue
  fi
  if [ "$part" = 4 ]; then METHODS=${METHODS//regad/}; fi # KSDD2 has no other classes to train RegAD on
  if [ -n "${METHODS// /}" ]; then "$here/reproduce_table$part.sh"; fi
done
