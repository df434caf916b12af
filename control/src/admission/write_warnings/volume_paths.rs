//! Files of a volume that take the place of each other, or of the directory of another.

use serde_json::Value;

use super::MOST_COMPARED;
use crate::{
    kinds::reading::{as_text, items, text},
    warnings,
};

/// A file, and where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct File {
    path: String,
    source: String,
}

impl File {
    fn told(&self) -> String {
        if self.source.is_empty() { format!("{:?}", self.path) } else { format!("{:?} ({})", self.path, self.source) }
    }

    fn meets(&self, other: &File) -> bool {
        let inside = |inner: &str, outer: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        !other.path.is_empty() && (inside(&self.path, &other.path) || inside(&other.path, &self.path))
    }
}

/// Of all volumes of a pod.
pub fn warnings(volumes: &Value) -> Vec<String> {
    let mut all = Vec::new();
    for volume in items(volumes) {
        let name = text(volume, "name");
        for (field, named, what) in
            [("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret"), ("downwardAPI", "", "DownwardAPI")]
        {
            let source = &volume[field];
            let label = if named.is_empty() { what.to_owned() } else { format!("{what} {:?}", text(source, named)) };
            all.extend(overlaps(name, &label, files(&source["items"], "")));
        }
        let sources = items(&volume["projected"]["sources"]);
        let mut projected = Vec::new();
        for source in sources {
            if source.as_object().is_none_or(|source| source.values().all(Value::is_null)) {
                all.push(format!("volume {name:?} (Projected) has no sources provided"));
                continue;
            }
            projected.extend(of_source(source));
        }
        all.extend(overlaps(name, "Projected", projected));
    }
    all
}

fn of_source(source: &Value) -> Vec<File> {
    let named = |field: &str, what: &str| format!("{what} {:?}", text(&source[field], "name"));
    if !source["configMap"].is_null() {
        files(&source["configMap"]["items"], &named("configMap", "ConfigMap"))
    } else if !source["secret"].is_null() {
        files(&source["secret"]["items"], &named("secret", "Secret"))
    } else if !source["downwardAPI"].is_null() {
        files(&source["downwardAPI"]["items"], "DownwardAPI")
    } else if !source["serviceAccountToken"].is_null() {
        vec![file(&source["serviceAccountToken"]["path"], "ServiceAccountToken")]
    } else {
        Vec::new()
    }
}

fn files(list: &Value, source: &str) -> Vec<File> {
    items(list).map(|item| file(&item["path"], source)).collect()
}

fn file(path: &Value, source: &str) -> File {
    File { path: as_text(path).trim_end_matches('/').to_owned(), source: source.to_owned() }
}

fn overlaps(volume: &str, label: &str, files: Vec<File>) -> Vec<String> {
    let mut all = Vec::new();
    let pairs = files.iter().enumerate().flat_map(|(i, file)| files[..i].iter().map(move |other| (file, other)));
    for (file, other) in pairs.take(MOST_COMPARED) {
        if all.len() == warnings::MOST {
            break;
        }
        if !file.path.is_empty() && file.meets(other) {
            let (file, other) = (file.told(), other.told());
            all.push(format!("volume {volume:?} ({label}): overlapping paths: {file} with {other}"));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_volume_of_very_many_files_costs_little() {
        let items: Vec<Value> = (0..100_000).map(|_| json!({"path": "x"})).collect();
        let volumes = json!([{"name": "a", "configMap": {"name": "m", "items": items}}]);
        assert_eq!(warnings(&volumes).len(), warnings::MOST);
    }

    #[test]
    fn files_stay_apart() {
        let volumes = json!([
            {"name": "a", "configMap": {"name": "m", "items": [{"path": "x"}, {"path": "x/y/"}, {"path": "xy"}]}},
            {"name": "b", "secret": {"secretName": "s", "items": [{"path": "x"}, {"path": "y"}]}},
            {"name": "c", "projected": {"sources": [{"configMap": {"name": "m", "items": [{"path": "token"}]}},
                {"serviceAccountToken": {"path": "token"}}, {}]}}
        ]);
        assert_eq!(
            warnings(&volumes),
            [
                "volume \"a\" (ConfigMap \"m\"): overlapping paths: \"x/y\" with \"x\"",
                "volume \"c\" (Projected) has no sources provided",
                "volume \"c\" (Projected): overlapping paths: \"token\" (ServiceAccountToken) with \"token\" (ConfigMap \
                \"m\")",
            ]
        );
    }
}
