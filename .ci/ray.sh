#!/bin/sh
# ray.sh VENV: put the Ray that the tests of its executor start into VENV/ray, an environment of its own:
# the scripts talk to Ray over HTTP and need none of its hundred packages. What is there already stays.
set -eu

folder=$1/ray
wanted='ray[default]==2.60.0'
if [ "$(cat "$folder/.installed" 2>/dev/null)" = "$wanted" ]; then
    exit 0
fi
rm -rf "$folder"
"$1/bin/python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --no-input --disable-pip-version-check "$wanted"
echo "$wanted" >"$folder/.installed"
