//! Which rule of the audit policy is about a request, and so how much is recorded of it and when: a pure function.
//!
//! Never reads a request itself: it gets the attributes that authorisation sees.
//!
//! Source: `k8s.io/apiserver/pkg/audit/policy/checker.go`.

use serde::Serialize;

use crate::identity::Identity;

/// How much is recorded of a request. Each level records what the one before it does, and more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum AuditLevel {
    /// Nothing.
    None,
    /// Who asked what and when, and how it ended.
    Metadata,
    /// The object that was sent, too.
    Request,
    /// The object that was answered, too.
    RequestResponse,
}

/// When an event is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum AuditStage {
    /// Once the sender is known, before anything else is done.
    RequestReceived,
    /// Once the answer's headers are known, of requests that last.
    ResponseStarted,
    /// Once the answer is complete.
    ResponseComplete,
    /// Where the handler panicked.
    Panic,
}

/// A set of stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AuditStages(u8);

/// One rule. Empty lists restrict nothing.
#[derive(Clone, Debug, Default)]
pub struct AuditRule {
    /// What is recorded; nothing where the policy does not say.
    pub level: Option<AuditLevel>,
    /// User names.
    pub users: Vec<String>,
    /// Groups, of which the user has one.
    pub groups: Vec<String>,
    /// `get`, `list`, …
    pub verbs: Vec<String>,
    /// Resources of the API.
    pub resources: Vec<GroupResources>,
    /// Namespaces; the empty one stands for objects without one.
    pub namespaces: Vec<String>,
    /// Other paths.
    pub non_resource_urls: Vec<String>,
    /// When no event is made, those of the policy included.
    pub omit_stages: AuditStages,
    /// Whether objects are recorded without `metadata.managedFields`.
    pub omit_managed_fields: bool,
}

/// Resources of one API group.
#[derive(Clone, Debug, Default)]
pub struct GroupResources {
    /// Empty for the core group.
    pub group: String,
    /// `pods`, `pods/log`, `pods/*`, `*/scale` or `*`.
    pub resources: Vec<String>,
    /// Names of objects.
    pub names: Vec<String>,
}

/// The rules of a policy, in their order.
#[derive(Clone, Debug, Default)]
pub struct AuditRules(Vec<AuditRule>);

/// What is asked, and by whom.
#[derive(Clone, Copy, Debug)]
pub struct AuditAttributes<'a> {
    /// Who is authenticated; `None` where nobody is. Not whom they impersonate.
    pub user: Option<&'a Identity>,
    /// Of a resource Kubernetes' verb, of another path the method in lower case.
    pub verb: &'a str,
    /// What it is about.
    pub target: AuditTarget<'a>,
}

/// What a request is about.
#[derive(Clone, Copy, Debug)]
pub enum AuditTarget<'a> {
    /// Objects of the API. Empty text stands for what is not said.
    Resource {
        /// Empty for the core group.
        group: &'a str,
        /// `v1`
        version: &'a str,
        /// The plural.
        resource: &'a str,
        /// `status`, `log`…
        subresource: &'a str,
        /// Of a Namespace, the namespace that it is.
        namespace: &'a str,
        /// The object's name.
        name: &'a str,
    },
    /// Everything else.
    Path(&'a str),
}

/// What the policy says of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AuditDecision {
    /// How much is recorded; more than nothing.
    pub level: AuditLevel,
    /// When no event is made.
    pub omit_stages: AuditStages,
    /// Whether objects are recorded without `metadata.managedFields`.
    pub omit_managed_fields: bool,
}

impl AuditLevel {
    /// As the policy and metrics spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "None",
            Self::Metadata => "Metadata",
            Self::Request => "Request",
            Self::RequestResponse => "RequestResponse",
        }
    }
}

impl AuditStage {
    /// As the policy and events spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RequestReceived => "RequestReceived",
            Self::ResponseStarted => "ResponseStarted",
            Self::ResponseComplete => "ResponseComplete",
            Self::Panic => "Panic",
        }
    }

    fn bit(self) -> u8 {
        match self {
            Self::RequestReceived => 1,
            Self::ResponseStarted => 2,
            Self::ResponseComplete => 4,
            Self::Panic => 8,
        }
    }
}

