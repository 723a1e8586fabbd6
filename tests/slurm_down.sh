#!/bin/bash
# slurm_down.sh DIR: end the Slurm that slurm_up.sh has started in DIR, by its pid files alone.
dir=$(realpath -m "$1")
pids=$(cat "$dir"/run/*.pid 2>/dev/null)
# shellcheck disable=SC2086 # one word for each pid
kill $pids 2>/dev/null
for _ in $(seq 1 50); do
    # shellcheck disable=SC2086
    kill -0 $pids 2>/dev/null || exit 0
    sleep 0.1
done
# shellcheck disable=SC2086
kill -9 $pids 2>/dev/null
exit 0
