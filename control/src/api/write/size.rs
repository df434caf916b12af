//! How large a stored object may be. A body is bounded on its way in; an object also grows by patches, through its
//! subresources and by what is recorded of its managers.

use crate::{
    api::Status,
    encode,
    kinds::Kind,
    store::{Draft, Object},
};

/// The largest custom resource, in bytes of its JSON text: as much as etcd takes (`--max-request-bytes`).
const MAX_CUSTOM: usize = 1536 << 10;
/// The largest object of a built-in kind. Kubernetes stores these as protobuf, in which the bytes of a Secret are a
/// quarter shorter.
const MAX_BUILT_IN: usize = MAX_CUSTOM / 3 * 4;

/// The text of an object's `metadata.managedFields`.
#[derive(Clone, Copy)]
pub enum StoredManagers<'a> {
    /// The write means them: it is an apply.
    Needed(&'a str),
    /// An object that is too large with them is stored without, as in Kubernetes.
    Optional(&'a str),
}

/// Lays out an object, unless it is too large. One that was too large before `old` was bounded may shrink.
pub fn bounded_draft(
    kind: &Kind,
    new: &serde_json::Value,
    managers: StoredManagers<'_>,
    old: Option<&Object>,
) -> Result<Draft, Status> {
    let most = if kind.custom.is_some() { MAX_CUSTOM } else { MAX_BUILT_IN };
    let before = || old.map_or(0, |old| size(&[&old.json()]));
    let of = |draft: &Draft| size(&[&draft.head, &draft.tail]);
    let fits = |draft: &Draft| draft.head.len() + draft.tail.len() <= most || of(draft) <= most.max(before());
    let (StoredManagers::Needed(text) | StoredManagers::Optional(text)) = managers;
    let draft = encode::managed_draft(kind, new, text);
    if fits(&draft) {
        return Ok(draft);
    }
    if let StoredManagers::Optional(_) = managers {
        let without = encode::draft(kind, new);
        if fits(&without) {
            return Ok(without);
        }
    }
    Err(Status::too_large(format!("the object has {} bytes: at most {most} are stored", of(&draft))))
}

/// Bytes of a JSON text, where a character that is written with a backslash counts as one.
fn size(parts: &[&[u8]]) -> usize {
    parts.iter().map(|text| unescaped(text)).fold(0, usize::saturating_add)
}

fn unescaped(text: &[u8]) -> usize {
    let (mut at, mut size) = (0, 0_usize);
    while let Some(byte) = text.get(at) {
        at += match (byte, text.get(at + 1)) {
            (b'\\', Some(b'u')) => 6,
            (b'\\', _) => 2,
            _ => 1,
        };
        size += 1;
    }
    size
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{kinds::Kinds, store::EventType};

    fn config_map(bytes: usize, with: char) -> Value {
        let text: String = std::iter::repeat_n(with, bytes).collect();
        json!({"metadata": {"name": "a"}, "data": {"a": text}})
    }

    #[test]
    fn an_object_beyond_the_bound_is_refused_unless_it_shrinks() {
        let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
        let draft =
            |object: &Value, old: Option<&Object>| bounded_draft(&kind, object, StoredManagers::Needed(""), old);
        assert!(draft(&config_map(MAX_BUILT_IN - 1000, 'x'), None).is_ok());
        let error = draft(&config_map(MAX_BUILT_IN, 'x'), None).unwrap_err();
        assert_eq!((error.code, error.reason), (413, "RequestEntityTooLarge"));
        assert!(draft(&config_map(MAX_BUILT_IN - 1000, '\n'), None).is_ok(), "a line break is one byte to Kubernetes");
        let large = |bytes: usize| {
            let draft = encode::draft(&kind, &config_map(bytes, 'x'));
            Object::new(draft, 1, EventType::Added)
        };
        let old = large(MAX_BUILT_IN + 2000);
        assert!(draft(&config_map(MAX_BUILT_IN + 1000, 'x'), Some(&old)).is_ok());
        assert!(draft(&config_map(MAX_BUILT_IN + 3000, 'x'), Some(&old)).is_err());
    }

    #[test]
    fn managers_that_do_not_fit_are_dropped_but_by_an_apply() {
        let kind = Kinds::built_in().by_path("", "v1", "configmaps").unwrap();
        let object = config_map(MAX_BUILT_IN - 1000, 'x');
        let managers = format!("[{{\"manager\":\"{}\"}}]", "m".repeat(2000));
        assert!(bounded_draft(&kind, &object, StoredManagers::Needed(&managers), None).is_err());
        assert_eq!(bounded_draft(&kind, &object, StoredManagers::Optional(&managers), None).unwrap().managed_len, 0);
    }
}
