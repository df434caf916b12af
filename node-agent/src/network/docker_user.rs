//! Rules in `DOCKER-USER` that let pods reach the outside: Docker's firewall drops forwarded packets that are not its
//! own containers'.
//!
//! Docker keeps the chain `DOCKER-USER` for the rules of others, and looks there first. Where the chain that drops is
//! Docker's, two rules of our own stand in `DOCKER-USER`, after those of the host's administrator: what those drop
//! stays dropped. Nothing else is touched, and without Docker's chain nothing is written.

use std::{io, process::Output};

use ipnetwork::Ipv4Network;

use super::{
    legacy_firewall::{self, LegacyFirewallError},
    nft,
    program::{self, ProgramError},
};

/// Which of the kernel's two firewalls; iptables has a set of programs for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Firewall {
    /// iptables on nftables.
    Nft,
    /// The kernel's older firewall.
    Legacy,
}

/// Why rules in Docker's chain could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum DockerUserError {
    /// The program could not be started.
    #[error("cannot run {program}")]
    Run { program: &'static str, source: io::Error },
    /// The program ended with an error.
    #[error("{program} refused: {message}")]
    Refused { program: &'static str, message: String },
    /// The chains could not be listed.
    #[error("cannot look for Docker's chain")]
    Look(#[from] nft::NftError),
    /// The same, of the kernel's older firewall.
    #[error("cannot look for Docker's chain in the older firewall")]
    LookLegacy(#[from] LegacyFirewallError),
}

/// How long another program may hold the lock of iptables.
const LOCK_SECONDS: &str = "5";

impl Firewall {
    /// The firewall whose chain this is, where Docker may be the one who makes it drop. Names are those of
    /// [`nft::dropping_chains`] and [`legacy_firewall::FORWARD`].
    pub fn of_chain(name: &str) -> Option<Self> {
        match name {
            "ip filter FORWARD" => Some(Self::Nft),
            legacy_firewall::FORWARD => Some(Self::Legacy),
            _ => None,
        }
    }

    fn iptables(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft",
            Self::Legacy => "iptables-legacy",
        }
    }

    fn restore(self) -> &'static str {
        match self {
            Self::Nft => "iptables-nft-restore",
            Self::Legacy => "iptables-legacy-restore",
        }
    }

    /// Checked first, since iptables creates a table that it is asked to list.
    async fn has_docker_user(self) -> Result<bool, DockerUserError> {
        Ok(match self {
            Self::Nft => nft::has_chain("ip", "filter", CHAIN).await?,
            Self::Legacy => legacy_firewall::has_filter().await?,
        })
    }

    /// The rules of the filter table; `None` without Docker's chain, or the program to see it.
    async fn rules(self) -> Result<Option<String>, DockerUserError> {
        if !self.has_docker_user().await? {
            return Ok(None);
        }
        let listed = run(self.iptables(), &["-w", LOCK_SECONDS, "-S"], "").await;
        match listed {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned())),
            Err(DockerUserError::Run { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn write(self, script: &str) -> Result<(), DockerUserError> {
        run(self.restore(), &["-w", LOCK_SECONDS, "--noflush"], script).await.map(drop)
    }
}

/// Lets packets of `pod_cidr` pass by rules in Docker's chain. `false` where that chain does not exist or is not asked.
pub async fn allow(firewall: Firewall, pod_cidr: Ipv4Network) -> Result<bool, DockerUserError> {
    let Some(rules) = firewall.rules().await? else { return Ok(false) };
    match rule_plan(&rules, pod_cidr) {
        RulePlan::NotDocker => Ok(false),
        RulePlan::Allowed => Ok(true),
        RulePlan::Write(script) => {
            firewall.write(&script).await?;
            tracing::info!(pods = %pod_cidr, "pods reach the outside by rules in Docker's chain {CHAIN}");
            Ok(true)
        }
    }
}

/// Takes our rules away, wherever they are.
pub async fn remove() -> Result<(), DockerUserError> {
    for firewall in [Firewall::Nft, Firewall::Legacy] {
        if let Some(script) = firewall.rules().await?.and_then(|rules| removal(&rules)) {
            firewall.write(&script).await?;
        }
    }
    Ok(())
}

/// What must be written so that packets of pods pass.
#[derive(Debug, PartialEq, Eq)]
enum RulePlan {
    /// The chain that drops is not Docker's, or does not jump to `DOCKER-USER`.
    NotDocker,
    /// Both rules are in place.
    Allowed,
    /// For iptables-restore: one transaction.
    Write(String),
}

/// Pure: `rules` is what `iptables -S` says. Ours stand before the unconditional RETURN that ends the chain, after all
/// else.
fn rule_plan(rules: &str, pod_cidr: Ipv4Network) -> RulePlan {
    let asked = rules.lines().any(|rule| rule.starts_with("-A FORWARD ") && rule.ends_with(&format!("-j {CHAIN}")));
    if !asked || !rules.lines().any(|rule| rule == format!("-N {CHAIN}")) {
        return RulePlan::NotDocker;
    }
    let chain: Vec<&str> = in_chain(rules).collect();
    let end = format!("-A {CHAIN} -j RETURN");
    let reached = chain.iter().take_while(|rule| **rule != end).filter(|rule| is_ours(rule));
    let directions = ["-s", "-d"].map(|direction| format!(" {direction} {pod_cidr} "));
    let held: Vec<_> = reached.collect();
    let complete = directions.iter().all(|direction| held.iter().any(|rule| rule.contains(direction)));
    if complete && chain.iter().filter(|rule| is_ours(rule)).count() == directions.len() {
        return RulePlan::Allowed;
    }
    let others_before = chain.iter().filter(|rule| !is_ours(rule)).take_while(|rule| **rule != end).count();
    let mut script = deletions(rules);
    for (place, direction) in (others_before + 1..).zip(directions) {
        script.push(format!("-I {CHAIN} {place}{direction}-m comment --comment \"{COMMENT}\" -j ACCEPT"));
    }
    RulePlan::Write(transaction(script))
}

/// Pure: the transaction that takes our rules away; `None` where there are none.
fn removal(rules: &str) -> Option<String> {
    let deletions = deletions(rules);
    (!deletions.is_empty()).then(|| transaction(deletions))
}

fn deletions(rules: &str) -> Vec<String> {
    in_chain(rules).filter(|rule| is_ours(rule)).map(|rule| rule.replacen("-A", "-D", 1)).collect()
}

fn in_chain(rules: &str) -> impl Iterator<Item = &str> {
    rules.lines().filter(|rule| rule.starts_with(&format!("-A {CHAIN} ")))
}

fn is_ours(rule: &str) -> bool {
    rule.contains(&format!("--comment \"{COMMENT}\""))
}

fn transaction(commands: Vec<String>) -> String {
    format!("*filter\n{}\nCOMMIT\n", commands.join("\n"))
}

const CHAIN: &str = "DOCKER-USER";

/// By which our rules are known.
const COMMENT: &str = "fairlead: pods of this node";

async fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<Output, DockerUserError> {
    program::run(program, arguments, input).await.map_err(|error| match error {
        ProgramError::Run(source) => DockerUserError::Run { program, source },
        ProgramError::Refused(message) => DockerUserError::Refused { program, message },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCKER: &str = "-P FORWARD DROP\n-N DOCKER\n-N DOCKER-USER\n-A FORWARD -j DOCKER-USER\n";
    const OURS: [&str; 2] = [
        r#"-A DOCKER-USER -s 10.244.1.0/24 -m comment --comment "fairlead: pods of this node" -j ACCEPT"#,
        r#"-A DOCKER-USER -d 10.244.1.0/24 -m comment --comment "fairlead: pods of this node" -j ACCEPT"#,
    ];
    const THEIRS: &str = "-A DOCKER-USER -s 203.0.113.0/24 -j DROP";
    const END: &str = "-A DOCKER-USER -j RETURN";

    fn on(rules: &[&str]) -> RulePlan {
        rule_plan(&format!("{DOCKER}{}\n", rules.join("\n")), "10.244.1.0/24".parse().unwrap())
    }

    fn lines(opening: RulePlan) -> Vec<String> {
        let RulePlan::Write(script) = opening else { panic!("nothing is written: {opening:?}") };
        let lines: Vec<String> = script.lines().map(str::to_owned).collect();
        let (first, last) = (lines.first().unwrap(), lines.last().unwrap());
        assert_eq!((&**first, &**last), ("*filter", "COMMIT"));
        lines[1..lines.len() - 1].to_vec()
    }

    #[test]
    fn our_rules_come_after_the_administrators_and_before_the_return() {
        let inserted = |at: usize| {
            [0, 1].map(|n| OURS[n].replacen("-A DOCKER-USER", &format!("-I DOCKER-USER {}", at + n), 1)).to_vec()
        };
        assert_eq!(lines(on(&[THEIRS, END])), inserted(2));
        assert_eq!(lines(on(&[THEIRS])), inserted(2), "Docker writes no RETURN any more");
        assert_eq!(lines(on(&[])), inserted(1));
    }

    #[test]
    fn nothing_is_written_where_they_stand_or_where_docker_does_not_drop() {
        assert_eq!(on(&[THEIRS, OURS[0], OURS[1], END]), RulePlan::Allowed);
        let cidr = "10.244.1.0/24".parse().unwrap();
        assert_eq!(rule_plan("-P FORWARD DROP\n", cidr), RulePlan::NotDocker);
        assert_eq!(rule_plan("-P FORWARD DROP\n-N DOCKER-USER\n", cidr), RulePlan::NotDocker, "nobody asks the chain");
    }

    #[test]
    fn rules_out_of_reach_half_there_or_of_an_earlier_subnet_are_replaced() {
        let other = OURS[0].replace("10.244.1", "10.244.7");
        for wrong in [vec![END, OURS[0], OURS[1]], vec![OURS[0], END], vec![OURS[0], OURS[1], &other, END]] {
            let written = lines(on(&wrong));
            let deleted = written.iter().filter(|line| line.starts_with("-D DOCKER-USER ")).count();
            assert_eq!(deleted, wrong.len() - 1, "{written:?}");
            assert_eq!(written.len(), deleted + 2, "{written:?}");
        }
    }

    #[test]
    fn removal_deletes_ours_alone() {
        let rules = [DOCKER, THEIRS, OURS[0], END].join("\n");
        let expected = format!("*filter\n{}\nCOMMIT\n", OURS[0].replacen("-A", "-D", 1));
        assert_eq!(removal(&rules), Some(expected));
        assert_eq!(removal(DOCKER), None);
    }
}
