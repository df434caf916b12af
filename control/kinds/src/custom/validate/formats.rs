//! The formats that Kubernetes checks in custom objects. Others say nothing.
//!
//! Source: `apiextensions-apiserver/pkg/apiserver/validation/formats.go` and `kube-openapi/pkg/validation/strfmt`.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use regex::Regex;

use crate::kinds::names;

/// Whether Kubernetes knows the format. Dashes do not count.
pub fn is_known(format: &str) -> bool {
    let name = format.replace('-', "");
    FORMATS.contains(&name.as_str())
}

const FORMATS: &[&str] = &[
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

/// Whether `text` is of the format. Every text is of an unknown one.
pub fn is(format: &str, text: &str) -> bool {
    match format.replace('-', "").as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.parse::<Ipv4Addr>().is_ok(),
        "ipv6" => text.parse::<Ipv6Addr>().is_ok(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => UUID.is_match(text),
        "uuid3" => UUID.is_match(text) && version_digit(text) == Some(b'3'),
        "uuid4" => UUID.is_match(text) && version_digit(text) == Some(b'4') && is_variant(text),
        "uuid5" => UUID.is_match(text) && version_digit(text) == Some(b'5') && is_variant(text),
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => SSN.is_match(text),
        "hexcolor" => HEX_COLOR.is_match(text),
        "rgbcolor" => RGB_COLOR.is_match(text),
        "byte" => BASE64_STANDARD.decode(text).is_ok(),
        "date" => text.len() == 10 && text.parse::<jiff::civil::Date>().is_ok(),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => names::label(text).is_empty(),
        "k8slongname" => names::subdomain(text).is_empty(),
        _ => true,
    }
}

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of this program")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| pattern("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$"));
static SSN: LazyLock<Regex> = LazyLock::new(|| pattern(r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$"));
static HEX_COLOR: LazyLock<Regex> = LazyLock::new(|| pattern("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"));
static RGB_COLOR: LazyLock<Regex> = LazyLock::new(|| {
    let number = "(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])";
    pattern(&format!(r"^rgb\(\s*{number}\s*,\s*{number}\s*,\s*{number}\s*\)$"))
});
static DURATION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"^[-+]?(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+$|^[-+]?0$"));
/// As Scala writes durations: `22 ns`, `1 day`.
static LONG_DURATION: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        "^-?[0-9]+ ?(ns|nanos?|nanoseconds?|us|µs|micros?|microseconds?|ms|millis?|milliseconds?|s|secs?|seconds?|\
         m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)$",
    )
});

fn is_duration(text: &str) -> bool {
    DURATION.is_match(text) || LONG_DURATION.is_match(&text.to_lowercase())
}

fn is_date_time(text: &str) -> bool {
    text.as_bytes().get(10).is_some_and(|b| matches!(b, b'T' | b't')) && text.parse::<jiff::Timestamp>().is_ok()
}

/// An absolute URI or an absolute path, as Go's `url.ParseRequestURI` reads it.
fn is_uri(text: &str) -> bool {
    if text.bytes().any(|b| b < 0x20 || b == 0x7f || b == b' ') || text.is_empty() {
        return false;
    }
    let has_scheme = text.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
    });
    has_scheme || text.starts_with('/')
}

fn is_email(text: &str) -> bool {
    let address = text.rsplit_once('<').and_then(|(_, rest)| rest.strip_suffix('>')).unwrap_or(text);
    address.rsplit_once('@').is_some_and(|(local, domain)| {
        !local.is_empty() && !domain.is_empty() && !address.contains([' ', ',', '<', '>']) && !domain.contains('@')
    })
}

fn is_hostname(text: &str) -> bool {
    let label = |label: &str| {
        let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b >= 0x80;
        (1..=63).contains(&label.len()) && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    text.len() <= 255 && text.strip_suffix('.').unwrap_or(text).split('.').all(label)
}

fn is_cidr(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, length)| {
        let most = match address.parse() {
            Ok(IpAddr::V4(_)) => 32,
            Ok(IpAddr::V6(_)) => 128,
            Err(_) => return false,
        };
        length.bytes().all(|b| b.is_ascii_digit()) && length.parse::<u8>().is_ok_and(|length| length <= most)
    })
}

