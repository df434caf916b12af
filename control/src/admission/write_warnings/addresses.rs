//! Addresses and ranges in a form that is to go: with leading zeros, IPv4 in IPv6, or not canonical.

use std::net::IpAddr;

use ipnetwork::IpNetwork;

use crate::kinds::{cidr, ip};

/// Of an address; nothing of what is none.
pub fn ip(path: &str, text: &str) -> Option<String> {
    let found = ip::parse(text)?;
    if text.parse::<IpAddr>().is_err() || is_mapped(found) {
        return Some(format!(
            "{path}: non-standard IP address {text:?} will be considered invalid in a future Kubernetes release: use \
            \"{}\"",
            found.to_canonical()
        ));
    }
    (found.is_ipv6() && found.to_string() != text)
        .then(|| format!("{path}: IPv6 address {text:?} should be in RFC 5952 canonical format (\"{found}\")"))
}

/// Of a range; nothing of what is none.
pub fn cidr(path: &str, text: &str) -> Vec<String> {
    let Some((address, range)) = cidr::parse(text) else { return Vec::new() };
    let network = masked(range);
    let mut warnings = Vec::new();
    if address != range.network() {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        warnings.push(format!(
            "{path}: CIDR value {text:?} is ambiguous in this context (should be \"{network}\" or \"{address}/{bits}\"?)"
        ));
    }
    let strict = text.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<IpAddr>().is_ok() && (prefix == "0" || !prefix.starts_with('0'))
    });
    if !strict || is_mapped(address) {
        warnings.push(format!(
            "{path}: non-standard CIDR value {text:?} will be considered invalid in a future Kubernetes release: use \
            \"{network}\""
        ));
    }
    if warnings.is_empty() && address.is_ipv6() && network != text {
        warnings
            .push(format!("{path}: IPv6 CIDR value {text:?} should be in RFC 5952 canonical format (\"{network}\")"));
    }
    warnings
}

fn masked(range: IpNetwork) -> String {
    format!("{}/{}", range.network(), range.prefix())
}

fn is_mapped(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.to_ipv4_mapped().is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_canonical() {
        assert_eq!(ip("p", "10.0.0.1"), None);
        assert_eq!(ip("p", "fd00::1"), None);
        assert_eq!(ip("p", "no address"), None);
        let old = "will be considered invalid in a future Kubernetes release: use";
        assert_eq!(ip("p", "010.0.0.1"), Some(format!("p: non-standard IP address \"010.0.0.1\" {old} \"10.0.0.1\"")));
        assert_eq!(
            ip("p", "::ffff:1.2.3.4"),
            Some(format!("p: non-standard IP address \"::ffff:1.2.3.4\" {old} \"1.2.3.4\""))
        );
        assert_eq!(
            ip("p", "FD00::01").as_deref(),
            Some("p: IPv6 address \"FD00::01\" should be in RFC 5952 canonical format (\"fd00::1\")")
        );
    }

    #[test]
    fn ranges_are_canonical() {
        assert!(cidr("p", "10.0.0.0/8").is_empty() && cidr("p", "fd00::/64").is_empty() && cidr("p", "x").is_empty());
        assert_eq!(
            cidr("p", "10.1.2.3/8"),
            [
                "p: CIDR value \"10.1.2.3/8\" is ambiguous in this context (should be \"10.0.0.0/8\" or \"10.1.2.3/32\"?)"
            ]
        );
        assert_eq!(
            cidr("p", "010.0.0.0/8"),
            ["p: non-standard CIDR value \"010.0.0.0/8\" will be considered invalid in a future Kubernetes release: \
                use \"10.0.0.0/8\""]
        );
        assert_eq!(
            cidr("p", "fd00:0::/64"),
            ["p: IPv6 CIDR value \"fd00:0::/64\" should be in RFC 5952 canonical format (\"fd00::/64\")"]
        );
    }
}
