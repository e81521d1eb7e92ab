#!/usr/bin/env bash
# VNN-COMP: one instance. Usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS_FILE TIMEOUT
# The results file's first line is sat, unsat, unknown, timeout or error; after sat follows the counterexample,
# ((X_0 v) ... (Y_0 v) ...), with all digits. Whatever is not answered TIMEOUT seconds from now is ended, and is a timeout.
set -uo pipefail
source "$(dirname "$(realpath "$0")")/common.sh"
check_arguments 6 "$@"
network=$(packed "$3") property=$(packed "$4") results=$5 limit=$6
[[ "$limit" =~ ^[0-9]+(\.[0-9]+)?$ ]] || refuse "the time limit must be a number of seconds, got '$limit'"

echo timeout >"$results" || refuse "cannot write '$results'"  # stands if this script itself is ended
answer=$(mktemp) || refuse "cannot make a file for the answer"
trap 'rm -f "$answer" "$(running_file)"' EXIT

# `timeout` leads a process group of its own, which prepare_instance.sh can end as a whole.
timeout --kill-after=1 "$limit" "$(boundlab_command)" verify "$network" "$property" --timeout "$limit" --format vnncomp >"$answer" &
child=$!
echo "$child" >"$(running_file)"
trap 'kill -TERM "$child" 2>/dev/null' TERM INT
wait "$child"
code=$?

case $code in
    0 | 10 | 20) cp "$answer" "$results" ;;   # verified, falsified, not decided
    124 | 137) echo timeout >"$results" ;;    # ended by the limit
    143) echo timeout >"$results" ;;          # ended with this script
    *) echo error >"$results" ;;
esac
