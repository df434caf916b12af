//! The kernel's older firewall, which nft does not see: iptables-legacy writes it, and no event tells of a change.

use std::io;

use super::program::{self, ProgramError};

/// Why the older firewall could not be looked at.
#[derive(Debug, thiserror::Error)]
pub enum LegacyFirewallError {
    /// The list of its tables.
    #[error("cannot read {TABLES}")]
    Tables(#[source] io::Error),
    /// The program is there, and could not be started.
    #[error("cannot run {PROGRAM}")]
    Run(#[source] io::Error),
    /// With its own words.
    #[error("{PROGRAM} refused: {0}")]
    Refused(String),
}

/// Its chain for what is forwarded, as [`super::nft::dropping_chains`] would call it.
pub const FORWARD: &str = "iptables-legacy filter FORWARD";

/// Whether it has a filter table here.
pub async fn has_filter() -> Result<bool, LegacyFirewallError> {
    match tokio::fs::read_to_string(TABLES).await {
        Ok(tables) => Ok(tables.lines().any(|table| table == "filter")),
        // A kernel without it, or that did not need it yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(LegacyFirewallError::Tables(error)),
    }
}

/// Whether it drops forwarded packets unless a rule says otherwise. Asked only where there is something to ask, and
/// where the program is.
pub async fn drops_forwarded() -> Result<bool, LegacyFirewallError> {
    if !has_filter().await? {
        return Ok(false);
    }
    // Others hold its lock for a moment.
    match program::run(PROGRAM, &["-w", "5", "-S", "FORWARD"], "").await {
        Ok(listed) => Ok(listed.stdout.starts_with(b"-P FORWARD DROP")),
        Err(ProgramError::Run(error)) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(ProgramError::Run(error)) => Err(LegacyFirewallError::Run(error)),
        Err(ProgramError::Refused(message)) => Err(LegacyFirewallError::Refused(message)),
    }
}

const TABLES: &str = "/proc/thread-self/net/ip_tables_names";
const PROGRAM: &str = "iptables-legacy";
