# What the scripts that reproduce the paper's tables and figures share; they source it.
# shellcheck shell=bash

OUT=${OUT:-runs/paper}
SEEDS=${SEEDS:-1024}                          # PaDiM's reference draw of channels; for the others as good as any
IMAGENET=${IMAGENET-resnet18.tv_in1k}         # the paper's ImageNet arm; the others are compared with it
IMAGENET_A1=${IMAGENET_A1-resnet18.a1_in1k}   # timm's default; IMAGENET_A1= leaves it out
RECIPE_MVTEC=${RECIPE_MVTEC:-resnet18.tab_mvtec}
RECIPE_INDUSTRIAL=${RECIPE_INDUSTRIAL:-resnet18.tab_industrial}
# Words, also over several lines; read says 1 at the end of its input.
read -rd '' -a pretrain_flags <<<"${PRETRAIN_FLAGS:-}" || true
read -rd '' -a benchmark_flags <<<"${BENCHMARK_FLAGS:-}" || true

fail() {
  echo "error: $1" >&2
  exit 2
}

[ -n "$IMAGENET" ] || fail "IMAGENET is empty; expected the backbone that the others are compared with"

# need_folder NAME WHAT: the variable NAME holds a folder.
need_folder() {
  [ -n "${!1:-}" ] || fail "$1 is not set: $2. Type: $1=DIR $0"
  [ -d "${!1}" ] || fail "$1=${!1}: no such folder; expected $2"
}

# need_file NAME WHAT: the variable NAME holds a file.
need_file() {
  [ -n "${!1:-}" ] || fail "$1 is not set: $2. Type: $1=FILE $0"
  [ -f "${!1}" ] || fail "$1=${!1}: no such file; expected $2"
}

# need_methods NAME...: METHODS are some of these.
need_methods() {
  local method
  [ -n "${METHODS// /}" ] || fail "METHODS is empty; expected some of $*"
  for method in $METHODS; do
    [[ " $* " == *" $method "* ]] || fail "METHODS=\"$METHODS\": $method is none of $*"
  done
}

# need_backbone NAME: if the variable NAME is a path, something is there.
need_backbone() {
  case ${!1:-} in
    *:*) ;;
    */*) [ -d "${!1}" ] || fail "$1=${!1}: no such folder; expected weights, as a run leaves them" ;;
  esac
}

# weights NAME RECIPE DATA: the variable NAME holds weights; if it is not set, they are trained into $OUT/weights/RECIPE,
# where a run that was stopped goes on and a finished one stays as it is.
weights() {
  [ -z "${!1:-}" ] || return 0
  python -m tabzoo.training.pretrain --recipe "$2" --data "$3" --output "$OUT/weights/$2" --resume "${pretrain_flags[@]}"
  printf -v "$1" %s "$OUT/weights/$2"
}

# measure METHODS TAB DATA OUTPUT [FLAG...]: rows of ImageNet's and TAB's weights; those in OUTPUT are not computed again.
measure() {
  local backbones=("$IMAGENET") flag flags=()
  [ -n "$IMAGENET_A1" ] && backbones+=("$IMAGENET_A1")
  for flag in "${benchmark_flags[@]}"; do
    [ "$flag" = --oracle ] && [[ " $1 " != *" simplenet "* ]] || flags+=("$flag") # is SimpleNet's alone
  done
  # shellcheck disable=SC2086 # methods and seeds are words
  python -m tabzoo.benchmark run --method $1 --backbone "${backbones[@]}" "$2" --seeds $SEEDS \
    --data "$3" --output "$4" "${@:5}" "${flags[@]}"
}

# table FILE ARGUMENT...: prints a table and keeps it; what is in FILE stays if there is none.
table() {
  python -m tabzoo.benchmark table "${@:2}" >"$1.new" || { rm -f "$1.new"; return 2; }
  mv "$1.new" "$1"
  cat "$1"
}
