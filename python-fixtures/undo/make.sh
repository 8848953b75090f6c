#!/bin/sh
# Makes the fixtures again, with the environments of compat-tests/make-environments, in $RUNZEO_VENVS or ~/.cache/runzeo.
set -e
cd "$(dirname "$0")"
venvs=${RUNZEO_VENVS:-$HOME/.cache/runzeo}
for name in zeo4-py27 zeo6-py311; do
    [ -x "$venvs/$name/bin/python" ] || { echo "$venvs/$name is missing: compat-tests/make-environments $name" >&2; exit 1; }
    rm -rf "$name"
    "$venvs/$name/bin/python" make.py "$name"
done
rm -rf __pycache__ ./*.pyc
