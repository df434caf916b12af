//! Objects within something larger that serde writes, such as a file: each by the functions of its kind. For
//! `#[serde(with = "fairlead_client::as_text")]` on a `Vec<Arc<K>>`; JSON alone.

use std::sync::Arc;

use serde::{
    Deserialize, Deserializer, Serializer,
    de::Error as _,
    ser::{Error as _, SerializeSeq},
};
use serde_json::value::RawValue;

use crate::{Object, raw::RawObject};

/// Writes a list.
pub fn serialize<K: Object, S: Serializer>(objects: &[Arc<K>], serializer: S) -> Result<S::Ok, S::Error> {
    let mut list = serializer.serialize_seq(Some(objects.len()))?;
    for object in objects {
        let json = object.encode().map_err(S::Error::custom)?;
        let json = String::from_utf8(json).map_err(S::Error::custom)?;
        list.serialize_element(&RawValue::from_string(json).map_err(S::Error::custom)?)?;
    }
    list.end()
}

/// Reads a list.
pub fn deserialize<'de, K: Object, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Arc<K>>, D::Error> {
    let objects = Vec::<RawObject>::deserialize(deserializer)?;
    objects.iter().map(|object| K::decode(object.json()).map(Arc::new).map_err(D::Error::custom)).collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use serde::Serialize;

    use super::*;
    use crate::Json;

    #[derive(Debug, Serialize, Deserialize)]
    struct File {
        #[serde(with = "super")]
        pods: Vec<Arc<Pod>>,
        version: u32,
    }

    #[test]
    fn a_list_is_written_as_serde_itself_writes_it_and_read_back() {
        let pod = Pod::decode(br#"{"metadata": {"name": "a"}, "spec": {"containers": []}}"#).unwrap();
        let file = File { pods: vec![Arc::new(pod.clone()), Arc::new(Pod::default())], version: 1 };
        let text = serde_json::to_string(&file).unwrap();
        assert_eq!(text, serde_json::json!({"pods": [pod, Pod::default()], "version": 1}).to_string());
        assert_eq!(serde_json::from_str::<File>(&text).unwrap().pods, file.pods);
        assert!(serde_json::from_str::<File>(r#"{"pods": [{"metadata": 5}], "version": 1}"#).is_err());
    }
}
