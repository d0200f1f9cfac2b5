# What all scripts share: where things are, how they speak. Sourced, never run.
# shellcheck shell=bash disable=SC2034

set -euo pipefail

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# Tools that only the tests need, kept between runs: a Python environment with rclone and an S3 server.
tools=${XDG_CACHE_HOME:-$HOME/.cache}/fourwheel-test
venv=$tools/venv
# Where the tests find what is on no path.
export FOURWHEEL_TEST_VENV=$venv FOURWHEEL_RCLONE=$venv/bin/rclone FOURWHEEL_WSGIDAV=$venv/bin/wsgidav

say() { printf '%s\n' "$*" >&2; }
fail() {
  printf '%s: %s\n' "${0##*/}" "$*" >&2
  exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Debian keeps servers in sbin, which is not on every user's path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

# Runs a command as root: directly, or through sudo where that works without a question (a terminal may be asked).
as_root() {
  if [ "$(id -u)" = 0 ]; then
    "$@"
  elif have sudo && { sudo -n true 2>/dev/null || [ -t 0 ]; }; then
    sudo "$@"
  else
    fail "this needs root: $* (run it as root, or install sudo)"
  fi
}

# Waits until a command succeeds: wait_for SECONDS WHAT COMMAND...
wait_for() {
  local limit=$1 what=$2 end
  shift 2
  end=$((SECONDS + limit))
  until "$@"; do
    [ "$SECONDS" -lt "$end" ] || fail "waited ${limit} s for: $what"
    sleep 0.1
  done
}

# Ends one process by its id: asks first, then insists. An empty id is nothing to do.
end_process() {
  local pid=$1 _
  [ -n "$pid" ] && kill -0 "$pid" 2>/dev/null || return 0
  kill -TERM "$pid" 2>/dev/null || true
  for _ in $(seq 100); do
    kill -0 "$pid" 2>/dev/null || return 0
    sleep 0.1
  done
  kill -KILL "$pid" 2>/dev/null || true
}

# Whether something is mounted at this path, also when what is mounted no longer answers.
is_mounted() { grep -qF -- " $1 " /proc/self/mountinfo; }
