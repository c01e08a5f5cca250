#!/usr/bin/env bash
# The zoo's tests with the lowest, a middle and the newest timm and huggingface_hub, and tabzoo from its wheel.
#
#   pip install -e ".[test]" && tests/matrix.sh [pytest options]
#
# The environments lack only what is varied; the rest, torch above all, they borrow from the one this runs in.
set -euo pipefail
cd "$(dirname "$0")/.."

versions=(
  "timm==1.0.26 huggingface_hub==0.30.0"
  "timm==1.0.29 huggingface_hub==1.*"
  "timm huggingface_hub"
)

# All tests that use timm or huggingface_hub; those that only read files are left out.
tests=(
  tests/hub
  --ignore tests/hub/test_files.py
  --ignore tests/hub/test_model_card.py
  --deselect tests/hub/test_convert.py::test_files_without_a_matching_resnet_are_refused_with_the_keys
)

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# Not beside the package, which would be imported in place of the wheel.
cp -r tests pyproject.toml hubconf.py "$work"
python -m pip wheel --quiet --no-deps --wheel-dir "$work" .
borrowed=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')

failed=0
for pair in "${versions[@]}"; do
  environment=$work/environment
  python -m venv --clear "$environment"
  echo "$borrowed" > "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
  # shellcheck disable=SC2086
  "$environment/bin/python" -m pip install --quiet --upgrade $pair
  "$environment/bin/python" -m pip install --quiet --no-deps --force-reinstall "$work"/*.whl
  (
    cd "$work"
    "$environment/bin/python" -c 'import huggingface_hub as hub, tabzoo, timm
print(f"== timm {timm.__version__}, huggingface_hub {hub.__version__}, tabzoo from {tabzoo.__file__}")'
    "$environment/bin/python" -P -m pytest -q -n 2 -p no:cacheprovider -m "not slow" "${tests[@]}" "$@"
  ) || failed=1
done
exit $failed
