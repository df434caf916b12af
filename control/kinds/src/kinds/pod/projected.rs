//! A volume into which several sources are put: Secrets, ConfigMaps, what tells of the pod, and tokens.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::volumes::{downward_file, file, key_to_path, mode};
use crate::kinds::{
    FieldError,
    field::{child, item},
    reading::{as_text, items, text},
    volume_source::required,
};

const MIN_TOKEN_SECONDS: i64 = 10 * 60;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;

/// Reasons against a projected volume.
pub fn validate(path: &str, volume: &Value) -> Vec<FieldError> {
    let mut errors: Vec<FieldError> = mode(child(path, "defaultMode"), &volume["defaultMode"]).into_iter().collect();
    let mut files = BTreeSet::new();
    for (i, source) in items(&volume["sources"]).enumerate() {
        errors.extend(self::source(path, &item(&child(path, "sources"), i), source, &mut files));
    }
    errors
}

/// `volume` is the path of the volume, of which Kubernetes tells some things of a source.
fn source<'a>(volume: &str, path: &str, source: &'a Value, files: &mut BTreeSet<&'a str>) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let mut found = 0;
    for kind in ["secret", "configMap"].into_iter().filter(|kind| !source[*kind].is_null()) {
        found += 1;
        let (path, content) = (child(path, kind), &source[kind]);
        errors.extend(required(&path, content, &["name"]));
        for (i, key) in items(&content["items"]).enumerate() {
            errors.extend(key_to_path(&item(&child(&path, "items"), i), key));
            errors.extend(conflict(volume, &key["path"], &content["name"], files));
        }
    }
    let downward = &source["downwardAPI"];
    if !downward.is_null() {
        found += 1;
        for item in items(&downward["items"]) {
            errors.extend(downward_file(&child(path, "downwardAPI"), item));
            errors.extend(conflict(volume, &item["path"], &item["path"], files));
        }
    }
    let token = &source["serviceAccountToken"];
    if !token.is_null() {
        found += 1;
        errors.extend(self::token(volume, &child(path, "serviceAccountToken"), token));
    }
    if found > 1 {
        errors.push(FieldError::forbidden(path, "may not specify more than 1 volume type per source"));
    }
    errors
}

fn conflict<'a>(path: &str, file: &'a Value, shown: &Value, files: &mut BTreeSet<&'a str>) -> Option<FieldError> {
    let taken = !as_text(file).is_empty() && !files.insert(as_text(file));
    taken.then(|| FieldError::invalid(path, &json!(as_text(shown)), "conflicting duplicate paths"))
}

fn token(volume: &str, path: &str, token: &Value) -> Vec<FieldError> {
    let seconds = &token["expirationSeconds"];
    let asked = seconds.as_i64().unwrap_or_default();
    let path = child(path, "expirationSeconds");
    let mut errors = Vec::new();
    if asked < MIN_TOKEN_SECONDS {
        errors.push(FieldError::invalid(&path, seconds, "may not specify a duration less than 10 minutes"));
    }
    if asked > MAX_TOKEN_SECONDS {
        errors.push(FieldError::invalid(path, seconds, "may not specify a duration larger than 2^32 seconds"));
    }
    if text(token, "path").is_empty() {
        errors.push(FieldError::required(child(volume, "path"), ""));
    } else {
        errors.extend(file(&child(volume, "path"), &token["path"]));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(sources: Value) -> Vec<String> {
        let errors = validate("p", &json!({"sources": sources}));
        errors.into_iter().map(|e| format!("{}: {}", e.path, e.message)).collect()
    }

    #[test]
    fn each_file_comes_from_one_source() {
        let item = |path: &str| json!([{"key": "k", "path": path}]);
        assert_eq!(
            words(
                json!([{"secret": {"name": "s", "items": item("a")}}, {"configMap": {"name": "c", "items": item("b")}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}])
            ),
            Vec::<String>::new()
        );
        assert_eq!(
            words(
                json!([{"secret": {"name": "s", "items": item("a")}}, {"configMap": {"name": "c", "items": item("a")}}])
            ),
            ["p: Invalid value: \"c\": conflicting duplicate paths"]
        );
        assert_eq!(
            words(json!([{"secret": {"name": "s"}, "configMap": {}}])),
            [
                "p.sources[0].configMap.name: Required value",
                "p.sources[0]: Forbidden: may not specify more than 1 volume type per source"
            ]
        );
        assert_eq!(
            words(json!([{"serviceAccountToken": {"expirationSeconds": 5}}])),
            [
                "p.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 5: may not specify a duration less than 10 minutes",
                "p.path: Required value"
            ]
        );
    }
}
