//! The demo: its image, made from the static busybox of this machine, and its manifests.

use std::{io::Write, process::Stdio};

use anyhow::{Context, bail};

use super::{cluster::Cluster, engine::Engine};
use crate::{command, progress::Step, workspace};

const IMAGE: &str = "fairlead-demo:1";
/// What the demo's scripts use, and a shell's user expects.
const APPLETS: &[&str] = &[
    "awk", "cat", "cp", "cut", "date", "echo", "env", "false", "grep", "head", "hostname", "httpd", "id", "ip", "kill",
    "ls", "mkdir", "nc", "nslookup", "ping", "printf", "ps", "rm", "sed", "seq", "sh", "sleep", "sort", "tail", "test",
    "timeout", "touch", "tr", "true", "uniq", "vi", "wc", "wget",
];

/// The demo's image in an Engine.
pub struct Image {
    imported: bool,
}

/// Imports the image, unless the Engine has it.
pub fn import(engine: &Engine) -> anyhow::Result<Image> {
    if command::output(engine.docker().args(["image", "inspect", IMAGE])).is_ok() {
        return Ok(Image { imported: false });
    }
    let step = Step::start("making the demo's image from busybox");
    let mut docker = engine.docker();
    docker.args(["import", "--change", "CMD [\"/bin/sh\"]", "--change", "ENV PATH=/bin", "-", IMAGE]);
    let mut child = docker
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", command::show(&docker)))?;
    let written = write_image(child.stdin.take().context("docker import takes no input")?);
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("docker import failed: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    written?;
    step.done(IMAGE);
    Ok(Image { imported: true })
}

impl Image {
    /// Takes the image away again where it was imported here.
    pub fn remove(self, engine: &Engine) -> anyhow::Result<()> {
        if self.imported {
            command::output(engine.docker().args(["image", "rm", IMAGE]))?;
        }
        Ok(())
    }
}

/// A root file system with busybox, its applets as links, and the two files that say who users are.
fn write_image(output: impl Write) -> anyhow::Result<()> {
    let file = command::find("busybox").context("busybox is not installed")?;
    let busybox = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let mut tar = tar::Builder::new(output);
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(u64::try_from(content.len()).map_err(std::io::Error::other)?);
        header.set_mode(mode);
        tar.append_data(&mut header, path, content)
    };
    add("bin/busybox", 0o755, &busybox)?;
    add("etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n")?;
    add("etc/group", 0o644, b"root:x:0:\nnogroup:x:65534:\n")?;
    for applet in APPLETS {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        header.set_mode(0o777);
        tar.append_link(&mut header, format!("bin/{applet}"), "busybox")?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// Applies the demo's manifests and waits until both Deployments are rolled out.
pub fn apply(cluster: &Cluster) -> anyhow::Result<()> {
    let step = Step::start("applying the demo (xtask/demo)");
    let directory = workspace::root().join("xtask/demo").display().to_string();
    command::output(&mut cluster.fairlead(&["apply", "-f", &directory]))?;
    for deployment in ["deployment/hello", "deployment/web"] {
        step.at(deployment);
        let waited = command::output(&mut cluster.fairlead(&["rollout", "status", deployment, "--timeout=120s"]));
        waited.with_context(|| {
            let pods = command::output(&mut cluster.fairlead(&["get", "pods", "-o", "wide"])).unwrap_or_default();
            format!("the demo's pods do not become ready:\n{pods}")
        })?;
    }
    step.done("two Deployments with Services");
    Ok(())
}
