//! The oldest compiler that builds fairlead: one statement of it, which every dependency keeps to.

use std::cmp::Ordering;

use serde_json::Value;

/// Every member whose `rust-version` is not the others', and every dependency that needs a newer compiler than that.
pub fn problems(metadata: &Value) -> Vec<String> {
    let members: Vec<&str> = ids(&metadata["workspace_members"]).collect();
    let all = || metadata["packages"].as_array().into_iter().flatten();
    let is_member = |package: &Value| members.contains(&package["id"].as_str().unwrap_or_default());
    let Some(ours) = all().filter(|p| is_member(p)).find_map(|package| package["rust_version"].as_str()) else {
        return vec!["rust-version: no member states it".into()];
    };
    let mut found = Vec::new();
    for package in all() {
        let (name, theirs) = (package["name"].as_str().unwrap_or_default(), package["rust_version"].as_str());
        if is_member(package) {
            if theirs != Some(ours) {
                found.push(format!("rust-version: {name} states {}, others {ours}", theirs.unwrap_or("none")));
            }
        } else if theirs.is_some_and(|theirs| compare(theirs, ours) == Ordering::Greater) {
            found.push(format!("rust-version: {name} needs {}, more than {ours}", theirs.unwrap_or_default()));
        }
    }
    found
}

/// A remark where the lints run with a newer compiler than the oldest one that is promised.
pub fn remark(metadata: &Value, rustc: &str) -> Option<String> {
    let ours = metadata["packages"].as_array()?.iter().find(|p| p["name"] == "fairlead")?["rust_version"].as_str()?;
    let running = rustc.split_whitespace().nth(1)?;
    let newer = compare(&running.split('.').take(2).collect::<Vec<_>>().join("."), ours) == Ordering::Greater;
    newer.then(|| format!("note: the code is checked with Rust {running}; that {ours} compiles it is not checked here"))
}

fn ids(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn compare(a: &str, b: &str) -> Ordering {
    let numbers = |version: &str| version.split('.').map(|part| part.parse::<u64>().unwrap_or(0)).collect::<Vec<_>>();
    let (mut a, mut b) = (numbers(a), numbers(b));
    a.resize(3, 0);
    b.resize(3, 0);
    a.cmp(&b)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn metadata(dependency: &str) -> Value {
        json!({"workspace_members": ["a", "b"], "packages": [
            {"id": "a", "name": "fairlead", "rust_version": "1.95"},
            {"id": "b", "name": "xtask", "rust_version": "1.95"},
            {"id": "c", "name": "aya", "rust_version": dependency}]})
    }

    #[test]
    fn a_dependency_may_not_need_a_newer_compiler_than_is_promised() {
        assert!(problems(&metadata("1.95.0")).is_empty() && problems(&metadata("1.9")).is_empty());
        assert_eq!(problems(&metadata("1.100")), ["rust-version: aya needs 1.100, more than 1.95"]);
    }

    #[test]
    fn a_member_with_another_version_is_found() {
        let mut metadata = metadata("1.80");
        metadata["packages"][1]["rust_version"] = json!("1.96");
        assert_eq!(problems(&metadata), ["rust-version: xtask states 1.96, others 1.95"]);
    }

    #[test]
    fn a_newer_compiler_is_remarked() {
        assert_eq!(remark(&metadata("1.80"), "rustc 1.95.0 (59807616e 2026-04-14)"), None);
        assert!(remark(&metadata("1.80"), "rustc 1.96.1 (x)").is_some_and(|text| text.contains("1.96.1")));
    }
}
