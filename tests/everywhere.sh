#!/usr/bin/env bash
# Run the tests under conditions that must make no difference, all or those named; at the end a table of the results:
#     tests/everywhere.sh [busy] [plain] [vectors] [threads] [stranger]
set -uo pipefail
cd "$(dirname "$0")/.."
./install.sh requirements-dev.txt || exit
python=$PWD/.venv/bin/python
tests=(-m pytest -n auto --maxprocesses 4 --dist worksteal)
temp=$(mktemp -d)
trap 'rm -rf "$temp"' EXIT

declare -A about=(
    [busy]="two busy processes beside it"
    [plain]="OMP_NUM_THREADS=1, ATEN_CPU_CAPABILITY=default, in reversed order"
    [vectors]="OMP_NUM_THREADS=2, ATEN_CPU_CAPABILITY=avx2, in random order"
    [threads]="OMP_NUM_THREADS=4, ONEDNN_MAX_CPU_ISA=AVX2, in random order"
    [stranger]="a user who is not root, a path with a space and an umlaut, another working directory"
)

busy() {
    neighbours=()
    trap 'kill "${neighbours[@]}"' EXIT
    for _ in 1 2; do
        (while :; do :; done) &
        neighbours+=($!)
    done
    "$python" "${tests[@]}"
}

plain() { OMP_NUM_THREADS=1 ATEN_CPU_CAPABILITY=default "$python" "${tests[@]}" --order reversed; }
vectors() { OMP_NUM_THREADS=2 ATEN_CPU_CAPABILITY=avx2 "$python" "${tests[@]}" --order "$1"; }
threads() { OMP_NUM_THREADS=4 ONEDNN_MAX_CPU_ISA=AVX2 "$python" "${tests[@]}" --order "$1"; }

stranger() {
    local place="$temp/hier drüben" user=() base packages
    mkdir -p "$place/repository" "$place/tmp" "$place/home"
    git ls-files -z --cached --others --exclude-standard | tar --create --null --files-from - |
        tar --extract --directory "$place/repository" || return
    chmod 755 "$temp"
    if [ "$(id -u)" = 0 ]; then
        chown -R 65534:65534 "$place"
        user=(setpriv --reuid 65534 --regid 65534 --clear-groups)
    fi
    user+=(env -i PATH="$PATH" LANG=C.UTF-8 HOME="$place/home" TMPDIR="$place/tmp")

    # Python and its packages where they are, or copied if this user may not read them there.
    base=$("$python" -c 'import sys; print(sys.base_prefix)')
    packages=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
    if ! "${user[@]}" test -x "$base/bin/python3"; then
        cp -rL "$base" "$temp/python" && base=$temp/python
        user+=(LD_LIBRARY_PATH="$base/lib") # where Python is a shared library
    fi
    if ! "${user[@]}" test -r "$packages/torch/__init__.py"; then
        cp -rL "$packages" "$temp/packages" && packages=$temp/packages
    fi
    cd "$place/home" || return
    "${user[@]}" "$base/bin/python3" -m venv --without-pip "$place/venv" || return
    echo "$packages" | "${user[@]}" tee "$(echo "$place"/venv/lib/python3*/site-packages)/packages.pth" >/dev/null
    "${user[@]}" "$place/venv/bin/python" "${tests[@]}" "$place/repository/tests"
}

[ $# -gt 0 ] || set -- busy plain vectors threads stranger
failed=0 seed=$RANDOM table=
for name in "$@"; do
    echo "== $name: ${about[$name]} (seed $seed)"
    began=$SECONDS result=passed
    ("$name" "$seed") || { result=FAILED failed=1; }
    table+=$(printf '%-8s %-6s %4d s  %s' "$name" "$result" $((SECONDS - began)) "${about[$name]}")$'\n'
done
printf '\nseed of the random orders: %s\n%s' "$seed" "$table"
exit $failed
