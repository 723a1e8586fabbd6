#!/bin/sh
# Create or update the development environment. Called by `make env`, which sets
# VENV, PYTHON, UV (the path of uv, or empty for pip), STARTERS and TORCH_VERSION.
set -eu

sh .ci/need.sh git tmux
if [ -z "$UV" ]; then
    if [ "$PYTHON" = python3 ]; then
        sh .ci/need.sh python3=python3-venv
    fi
    if ! "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
        echo "Python 3.11 or newer is needed; $PYTHON is $("$PYTHON" --version 2>&1)." >&2
        echo "  → make env PYTHON=python3.12" >&2
        exit 1
    fi
fi

# An environment without a working pip is half made: start again.
if ! "$VENV/bin/python" -m pip --version >/dev/null 2>&1; then
    if [ -n "$UV" ]; then
        "$UV" venv --quiet --clear --seed --python '>=3.11' "$VENV"
    else
        "$PYTHON" -m venv --clear "$VENV"
    fi
fi

install() {
    if [ -n "$UV" ]; then
        "$UV" pip install --quiet --python "$VENV/bin/python" "$@"
    else
        "$VENV/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$@"
    fi
}

if [ "$STARTERS" = 1 ]; then
    install "torch==$TORCH_VERSION"
    install '.[starters,dev]'
else
    install '.[dev]'
fi

# The scripts write nothing into their folder, so that each command would compile the core anew: 0.4 s in place of 0.25.
"$VENV/bin/python" -m compileall -q scripts/autoresearch
