//! The process as Prometheus' client libraries describe it: memory, CPU, file descriptors.

use std::fmt;

use procfs::process::{LimitValue, Process};

use super::Scrape;

/// Tells what the kernel says of this process; nothing where it says nothing.
pub(super) fn tell(scrape: &mut Scrape<'_>) -> fmt::Result {
    let Ok(process) = Process::myself() else { return Ok(()) };
    if let Ok(stat) = process.stat() {
        let seconds = (stat.utime.saturating_add(stat.stime)) as f64 / procfs::ticks_per_second() as f64;
        let started = procfs::boot_time_secs()
            .ok()
            .map(|boot| boot as f64 + stat.starttime as f64 / procfs::ticks_per_second() as f64);
        let resident = stat.rss.saturating_mul(procfs::page_size());
        scrape.counters("process_cpu_seconds", "CPU time used, in seconds.", [(&[][..], seconds)])?;
        gauge(scrape, "process_resident_memory_bytes", "Memory in use.", resident as f64)?;
        gauge(scrape, "process_virtual_memory_bytes", "Address space in use.", stat.vsize as f64)?;
        gauge(scrape, "process_threads", "Threads of the process.", stat.num_threads as f64)?;
        if let Some(started) = started {
            gauge(scrape, "process_start_time_seconds", "Start of the process, in Unix seconds.", started)?;
        }
    }
    if let Ok(open) = process.fd_count() {
        gauge(scrape, "process_open_fds", "Open file descriptors.", open as f64)?;
    }
    if let Ok(limits) = process.limits()
        && let LimitValue::Value(most) = limits.max_open_files.soft_limit
    {
        gauge(scrape, "process_max_fds", "Most file descriptors that may be open.", most as f64)?;
    }
    Ok(())
}

fn gauge(scrape: &mut Scrape<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    scrape.gauges(name, help, [(&[][..], value)])
}
