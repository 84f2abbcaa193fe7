#!/bin/sh
# install.sh VENV EXTRAS: the project and its pinned dependencies, into a virtual environment.
set -eu
venv=$1
extras=$2
torch=$(sed -n 's/^torch==//p' constraints.txt)

say() { printf 'install: %s\n' "$*" >&2; }
fail() { say "$*"; exit 1; }

python=
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
[ -n "$python" ] || fail "no Python >= 3.11 found. Install one, or name it: make PYTHON=/path/to/python"

if [ ! -x "$venv/bin/pip" ]; then
    say "making $venv with $("$python" --version)"
    "$python" -m venv "$venv" ||
        fail "$python cannot make virtual environments. On Debian and Ubuntu run: apt-get install python3-venv"
fi
pip() { "$venv/bin/python" -m pip --disable-pip-version-check "$@"; }

if [ -z "$("$venv/bin/python" -c "import importlib.metadata as m; print(m.version('torch').split('+')[0] == '$torch' or '')" 2>/dev/null)" ]; then
    if nvidia-smi -L >/dev/null 2>&1 || [ "$(uname -s)" != Linux ]; then
        say "installing torch $torch"
        pip install -q "torch==$torch" || fail "pip could not install torch $torch; see its message above"
    else
        say "no GPU here: installing the CPU build of torch $torch"
        if ! pip install -q ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} "torch==$torch+cpu"; then
            [ -z "$TORCH_INDEX" ] || fail "$TORCH_INDEX has no torch $torch+cpu for this Python"
            say "pip knows no CPU build of torch $torch; taking its default build (several GB)."
            say "For the small one, stop and run: make TORCH_INDEX=<PyTorch's CPU wheel index>"
            pip install -q "torch==$torch" || fail "pip could not install torch $torch; see its message above"
        fi
    fi
fi

say "installing the project with [$extras] (minutes the first time)"
pip install -q -c constraints.txt -e ".[$extras]" -e clients/python ||
    fail "pip could not install the dependencies; see its message above, then run the same make again"