/// 6, 8 or 20 bytes, with colons or dashes between bytes, or dots between pairs.
fn is_mac(text: &str) -> bool {
    let groups = |separator: char, digits: usize| {
        let mut count = 0;
        let fits = text.split(separator).all(|group| {
            count += 1;
            group.len() == digits && group.bytes().all(|b| b.is_ascii_hexdigit())
        });
        fits.then_some(count * digits / 2)
    };
    [groups(':', 2), groups('-', 2), groups('.', 4)].into_iter().flatten().any(|bytes| matches!(bytes, 6 | 8 | 20))
}

fn version_digit(uuid: &str) -> Option<u8> {
    uuid.bytes().filter(|b| *b != b'-').nth(12)
}

fn is_variant(uuid: &str) -> bool {
    uuid.bytes().filter(|b| *b != b'-').nth(16).is_some_and(|b| b"89abAB".contains(&b))
}

/// The text without dashes and blanks.
fn bare(text: &str) -> Vec<u8> {
    text.bytes().filter(|b| !matches!(b, b'-' | b' ')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = bare(text);
    let value = |at: usize, b: u8| match b {
        b'0'..=b'9' => Some(u32::from(b - b'0')),
        b'X' if at == 9 => Some(10),
        _ => None,
    };
    let weighted = digits.iter().enumerate().map(|(at, b)| Some(value(at, *b)? * (at as u32 + 1)));
    digits.len() == 10 && weighted.sum::<Option<u32>>().is_some_and(|sum| sum % 11 == 0)
}

fn is_isbn13(text: &str) -> bool {
    let digits = bare(text);
    let weighted = digits
        .iter()
        .enumerate()
        .map(|(at, b)| b.is_ascii_digit().then(|| u32::from(b - b'0') * if at % 2 == 0 { 1 } else { 3 }));
    digits.len() == 13 && weighted.sum::<Option<u32>>().is_some_and(|sum| sum % 10 == 0)
}

/// A number of a known issuer whose check digit is right (Luhn).
fn is_credit_card(text: &str) -> bool {
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(10)).collect();
    let luhn: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| if at % 2 == 1 { (digit * 2) / 10 + (digit * 2) % 10 } else { *digit })
        .sum();
    (13..=16).contains(&digits.len()) && matches!(digits.first(), Some(1..=6)) && luhn.is_multiple_of(10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_tell_texts_apart() {
        let cases = [
            ("ipv4", "10.0.0.1", "10.0.0"),
            ("ipv6", "fe80::1", "10.0.0.1"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "01:02:03:04:05:06", "01:02"),
            ("uuid", "123e4567-e89b-12d3-a456-426614174000", "123e"),
            ("uuid4", "123e4567-e89b-42d3-a456-426614174000", "123e4567-e89b-12d3-a456-426614174000"),
            ("email", "a@b.c", "ab"),
            ("hostname", "a.example", "-a"),
            ("uri", "https://a/b", "a b"),
            ("byte", "aGk=", "aGk"),
            ("date", "2024-02-29", "2023-02-29"),
            ("date-time", "2024-02-29T10:00:00Z", "2024-02-29"),
            ("duration", "1h30m", "1x"),
            ("duration", "3 days", "three"),
            ("hexcolor", "#fff", "#ff"),
            ("rgbcolor", "rgb(1, 2, 3)", "rgb(1,2)"),
            ("isbn10", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-11-1111", "111"),
            ("k8s-short-name", "a-b", "A"),
            ("k8s-long-name", "a.b", "a..b"),
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
        ];
        for (format, good, bad) in cases {
            assert!(is_known(format) && is(format, good) && !is(format, bad), "{format}");
        }
        assert!(!is_known("int32") && is("int32", "anything"));
    }
}
