#!/bin/sh
# Make .venv with the packages of requirements.txt, as `make setup` does; with --remove, take it away again.
#
# Whether there is anything to do is decided by what .venv holds: which Python runs it, and which version it has of
# each package that requirements.txt names. Only what this script made is ever cleared, and never through a link.
set -eu
cd "$(dirname "$0")/.."

begun=.venv/setup.unfinished      # there from the first moment of a set-up until its end
finished=.venv/requirements.installed

refuse() {
  echo "make: $1" >&2
  exit 1
}

is_ours() {
  [ ! -L .venv ] && { [ -e "$begun" ] || [ -e "$finished" ]; }
}

is_complete() {
  [ ! -e "$begun" ] && [ -x .venv/bin/python ] && .venv/bin/python - requirements.txt 2> /dev/null << 'CHECK'
import sys
from importlib.metadata import version

assert (3, 11) <= sys.version_info < (3, 14)
for line in open(sys.argv[1], encoding="utf-8"):
    name, _, wanted = line.partition("#")[0].strip().partition("==")
    # A wheel's own mark, as in 2.15.0+cpu, is no other version.
    assert not name or version(name).partition("+")[0] == wanted, line
CHECK
}

find_python() {
  # The first that runs is taken: a name may exist and yet not start, as with a version manager's shims.
  for candidate in python3.13 python3.12 python3.11 python3; do
    if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2> /dev/null
    then
      echo "$candidate"
      return
    fi
  done
  refuse "no Python 3.11, 3.12 or 3.13 with venv found (tried python3.13 python3.12 python3.11 python3).
      Install one and have it on PATH; on Debian and Ubuntu venv is the package python3-venv."
}

remove() {
  if [ -L .venv ]; then
    rm .venv  # the link; what it points to stays
  elif is_ours; then
    rm -rf .venv
  elif [ -e .venv ]; then
    echo "make: .venv was not made by \`make setup\` and stays" >&2
  fi
}

set_up() {
  if is_complete; then
    return
  fi
  if [ -L .venv ]; then
    refuse ".venv is a link to $(readlink .venv), which lacks what requirements.txt names; remove the link to have it made"
  fi
  if [ -e .venv ] && ! is_ours && ! rmdir .venv 2> /dev/null; then
    refuse ".venv was not made by \`make setup\` and lacks what requirements.txt names; rename it to have one made"
  fi

  python=$(find_python)
  echo "Setting up .venv with $("$python" --version) ..."
  mkdir -p .venv
  touch "$begun"
  find .venv -mindepth 1 ! -path "$begun" -delete
  "$python" -m venv .venv
  .venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
  touch "$finished"
  rm "$begun"
}

case "${1:-}" in
  --remove) remove ;;
  "") set_up ;;
  *) refuse "scripts/set_up.sh: $1: the only option is --remove" ;;
esac
