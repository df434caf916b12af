//! Runs the program `nft`, and says what went wrong. What is written is decided in [`super::masquerade`],
//! [`super::bypass`] and [`super::source_filter`].

use std::{collections::BTreeMap, io, process::Output};

use super::program::{self, ProgramError};

/// Why a table could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum NftError {
    /// Install the package nftables.
    #[error("the program nft is needed for pods to reach the outside: install the package nftables")]
    Missing(#[source] io::Error),
    /// The program is there, and could not be started.
    #[error("cannot run nft")]
    Run(#[source] io::Error),
    /// With nft's own words: mostly a kernel without a feature, or no CAP_NET_ADMIN.
    #[error("nft refused: {0}")]
    Refused(String),
}

/// Name of our tables: of families `ip` (masquerade), `netdev` (bypass), `inet` and `arp` (source filter).
pub const TABLE: &str = "fairlead";

/// Writes `script` in one transaction: all of it or nothing.
pub async fn apply(script: &str) -> Result<(), NftError> {
    run(&["-f", "-"], script).await.map(drop)
}

/// Whether the kernel has our table of `family`. Not an error on a kernel without the family.
pub async fn is_there(family: &str) -> Result<bool, NftError> {
    let listed = run(&["-j", "list", "tables"], "").await?;
    Ok(has_table(&String::from_utf8_lossy(&listed.stdout), family))
}

/// How many rules a chain has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// All.
    pub all: usize,
    /// That drop packets or have another chain look at them: one that only accepts takes the place of none.
    pub deciding: usize,
}

