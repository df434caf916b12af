//! Compiles the BPF programs of `proxy-ebpf` for the kernel, with whichever toolchain for that target the machine has.
//!
//! It never installs anything: where no toolchain is found it says what to install (`cargo xtask setup` does).

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

const TARGET: &str = "bpfel-unknown-none";
/// Debian's own rustc, which comes with a `core` prebuilt for BPF (`libstd-rust-web-dev-bpf`).
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

const WHAT_TO_INSTALL: &str = "no Rust toolchain for BPF found. Run `cargo xtask setup`, or install either\n  \
     (a) on Debian: apt-get install rustc-web libstd-rust-web-dev-bpf llvm-22-dev libpolly-22-dev libzstd-dev, or\n  \
     (b) with rustup: rustup toolchain install nightly --component rust-src";
const INSTALL_LINKER: &str = "bpf-linker not found. Run `cargo xtask setup`, or: LLVM_PREFIX=/usr/lib/llvm-22 cargo install \
     bpf-linker --version 0.13.0 --no-default-features --features llvm-22 --locked";

/// A way to compile for the BPF target.
enum Toolchain {
    /// Stable cargo driving Debian's rustc. Preferred: its LLVM is the linker's.
    Debian,
    /// A rustup nightly that builds `core` from `rust-src`.
    Nightly,
}

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            for line in message.lines() {
                println!("cargo::error={line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let manifest_dir = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);
    let out_dir = PathBuf::from(variable("OUT_DIR")?);
    let workspace = manifest_dir.parent().ok_or("the crate has no parent directory")?;
    for input in ["proxy-ebpf/src", "proxy-ebpf/programs", "proxy-ebpf/Cargo.toml", "Cargo.toml", "Cargo.lock"] {
        println!("cargo::rerun-if-changed=../{input}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={DEBIAN_RUSTC}");

    let toolchain = find_toolchain().ok_or(WHAT_TO_INSTALL)?;
    let linker = find_linker().ok_or(INSTALL_LINKER)?;
    let target_dir = out_dir.join("bpf");
    let output = cargo(&toolchain, workspace, &target_dir, &linker)?
        .output()
        .map_err(|error| format!("cannot run cargo for the BPF programs: {error}"))?;
    if !output.status.success() {
        return Err(format!("the BPF programs do not compile:\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let built = target_dir.join(TARGET).join("bpf/programs");
    // By a new file: the old one may be a hard link into a copy of this directory, whose programs are others.
    let (fresh, object) = (out_dir.join("programs.bpf.o.new"), out_dir.join("programs.bpf.o"));
    std::fs::copy(&built, &fresh)
        .and_then(|_| std::fs::rename(&fresh, &object))
        .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

fn find_toolchain() -> Option<Toolchain> {
    if has_core_for_bpf(DEBIAN_RUSTC) {
        return Some(Toolchain::Debian);
    }
    let sysroot = stdout(Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]))?;
    let source = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core/Cargo.toml");
    source.exists().then_some(Toolchain::Nightly)
}

fn has_core_for_bpf(rustc: &str) -> bool {
    stdout(clean(&mut Command::new(rustc)).args(["--print", "target-libdir", "--target", TARGET]))
        .and_then(|directory| std::fs::read_dir(directory).ok())
        .is_some_and(|files| files.flatten().any(|file| file.file_name().to_string_lossy().starts_with("libcore-")))
}

fn find_linker() -> Option<PathBuf> {
    let cargo_bin = env::var_os("CARGO_HOME").map(|home| PathBuf::from(home).join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).chain(cargo_bin).map(|directory| directory.join("bpf-linker")).find(|file| file.is_file())
}

fn cargo(toolchain: &Toolchain, workspace: &Path, target_dir: &Path, linker: &Path) -> Result<Command, String> {
    let mut command = match toolchain {
        Toolchain::Debian => Command::new(variable("CARGO")?),
        Toolchain::Nightly => Command::new("rustup"),
    };
    clean(&mut command);
    match toolchain {
        Toolchain::Debian => {
            command.env("RUSTC", DEBIAN_RUSTC).env("RUSTC_BOOTSTRAP", "1").arg("build");
        }
        Toolchain::Nightly => {
            command.args(["run", "nightly", "cargo", "build", "-Z", "build-std=core"]);
        }
    }
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?;
    command
        .args([
            "--profile",
            "bpf",
            "--locked",
            "--package",
            "proxy-ebpf",
            "--bin",
            "programs",
            "--features",
            "programs",
        ])
        .args(["--target", TARGET])
        .arg("--config")
        .arg(format!("target.{TARGET}.linker={linker:?}"))
        .arg("--manifest-path")
        .arg(workspace.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(target_dir)
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [&format!("--cfg=bpf_target_arch=\"{architecture}\""), "-Clink-arg=--btf", "-Ctarget-cpu=v3"].join("\x1f"),
        )
        .current_dir(workspace);
    Ok(command)
}

/// Takes away what the outer cargo set for this script: it would make the inner one build for the host, or with its
/// flags.
fn clean(command: &mut Command) -> &mut Command {
    let kept = ["CARGO_HOME", "CARGO_HTTP_", "CARGO_NET_", "CARGO_REGISTR", "CARGO_SOURCE_"];
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let set_by_cargo = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "DEP_", "MAKEFLAGS"]
            .iter()
            .any(|prefix| text.starts_with(prefix))
            || ["TARGET", "HOST", "OUT_DIR", "PROFILE", "OPT_LEVEL", "DEBUG", "NUM_JOBS", "LD_LIBRARY_PATH"]
                .contains(&text.as_ref());
        if set_by_cargo && !kept.iter().any(|prefix| text.starts_with(prefix)) {
            command.env_remove(&name);
        }
    }
    command
}

fn stdout(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
