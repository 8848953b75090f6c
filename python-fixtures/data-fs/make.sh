#!/bin/sh
# Makes the fixtures again, with the virtual environments in $RUNZEO_VENVS (default: .venvs at the top).
set -e
cd "$(dirname "$0")"
venvs=${RUNZEO_VENVS:-../../.venvs}
for name in zodb38-py27 zodb39-py27 zodb310-py27 zeo4-py27 zeo5-py38 zeo6-py311; do
    rm -rf "$name"
    "$venvs/$name/bin/python" make.py "$name"
done
rm -rf __pycache__ ./*.pyc
