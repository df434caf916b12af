//! The image of sandboxes, made here so that nothing is pulled: one static program of a few instructions that ignores
//! SIGCHLD (the kernel then reaps what is orphaned to it) and sleeps for ever. Decides its bytes; never loads it.

use serde_json::json;
use sha2::{Digest, Sha256};

/// What the names of all sandbox images begin with.
pub const REPOSITORY: &str = "fairlead/sandbox:";

/// The image of one architecture.
pub struct SandboxImage {
    /// Names its content, so that a newer agent's image never hides behind an older one's name.
    pub reference: String,
    /// In the form that `docker load` takes.
    pub archive: Vec<u8>,
}

impl SandboxImage {
    /// For `amd64` or `arm64`; `None` for others.
    pub fn for_architecture(architecture: &str) -> Option<Self> {
        let program = match architecture {
            "amd64" | "x86_64" => elf(EM_X86_64, &x86_64()),
            "arm64" | "aarch64" => elf(EM_AARCH64, &aarch64()),
            _ => return None,
        };
        let architecture = if matches!(architecture, "amd64" | "x86_64") { "amd64" } else { "arm64" };
        let layer = tar_of(&[("pause", &program, 0o755)]);
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": { "Entrypoint": ["/pause"] },
            "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{}", hex::encode(Sha256::digest(&layer)))] },
        })
        .to_string();
        let reference = format!("{REPOSITORY}{}", &hex::encode(Sha256::digest(&config))[..12]);
        let manifest =
            json!([{ "Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"] }]).to_string();
        let archive = tar_of(&[
            ("layer.tar", &layer, 0o644),
            ("config.json", config.as_bytes(), 0o644),
            ("manifest.json", manifest.as_bytes(), 0o644),
        ]);
        Some(Self { reference, archive })
    }
}

const EM_X86_64: u16 = 62;
const EM_AARCH64: u16 = 183;
const LOAD_ADDRESS: u64 = 0x40_0000;
const HEADERS: u64 = 64 + 56;

/// `struct sigaction` of the kernel with the handler SIG_IGN (1).
const IGNORE: [u8; 32] = {
    let mut bytes = [0; 32];
    bytes[0] = 1;
    bytes
};

fn x86_64() -> Vec<u8> {
    let mut code = vec![
        0xb8, 13, 0, 0, 0, // mov eax, SYS_rt_sigaction
        0xbf, 17, 0, 0, 0, // mov edi, SIGCHLD
        0x48, 0x8d, 0x35, 19, 0, 0, 0, // lea rsi, [rip + 19]: IGNORE
        0x31, 0xd2, // xor edx, edx
        0x41, 0xba, 8, 0, 0, 0, // mov r10d, 8
        0x0f, 0x05, // syscall
        0xb8, 34, 0, 0, 0, // again: mov eax, SYS_pause
        0x0f, 0x05, // syscall
        0xeb, 0xf7, // jmp again
    ];
    code.extend(IGNORE);
    code
}

fn aarch64() -> Vec<u8> {
    const CODE: [u32; 14] = [
        0xd280_10c8, // mov x8, SYS_rt_sigaction
        0xd280_0220, // mov x0, SIGCHLD
        0x1000_0181, // adr x1, IGNORE
        0xd280_0002, // mov x2, 0
        0xd280_0103, // mov x3, 8
        0xd400_0001, // svc 0
        0xd280_0928, // again: mov x8, SYS_ppoll (there is no pause)
        0xd280_0000, // mov x0, 0
        0xd280_0001, // mov x1, 0
        0xd280_0002, // mov x2, 0
        0xd280_0003, // mov x3, 0
        0xd280_0004, // mov x4, 0
        0xd400_0001, // svc 0
        0x17ff_fff9, // b again
    ];
    let mut code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(IGNORE);
    code
}

/// A static ELF executable of one read-and-execute segment that holds its headers and `code`.
fn elf(machine: u16, code: &[u8]) -> Vec<u8> {
    let size = HEADERS + code.len() as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    file.extend(2u16.to_le_bytes()); // ET_EXEC
    file.extend(machine.to_le_bytes());
    file.extend(1u32.to_le_bytes()); // EV_CURRENT
    file.extend((LOAD_ADDRESS + HEADERS).to_le_bytes()); // entry
    file.extend(64u64.to_le_bytes()); // program headers follow
    file.extend(0u64.to_le_bytes()); // no section headers
    file.extend(0u32.to_le_bytes()); // flags
    for half in [64u16, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes()); // sizes and counts of headers
    }
    file.extend(1u32.to_le_bytes()); // PT_LOAD
    file.extend(5u32.to_le_bytes()); // PF_R | PF_X
    for word in [0, LOAD_ADDRESS, LOAD_ADDRESS, size, size, 0x1_0000] {
        file.extend(word.to_le_bytes()); // offset, addresses, sizes, alignment
    }
    file.extend(code);
    file
}

fn tar_of(files: &[(&str, &[u8], u32)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (path, content, mode) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_mtime(0);
        header.set_entry_type(tar::EntryType::Regular);
        archive.append_data(&mut header, path, *content).expect("memory takes any write, the paths are short");
    }
    archive.into_inner().expect("memory takes any write")
}

#[cfg(test)]
mod tests {
    use std::{io::Write, os::unix::fs::OpenOptionsExt, process::Command};

    use super::*;

    #[test]
    fn the_same_architecture_gives_the_same_image() {
        for architecture in ["amd64", "arm64"] {
            let first = SandboxImage::for_architecture(architecture).unwrap();
            let second = SandboxImage::for_architecture(architecture).unwrap();
            assert_eq!(first.reference, second.reference);
            assert_eq!(first.archive, second.archive);
        }
        assert!(SandboxImage::for_architecture("riscv64").is_none());
    }

    #[test]
    #[cfg_attr(not(target_arch = "x86_64"), ignore = "the program under test is for x86_64")]
    fn the_program_sleeps_until_it_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pause");
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path).unwrap();
        file.write_all(&elf(EM_X86_64, &x86_64())).unwrap();
        drop(file);
        let mut child = Command::new(&path).spawn().unwrap();
        // It has set SIGCHLD to be ignored once the kernel says so, and is then in pause(2).
        let status = format!("/proc/{}/status", child.id());
        let sleeps = || {
            let text = std::fs::read_to_string(&status).unwrap();
            let ignored = text.lines().find_map(|l| l.strip_prefix("SigIgn:\t")).unwrap();
            assert!(!text.contains("State:\tZ"), "it ended");
            u64::from_str_radix(ignored, 16).unwrap() & (1 << 16) != 0 && text.contains("State:\tS")
        };
        while !sleeps() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }
}
