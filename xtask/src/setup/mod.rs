//! `cargo xtask setup`: installs what building, running and testing need and this machine lacks, and nothing else.

mod apt;
mod bpf_toolchain;
mod needs;
mod services;

use crate::progress::Step;

/// Install what is missing to build, run and test fairlead (Debian)
#[derive(Debug, clap::Args)]
pub struct Setup {
    /// Only say what is missing
    #[arg(long)]
    check: bool,
}

/// What the machine is set up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Building and running.
    Run,
    /// The same, and the tests.
    Test,
    /// The same as for the tests, and Kubernetes' own suite.
    Conformance,
}

impl Setup {
    /// Runs the task to its end.
    pub fn run(self) -> anyhow::Result<()> {
        if self.check {
            let missing = needs::missing(Purpose::Test);
            if missing.is_empty() {
                println!("nothing is missing");
            }
            for need in missing {
                println!("missing: {} ({}): {}", need.what, need.why, need.packages.join(" "));
            }
            return Ok(());
        }
        setup(Purpose::Test)
    }
}

/// Installs what is missing for `purpose`. Asks nothing of the network where nothing is missing.
pub fn setup(purpose: Purpose) -> anyhow::Result<()> {
    let missing = needs::missing(purpose);
    let linker = bpf_toolchain::linker_is_missing();
    if missing.is_empty() && !linker {
        eprintln!("✓ all that is needed is installed");
        return Ok(());
    }
    for need in &missing {
        eprintln!("  {} is missing ({}): installing {}", need.what, need.why, need.packages.join(", "));
    }
    let mut packages: Vec<&str> = missing.iter().flat_map(|need| need.packages).copied().collect();
    if linker {
        eprintln!("  bpf-linker is missing (links the BPF programs): building it with cargo");
        packages.extend(bpf_toolchain::packages_for_linker());
    }
    packages.sort_unstable();
    packages.dedup();
    if !packages.is_empty() {
        let step = Step::start("installing Debian packages");
        apt::install(&step, &packages)?;
        step.done(&packages.join(" "));
    }
    if linker {
        let step = Step::start("building bpf-linker");
        bpf_toolchain::install_linker(&step)?;
        step.done("");
    }
    let still = needs::missing(purpose);
    anyhow::ensure!(
        still.is_empty(),
        "still missing after the installation: {}",
        still.iter().map(|need| need.what).collect::<Vec<_>>().join(", ")
    );
    Ok(())
}
