//! Names of resources as a configuration has them: `secrets`, `deployments.apps`, `*.apps`, `*.`, `*.*`.

use std::fmt;

/// A resource of a group, either of which may be `*`. The core group is empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

/// Any kind of object.
pub const ANY: &str = "*";

/// Resources that are stored and not served: the records of ports that Services have. They are never encrypted, as
/// those of kube-apiserver's allocators: nobody could write them again under another key, and they hold no secret.
pub const UNSERVED: &[&str] = &["nodeports.allocation.fairlead.dev"];

impl GroupResource {
    /// What stands before the first dot is the resource. Source: `schema.ParseGroupResource`.
    pub fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self { group: group.into(), resource: resource.into() }
    }

    /// All resources of its group.
    pub fn any_of_group(&self) -> Self {
        Self { group: self.group.clone(), resource: ANY.into() }
    }

    /// All resources.
    pub fn any() -> Self {
        Self { group: ANY.into(), resource: ANY.into() }
    }
}

/// As it is written in a configuration.
impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.group.as_str(), self.resource.as_str()) {
            ("", ANY) => f.write_str("*."),
            ("", resource) => f.write_str(resource),
            (group, resource) => write!(f, "{resource}.{group}"),
        }
    }
}
