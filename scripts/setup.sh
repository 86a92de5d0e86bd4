#!/usr/bin/env bash
# Installs what building, testing and running altaz needs, on Debian 12 and 13 and on Ubuntu 25.04
# and newer. Says what it does, and does nothing when everything is there.
set -euo pipefail

readonly MIN_QEMU=9.2 MIN_RUST=1.88
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"

say() { printf 'setup: %s\n' "$*" >&2; }
die() { printf 'setup: %s\n' "$*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }
# Whether version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n' "$2" "$1" | sort -V | head -n1)" = "$2" ]; }

qemu_version() {
    "${ALTAZ_QEMU:-qemu-system-x86_64}" --version 2>/dev/null |
        sed -nE 's/^QEMU emulator version ([0-9.]+).*/\1/p'
}
qemu_ok() {
    local version
    version=$(qemu_version) && [ -n "$version" ] && at_least "$version" "$MIN_QEMU"
}
rust_ok() {
    local version
    have cargo && version=$(cargo --version 2>/dev/null | cut -d' ' -f2) &&
        [ -n "$version" ] && at_least "$version" "$MIN_RUST"
}

# Packages whose program or file is not there.
missing=()
need() { have "$1" || missing+=("${@:2}"); }
need gcc gcc libc6-dev
need mmdebstrap mmdebstrap
need mke2fs e2fsprogs
need ip iproute2
need unshare util-linux
need zstd zstd
need redis-benchmark redis-tools
# Opens the report's pages in the tests and takes the pictures of the docs.
need chromium chromium fonts-dejavu-core
[ -e /usr/lib/x86_64-linux-gnu/libc.a ] || missing+=(libc6-dev)
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] ||
    [ -e /usr/share/keyrings/debian-archive-keyring.pgp ] || missing+=(debian-archive-keyring)
# Without root, images are built in a user namespace with sub-ids.
[ "$(id -u)" = 0 ] || need newuidmap uidmap

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "packages are missing; run this as root: $*"
    fi
}

apt_updated=
apt_update() {
    [ -n "$apt_updated" ] && return
    say "apt-get update"
    as_root apt-get update -qq
    apt_updated=yes
}
apt_install() {
    apt_update
    say "apt-get install $*"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" \
        </dev/null >/dev/null
}

# The newest version of QEMU that the configured sources offer, without Debian's epoch.
qemu_offered() {
    apt-cache madison qemu-system-x86 2>/dev/null | cut -d'|' -f2 | sed -E 's/ *([0-9]+:)?//' |
        sort -V | tail -n1
}

install_qemu() {
    local codename offered version=()
    codename=$(. /etc/os-release && printf '%s' "${VERSION_CODENAME:-}")
    apt_update
    offered=$(qemu_offered)
    if ! at_least "${offered:-0}" "$MIN_QEMU" && [ "$codename" = bookworm ]; then
        local list=/etc/apt/sources.list.d/altaz-backports.sources
        say "Debian 12's own QEMU is older than $MIN_QEMU: adding bookworm-backports as $list"
        printf '%s\n' 'Types: deb' 'URIs: http://deb.debian.org/debian' \
            'Suites: bookworm-backports' 'Components: main' \
            'Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg' |
            as_root tee "$list" >/dev/null
        apt_updated=
        apt_update
        offered=$(qemu_offered)
    fi
    at_least "${offered:-0}" "$MIN_QEMU" ||
        die "the configured package sources offer QEMU ${offered:-not at all}, altaz needs" \
            "$MIN_QEMU or newer: use Debian 12, 13 or Ubuntu 25.04, or build QEMU with" \
            "--enable-plugins and set ALTAZ_QEMU"
    # Backports are installed only when asked for by name.
    if [ "$codename" = bookworm ]; then version=(-t bookworm-backports); fi
    apt_install "${version[@]}" qemu-system-x86
}

install_rust() {
    if have rustup; then
        say "rustup: installing the stable toolchain"
        rustup toolchain install stable --profile minimal -c clippy -c rustfmt >&2
        rustup default stable >&2
    elif have apt-get && apt-cache show rustup >/dev/null 2>&1; then
        apt_install rustup
        install_rust
    else
        die "Rust $MIN_RUST or newer is needed and this distribution has none: install it with" \
            "rustup (https://rustup.rs: curl --proto '=https' --tlsv1.2 -sSf" \
            "https://sh.rustup.rs | sh -s -- -y --profile minimal -c clippy -c rustfmt)" \
            "and run this again"
    fi
    rust_ok || die "cargo is still older than $MIN_RUST: $(cargo --version 2>&1)"
}

if [ ${#missing[@]} -gt 0 ] || ! qemu_ok; then
    have apt-get || die "this is no Debian or Ubuntu; install yourself: QEMU $MIN_QEMU or newer" \
        "for x86_64 with plugins, gcc, static glibc, mmdebstrap, mke2fs, ip, unshare, zstd," \
        "redis-benchmark, chromium"
    if [ ${#missing[@]} -gt 0 ]; then apt_install "${missing[@]}"; fi
    qemu_ok || install_qemu
    qemu_ok || die "QEMU is still older than $MIN_QEMU: $(qemu_version)"
fi
rust_ok || install_rust
