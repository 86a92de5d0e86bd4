#!/usr/bin/env bash
# The published table of unique host-kernel functions on the same work, by altaz's exact and live instruments and by
# the published method. Writes docs/replication.md and target/replicate/replication.json. About five minutes for each
# of nine deployments. ALTAZ_REPLICATE_SERVICES and ALTAZ_REPLICATE_DEPLOYMENTS take fewer.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH:/usr/sbin:/sbin"
services=${ALTAZ_REPLICATE_SERVICES:-node,redis,tornado}
deployments=${ALTAZ_REPLICATE_DEPLOYMENTS:-runc,runsc-ptrace,qemu-microvm}

for service in ${services//,/ }; do
    # A deployment that cannot be measured is a line of the page, and no reason to stop.
    target/release/altaz compare "demo/replicate/$service.toml" --dir "target/replicate/$service" \
        --deployment "$deployments" -o "json=target/replicate/$service/again.json" </dev/null ||
        echo "replicate: $service was not measured completely by the exact instrument" >&2
done
cargo build --locked --release -p altaz-e2e --example replicate </dev/null || exit 1
exec target/release/examples/replicate </dev/null
