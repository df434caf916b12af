//! A container runtime for machines that cannot give every capability, such as a virtual machine whose own processes
//! lack one: Docker asks for all that the kernel knows where a container is privileged, and runc then refuses it.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::Result;

/// Writes to `dir` a program in the place of runc that asks for no capability that this machine has not; `None` where
/// it has all.
pub fn write(dir: &Path) -> Result<Option<PathBuf>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).ok_or("no CapBnd")?;
    let bounding = u64::from_str_radix(line.trim(), 16)?;
    let last: usize = std::fs::read_to_string("/proc/sys/kernel/cap_last_cap")?.trim().parse()?;
    let missing = NAMES.iter().enumerate().filter(|(bit, _)| *bit <= last && bounding & (1 << bit) == 0);
    let missing: Vec<&str> = missing.map(|(_, name)| *name).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    let names: Vec<String> = missing.iter().map(|name| format!("*\\\"CAP_{name}\\\"*")).collect();
    let edits = missing.iter().map(|name| format!(" -e 's/\"CAP_{name}\",//g' -e 's/,\"CAP_{name}\"//g'"));
    let script = SCRIPT.replace("NAMES", &names.join("|")).replace("EDITS", &edits.collect::<String>());
    let program = dir.join("bounded-runc");
    std::fs::write(&program, script)?;
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755))?;
    Ok(Some(program))
}

const SCRIPT: &str = r#"#!/bin/sh
# Takes what this machine cannot give out of the spec of a container, or of a process in one: JSON on one line, which
# the shell reads itself, so that containers that ask for nothing of it start as fast as without this.
before= file=
for word; do
  case $before in
    --bundle) file=$word/config.json ;;
    --process) file=$word ;;
  esac
  before=$word
done
if [ -n "$file" ]; then
  IFS= read -r spec < "$file"
  case $spec in
    NAMES) sed -iEDITS "$file" || exit ;;
  esac
fi
exec runc "$@"
"#;

/// By their number. Source: `linux/capability.h`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
