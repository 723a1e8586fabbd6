#!/bin/sh
# need.sh COMMAND[=PACKAGE]...: make sure that every command is there.
# As root on Debian the missing packages are installed; elsewhere a message says what to install.
set -eu

present() {
    case $1 in
    # Debian's python3 comes without the module that gives a new environment its pip.
    python3) python3 -c 'import ensurepip, venv' ;;
    *) command -v "$1" ;;
    esac >/dev/null 2>&1
}

packages=
for want in "$@"; do
    present "${want%%=*}" || packages="$packages ${want#*=}"
done
[ -n "$packages" ] || exit 0

if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    echo "Installing$packages ..." >&2
    apt-get update -qq >&2
    # shellcheck disable=SC2086 # one word for each package
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $packages >&2
else
    echo "Missing:$packages. Install with your system's package manager, then run this again." >&2
    exit 1
fi
