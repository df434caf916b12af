//! Takes out of an object what an applying manager owned, no longer names, and nobody else owns.

use serde_json::Value;

use super::{
    leaves::leaves,
    managers::Managers,
    remove::{remove, with_named_fields},
    set::FieldSet,
    shape::ItemError,
    tracker::Tracker,
    versions::{converted, type_of},
};
use crate::kinds::Kind;

/// `merged` without what is in `last`, the fields that the manager applied the last time in `version`, but neither in
/// `applied`, what it applies now, nor anybody else's.
pub fn prune<'s>(
    tracker: &Tracker<'_>,
    merged: Value,
    (version, last): (&str, FieldSet<'_>),
    applied: &FieldSet<'s>,
    others: &mut Managers<'s>,
) -> Result<Value, ItemError> {
    let served = tracker.served;
    let Some(base) = tracker.version(version).filter(|_| !last.is_empty()) else { return Ok(merged) };
    let merged = converted(served, &base, merged);
    let last = named(&base, &last);
    let mut pruned = remove(type_of(&base), &merged, &last)?;

    // What somebody owns stays. The version of `last` comes first: less than all may not convert to another.
    let mut owned = owned_by_version(&served.api_version(), applied, others);
    owned.sort_by_key(|(owned_in, _)| owned_in != version);
    for (owned_in, fields) in owned {
        let Some(kind) = tracker.version(&owned_in) else { continue };
        let whole = converted(&base, &kind, merged.clone());
        let part = converted(&base, &kind, pruned);
        let mut dropped = named(&kind, &leaves(type_of(&kind), &whole)?);
        dropped.subtract(&named(&kind, &leaves(type_of(&kind), &part)?));
        dropped.subtract(&named(&kind, &fields));
        pruned = converted(&kind, &base, remove(type_of(&kind), &whole, &dropped)?);
    }

    // What nobody applied is not taken out with what was around it.
    let mut dropped = named(&base, &leaves(type_of(&base), &merged)?);
    dropped.subtract(&named(&base, &leaves(type_of(&base), &pruned)?));
    let dropped = dropped.intersection(&last);
    Ok(converted(&base, served, remove(type_of(&base), &merged, &dropped)?))
}

/// Everything that is owned after the apply, by version.
fn owned_by_version<'s>(
    served: &str,
    applied: &FieldSet<'s>,
    others: &mut Managers<'s>,
) -> Vec<(String, FieldSet<'s>)> {
    let mut out = vec![(served.to_owned(), applied.clone())];
    for manager in others.iter_mut() {
        let version = manager.id.api_version.to_string();
        let fields = manager.fields().clone();
        match out.iter_mut().find(|(known, _)| *known == version) {
            Some((_, all)) => *all = std::mem::take(all).union(fields),
            None => out.push((version, fields)),
        }
    }
    out
}

fn named<'a>(kind: &Kind, set: &FieldSet<'a>) -> FieldSet<'a> {
    with_named_fields(Some(type_of(kind)), set)
}
