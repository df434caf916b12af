//! The machine's CPUs and memory, which resource fields of the downward API fall back to.

/// Of this machine.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Logical ones.
    pub cpus: i64,
    /// Bytes.
    pub memory: i64,
}

impl Machine {
    /// This machine, now.
    pub fn measure() -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, |cpus| i64::try_from(cpus.get()).unwrap_or(i64::MAX));
        let memory =
            nix::sys::sysinfo::sysinfo().map_or(i64::MAX, |info| i64::try_from(info.ram_total()).unwrap_or(i64::MAX));
        Self { cpus, memory }
    }
}
