//! Domain names in wire form (RFC 1035, section 3.1): length-prefixed labels and the root's zero. Uncompressed, lower
//! case.

use std::{fmt, sync::Arc};

/// A whole name, at most 255 bytes, lower case, with the root's zero at its end. Clones share it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Arc<[u8]>);

impl Name {
    /// From text such as `web.default.svc.cluster.local`, with or without the dot at the end. `None` where a label is
    /// empty or over 63 bytes, or the name over 255.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let labels = text.split('.').filter(|_| !text.is_empty());
        let mut wire = Vec::with_capacity(text.len() + 2);
        for label in labels {
            push_label(&mut wire, label.as_bytes())?;
        }
        Self::finish(wire)
    }

    /// `label` in front of this name. `None` as in [`Name::parse`].
    pub fn under(&self, label: &str) -> Option<Self> {
        let mut wire = Vec::with_capacity(self.0.len() + label.len() + 1);
        push_label(&mut wire, label.as_bytes())?;
        wire.extend_from_slice(&self.0);
        (wire.len() <= MAX_LEN).then(|| Self(wire.into()))
    }

    /// From a whole name in wire form, uncompressed. `None` where it is none.
    pub fn from_wire(wire: &[u8]) -> Option<Self> {
        let mut at = 0;
        while let length @ 1.. = usize::from(*wire.get(at)?) {
            at += 1 + length;
            if length > MAX_LABEL_LEN {
                return None;
            }
        }
        (at + 1 == wire.len() && wire.len() <= MAX_LEN).then(|| Self(wire.to_ascii_lowercase().into()))
    }

    /// From labels in wire form, lowered, without the root's zero.
    fn finish(mut wire: Vec<u8>) -> Option<Self> {
        wire.push(0);
        (wire.len() <= MAX_LEN).then(|| Self(wire.into()))
    }

    /// The name in wire form, with its closing root label.
    pub fn wire(&self) -> &[u8] {
        &self.0
    }
}

/// One label in wire form, lower case: what a map of names below a common parent is keyed by.
pub fn label(text: &str) -> Option<Box<[u8]>> {
    let mut wire = Vec::with_capacity(text.len() + 1);
    push_label(&mut wire, text.as_bytes())?;
    Some(wire.into())
}

fn push_label(wire: &mut Vec<u8>, label: &[u8]) -> Option<()> {
    if label.is_empty() || label.len() > MAX_LABEL_LEN {
        return None;
    }
    wire.push(label.len() as u8);
    wire.extend(label.iter().map(u8::to_ascii_lowercase));
    Some(())
}

/// Without the dot at the end; bytes outside printable ASCII as `\DDD`.
impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = &self.0[..];
        let mut first = true;
        while let [length @ 1..=255, tail @ ..] = rest {
            let (label, next) = tail.split_at_checked(usize::from(*length)).unwrap_or((tail, &[]));
            if !std::mem::take(&mut first) {
                f.write_str(".")?;
            }
            for byte in label {
                match byte {
                    b'!'..=b'~' if *byte != b'.' && *byte != b'\\' => write!(f, "{}", char::from(*byte))?,
                    _ => write!(f, "\\{byte:03}")?,
                }
            }
            rest = next;
        }
        if first { f.write_str(".") } else { Ok(()) }
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// RFC 1035, section 2.3.4.
pub const MAX_LEN: usize = 255;
const MAX_LABEL_LEN: usize = 63;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lowered_and_printed_as_they_were() {
        let name = Name::parse("Web.default.SVC.cluster.local.").unwrap();
        assert_eq!(name.to_string(), "web.default.svc.cluster.local");
        assert_eq!(&name.wire()[..5], b"\x03web\x07");
        assert_eq!(name.under("_http").unwrap().to_string(), "_http.web.default.svc.cluster.local");
        assert_eq!(Name::parse("").unwrap().wire(), [0]);
    }

    #[test]
    fn what_is_no_name_is_refused() {
        assert!(Name::parse("a..b").is_none());
        assert!(Name::parse(&"x".repeat(64)).is_none());
        assert!(Name::parse(&vec!["x".repeat(60); 5].join(".")).is_none());
    }
}
