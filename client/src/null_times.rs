//! Conditions whose time nobody set. The API shows them with a `null`, for which k8s-openapi has no value where the
//! field is required: it would refuse the object, and with it the list that it is in.

use serde_json::Value;

/// Go's zero time, which means "no time at all".
const ZERO: &str = "0001-01-01T00:00:00Z";

/// The text of an object with Go's zero time in the conditions that have none; `None` where there are none such.
pub fn zeroed(json: &str) -> Option<String> {
    let mut object: Value = serde_json::from_str(json).ok()?;
    let conditions = object.get_mut("status")?.get_mut("conditions")?.as_array_mut()?;
    let mut has_null = false;
    for time in conditions.iter_mut().filter_map(|condition| condition.get_mut("lastTransitionTime")) {
        if time.is_null() {
            *time = ZERO.into();
            has_null = true;
        }
    }
    has_null.then(|| object.to_string())
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Service;

    use super::*;
    use crate::Json;

    #[test]
    fn a_condition_without_a_time_is_read() {
        let service = |time: &str| {
            let condition = r#"{"type":"A","status":"True","reason":"R","message":"","lastTransitionTime":"#;
            format!(r#"{{"metadata":{{"name":"s"}},"status":{{"conditions":[{condition}{time}}}]}}}}"#)
        };
        let read = Service::decode(service("null").as_bytes()).unwrap();
        assert_eq!(read.status.unwrap().conditions.unwrap()[0].last_transition_time.0.to_string(), ZERO);
        assert!(Service::decode(service("5").as_bytes()).is_err());
        assert!(Service::decode(br#"{"status":{"conditions":5}}"#).is_err());
    }
}
