//! The authenticated user of a request.

/// Group of those who may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of every node's agent; its user is `system:node:NAME`.
pub const NODES: &str = "system:nodes";
/// Group of the holders of a join token.
pub const BOOTSTRAPPERS: &str = "system:bootstrappers";
/// Group of everyone who proved to be someone.
pub const AUTHENTICATED: &str = "system:authenticated";

/// User of requests without a credential.
pub const ANONYMOUS: &str = "system:anonymous";
/// Group of [`ANONYMOUS`].
pub const UNAUTHENTICATED: &str = "system:unauthenticated";

/// A user and its groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// User name: `kubernetes-admin`, `system:node:n1`.
    pub name: String,
    /// All groups, [`AUTHENTICATED`] included if the user proved to be someone.
    pub groups: Vec<String>,
}

impl Identity {
    /// The identity of everything that runs inside the control service.
    pub fn control(name: &str) -> Self {
        Self::authenticated(format!("system:{name}"), vec![MASTERS.into()])
    }

    /// Somebody who showed no credential.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()] }
    }

    /// Somebody who proved who they are.
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.into());
        Self { name, groups }
    }

    /// Whether the user belongs to `group`.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is, if it is one: group `system:nodes` and user `system:node:NAME`, both.
    pub fn node(&self) -> Option<&str> {
        let name = self.name.strip_prefix("system:node:").filter(|name| !name.is_empty())?;
        self.is_in(NODES).then_some(name)
    }
}
