#!/usr/bin/env bash
# The form of the paper's Table 4, trained on MVTec AD and tested elsewhere, and the sheets of its Figures 5 and 6:
#   MVTEC=DIR BTAD=DIR KSDD2=DIR OUT=runs/paper training/launch/reproduce_table4.sh
# Stopped or failed, the same command goes on; finished, it computes nothing anew. With the OUT of reproduce_table2.sh the
# rows and weights of MVTec AD are taken from there. Variables:
#   MVTEC, BTAD, KSDD2  the data sets
#   TAB_MVTEC           weights that are there already (a folder or a name); else they are trained into $OUT/weights
#   METHODS             some of "padim rd4ad simplenet"
#   SEEDS, IMAGENET, IMAGENET_A1, RECIPE_MVTEC: see kit.sh
#   PRETRAIN_FLAGS, BENCHMARK_FLAGS  further flags of the two programs, as words
set -euo pipefail
METHODS=${METHODS:-padim rd4ad simplenet}
# shellcheck source=training/launch/kit.sh
source "$(dirname "${BASH_SOURCE[0]}")/kit.sh"

need_methods padim rd4ad simplenet
need_folder MVTEC "MVTec AD, CLASS/train/good/*.png"
need_folder BTAD "BTAD, 01/train/ok/*.bmp"
need_folder KSDD2 "KolektorSDD2, train/NNNNN.png with train/NNNNN_GT.png"
for name in IMAGENET IMAGENET_A1 TAB_MVTEC; do need_backbone "$name"; done

weights TAB_MVTEC "$RECIPE_MVTEC" "$MVTEC"
measure "$METHODS" "$TAB_MVTEC" "$MVTEC" "$OUT/mvtec"
measure "$METHODS" "$TAB_MVTEC" "$BTAD" "$OUT/btad"
measure "$METHODS" "$TAB_MVTEC" "$KSDD2" "$OUT/ksdd2"
table "$OUT/table4.md" "$OUT/mvtec" "$OUT/btad" "$OUT/ksdd2" --across datasets
