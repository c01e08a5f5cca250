#!/usr/bin/env bash
# The paper's Table 2, image AUROC on MVTec AD, ImageNet's weights against TAB's:
#   MVTEC=DIR INDUSTRIAL=DIR OUT=runs/paper training/launch/reproduce_table2.sh
# Stopped or failed, the same command goes on; finished, it computes nothing anew. Variables:
#   MVTEC                      MVTec AD; INDUSTRIAL: the Industrial dataset, for RegAD's weights
#   TAB_MVTEC, TAB_INDUSTRIAL  weights that are there already (a folder or a name); else they are trained into $OUT/weights
#   METHODS                    some of "padim rd4ad simplenet regad"; RegAD's TAB weights are those of INDUSTRIAL, as in the paper
#   SEEDS, IMAGENET, IMAGENET_A1, RECIPE_MVTEC, RECIPE_INDUSTRIAL: see kit.sh
#   PRETRAIN_FLAGS, BENCHMARK_FLAGS  further flags of the two programs, as words
set -euo pipefail
METHODS=${METHODS:-padim rd4ad simplenet regad}
# shellcheck source=training/launch/kit.sh
source "$(dirname "${BASH_SOURCE[0]}")/kit.sh"

need_methods padim rd4ad simplenet regad
need_folder MVTEC "MVTec AD, CLASS/train/good/*.png"
for name in IMAGENET IMAGENET_A1 TAB_MVTEC TAB_INDUSTRIAL; do need_backbone "$name"; done
others=${METHODS//regad/}
if [ "$others" != "$METHODS" ] && [ -z "${TAB_INDUSTRIAL:-}" ]; then
  need_folder INDUSTRIAL "the Industrial dataset, CLASS NAME/*.png, for RegAD's weights (or set TAB_INDUSTRIAL, or METHODS without regad)"
fi

if [ -n "${others// /}" ]; then
  weights TAB_MVTEC "$RECIPE_MVTEC" "$MVTEC"
  measure "$others" "$TAB_MVTEC" "$MVTEC" "$OUT/mvtec"
fi
if [ "$others" != "$METHODS" ]; then
  weights TAB_INDUSTRIAL "$RECIPE_INDUSTRIAL" "${INDUSTRIAL:-}"
  measure regad "$TAB_INDUSTRIAL" "$MVTEC" "$OUT/mvtec_regad" --shots 4 8
fi
table "$OUT/table2.md" "$OUT/mvtec" "$OUT/mvtec_regad" --against paper
