//! What is needed, how its presence is seen, and which Debian packages have it.

use super::{Purpose, bpf_toolchain};
use crate::command;

/// One thing that may be missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// A program or a file, as people know it.
    pub what: &'static str,
    /// What does not work without it.
    pub why: &'static str,
    /// Debian's names of what brings it.
    pub packages: &'static [&'static str],
}

/// What this machine lacks for `purpose`. Looks for the things themselves, not for packages: another source will do as
/// well.
pub fn missing(purpose: Purpose) -> Vec<Need> {
    let mut missing = Vec::new();
    let mut program = |name: &'static str, why: &'static str, packages: &'static [&'static str]| {
        if command::find(name).is_none() {
            missing.push(Need { what: name, why, packages });
        }
    };
    program("cc", "links what cargo builds", &["gcc", "libc6-dev"]);
    program("objcopy", "takes debug information out of the packaged binary", &["binutils"]);
    program("dockerd", "runs the containers", &["docker.io"]);
    program("docker", "imports the demo's image", &["docker.io"]);
    program("nft", "shows and checks the firewall rules", &["nftables"]);
    program("ip", "shows and checks interfaces and routes", &["iproute2"]);
    program("nsenter", "enters network namespaces", &["util-linux"]);
    if purpose == Purpose::Conformance {
        program("debootstrap", "makes the root of the suite's images", &["debootstrap"]);
        program("go", "builds the suite's programs", &["golang-go"]);
    }
    if purpose != Purpose::Run {
        program("docker-registry", "serves images to the tests", &["docker-registry"]);
        program("systemd-analyze", "checks the unit that a node is installed as", &["systemd"]);
        program("curl", "asks the API as a stranger", &["curl"]);
    }
    if !busybox_is_static() {
        missing.push(Need {
            what: "a static busybox",
            why: "is all of the demo's image",
            packages: &["busybox-static"],
        });
    }
    if !bpf_toolchain::compiler_is_there() {
        missing.push(Need {
            what: "a Rust compiler for BPF",
            why: "compiles the programs that carry Services",
            packages: bpf_toolchain::COMPILER_PACKAGES,
        });
    }
    missing
}

/// Debian's `busybox-static` and `busybox` both give /bin/busybox; only the first runs in an empty image.
fn busybox_is_static() -> bool {
    command::find("busybox").and_then(|file| std::fs::read(file).ok()).is_some_and(|elf| !has_interpreter(&elf))
}

/// Whether a 64-bit ELF file asks for a dynamic loader: a program header of type PT_INTERP (3).
fn has_interpreter(elf: &[u8]) -> bool {
    let field = |at: usize, length: usize| -> Option<usize> {
        let bytes = elf.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
    };
    let headers = || -> Option<bool> {
        let (start, size, count) = (field(32, 8)?, field(54, 2)?, field(56, 2)?);
        (0..count).map(|i| field(start + i * size, 4)).try_fold(false, |found, kind| Some(found || kind? == 3))
    };
    headers().unwrap_or(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_is_linked_dynamically_and_rubbish_is_not_static() {
        let own = std::fs::read(std::env::current_exe().expect("a file")).expect("readable");
        assert!(has_interpreter(&own));
        assert!(has_interpreter(b"#!/bin/sh"));
    }
}
