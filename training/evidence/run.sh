#!/usr/bin/env bash
# Does pre-training beat the ImageNet backbone that it starts from? Runs arms x folds x seeds and writes OUT/report.md:
#   training/evidence/run.sh DATA OUT [options]
# Started again, it computes nothing twice. --help lists the options; README.md says what they cost.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# The folder of the clone, for a Python in which tabzoo is not installed; the programs are started in OUT.
export PYTHONPATH=$(dirname "$(dirname "$here")")${PYTHONPATH:+:$PYTHONPATH}
exec "${PYTHON:-python}" "$here/evidence.py" run "$@"
