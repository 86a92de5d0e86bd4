//! Samples made by the machine's own compiler, and what binutils say about them.
#![allow(
    dead_code,
    clippy::disallowed_methods,
    reason = "each test uses a part; tests run compilers directly"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory that is removed with the value.
pub struct Scratch(tempfile::TempDir);

impl Scratch {
    pub fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    /// Compiles C with these flags; answers where the result is.
    pub fn compile(&self, name: &str, source: &str, flags: &[&str]) -> PathBuf {
        let input = self.0.path().join(format!("{name}.c"));
        let output = self.0.path().join(name);
        std::fs::write(&input, source).unwrap();
        let mut command = Command::new("cc");
        run(command.arg("-o").arg(&output).arg(&input).args(flags));
        output
    }

    /// A stripped copy.
    pub fn strip(&self, path: &Path) -> PathBuf {
        let output = path.with_extension("stripped");
        run(Command::new("strip").arg("-o").arg(&output).arg(path));
        output
    }
}

/// Runs a tool that the tests cannot do without.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A program with hot and cold code, aliases, a nested label and a static function.
pub const SAMPLE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
static int counter;
__attribute__((noinline)) static int helper(int x) { return x * 3 + counter; }
__attribute__((noinline)) int visible(int x) { return helper(x) + 1; }
int visible_alias(int) __attribute__((alias("visible")));
__attribute__((cold, noinline)) void complain(const char *what, int x) { fprintf(stderr, "%s %d\n", what, x); }
__attribute__((noinline)) int careful(int x) {
    if (__builtin_expect(x > 1000000, 0)) { complain("large", x); counter += x; abort(); }
    if (__builtin_expect(x < -1000000, 0)) { complain("small", x); counter -= x; exit(3); }
    return x ^ counter;
}
asm(".text\n.globl asm_no_frame\n.type asm_no_frame,@function\nasm_no_frame:\n lea 7(%rdi),%eax\n ret\n"
    ".size asm_no_frame, .-asm_no_frame\n.p2align 4\nasm_no_size:\n lea 9(%rdi),%eax\n ret\n");
int asm_no_frame(int);
int main(int argc, char **argv) {
    counter = argc;
    printf("%d\n", visible(argc) + careful(argc) + asm_no_frame(argc) + visible_alias(2));
    return 0;
}
"#;

/// Functions that `nm` lists: address → (size, names).
pub fn nm_functions(path: &Path) -> BTreeMap<u64, (u64, Vec<String>)> {
    let text = run(Command::new("nm").args(["-S", "--defined-only"]).arg(path));
    let mut out: BTreeMap<u64, (u64, Vec<String>)> = BTreeMap::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [addr, size, kind, name] = words[..] else { continue };
        if !matches!(kind, "t" | "T" | "w" | "W" | "i") {
            continue;
        }
        let hex = |s| u64::from_str_radix(s, 16).unwrap();
        let entry = out.entry(hex(addr)).or_default();
        entry.0 = entry.0.max(hex(size));
        entry.1.push(name.split('@').next().unwrap().to_string());
    }
    assert!(!out.is_empty(), "nm lists no function of {}", path.display());
    out
}

/// Ranges of `.eh_frame` as `readelf` prints them: start → end.
pub fn readelf_frames(path: &Path) -> BTreeMap<u64, u64> {
    // Its exit code also counts what it merely warns about.
    let output = Command::new("readelf").args(["-wf", "-W"]).arg(path).output().expect("readelf");
    let text = String::from_utf8_lossy(&output.stdout);
    let ranges = text.lines().filter_map(|l| l.split("pc=").nth(1)?.split_once(".."));
    let hex = |s: &str| u64::from_str_radix(s.trim(), 16).unwrap();
    ranges.map(|(a, b)| (hex(a), hex(b))).collect()
}
