//! Ranges of addresses, as fields of objects name them: `10.9.8.0/24`, `2001:db8::/64`.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use serde_json::Value;

use super::FieldError;

const NOT_A_RANGE: &str = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

/// Why a value is no range in its one canonical form, as fields of newer kinds must have it.
pub fn canonical(path: &str, value: &Value) -> Vec<FieldError> {
    let text = value.as_str().unwrap_or_default();
    let Some((ip, range)) = parse(text) else { return vec![FieldError::invalid(path, value, NOT_A_RANGE)] };
    let strict = text.split_once('/').is_some_and(|(address, prefix)| {
        address.parse::<IpAddr>().is_ok() && (prefix == "0" || !prefix.starts_with('0'))
    });
    let why = if !strict {
        "must not have leading 0s in IP or prefix length".to_owned()
    } else if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        "must not have an IPv4-mapped IPv6 address".to_owned()
    } else if ip != range.network() {
        "must not have bits set beyond the prefix length".to_owned()
    } else if text != range.to_string() {
        format!("must be in canonical form ({:?})", range.to_string())
    } else {
        return Vec::new();
    };
    vec![FieldError::invalid(path, value, why)]
}

/// Why a value is no range, where older clients may write it with leading zeros or with bits beyond its prefix.
pub fn lenient(path: &str, value: &Value) -> Result<IpNetwork, FieldError> {
    let found = parse(value.as_str().unwrap_or_default());
    found.map(|(_, range)| range).ok_or_else(|| FieldError::invalid(path, value, NOT_A_RANGE))
}

/// Whether `inner` lies in `outer` and is smaller.
pub fn is_strict_subset(inner: &IpNetwork, outer: &IpNetwork) -> bool {
    outer.contains(inner.network()) && inner.prefix() > outer.prefix()
}

/// The address as it was written, and its range. Leading zeros are taken as decimal.
pub fn parse(text: &str) -> Option<(IpAddr, IpNetwork)> {
    let (address, prefix) = text.split_once('/')?;
    let ip = address.parse::<IpAddr>().ok().or_else(|| decimal_octets(address))?;
    let digits = !prefix.is_empty() && prefix.bytes().all(|b| b.is_ascii_digit());
    let prefix: u8 = digits.then(|| prefix.parse().ok())??;
    let whole = IpNetwork::new(ip, prefix).ok()?;
    Some((ip, IpNetwork::new(whole.network(), prefix).ok()?))
}

/// `010.002.003.004` is 10.2.3.4.
fn decimal_octets(text: &str) -> Option<IpAddr> {
    let octets: Vec<u8> = text
        .split('.')
        .map(|octet| octet.bytes().all(|b| b.is_ascii_digit()).then(|| octet.parse().ok())?)
        .collect::<Option<_>>()?;
    let octets: [u8; 4] = octets.try_into().ok()?;
    Some(Ipv4Addr::from(octets).into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_range_has_one_canonical_form() {
        for text in ["10.9.8.0/24", "2001:db8::/64", "0.0.0.0/0"] {
            assert_eq!(canonical("p", &json!(text)), [], "{text}");
        }
        for (text, why) in [
            ("10.9.8.0", "must be a valid CIDR value"),
            ("10.9.8.0/33", "must be a valid CIDR value"),
            ("", "must be a valid CIDR value"),
            ("010.9.8.0/24", "must not have leading 0s"),
            ("10.9.8.0/024", "must not have leading 0s"),
            ("::ffff:10.9.8.0/120", "must not have an IPv4-mapped"),
            ("10.9.8.1/24", "must not have bits set beyond"),
            ("2001:DB8::/64", "must be in canonical form (\"2001:db8::/64\")"),
        ] {
            let errors = canonical("p", &json!(text));
            assert!(errors.len() == 1 && errors[0].message.contains(why), "{text}: {errors:?}");
        }
    }

    #[test]
    fn an_old_field_takes_sloppy_ranges() {
        let range = |text: &str| lenient("p", &json!(text)).unwrap();
        assert_eq!(range("010.009.008.001/024").to_string(), "10.9.8.0/24");
        assert!(is_strict_subset(&range("10.9.8.0/25"), &range("10.9.8.0/24")));
        assert!(!is_strict_subset(&range("10.9.8.0/24"), &range("10.9.8.0/24")));
        assert!(!is_strict_subset(&range("10.9.9.0/25"), &range("10.9.8.0/24")));
        assert!(!is_strict_subset(&range("2001:db8::/64"), &range("10.9.8.0/24")));
    }
}
