//! The authenticated user of a request.

use std::collections::BTreeMap;

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// User name: `kubernetes-admin`, `system:node:n1`.
    pub name: String,
    /// All groups, [`AUTHENTICATED`] included if the user proved to be someone.
    pub groups: Vec<String>,
    /// Tells users of one name apart that were there one after the other; empty for all but ServiceAccounts.
    pub uid: String,
    /// What else the credential says: of a ServiceAccount's token its pod and node. By the names of Kubernetes.
    pub extra: BTreeMap<String, Vec<String>>,
}

/// What the users of ServiceAccounts begin with; the namespace follows, a colon, and the name.
pub const SERVICE_ACCOUNT: &str = "system:serviceaccount:";
/// Group of every ServiceAccount; those of one namespace have `system:serviceaccounts:NAMESPACE`, too.
pub const SERVICE_ACCOUNTS: &str = "system:serviceaccounts";

impl Identity {
    /// A ServiceAccount.
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let groups = vec![SERVICE_ACCOUNTS.to_owned(), format!("{SERVICE_ACCOUNTS}:{namespace}")];
        Self::authenticated(service_account_user(namespace, name), groups)
    }

    /// The identity of everything that runs inside the control service.
    pub fn control(name: &str) -> Self {
        Self::authenticated(format!("system:{name}"), vec![MASTERS.into()])
    }

    /// Somebody who showed no credential.
    pub fn anonymous() -> Self {
        Self { name: ANONYMOUS.into(), groups: vec![UNAUTHENTICATED.into()], ..Self::default() }
    }

    /// Somebody who proved who they are.
    pub fn authenticated(name: String, mut groups: Vec<String>) -> Self {
        groups.push(AUTHENTICATED.into());
        Self { name, groups, ..Self::default() }
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

    /// Whether it is a node's that has no name.
    pub fn is_nameless_node(&self) -> bool {
        self.name == "system:node:" && self.is_in(NODES)
    }
}

/// The user that a ServiceAccount is.
pub fn service_account_user(namespace: &str, name: &str) -> String {
    format!("{SERVICE_ACCOUNT}{namespace}:{name}")
}
