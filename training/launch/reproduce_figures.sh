#!/usr/bin/env bash
# The paper's figures and its classification of wafer maps, ImageNet's weights against TAB's:
#   MVTEC=DIR BTAD=DIR KSDD2=DIR INDUSTRIAL=DIR WAFERS=FILE.npz OUT=runs/paper training/launch/reproduce_figures.sh [FIGURE...]
# 1 and 3: samples; 2: the classification and its feature space; 4: similarity matrix; 5 and 6: anomaly maps; 7: feature space.
# Without FIGUREs, those whose data are not set are left out, by name; a FIGURE that is named needs its data.
# Stopped or failed, the same command goes on; finished, it computes nothing anew. With the OUT of reproduce_table4.sh its
# weights and rows are taken. Variables:
#   WAFERS              MixedWM38's file, for 1 and 2; INDUSTRIAL: for 3; BTAD: for 5; KSDD2: for 6; MVTEC: for 7 and for the weights
#   TAB_MVTEC           weights that are there already (a folder or a name; for 4 a run's folder); else they are trained into $OUT/weights
#   METHOD              whose maps 5 and 6 show: rd4ad, as in the paper
#   SEEDS, IMAGENET, IMAGENET_A1, RECIPE_MVTEC: see kit.sh; 2 and 7 compare IMAGENET with TAB, by the seeds of their programs
#   PRETRAIN_FLAGS, BENCHMARK_FLAGS, CLASSIFY_FLAGS, FIGURES_FLAGS (4), EMBED_FLAGS (7)  further flags of the programs, as words
set -euo pipefail
METHOD=${METHOD:-rd4ad}
# shellcheck source=training/launch/kit.sh
source "$(dirname "${BASH_SOURCE[0]}")/kit.sh"
read -rd '' -a classify_flags <<<"${CLASSIFY_FLAGS:-}" || true
read -rd '' -a figures_flags <<<"${FIGURES_FLAGS:-}" || true
read -rd '' -a embed_flags <<<"${EMBED_FLAGS:-}" || true

declare -A needs=([1]=WAFERS [2]="WAFERS MVTEC" [3]=INDUSTRIAL [4]=MVTEC [5]="BTAD MVTEC" [6]="KSDD2 MVTEC" [7]=MVTEC)
[ -z "${TAB_MVTEC:-}" ] || needs+=([2]=WAFERS [4]=TAB_MVTEC [5]=BTAD [6]=KSDD2)
declare -A data=(
  [WAFERS]="MixedWM38's Wafer_Map_Datasets.npz"
  [MVTEC]="MVTec AD, CLASS/train/good/*.png"
  [BTAD]="BTAD, 01/train/ok/*.bmp"
  [KSDD2]="KolektorSDD2, train/NNNNN.png with train/NNNNN_GT.png"
  [INDUSTRIAL]="the Industrial dataset, CLASS NAME/*.png"
  [TAB_MVTEC]="the folder of a run, with the texts and checkpoints that Figure 4 needs"
)

# lacking FIGURE: what it needs and is not set, in words.
lacking() {
  local name
  for name in ${needs[$1]}; do
    if [ -z "${!name:-}" ]; then
      echo "$name is not set"
    elif [ "$name" = TAB_MVTEC ] && [ ! -f "$TAB_MVTEC/run.json" ]; then
      echo "TAB_MVTEC=$TAB_MVTEC is not ${data[TAB_MVTEC]}"
    fi
  done
}

# once MARK COMMAND...: runs a command, unless the file MARK says that this very command has run.
once() {
  if [ -f "$1" ] && [ "$(<"$1")" = "${*:2}" ]; then
    echo "${1%/*}: drawn already; remove $1 to draw it anew"
  else
    "${@:2}"
    printf '%s\n' "${*:2}" >"$1"
  fi
}

# maps FIGURE DATA RESULTS: rows of the method, then their maps side by side.
maps() {
  measure "$METHOD" "$TAB_MVTEC" "$2" "$3"
  python -m tabzoo.benchmark panels "$3" --method "$METHOD" --backbone "$IMAGENET" "$TAB_MVTEC" --output "$figures/figure$1"
}

draw() {
  case $1 in
    1) once "$figures/.figure1" python -m tabzoo.data show "$WAFERS" --output "$figures/figure1.png" ;;
    2) python -m tabzoo.benchmark classify --data "$WAFERS" --backbone "$IMAGENET" "$TAB_MVTEC" --mode finetune \
      --output "$OUT/wafers" "${classify_flags[@]}" ;;
    3) once "$figures/.figure3" python -m tabzoo.data show "$INDUSTRIAL" --output "$figures/figure3.png" ;;
    4) once "$figures/figure4/.made" python -m tabzoo.training.figures "$TAB_MVTEC" ${MVTEC:+--data "$MVTEC"} \
      --output "$figures/figure4" "${figures_flags[@]}" ;;
    5) maps 5 "$BTAD" "$OUT/btad" ;;
    6) maps 6 "$KSDD2" "$OUT/ksdd2" ;;
    7) once "$figures/figure7/.made" python -m tabzoo.benchmark embed --data "$MVTEC" --backbone "$IMAGENET" "$TAB_MVTEC" \
      --output "$figures/figure7" "${embed_flags[@]}" ;;
  esac
}

case $METHOD in
  padim | rd4ad | simplenet) ;;
  *) fail "METHOD=\"$METHOD\": expected padim, rd4ad or simplenet" ;;
esac
named=$#
[ $# -gt 0 ] || set -- 1 2 3 4 5 6 7
chosen=()
for figure; do
  [[ $figure == [1-7] ]] || fail "$figure: expected figures, 1 to 7"
  missing=$(lacking "$figure")
  if [ "$named" -eq 0 ] && [ -n "$missing" ]; then
    echo "Figure $figure is left out: ${missing//$'\n'/, }" >&2
    continue
  fi
  for name in ${needs[$figure]}; do
    case $name in
      WAFERS) need_file WAFERS "${data[WAFERS]}" ;;
      TAB_MVTEC) [ -z "$missing" ] || fail "$missing" ;;
      *) need_folder "$name" "${data[$name]}" ;;
    esac
  done
  chosen+=("$figure")
done
[ ${#chosen[@]} -gt 0 ] || fail "nothing to draw. Type the variables of some figures, such as MVTEC=DIR $0"
for name in IMAGENET IMAGENET_A1 TAB_MVTEC; do need_backbone "$name"; done

figures=$OUT/figures
[[ " ${chosen[*]} " != *" "[24567]" "* ]] || weights TAB_MVTEC "$RECIPE_MVTEC" "${MVTEC:-}"
for figure in "${chosen[@]}"; do draw "$figure"; done
