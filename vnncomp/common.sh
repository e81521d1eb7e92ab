# What prepare_instance.sh and run_instance.sh share; sourced by both.

refuse() {
    echo "$(basename "$0"): $1" >&2
    exit 1
}

# The version, the number of arguments, and that network and property exist, packed or not. The category ($2) is not read:
# no name of a benchmark changes what is done.
check_arguments() {
    local wanted=$1 file
    shift
    [[ "${1:-}" == v1 ]] || refuse "the first argument must be the version v1, got '${1:-}'"
    (($# == wanted)) || refuse "takes $wanted arguments, got $#"
    for file in "$3" "$4"; do
        [[ -r "$file" || -r "$file.gz" ]] || refuse "there is no file '$file'"
    done
}

# The file itself, or its .gz where only that exists.
packed() {
    if [[ -e "$1" ]]; then echo "$1"; else echo "$1.gz"; fi
}

# The command: on the path, or in the environment that install_tool.sh made.
boundlab_command() {
    command -v boundlab || echo "$(dirname "$(dirname "$(realpath "$0")")")/.venv/bin/boundlab"
}

# Where run_instance.sh notes the process that it waits for.
running_file() {
    echo "${TMPDIR:-/tmp}/boundlab-vnncomp-$(id -u).pid"
}
