#!/bin/sh
# Makes the fixtures again, with the virtual environments in $RUNZEO_VENVS (default: .venvs at the top).
set -e
cd "$(dirname "$0")"
venvs=${RUNZEO_VENVS:-../../.venvs}
for name in zeo4-py27 zeo6-py311; do
    rm -rf "$name"
    "$venvs/$name/bin/python" make.py "$name"
done
rm -rf __pycache__ ./*.pyc
