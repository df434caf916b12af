//! Semantic versions (semver.org): `semver("1.2.3-rc.1")`.

use std::{cmp::Ordering, rc::Rc};

use crate::cel::{
    eval::{Answer, Run, failure, traversal},
    value::{Opaque, Value},
};

/// A version. Build metadata does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Semver {
    numbers: [u64; 3],
    /// `rc`, `1`; empty for a release.
    pre: Vec<String>,
}

impl Semver {
    fn parse(text: &str) -> Option<Self> {
        let text = text.split_once('+').map_or(Some(text), |(text, build)| are_identifiers(build).then_some(text))?;
        let (core, pre) = text.split_once('-').map_or((text, None), |(core, pre)| (core, Some(pre)));
        let mut parts = core.split('.').map(number);
        let numbers = [parts.next()??, parts.next()??, parts.next()??];
        let pre: Vec<String> = pre.map(|pre| pre.split('.').map(str::to_owned).collect()).unwrap_or_default();
        let leading = |one: &String| one.len() > 1 && one.starts_with('0') && one.bytes().all(|b| b.is_ascii_digit());
        let fits = parts.next().is_none() && pre.iter().all(|one| are_identifiers(one) && !leading(one));
        fits.then_some(Self { numbers, pre })
    }

    /// Reads `v1.2` and `01.2.3`, too.
    fn normalized(text: &str) -> Option<Self> {
        let text = text.trim().trim_start_matches('v');
        let end = text.find(['-', '+']).unwrap_or(text.len());
        let trimmed = |part: &str| match part.trim_start_matches('0') {
            "" => "0".to_owned(),
            rest => rest.to_owned(),
        };
        let mut parts: Vec<String> = text[..end].split('.').map(trimmed).collect();
        while parts.len() < 3 && end == text.len() {
            parts.push("0".to_owned());
        }
        Self::parse(&format!("{}{}", parts.join("."), &text[end..]))
    }

    fn compare(&self, other: &Self) -> Ordering {
        let pre = match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                let pairs = self.pre.iter().zip(&other.pre).map(|(a, b)| match (number(a), number(b)) {
                    (Some(a), Some(b)) => a.cmp(&b),
                    (Some(_), None) => Ordering::Less,
                    (None, Some(_)) => Ordering::Greater,
                    (None, None) => a.cmp(b),
                });
                pairs.fold(Ordering::Equal, Ordering::then).then(self.pre.len().cmp(&other.pre.len()))
            }
        };
        self.numbers.cmp(&other.numbers).then(pre)
    }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn are_identifiers(text: &str) -> bool {
    text.split('.').all(|one| !one.is_empty() && one.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'))
}

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    use Opaque::Semver as S;
    let read = |text: &str, normalize: bool| if normalize { Semver::normalized(text) } else { Semver::parse(text) };
    let part = |version: &Semver, at: usize| Value::Int(i64::try_from(version.numbers[at]).unwrap_or(i64::MAX));
    let value = match (name, values) {
        ("semver", [Value::String(text), rest @ ..]) if rest.len() <= 1 => {
            let found = read(text, matches!(rest, [Value::Bool(true)]));
            let found = found.map(|found| Value::Opaque(S(Rc::new(found))));
            let found = found.ok_or_else(|| failure(format!("Invalid character(s) found in semver {text:?}")));
            return Some(run.charge(traversal(text.len() as u64)).and(found));
        }
        ("isSemver", [Value::String(text), rest @ ..]) if rest.len() <= 1 => {
            let is = read(text, matches!(rest, [Value::Bool(true)])).is_some();
            return Some(run.charge(traversal(text.len() as u64)).map(|()| Value::Bool(is)));
        }
        ("major", [Value::Opaque(S(version))]) => part(version, 0),
        ("minor", [Value::Opaque(S(version))]) => part(version, 1),
        ("patch", [Value::Opaque(S(version))]) => part(version, 2),
        ("isGreaterThan", [Value::Opaque(S(a)), Value::Opaque(S(b))]) => Value::Bool(a.compare(b).is_gt()),
        ("isLessThan", [Value::Opaque(S(a)), Value::Opaque(S(b))]) => Value::Bool(a.compare(b).is_lt()),
        ("compareTo", [Value::Opaque(S(a)), Value::Opaque(S(b))]) => Value::Int(a.compare(b) as i64),
        _ => return None,
    };
    Some(run.charge(1).map(|()| value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_ordered_as_semver_says() {
        let order = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
        ];
        for pair in order.windows(2) {
            assert!(Semver::parse(pair[0]).unwrap().compare(&Semver::parse(pair[1]).unwrap()).is_lt(), "{pair:?}");
        }
        for wrong in ["1", "1.2", "01.2.3", "1.2.3-01", "a.b.c", "1.2.3+", ""] {
            assert_eq!(Semver::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Semver::normalized("v01.2"), Semver::parse("1.2.0"));
    }
}
