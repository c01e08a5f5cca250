#!/usr/bin/env bash
# The tests of the demo page. Gradio wants an older Pillow than the other tests have, so it gets an environment of its own.
#
#   pip install -e ".[test]" && tests/demo.sh [pytest options]
#
# The environment lacks only what the extra `demo` needs besides; the rest, torch above all, it borrows from the one this runs in.
set -euo pipefail
cd "$(dirname "$0")/.."

environment=$(mktemp -d)
trap 'rm -rf "$environment"' EXIT
borrowed=$(python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
python -m venv "$environment"
echo "$borrowed" > "$("$environment/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/borrowed.pth"
"$environment/bin/python" -m pip install --quiet -e ".[demo]"
"$environment/bin/python" -c 'import gradio, PIL; print(f"== gradio {gradio.__version__}, pillow {PIL.__version__}")'
"$environment/bin/python" -m pytest -q -p no:cacheprovider tests/test_demo.py "$@"
