#!/usr/bin/env bash
# VNN-COMP: make ready for one instance. Usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB
# Fails unless network, property and tool are there, and ends what an earlier run_instance.sh has left behind.
set -uo pipefail
source "$(dirname "$(realpath "$0")")/common.sh"
check_arguments 4 "$@"

tool=$(boundlab_command)
[[ -x "$tool" ]] || refuse "boundlab is not installed; run install_tool.sh v1 first"

running=$(running_file)
if [[ -r "$running" ]]; then
    left=$(cat "$running")
    # The number may belong to someone else by now: only a process that runs boundlab is ended, with all of its group.
    if [[ "$left" =~ ^[0-9]+$ ]] && tr '\0' ' ' 2>/dev/null <"/proc/$left/cmdline" | grep -q "boundlab verify"; then
        kill -KILL -- "-$left" 2>/dev/null
    fi
    rm -f "$running"
fi
exit 0
