//! The disk of the control service is full: writes fail and say so, reads go on, and nothing has to be restarted
//! afterwards.

use std::{io::Write, path::Path, process::Command};

use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};
use serde_json::{Value, json};

use crate::{
    control_alone::{ControlAlone, ask, expect},
    kit::{Result, cluster::FAIRLEAD, work_dir::WorkDir},
};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// Small enough to be filled at once, large enough for a store and its first objects.
const DISK_SIZE: &str = "size=32m";

/// The whole test, in a thread with mounts of its own: nobody else sees the small disk, and it ends with the thread.
pub fn writes_fail_reads_go_on_and_space_mends_it() -> Result {
    let thread = std::thread::spawn(|| -> Result {
        let dir = WorkDir::new("flauth-disk")?;
        let disk = dir.path().join("disk");
        std::fs::create_dir(&disk)?;
        small_disk(&disk)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(fill_and_free(dir.path(), &disk))
    });
    thread.join().map_err(|_| "the test panicked")?
}

fn small_disk(at: &Path) -> Result {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let none: Option<&str> = None;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
    Ok(mount(Some("flauth"), at, Some("tmpfs"), MsFlags::empty(), Some(DISK_SIZE))?)
}

async fn fill_and_free(logs: &Path, disk: &Path) -> Result {
    let data_dir = disk.join("control");
    let mut control = ControlAlone::start_with(logs, &data_dir, Command::new(FAIRLEAD)).await?;
    let admin = control.admin()?;
    let filler = disk.join("filler");
    let mut acknowledged = 0;
    for round in 0..3 {
        fill(&filler)?;
        let refusal = loop {
            let (code, answer) = ask(&admin, "POST", CONFIG_MAPS, Some(config_map(acknowledged))).await?;
            match code {
                201 => acknowledged += 1,
                _ => break answer,
            }
            if acknowledged > 10_000 {
                return Err("a full disk takes every write".into());
            }
        };
        if refusal["kind"] != "Status" || !refusal["message"].as_str().is_some_and(|m| m.contains("no space")) {
            return Err(format!("round {round}: the refusal does not say why: {refusal}").into());
        }
        let list = expect(&admin, 200, "GET", CONFIG_MAPS, None).await?;
        check_all_there(&list, acknowledged)?;
        expect(&admin, 200, "GET", "/readyz", None).await?;
        std::fs::remove_file(&filler)?;
        expect(&admin, 201, "POST", CONFIG_MAPS, Some(config_map(acknowledged))).await?;
        acknowledged += 1;
    }
    // Killed on a full disk it comes back on one, for reading.
    fill(&filler)?;
    control.process.kill()?;
    let control = ControlAlone::start_with(logs, &data_dir, Command::new(FAIRLEAD)).await?;
    let list = expect(&control.admin()?, 200, "GET", CONFIG_MAPS, None).await?;
    check_all_there(&list, acknowledged)
}

fn config_map(number: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": format!("fill-{number}")},
        "data": {"text": "x".repeat(16 * 1024)}})
}

fn check_all_there(list: &Value, acknowledged: usize) -> Result {
    let names = list["items"].as_array().into_iter().flatten().filter_map(|i| i["metadata"]["name"].as_str());
    let stored = names.filter(|name| name.starts_with("fill-")).count();
    if stored == acknowledged { Ok(()) } else { Err(format!("{stored} of {acknowledged} acknowledged objects").into()) }
}

/// Takes all the space that is left.
fn fill(filler: &Path) -> Result {
    let mut file = std::fs::File::create(filler)?;
    let block = vec![0; 4096];
    loop {
        match file.write_all(&block) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::StorageFull => return Ok(()),
            Err(e) => return Err(e.into()),
        }
    }
}
