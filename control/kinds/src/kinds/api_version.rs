//! `apiVersion`: the group and the version of an object's kind.

/// Group and version of an `apiVersion`. The core group, which has no name, is not written.
pub fn group_and_version(api_version: &str) -> (&str, &str) {
    api_version.split_once('/').unwrap_or(("", api_version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_alone_is_a_version_of_the_core_group() {
        assert_eq!(group_and_version("v1"), ("", "v1"));
        assert_eq!(group_and_version("apps/v1"), ("apps", "v1"));
        assert_eq!(group_and_version("a/b/c"), ("a", "b/c"));
    }
}
