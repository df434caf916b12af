//! Addresses and networks: `ip("10.0.0.1")`, `cidr("10.0.0.0/8")`.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cel::{
    eval::{Answer, EvalError, Run, traversal},
    value::{Opaque, Value},
};

/// Why a text is no address and no network.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It is no address.
    #[error("IP Address {0:?} parse error during conversion from string: unable to parse IP")]
    NoAddress(String),
    /// An address of IPv4 that is written as IPv6.
    #[error("IPv4-mapped IPv6 address {0:?} is not allowed")]
    Mapped(String),
    /// It is no network.
    #[error("network address parse error during conversion from string: {0:?} is no CIDR")]
    NoNetwork(String),
}

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    use Opaque::{Cidr, Ip};
    let read =
        |run: &mut Run<'_, 'v>, text: &str, answer: Answer<'v>| run.charge(traversal(text.len() as u64)).and(answer);
    let answer = match (name, values) {
        ("ip", [Value::String(text)]) => {
            let found = address(text).map(|found| Value::Opaque(Ip(found)));
            return Some(read(run, text, found.map_err(EvalError::from)));
        }
        ("isIP", [Value::String(text)]) => return Some(read(run, text, Ok(Value::Bool(address(text).is_ok())))),
        ("ip.isCanonical", [Value::String(text)]) => {
            let is = address(text).map(|found| Value::Bool(found.to_string() == **text)).map_err(EvalError::from);
            return Some(run.charge(traversal(text.len() as u64 * 2)).and(is));
        }
        ("cidr", [Value::String(text)]) => {
            let found = network(text).map(|(found, length)| Value::Opaque(Cidr(found, length)));
            return Some(read(run, text, found.map_err(EvalError::from)));
        }
        ("isCIDR", [Value::String(text)]) => return Some(read(run, text, Ok(Value::Bool(network(text).is_ok())))),
        ("family", [Value::Opaque(Ip(found))]) => Ok(Value::Int(if found.is_ipv4() { 4 } else { 6 })),
        ("isUnspecified", [Value::Opaque(Ip(found))]) => Ok(Value::Bool(found.is_unspecified())),
        ("isLoopback", [Value::Opaque(Ip(found))]) => Ok(Value::Bool(found.is_loopback())),
        ("isLinkLocalMulticast", [Value::Opaque(Ip(found))]) => Ok(Value::Bool(match found {
            IpAddr::V4(found) => found.octets()[..3] == [224, 0, 0],
            IpAddr::V6(found) => found.segments()[0] & 0xff0f == 0xff02,
        })),
        ("isLinkLocalUnicast", [Value::Opaque(Ip(found))]) => Ok(Value::Bool(is_link_local(found))),
        ("isGlobalUnicast", [Value::Opaque(Ip(found))]) => {
            let broadcast = *found == IpAddr::V4(Ipv4Addr::BROADCAST);
            let other = found.is_unspecified() || found.is_loopback() || found.is_multicast() || is_link_local(found);
            Ok(Value::Bool(!other && !broadcast))
        }
        ("ip", [Value::Opaque(Cidr(found, _))]) => Ok(Value::Opaque(Ip(*found))),
        ("prefixLength", [Value::Opaque(Cidr(_, length))]) => Ok(Value::Int(i64::from(*length))),
        ("masked", [Value::Opaque(Cidr(found, length))]) => Ok(Value::Opaque(Cidr(masked(*found, *length), *length))),
        ("containsIP" | "containsCIDR", [Value::Opaque(Cidr(found, length)), other]) => {
            return Some(contains(run, name, (*found, *length), other));
        }
        _ => return None,
    };
    Some(run.charge(1).and(answer))
}

fn contains<'v>(run: &mut Run<'_, 'v>, name: &str, outer: (IpAddr, u8), other: &Value<'v>) -> Answer<'v> {
    run.charge(if name == "containsIP" { 1 } else { 2 })?;
    let (inner, length) = match (name, other) {
        ("containsIP", Value::String(text)) => {
            run.charge(traversal(text.len() as u64))?;
            let found = address(text)?;
            (found, width(found))
        }
        ("containsIP", Value::Opaque(Opaque::Ip(found))) => (*found, width(*found)),
        ("containsCIDR", Value::String(text)) => {
            run.charge(traversal(text.len() as u64))?;
            network(text)?
        }
        ("containsCIDR", Value::Opaque(Opaque::Cidr(found, length))) => (*found, *length),
        _ => return Err(EvalError::NoOverload),
    };
    let same_family = outer.0.is_ipv4() == inner.is_ipv4();
    Ok(Value::Bool(same_family && outer.1 <= length && masked(inner, outer.1) == masked(outer.0, outer.1)))
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn is_link_local(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xffc0 == 0xfe80,
    }
}

/// An address without zone; one of IPv4 written as IPv6 is none.
fn address(text: &str) -> Result<IpAddr, AddressError> {
    match text.parse().map_err(|_| AddressError::NoAddress(text.to_owned()))? {
        IpAddr::V6(six) if six.to_ipv4_mapped().is_some() => Err(AddressError::Mapped(text.to_owned())),
        other => Ok(other),
    }
}

fn network(text: &str) -> Result<(IpAddr, u8), AddressError> {
    let wrong = || AddressError::NoNetwork(text.to_owned());
    let (found, length) = text.split_once('/').ok_or_else(wrong)?;
    let found = address(found).map_err(|_| wrong())?;
    let digits = length.bytes().all(|b| b.is_ascii_digit()) && (length == "0" || !length.starts_with('0'));
    let length = length.parse::<u8>().ok().filter(|length| digits && *length <= width(found));
    Ok((found, length.ok_or_else(wrong)?))
}

fn masked(address: IpAddr, length: u8) -> IpAddr {
    match address {
        IpAddr::V4(found) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(length.min(32))).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(found.to_bits() & mask))
        }
        IpAddr::V6(found) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(length.min(128))).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(found.to_bits() & mask))
        }
    }
}
