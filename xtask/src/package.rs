//! `cargo xtask package`: a tarball with the binary, its unit, the licence and the README.

use std::{
    fs::File,
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use crate::{
    build, command,
    setup::{Purpose, setup},
    workspace,
};

/// Build a tarball with the binary and the systemd unit
#[derive(Debug, clap::Args)]
pub struct Package {}

impl Package {
    pub fn run(self) -> anyhow::Result<()> {
        setup(Purpose::Run)?;
        build::release()?;
        let name = format!("fairlead-{}-{}", env!("CARGO_PKG_VERSION"), std::env::consts::ARCH);
        let directory = workspace::target_dir().join("package");
        std::fs::create_dir_all(&directory)?;
        let path = directory.join(format!("{name}.tar.gz"));
        let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut gzip =
            Command::new("gzip").arg("-9n").stdin(Stdio::piped()).stdout(file).spawn().context("cannot run gzip")?;
        let input = gzip.stdin.take().context("gzip takes no input")?;
        write_tar(input, &name)?;
        ensure!(gzip.wait()?.success(), "gzip failed");
        println!("{}", path.display());
        Ok(())
    }
}

/// Equal sources give equal bytes: owners, times and order are fixed.
fn write_tar(output: impl Write, name: &str) -> anyhow::Result<()> {
    let binary = std::fs::read(workspace::release_binary()).context("cannot read the built binary")?;
    let unit = command::output(Command::new(workspace::release_binary()).args(["node", "install", "--print"]))?;
    let mut tar = tar::Builder::new(output);
    let mut add = |path: &str, mode: u32, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(mode);
        header.set_mtime(0);
        tar.append_data(&mut header, format!("{name}/{path}"), content)
    };
    add("fairlead", 0o755, &binary)?;
    add("fairlead-node.service", 0o644, unit.as_bytes())?;
    for file in ["README.md", "LICENSE"] {
        if let Ok(text) = std::fs::read(workspace::root().join(file)) {
            add(file, 0o644, &text)?;
        }
    }
    tar.into_inner()?.flush()?;
    Ok(())
}