/// How many rules each chain of our table of `family` has; chains without rules are left out. None where there is no
/// table.
pub async fn rules(family: &str) -> Result<BTreeMap<String, RuleCount>, NftError> {
    match run(&["-j", "list", "table", family, TABLE], "").await {
        Ok(listed) => Ok(rules_by_chain(&String::from_utf8_lossy(&listed.stdout))),
        Err(NftError::Refused(_)) => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Takes our table of `family` away. Not an error where there is none.
pub async fn remove(family: &str) -> Result<(), NftError> {
    apply(&format!("table {family} {TABLE}\ndelete table {family} {TABLE}\n")).await
}

/// Whether somebody's table has this chain.
pub async fn has_chain(family: &str, table: &str, chain: &str) -> Result<bool, NftError> {
    match run(&["list", "chain", family, table, chain], "").await {
        Ok(_) => Ok(true),
        Err(NftError::Refused(_)) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Chains, of anybody, that drop forwarded packets unless a rule says otherwise, as `ip filter FORWARD`.
pub async fn dropping_chains() -> Result<Vec<String>, NftError> {
    let listed = run(&["-j", "list", "chains"], "").await?;
    Ok(dropping(&String::from_utf8_lossy(&listed.stdout)))
}

/// Whether our table of `family` is in nft's JSON. Pure.
fn has_table(json: &str, family: &str) -> bool {
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let tables = parsed["nftables"].as_array().into_iter().flatten().map(|item| &item["table"]);
    tables.into_iter().any(|table| table["family"] == family && table["name"] == TABLE)
}

/// The `forward` chains with policy drop in nft's JSON. Pure.
fn dropping(json: &str) -> Vec<String> {
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let chains = parsed["nftables"].as_array().into_iter().flatten().map(|item| &item["chain"]);
    let text = |chain: &serde_json::Value, field: &str| chain[field].as_str().unwrap_or_default().to_owned();
    chains
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| matches!(text(chain, "family").as_str(), "ip" | "inet"))
        .map(|chain| [text(chain, "family"), text(chain, "table"), text(chain, "name")].join(" "))
        .collect()
}

/// The rules of a table in nft's JSON, counted by chain. Pure.
fn rules_by_chain(json: &str) -> BTreeMap<String, RuleCount> {
    let parsed: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let rules = parsed["nftables"].as_array().into_iter().flatten().filter_map(|item| item.get("rule"));
    let counted = rules.map(|rule| {
        let verdict = rule["expr"].as_array().and_then(|parts| parts.last());
        let decides = verdict.is_some_and(|verdict| verdict.get("drop").is_some() || verdict.get("jump").is_some());
        (rule["chain"].as_str().unwrap_or_default(), decides)
    });
    count(counted)
}

/// How many rules each chain has of a table that is written as ours are, one rule a line: as [`rules`] counts them once
/// the kernel has it. Pure.
pub fn rules_of_script(script: &str) -> BTreeMap<String, RuleCount> {
    let (mut rules, mut chain) = (Vec::new(), None);
    for line in script.lines().map(str::trim) {
        if let Some(opened) = line.strip_suffix(" {") {
            chain = opened.strip_prefix("chain ");
        } else if line == "}" {
            chain = None;
        } else if let Some(chain) = chain.filter(|_| !line.starts_with("type ")) {
            rules.push((chain, line.ends_with(" drop") || line.split(' ').any(|word| word == "jump")));
        }
    }
    count(rules)
}

/// Counts rules by their chain, and whether they decide.
fn count<'a>(rules: impl IntoIterator<Item = (&'a str, bool)>) -> BTreeMap<String, RuleCount> {
    let mut by_chain: BTreeMap<String, RuleCount> = BTreeMap::new();
    for (chain, decides) in rules {
        let held = by_chain.entry(chain.to_owned()).or_default();
        held.all = held.all.saturating_add(1);
        held.deciding = held.deciding.saturating_add(usize::from(decides));
    }
    by_chain
}

async fn run(arguments: &[&str], input: &str) -> Result<Output, NftError> {
    program::run("nft", arguments, input).await.map_err(|error| match error {
        ProgramError::Run(source) if source.kind() == io::ErrorKind::NotFound => NftError::Missing(source),
        ProgramError::Run(source) => NftError::Run(source),
        ProgramError::Refused(message) => NftError::Refused(message),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_of_others_that_drop_what_is_forwarded_are_named() {
        let json = r#"{"nftables": [{"metainfo": {}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
            {"chain": {"family": "inet", "table": "fw", "name": "fwd", "hook": "forward", "policy": "accept"}},
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}}]}"#;
        assert_eq!(dropping(json), ["ip filter FORWARD"]);
        assert!(dropping("").is_empty());
    }

    #[test]
    fn a_table_is_found_by_its_family_and_name() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"table": {"family": "ip", "name": "fairlead", "handle": 1}},
            {"table": {"family": "netdev", "name": "filter", "handle": 2}}]}"#;
        assert!(has_table(json, "ip") && !has_table(json, "netdev") && !has_table("", "ip"));
    }

    #[test]
    fn rules_are_counted_by_chain_with_those_that_drop_or_jump() {
        let json = r#"{"nftables": [{"metainfo": {}}, {"chain": {"family": "inet", "table": "fairlead", "name": "pods"}},
            {"rule": {"chain": "prerouting", "expr": [{"match": {}}, {"jump": {"target": "pods"}}]}},
            {"rule": {"chain": "pods", "expr": [{"match": {}}, {"counter": {"packets": 1}}, {"drop": null}]}},
            {"rule": {"chain": "pods", "expr": [{"drop": null}]}},
            {"rule": {"chain": "pods", "expr": [{"accept": null}]}}]}"#;
        let counted = [("prerouting", RuleCount { all: 1, deciding: 1 }), ("pods", RuleCount { all: 3, deciding: 2 })];
        let counted: BTreeMap<_, _> = counted.map(|(chain, count)| (chain.to_owned(), count)).into();
        assert_eq!(rules_by_chain(json), counted);
        let script = "table inet fairlead {
  set nodes {
    type ipv4_addr
    elements = { 192.0.2.1 }
  }
  chain prerouting {
    type filter hook prerouting priority raw; policy accept;
    iifname @links jump pods
  }
  chain none {
  }
  chain pods {
    ip saddr 192.0.2.1 counter drop
    meta nfproto ipv6 drop
    accept
  }
}
";
        assert_eq!(rules_of_script(script), counted, "elements of sets are no rules");
        assert!(rules_by_chain("").is_empty());
    }
}
