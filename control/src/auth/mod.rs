//! Who asks, and whether they may.

/// Who sent a request: inserted into the request's extensions by the authentication layer (or by the in-process client) before
/// the API's router sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub groups: Vec<String>,
}

impl Identity {
    /// The identity of everything that runs inside the control service.
    pub fn control(name: &str) -> Self {
        Self { name: format!("system:{name}"), groups: vec!["system:masters".into(), "system:authenticated".into()] }
    }
}
