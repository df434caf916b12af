//! Acting as somebody else: the headers `Impersonate-User` and `Impersonate-Group`, as `kubectl --as` and `--as-group`
//! send them.
//!
//! Who may impersonate whom is the authoriser's to say, user and groups one by one. What the headers ask for is never
//! ignored: a client that gives rights up by it would otherwise keep them.
//!
//! Source: `WithImpersonation` of `k8s.io/apiserver`.

use http::{HeaderMap, HeaderValue};

use super::{
    Identity,
    attributes::{Attributes, Resource},
    authorize,
    authorizer::{Authorizer, Verdict},
    stored_facts::Unreadable,
};
use crate::{
    identity::{ANONYMOUS, AUTHENTICATED, UNAUTHENTICATED},
    status::Status,
};

/// Whom a request is made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    user: String,
    groups: Vec<String>,
}

/// Why a request is not made as somebody else.
#[derive(Debug)]
pub enum ImpersonationError {
    /// The user may not impersonate them: the 403.
    Refused(Status),
    /// Authorisation needs an object that cannot be read back.
    Unreadable(Unreadable),
}

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

impl Impersonation {
    /// What the headers ask for; nothing where they say nothing of it. A 400 for groups without a user, and for a UID
    /// or extra fields, which users have none of here.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let text = |value: &HeaderValue| {
            let text = value.to_str().map_err(|_| Status::bad_request("an Impersonate header is not ASCII text"))?;
            Ok(text.to_owned())
        };
        if let Some(name) = headers.keys().find(|name| name.as_str() == UID || name.as_str().starts_with(EXTRA)) {
            return Err(Status::bad_request(format!("{name}: users have no UID and no extra fields to impersonate")));
        }
        let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, Status>>()?;
        match headers.get(USER).map(text).transpose()?.filter(|user| !user.is_empty()) {
            Some(user) => Ok(Some(Self { user, groups })),
            None if groups.is_empty() && !headers.contains_key(USER) => Ok(None),
            None => Err(Status::bad_request(format!("requested groups {groups:?} without impersonating a user"))),
        }
    }

    /// The impersonated user, if `identity` may act as them and as each of the groups.
    pub fn assume(&self, identity: &Identity, authorizer: &Authorizer) -> Result<Identity, ImpersonationError> {
        let account = service_account(&self.user);
        let user = match account {
            Some((namespace, name)) => Resource { resource: "serviceaccounts", namespace, name, ..Resource::default() },
            None => Resource { resource: "users", name: &self.user, ..Resource::default() },
        };
        let groups = self.groups.iter().map(|name| Resource { resource: "groups", name, ..Resource::default() });
        for whom in std::iter::once(user).chain(groups) {
            let attributes = Attributes::Resource(Resource { verb: "impersonate", version: "v1", ..whom });
            match authorizer.decide(identity, &attributes).map_err(ImpersonationError::Unreadable)? {
                Verdict::Allowed { .. } => {}
                Verdict::Refused { reason } => {
                    return Err(ImpersonationError::Refused(authorize::forbidden(identity, &attributes, &reason)));
                }
            }
        }
        let mut groups = self.groups.clone();
        if let (Some((namespace, _)), true) = (account, groups.is_empty()) {
            groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
        }
        let everyone = if self.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(everyone.to_owned());
        }
        Ok(Identity { name: self.user.clone(), groups, ..Identity::default() })
    }
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix("system:serviceaccount:")?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{api::open_store, kinds::Registry};

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn headers_are_read_or_refused_and_never_ignored() {
        assert_eq!(Impersonation::of(&headers(&[("accept", "*/*")])).unwrap(), None);
        let both = [("impersonate-user", "jane"), ("impersonate-group", "a")];
        let mut asked = headers(&both);
        asked.append(GROUP, HeaderValue::from_static("b"));
        let expected = Impersonation { user: "jane".into(), groups: vec!["a".into(), "b".into()] };
        assert_eq!(Impersonation::of(&asked).unwrap(), Some(expected));
        for wrong in [
            [("impersonate-group", "a")].as_slice(),
            &[("impersonate-user", "")],
            &[("impersonate-user", "jane"), ("impersonate-uid", "1")],
            &[("impersonate-user", "jane"), ("impersonate-extra-scopes", "x")],
        ] {
            assert_eq!(Impersonation::of(&headers(wrong)).unwrap_err().code, 400, "{wrong:?}");
        }
    }

    #[test]
    fn only_who_may_acts_as_another_and_then_has_their_rights_only() {
        let dir = tempfile::tempdir().unwrap();
        let authorizer = Authorizer::new(Arc::new(open_store(&dir.path().join("s"), &Registry::default()).unwrap()));
        let admin = Identity::control("test");
        let of = |user: &str, groups: &[&str]| Impersonation {
            user: user.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        };
        let jane = of("jane", &["dev"]).assume(&admin, &authorizer).unwrap();
        assert_eq!(jane, Identity::authenticated("jane".into(), vec!["dev".into()]));
        let account = of("system:serviceaccount:default:web", &[]).assume(&admin, &authorizer).unwrap();
        assert_eq!(
            account.groups,
            ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
        );
        assert_eq!(of(ANONYMOUS, &[]).assume(&admin, &authorizer).unwrap(), Identity::anonymous());
        let Err(ImpersonationError::Refused(status)) =
            of("kubernetes-admin", &["system:masters"]).assume(&jane, &authorizer)
        else {
            panic!("jane may impersonate nobody")
        };
        assert_eq!(status.code, 403);
        assert!(status.message.contains("cannot impersonate resource \"users\""), "{}", status.message);
    }
}