impl AuditStages {
    /// Whether `stage` is one of them.
    pub fn contain(self, stage: AuditStage) -> bool {
        self.0 & stage.bit() != 0
    }

    /// Those of either set.
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl FromIterator<AuditStage> for AuditStages {
    fn from_iter<I: IntoIterator<Item = AuditStage>>(stages: I) -> Self {
        Self(stages.into_iter().fold(0, |set, stage| set | stage.bit()))
    }
}

impl AuditRules {
    /// In this order: the first that takes a request decides.
    pub fn new(rules: Vec<AuditRule>) -> Self {
        Self(rules)
    }

    /// Whether a rule that records requests omits their events of a stage.
    pub fn omit(&self, stage: AuditStage) -> bool {
        let records = |rule: &AuditRule| rule.level.is_some_and(|level| level != AuditLevel::None);
        self.0.iter().any(|rule| records(rule) && rule.omit_stages.contain(stage))
    }

    /// What the first rule says that is about the request; nothing is recorded of what none is about.
    pub fn decide(&self, request: &AuditAttributes<'_>) -> Option<AuditDecision> {
        let rule = self.0.iter().find(|rule| rule.takes(request))?;
        let level = rule.level.filter(|level| *level != AuditLevel::None)?;
        let AuditRule { omit_stages, omit_managed_fields, .. } = *rule;
        Some(AuditDecision { level, omit_stages, omit_managed_fields })
    }
}

impl AuditRule {
    fn takes(&self, request: &AuditAttributes<'_>) -> bool {
        let is_by = |user: &Identity| {
            let is_named = self.users.is_empty() || self.users.contains(&user.name);
            is_named && (self.groups.is_empty() || user.groups.iter().any(|group| self.groups.contains(group)))
        };
        let of_anybody = self.users.is_empty() && self.groups.is_empty();
        (of_anybody || request.user.is_some_and(is_by)) && names(&self.verbs, request.verb) && self.is_about(request)
    }

    fn is_about(&self, request: &AuditAttributes<'_>) -> bool {
        let of_resources = !self.namespaces.is_empty() || !self.resources.is_empty();
        match request.target {
            AuditTarget::Resource { group, resource, subresource, namespace, name, .. } if of_resources => {
                let takes = |entry: &GroupResources| entry.takes(group, resource, subresource, name);
                names(&self.namespaces, namespace) && (self.resources.is_empty() || self.resources.iter().any(takes))
            }
            AuditTarget::Resource { .. } => self.non_resource_urls.is_empty(),
            AuditTarget::Path(_) if of_resources => false,
            AuditTarget::Path(path) => {
                self.non_resource_urls.is_empty() || self.non_resource_urls.iter().any(|url| covers(url, path))
            }
        }
    }
}

impl GroupResources {
    fn takes(&self, group: &str, resource: &str, subresource: &str, name: &str) -> bool {
        let is_resource = |entry: &String| match entry.split_once('/') {
            None => entry == "*" || subresource.is_empty() && entry == resource,
            // As in Kubernetes, the resource itself is covered, too.
            Some((of, "*")) if of == resource => true,
            Some(("*", part)) => !subresource.is_empty() && part == subresource,
            Some((of, part)) => of == resource && part == subresource,
        };
        self.group == group
            && (self.resources.is_empty() || self.resources.iter().any(is_resource) && names(&self.names, name))
    }
}

/// Whether a list that restricts nothing where it is empty takes a value.
fn names(list: &[String], value: &str) -> bool {
    list.is_empty() || list.iter().any(|entry| entry == value)
}

/// Whether a rule's URL covers a path.
fn covers(url: &str, path: &str) -> bool {
    match url.strip_suffix('*') {
        Some(start) => path.starts_with(start.trim_end_matches('*')),
        None => url == path,
    }
}

#[cfg(test)]
mod tests;
