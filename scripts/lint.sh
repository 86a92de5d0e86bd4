#!/usr/bin/env bash
# Format, lints, and what the dependencies are allowed to be.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$HOME/.cargo/bin:$PATH"

cargo fmt --all --check
cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
if cargo deny --version >/dev/null 2>&1; then
    # Advisories need a database from the network; everything else works without.
    cargo deny --offline --log-level error check licenses bans sources
else
    echo 'lint: cargo-deny is not installed: licences are checked by the architecture test alone, bans not'
fi
echo 'lint: fine'
