#!/usr/bin/env bash
# Pre-training on all GPUs of one machine; further arguments go to the program:
#   training/launch/torchrun.sh --recipe resnet18.tab_mvtec --data DIR --output runs/tab_mvtec
# Stopped or failed, the same command goes on from the last checkpoint.
set -euo pipefail

gpus=${GPUS:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}
exec torchrun --standalone --nproc-per-node "$gpus" -m tabzoo.training.pretrain "$@" --resume
