#!/usr/bin/env bash
# Uses a GPU that is available only for minutes: checks, benchmark and training, on a machine with Python. See docs/gpu.md.
#   bash scripts/gpu_session.sh --minutes 9 --output OUT     check, measure, train
#   bash scripts/gpu_session.sh --dry-run                    the same in tiny sizes on the CPU
#   bash scripts/gpu_session.sh --take-over OUT              results: tables into docs/gpu.md, state into runs/gpu
# PYTHON is the interpreter (default: python3, or .venv's if python3 has no torch). Its packages are used as they are.
# Missing ones are installed into .gpu_env: from the folder wheels/ if it holds wheels, else from the package index.
set -euo pipefail
cd "$(dirname "$0")/.."
began=$(date +%s.%N)

if [ -z "${PYTHON:-}" ]; then
    PYTHON=python3
    if ! python3 -c 'import torch' 2>/dev/null && [ -x .venv/bin/python ]; then PYTHON=.venv/bin/python; fi
fi

# Prints the packages that the interpreter lacks. On a machine with a GPU, a torch without CUDA counts as missing.
missing() {
    "$1" - <<'PYTHON_CODE'
import importlib.util, pathlib, shutil
packages = {
    "numpy": "numpy", "torch": "torch", "safetensors": "safetensors", "cv2": "opencv-python-headless",
    "lightning": "lightning>=2.4,<3", "torchmetrics": "torchmetrics", "omegaconf": "omegaconf", "yaml": "pyyaml",
    "tensorboard": "tensorboard", "tqdm": "tqdm", "PIL": "pillow", "pytest": "pytest<9", "pytest_timeout": "pytest-timeout",
}
gpu = shutil.which("nvidia-smi") is not None
lacking = [name for module, name in packages.items() if importlib.util.find_spec(module) is None]
if gpu and "torch" not in lacking:
    version = {}  # read, not imported, which takes seconds
    exec((pathlib.Path(importlib.util.find_spec("torch").origin).parent / "version.py").read_text(), version)
    if version.get("cuda") is None:
        lacking.append("torch")
if gpu and "torch" in lacking:
    lacking.append("torchvision")  # for its deformable convolution; installed alone, it would replace torch
print("\n".join(lacking))
PYTHON_CODE
}

lacking=$(missing "$PYTHON")
if [ -n "$lacking" ]; then
    # An environment without its own pip that sees the interpreter's packages: quick to make, with any Python.
    if [ ! -x .gpu_env/bin/python ]; then
        "$PYTHON" -m venv --without-pip .gpu_env
        "$PYTHON" -c 'import sys; print("\n".join(p for p in sys.path if p.endswith(("site-packages", "dist-packages"))))' \
            >"$(echo .gpu_env/lib/python3*/site-packages)/around.pth"
    fi
    PYTHON=.gpu_env/bin/python
    lacking=$(missing "$PYTHON")
    if [ -n "$lacking" ]; then
        echo "installing: $(echo $lacking)"
        options=(--quiet --disable-pip-version-check --no-compile --no-input)
        if compgen -G 'wheels/*.whl' >/dev/null; then options+=(--no-index --find-links wheels); fi
        mapfile -t names <<<"$lacking"
        "$PYTHON" -m pip install "${options[@]}" "${names[@]}" ||
            echo "packages could not be installed; steps that need them will fail, and the others run"
    fi
fi

seconds=$("$PYTHON" -c "import time; print(f'{max(0.0, time.time() - $began):.1f}')")
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
exec "$PYTHON" -m stdnet_core.gpu_session --setup-seconds "$seconds" "$@"
