//! An object of any kind as its JSON text: what kube's watcher carries in place of a type.

use std::{borrow::Cow, fmt, sync::OnceLock};

use kube::{
    Resource,
    core::{ApiResource, DynamicResourceScope, ObjectMeta},
};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::Value;

/// The text of one object. Of its metadata only the resource version is read, and only when it is asked for.
#[derive(Clone, Debug)]
pub struct RawObject {
    json: Box<str>,
    meta: OnceLock<Box<ObjectMeta>>,
}

impl RawObject {
    pub fn json(&self) -> &[u8] {
        self.json.as_bytes()
    }
}

impl Resource for RawObject {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.kind).into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.group).into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.version).into()
    }

    fn api_version(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.api_version).into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        (&resource.plural).into()
    }

    /// Holds the resource version alone: the watcher reads nothing else.
    fn meta(&self) -> &ObjectMeta {
        self.meta.get_or_init(|| {
            Box::new(ObjectMeta { resource_version: resource_version(&self.json), ..ObjectMeta::default() })
        })
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.meta();
        self.meta.get_mut().expect("it was just set")
    }
}

/// The name by which serde_json is asked for the text of a value. If it did not know this name, text would be made from
/// the value instead, more slowly.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

impl<'de> Deserialize<'de> for RawObject {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = deserializer.deserialize_newtype_struct(RAW_VALUE, TextVisitor)?;
        Ok(Self { json, meta: OnceLock::new() })
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Box<str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    /// serde_json's own answer: a map whose one value is the text.
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Box<str>, A::Error> {
        map.next_key::<IgnoredAny>()?;
        map.next_value()
    }

    /// The value was read already, since something that decides what it is comes after it: a watch event whose `object`
    /// stands before its `type`.
    fn visit_newtype_struct<D: Deserializer<'de>>(self, value: D) -> Result<Box<str>, D::Error> {
        Ok(Value::deserialize(value)?.to_string().into())
    }
}

/// `metadata.resourceVersion` of an object; what follows the metadata is not read.
fn resource_version(json: &str) -> Option<String> {
    let mut found = None;
    // Reading ends at the metadata, in the middle of the text, which is an error: what was found alone counts.
    FindMetadata(&mut found).deserialize(&mut serde_json::Deserializer::from_str(json)).ok();
    found
}

struct FindMetadata<'f>(&'f mut Option<String>);

#[derive(Deserialize)]
struct Version {
    #[serde(rename = "resourceVersion")]
    resource_version: Option<String>,
}

impl<'de> DeserializeSeed<'de> for FindMetadata<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for FindMetadata<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(key) = map.next_key::<Cow<'_, str>>()? {
            if key == "metadata" {
                *self.0 = map.next_value::<Version>()?.resource_version;
                return Ok(());
            }
            map.next_value::<IgnoredAny>()?;
        }
        Err(A::Error::missing_field("metadata"))
    }
}

#[cfg(test)]
mod tests {
    use kube::api::WatchEvent;

    use super::*;

    const OBJECT: &str = r#"{"kind": "Pod", "metadata": {"labels": {"resourceVersion": "no"}, "resourceVersion": "7"},
        "spec":  {"metadata": {"resourceVersion": "8"}}}"#;

    #[test]
    fn the_text_is_kept_as_it_came_and_the_version_is_that_of_the_metadata() {
        let event: WatchEvent<RawObject> =
            serde_json::from_str(&format!(r#"{{"type": "ADDED", "object": {OBJECT}}}"#)).unwrap();
        let WatchEvent::Added(object) = event else { panic!("{event:?}") };
        assert_eq!(std::str::from_utf8(object.json()).unwrap(), OBJECT, "not made anew from a value");
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
    }

    #[test]
    fn an_object_before_its_type_is_read_too() {
        let event: WatchEvent<RawObject> =
            serde_json::from_str(&format!(r#"{{"object": {OBJECT}, "type": "DELETED"}}"#)).unwrap();
        let WatchEvent::Deleted(object) = event else { panic!("{event:?}") };
        assert_eq!(object.meta().resource_version.as_deref(), Some("7"));
        let value: Value = serde_json::from_slice(object.json()).unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(OBJECT).unwrap());
    }

    #[test]
    fn an_object_without_a_version_has_none() {
        for text in
            ["{}", r#"{"metadata": {}}"#, r#"{"metadata": 5}"#, r#"{"metadata": {"name": "a"}, "spec": {}}"#, "[]"]
        {
            assert_eq!(resource_version(text), None, "{text}");
        }
    }
}
