//! Kinds of `rbac.authorization.k8s.io`: what may be done, and by whom. Who may do it now is decided by
//! [`crate::auth::rbac`].

pub mod cluster_role;
pub mod cluster_role_binding;
mod policy_rule;
pub mod role;
pub mod role_binding;
mod subject;

/// The name of the API group.
pub const GROUP: &str = "rbac.authorization.k8s.io";
