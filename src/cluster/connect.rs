//! Decides which cluster a client verb talks to, and with which credentials. Reads kubeconfigs; never writes one.

use std::path::{Path, PathBuf};

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

use super::{Cluster, path::check_name};
use crate::hint::ErrorWithHint;

/// Flags that every client verb has.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ConnectArgs {
    /// Kubeconfig to use [default: $KUBECONFIG, then DATA_DIR/admin.kubeconfig, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig to use
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace to work in [default: that of the context, else `default`]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Where a cluster on this machine keeps its state
    #[arg(long, value_name = "DIR", env = "FAIRLEAD_DATA_DIR", default_value = super::DEFAULT_DATA_DIR)]
    pub data_dir: PathBuf,
}

/// Opens the cluster the flags and the environment name.
pub async fn connect(args: &ConnectArgs) -> anyhow::Result<Cluster> {
    let (kubeconfig, source) = load(args)?;
    let options = KubeConfigOptions { context: args.context.clone(), ..Default::default() };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("kubeconfig {source}"))?;
    let namespace = args.namespace.clone().filter(|namespace| !namespace.is_empty());
    if let Some(namespace) = &namespace {
        check_name(namespace).with_context(|| format!("invalid namespace {namespace:?}"))?;
    }
    Cluster::new(config, namespace).with_context(|| format!("kubeconfig {source}"))
}

fn load(args: &ConnectArgs) -> anyhow::Result<(Kubeconfig, String)> {
    if let Some(path) = &args.kubeconfig {
        return Ok((read(path)?, path.display().to_string()));
    }
    if std::env::var_os("KUBECONFIG").is_some_and(|value| !value.is_empty()) {
        let merged = Kubeconfig::from_env().context("cannot read the files that KUBECONFIG names")?;
        return merged.map(|config| (config, "of $KUBECONFIG".into())).ok_or_else(|| {
            ErrorWithHint::new("KUBECONFIG names no file that exists", "unset KUBECONFIG, or point it to a kubeconfig")
                .into()
        });
    }
    let admin = args.data_dir.join("admin.kubeconfig");
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    for path in [Some(admin.clone()), home].into_iter().flatten() {
        match std::fs::metadata(&path) {
            Ok(_) => return Ok((read(&path)?, path.display().to_string())),
            // Only root may look into the data directory; other users have a kubeconfig of their own, or none.
            Err(_) => continue,
        }
    }
    Err(ErrorWithHint::new(
        format!("no cluster is configured: no --kubeconfig, no KUBECONFIG, no {}, no ~/.kube/config", admin.display()),
        "start a cluster on this machine with `fairlead up` (as root), or name a kubeconfig with --kubeconfig FILE",
    )
    .into())
}

fn read(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("cannot read the kubeconfig {}", path.display()))
}
