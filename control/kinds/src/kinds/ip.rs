//! IP addresses in fields that are as old as Kubernetes: leading zeros are taken there, as Go once took them.

use std::net::IpAddr;

use serde_json::Value;

use super::FieldError;

/// Why a text is no address.
pub const NOT_AN_ADDRESS: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";

/// Reads an address, in decimal whatever zeros it starts with.
pub fn parse(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let decimal = |part: &str| {
        let digits = part.trim_start_matches('0');
        if digits.is_empty() && !part.is_empty() { "0".to_owned() } else { digits.to_owned() }
    };
    text.split('.').map(decimal).collect::<Vec<_>>().join(".").parse().ok()
}

/// Why a field has no address.
pub fn validate(path: impl Into<String>, value: &Value) -> Option<FieldError> {
    let valid = value.as_str().and_then(parse).is_some();
    (!valid).then(|| FieldError::invalid(path, value, NOT_AN_ADDRESS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zeros_do_not_make_octal_numbers() {
        assert_eq!(parse("010.0.0.001"), "10.0.0.1".parse().ok());
        assert_eq!(parse("::1"), "::1".parse().ok());
        for bad in ["", "1.2.3", "1.2.3.4.5", "1..2.3", "256.0.0.1", "a.b.c.d", "1.2.3.-4"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
