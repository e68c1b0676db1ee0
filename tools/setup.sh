#!/usr/bin/env bash
# Make .venv and install the course into it, with the versions of constraints.txt.
# `make` calls this when pyproject.toml, constraints.txt or this file is newer than .venv/installed; by hand: tools/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."

say() { echo "setup: $*" >&2; }
usable() { "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1; }
complete() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

find_python() {  # prints the first suitable interpreter; COURSE_PYTHON, when set, is the only candidate
    local candidate incomplete=""
    for candidate in ${COURSE_PYTHON:-python3 python3.13 python3.12 python3.11 python3.10}; do
        usable "$candidate" || continue
        if complete "$candidate"; then echo "$candidate"; return 0; fi
        incomplete="${incomplete:-$candidate}"
    done
    if [ -n "$incomplete" ]; then
        say "$incomplete cannot make virtual environments: its venv module is missing. On Debian and Ubuntu: apt install python3-venv. Then run this again."
    elif [ -n "${COURSE_PYTHON:-}" ]; then
        say "COURSE_PYTHON is '$COURSE_PYTHON', which is not a Python between 3.10 and 3.13. Name one that is, or unset it."
    else
        say "no Python between 3.10 and 3.13 was found (looked for python3 and python3.10 to python3.13). Install one, or name it: COURSE_PYTHON=/path/to/python make lab"
    fi
    return 1
}

install() { .venv/bin/python -m pip install --no-input --disable-pip-version-check -c constraints.txt "$@"; }

if ! { usable .venv/bin/python && .venv/bin/python -m pip --version >/dev/null 2>&1; }; then
    python="$(find_python)"
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv || { say "the virtual environment could not be made in $PWD/.venv (the reason is above). Is there room on the disk, and may you write here?"; exit 1; }
fi

say "installing with pip; the first time this takes a few minutes"
if ! { install torch && install -e '.[lab,dev]'; }; then
    say "pip could not install the packages; its own message is above. Most often there is no network, or no room on the disk. Mend that and run the same command again: what is already installed is kept."
    exit 1
fi

mkdir -p .venv/share/jupyter/lab/settings
cp tools/lab_settings.json .venv/share/jupyter/lab/settings/overrides.json  # no news dialog over the first page
touch .venv/installed
say "ready"
