//! What the machine is: read from the kernel and the operating system once at start.

use std::{collections::BTreeMap, path::Path};

use procfs::Current;

/// Facts about this machine for the Node object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineFacts {
    /// Logical ones that this process may use.
    pub cpus: u64,
    /// KiB, as `/proc/meminfo` has it.
    pub memory_kib: u64,
    /// Size of the file system that holds the data directory.
    pub storage_bytes: u64,
    /// The kernel's; need not be the Node's name.
    pub hostname: String,
    /// `/etc/machine-id`; empty where there is none.
    pub machine_id: String,
    /// Another after each boot: pods that ran before it are gone.
    pub boot_id: String,
    /// As `uname -r`.
    pub kernel_version: String,
    /// `PRETTY_NAME` of `/etc/os-release`.
    pub os_image: String,
    /// `amd64`, `arm64`: Go's names, as Kubernetes uses them.
    pub architecture: String,
}

impl MachineFacts {
    /// Reads `/proc`, `/etc` and the file system of `data_dir`. What cannot be read stays empty: a Node without a
    /// machine ID is still a Node.
    pub fn read(data_dir: &Path) -> Self {
        let text = |path: &str| std::fs::read_to_string(path).map(|t| t.trim().to_owned()).unwrap_or_default();
        let os_release = os_release(&text("/etc/os-release"));
        let uname = nix::sys::utsname::uname().ok();
        let uname_field = |get: fn(&nix::sys::utsname::UtsName) -> &std::ffi::OsStr| {
            uname.as_ref().map(|u| get(u).to_string_lossy().into_owned()).unwrap_or_default()
        };
        Self {
            cpus: std::thread::available_parallelism().map_or(1, |n| n.get() as u64),
            memory_kib: procfs::Meminfo::current().map_or(0, |memory| memory.mem_total / 1024),
            storage_bytes: nix::sys::statvfs::statvfs(data_dir)
                .map_or(0, |s| s.blocks().saturating_mul(s.fragment_size())),
            hostname: uname_field(|u| u.nodename()),
            machine_id: text("/etc/machine-id"),
            boot_id: text("/proc/sys/kernel/random/boot_id"),
            kernel_version: uname_field(|u| u.release()),
            os_image: os_release.get("PRETTY_NAME").cloned().unwrap_or_default(),
            architecture: go_architecture(std::env::consts::ARCH).to_owned(),
        }
    }
}

fn go_architecture(rust: &str) -> &str {
    match rust {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn os_release(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_and_the_name_of_the_system_are_found() {
        assert_ne!(MachineFacts::read(Path::new("/")).memory_kib, 0);
        let release = os_release("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\n");
        assert_eq!(release["PRETTY_NAME"], "Debian GNU/Linux 12 (bookworm)");
    }
}
