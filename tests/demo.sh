#!/bin/sh
# One container through its life, each step as a person would type it. Leaves nothing behind.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)
PATH=$here/bin:$here/libexec:$PATH
work=$(mktemp -d)
id=demo-$$
root=$work/run

finish() {
    oci --root "$root" delete --force "$id"
    rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

if [ "$(id -u)" != 0 ]; then
    echo "demo: run it as root" >&2
    exit 1
fi

bold= blue= plain=
if [ -t 1 ]; then bold=$(printf '\033[1m') blue=$(printf '\033[36m') plain=$(printf '\033[0m'); fi
say() { printf '\n%s# %s%s\n' "$bold" "$*" "$plain"; }
show() {
    printf '%s$ %s%s\n' "$blue" "$*" "$plain"
    "$@"
}

say "A bundle: a root filesystem (one static busybox) and a config.json"
cd "$work"
mkdir -p rootfs/bin
cp "$(command -v busybox)" rootfs/bin/busybox
for name in sh echo hostname ps sleep; do ln -s busybox "rootfs/bin/$name"; done
show oci spec
script='echo "hello from $(hostname); I see these processes:"; ps; exec sleep 1000'
SCRIPT=$script /usr/bin/python3 - <<'PYTHON'
import json, os
with open("config.json") as file:
    config = json.load(file)
config["hostname"] = "demo"
config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", os.environ["SCRIPT"]]}
with open("config.json", "w") as file:
    json.dump(config, file, indent=2)
PYTHON
echo "  (its program is now: sh -c '$script')"

say "What create would do: each line is a program of its own"
show oci --root "$root" create --dry-run "$id"

say "create: all is made; the program waits"
show oci --root "$root" create "$id" </dev/null
show oci --root "$root" state "$id"
echo
pid=$(oci --root "$root" state "$id" | sed -n 's/.*"pid": \([0-9]*\).*/\1/p')
echo "What waits is no interpreter, but a static image of a few kilobytes:"
show grep -E '^(Name|VmRSS)' "/proc/$pid/status"

say "The container is a folder of files"
show ls -l "$root/$id"
echo "The ledger has what delete will undo:"
show cat "$root/$id/ledger"

say "start: the program runs"
show oci --root "$root" start "$id"
# Its first lines are on this very terminal; they are there once it has become sleep.
while [ -e "/proc/$pid" ] && ! grep -qs sleep "/proc/$pid/cmdline"; do sleep 0.05; done
show oci --root "$root" list

say "kill and delete"
show oci --root "$root" kill "$id" KILL
show oci-state wait "$id" stopped --root "$root"
show oci --root "$root" delete "$id"
show oci --root "$root" list
echo
echo "demo: done"
