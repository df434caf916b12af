//! The differences that are meant, each with its reason. Everything else is a defect.

use crate::{comparison::Difference, exchange::Answer};

/// What was asked, as the report shows it.
pub struct Asked<'a> {
    pub part: &'static str,
    pub who: &'a str,
    pub what: &'a str,
}

/// A difference that is meant.
struct Justified {
    /// Why the answers may disagree.
    because: &'static str,
    matches: fn(&Asked, &Difference, &Answer, &Answer) -> bool,
}

/// The table of them.
const TABLE: &[Justified] = &[];

/// Why a difference is meant; nothing for a defect.
pub fn justified(asked: &Asked, difference: &Difference, ours: &Answer, theirs: &Answer) -> Option<&'static str> {
    TABLE.iter().find(|one| (one.matches)(asked, difference, ours, theirs)).map(|one| one.because)
}
