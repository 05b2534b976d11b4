# Sourced by the scripts here: which slice, and how to run a command on its hosts.
#
# Every script takes: NAME --zone ZONE [--project PROJECT] [--dry-run], and --dry-run prints what would be run.
# An option that is not one of these ends the script, so that a misspelt --dry-run does nothing.
set -euo pipefail

die() {
    echo "error: $*" >&2
    exit 2
}

set_option() { # OPTION VALUE
    case $2 in '' | -*) die "$1 needs a value, found '$2'" ;; esac
    case $1 in --zone) zone=$2 ;; --project) project=(--project "$2") ;; esac
}

name='' zone=${TPU_ZONE:-} project=() dry_run='' rest=()
while (($#)); do
    case $1 in
        --zone | --project) set_option "$1" "${2:-}" && shift 2 ;;
        --zone=* | --project=*) set_option "${1%%=*}" "${1#*=}" && shift ;;
        --dry-run) dry_run=1 && shift ;;
        --help | -h) sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" && exit 0 ;;
        --) shift && rest+=("$@") && break ;;
        -*) die "unknown option $1; see $(basename "$0") --help" ;;
        *) if [ -z "$name" ]; then name=$1; else rest+=("$1"); fi && shift ;;
    esac
done
[ -n "$name" ] || die "name the slice first; see $(basename "$0") --help"
[ -n "$zone" ] || die "say where the slice is: --zone ZONE, or TPU_ZONE"

do_or_show() {
    if [ "$dry_run" ]; then
        printf '%q ' "$@" && echo
    else
        "$@"
    fi
}

on_hosts() { # WORKERS COMMAND: run COMMAND with bash on `all` hosts or on one
    do_or_show gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" "${project[@]}" --worker "$1" --command "$2"
}

start_on_hosts() { # VERB: start `jax-sft VERB` with the words after -- on all hosts, unless one is running
    [ ${#rest[@]} -ge 1 ] || die "name the study: $(basename "$0") $name --zone $zone -- configs/STUDY.py"
    local command
    command=$(printf '%q ' .venv/bin/jax-sft "$1" "${rest[@]}")
    on_hosts all "cd jax_sft
for verb in train sweep; do
    if kill -0 \"\$(cat \$verb.pid 2>/dev/null)\" 2>/dev/null; then echo \"\$(hostname): is at \$verb already\"; exit 0; fi
done
JAX_PLATFORMS=tpu JAX_COMPILATION_CACHE_DIR=\$HOME/.cache/jax nohup $command>$1.log 2>&1 </dev/null &
echo \$! >$1.pid
echo \"\$(hostname): started\""
}
