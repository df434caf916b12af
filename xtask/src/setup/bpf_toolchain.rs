//! The two ways to compile Rust for BPF: Debian's `rustc-web` with its prebuilt `core`, or a rustup nightly with
//! `rust-src`. Either needs bpf-linker.

use std::{path::Path, process::Command};

use crate::{
    command,
    progress::{self, Step},
    workspace,
};

/// The packages of Debian's compiler for BPF.
pub const COMPILER_PACKAGES: &[&str] = &["rustc-web", "libstd-rust-web-dev-bpf"];
/// The LLVM that bpf-linker is built with must be that of the compiler.
const LINKER_PACKAGES: &[&str] = &["llvm-22-dev", "libpolly-22-dev", "libzstd-dev", "g++", "zlib1g-dev"];
const LLVM_PREFIX: &str = "/usr/lib/llvm-22";
const LINKER_VERSION: &str = "0.13.0";

/// Whether one of the two compilers is there.
pub fn compiler_is_there() -> bool {
    debian_has_core() || nightly_has_source()
}

/// Debian's compiler is recognised by the `core` that lies beside it.
fn debian_has_core() -> bool {
    let mut rustc = Command::new("/usr/bin/rustc");
    // Cargo's own settings would change what this other compiler answers.
    rustc
        .env_remove("RUSTC")
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("LD_LIBRARY_PATH");
    let Ok(directory) = command::output(rustc.args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]))
    else {
        return false;
    };
    std::fs::read_dir(directory.trim())
        .is_ok_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

fn nightly_has_source() -> bool {
    command::output(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))
        .is_ok_and(|sysroot| Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file())
}

/// Whether bpf-linker is not installed.
pub fn linker_is_missing() -> bool {
    command::find("bpf-linker").is_none()
}

/// What building bpf-linker needs; apt leaves alone what is installed.
pub fn packages_for_linker() -> &'static [&'static str] {
    LINKER_PACKAGES
}

/// Builds bpf-linker with cargo, against Debian's LLVM.
pub fn install_linker(step: &Step) -> anyhow::Result<()> {
    let mut cargo = workspace::cargo();
    cargo
        .args([
            "install",
            "bpf-linker",
            "--version",
            LINKER_VERSION,
            "--no-default-features",
            "--features",
            "llvm-22",
            "--locked",
        ])
        .env("LLVM_PREFIX", LLVM_PREFIX)
        .env_remove("CARGO_TARGET_DIR");
    progress::follow(step, &mut cargo, |step, line| step.at(line.trim()))
}
