//! Strict reading of JSON text as a Kubernetes type: wrong types refuse it, unknown and duplicate fields are reported.
//!
//! It never repairs, defaults or validates; the typed value itself is thrown away, since objects are kept as their bytes.

use serde::de::{DeserializeOwned, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// A field that is in the text but not in the schema, or there twice. An error under `fieldValidation=Strict`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FieldWarning {
    Unknown { path: String },
    Duplicate { path: String },
}

impl std::fmt::Display for FieldWarning {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unknown { path } => write!(f, "unknown field \"{path}\""),
            Self::Duplicate { path } => write!(f, "duplicate field \"{path}\""),
        }
    }
}

/// The text is not an object of this kind.
#[derive(Debug, thiserror::Error)]
#[error("{}{message}", if path.is_empty() { String::new() } else { format!("{path}: ") })]
pub struct DecodeError {
    /// `spec.containers[0].ports[0].containerPort`; empty where the text is not JSON at all.
    pub path: String,
    pub message: String,
}

/// Reads `json` as a `T`. Warnings come in the order of the text, unknown fields first.
pub fn decode<T: DeserializeOwned>(json: &[u8]) -> Result<Vec<FieldWarning>, DecodeError> {
    let mut warnings = Vec::new();
    let mut text = serde_json::Deserializer::from_slice(json);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut text, &mut track);
    // Behind `dyn`: a closure's own type depends on `T`, and every type within `T` would be compiled again for each kind.
    let mut unknown: &mut dyn FnMut(serde_ignored::Path) = &mut |path| {
        warnings.push(FieldWarning::Unknown { path: kubernetes_path(&path) });
    };
    let read = T::deserialize(serde_ignored::Deserializer::new(tracked, &mut unknown));
    if let Err(error) = read {
        return Err(DecodeError { path: plain(&track.path().to_string()), message: error.to_string() });
    }
    text.end().map_err(|e| DecodeError { path: String::new(), message: e.to_string() })?;
    warnings.extend(duplicates(json)?.into_iter().map(|path| FieldWarning::Duplicate { path }));
    Ok(warnings)
}

/// Every object key that stands twice in its object, by path.
///
/// `serde_json` keeps the last of them silently, so this is the only place where they can be seen.
pub fn duplicates(json: &[u8]) -> Result<Vec<String>, DecodeError> {
    let mut found = Vec::new();
    let mut text = serde_json::Deserializer::from_slice(json);
    Duplicates { path: &mut String::new(), found: &mut found }
        .deserialize(&mut text)
        .map_err(|e| DecodeError { path: String::new(), message: e.to_string() })?;
    Ok(found)
}

/// `spec.containers[0].image` of a path by `serde_ignored`, which puts a `?` for every `Option` and a dot before an index.
fn kubernetes_path(path: &serde_ignored::Path) -> String {
    use serde_ignored::Path::*;
    match path {
        Root => String::new(),
        Seq { parent, index } => format!("{}[{index}]", kubernetes_path(parent)),
        Map { parent, key } => {
            let parent = kubernetes_path(parent);
            if parent.is_empty() { key.clone() } else { format!("{parent}.{key}") }
        }
        Some { parent } | NewtypeStruct { parent } | NewtypeVariant { parent } => kubernetes_path(parent),
    }
}

/// `serde_path_to_error` writes `.` for the root and `?` for what it cannot name.
fn plain(path: &str) -> String {
    path.split('.').filter(|part| !part.is_empty() && *part != "?").collect::<Vec<_>>().join(".")
}

struct Duplicates<'a> {
    path: &'a mut String,
    found: &'a mut Vec<String>,
}

impl<'de> DeserializeSeed<'de> for Duplicates<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Duplicates<'_> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut seen: Vec<std::borrow::Cow<'de, str>> = Vec::new();
        let outer = self.path.len();
        while let Some(key) = map.next_key::<std::borrow::Cow<'de, str>>()? {
            if outer > 0 {
                self.path.push('.');
            }
            self.path.push_str(&key);
            if seen.contains(&key) {
                self.found.push(self.path.clone());
                map.next_value::<IgnoredAny>()?;
            } else {
                map.next_value_seed(Duplicates { path: self.path, found: self.found })?;
                seen.push(key);
            }
            self.path.truncate(outer);
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let outer = self.path.len();
        for index in 0.. {
            self.path.push_str(&format!("[{index}]"));
            let item = seq.next_element_seed(Duplicates { path: self.path, found: self.found })?;
            self.path.truncate(outer);
            if item.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::{apps::v1::Deployment, core::v1::Pod};

    #[test]
    fn unknown_and_duplicate_fields_are_named_by_their_kubernetes_path() {
        let text = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"a","name":"b"},
            "spec":{"foo":1,"containers":[{"name":"c","imagee":"x","ports":[{"containerPort":1},{"nope":2}]}]}}"#;
        let words: Vec<String> = decode::<Pod>(text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(
            words,
            [
                "unknown field \"spec.foo\"",
                "unknown field \"spec.containers[0].imagee\"",
                "unknown field \"spec.containers[0].ports[1].nope\"",
                "duplicate field \"metadata.name\"",
            ]
        );
    }

    #[test]
    fn a_wrong_type_is_refused_with_its_path() {
        let text = br#"{"apiVersion":"apps/v1","kind":"Deployment","spec":{"template":{"spec":{"containers":[{"ports":[{"containerPort":"80"}]}]}}}}"#;
        let error = decode::<Deployment>(text).unwrap_err();
        assert_eq!(error.path, "spec.template.spec.containers[0].ports[0].containerPort");
        assert!(error.message.contains("invalid type: string"), "{}", error.message);
    }

    #[test]
    fn free_maps_and_nulls_are_fine() {
        let text = br#"{"apiVersion":"v1","kind":"Pod","metadata":{"labels":{"a.b/c":"d"},"creationTimestamp":null},"spec":null}"#;
        assert_eq!(decode::<Pod>(text).unwrap(), []);
    }
}
