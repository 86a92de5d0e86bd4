#!/bin/sh
# Builds the ground-truth program: no C library, no inlining, nothing that the compiler adds.
set -eu
cd "$(dirname "$0")"
mkdir -p build
${CC:-cc} -O1 -g0 -static -nostdlib -nostartfiles -ffreestanding -fno-builtin \
    -fno-stack-protector -fno-pic -no-pie -fcf-protection=none -fno-optimize-sibling-calls \
    -fno-tree-loop-distribute-patterns -Wall -Wextra -Werror \
    -Wl,--build-id=sha1 -Wl,-z,noexecstack \
    -o build/ground-truth.new ground-truth.c
mv build/ground-truth.new build/ground-truth
