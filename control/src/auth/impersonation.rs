//! Acting as somebody else: the headers `Impersonate-User`, `-Group`, `-Uid` and `-Extra-…`, as `kubectl --as`,
//! `--as-group` and `--as-uid` send them.
//!
//! Who may impersonate whom is the authoriser's to say: user, groups, uid and extra values one by one. What the headers
//! ask for is never ignored: a client that gives rights up by it would otherwise keep them.
//!
//! Source: `WithImpersonation` of `k8s.io/apiserver`.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderValue};
use percent_encoding::percent_decode_str;

use super::{
    Identity,
    attributes::{Attributes, Resource},
    authorize,
    authorizer::{AuthorizationError, Authorizer, Verdict},
};
use crate::{
    identity::{ANONYMOUS, AUTHENTICATED, SERVICE_ACCOUNT, UNAUTHENTICATED},
    kinds::names,
    status::Status,
};

/// Whom a request is made as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    user: String,
    groups: Vec<String>,
    uid: String,
    extra: BTreeMap<String, Vec<String>>,
}

/// Why a request is not made as somebody else.
#[derive(Debug)]
pub enum ImpersonationError {
    /// The user may not impersonate them: the 403, or the 500 where that cannot be told.
    Refused(Status),
    /// It is not decided whether the user may.
    Undecided(AuthorizationError),
}

const USER: &str = "impersonate-user";
const GROUP: &str = "impersonate-group";
const UID: &str = "impersonate-uid";
const EXTRA: &str = "impersonate-extra-";

impl Impersonation {
    /// What the headers ask for; nothing where they say nothing of it, or name an empty user alone. A 400 for anything
    /// else without a user.
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Status> {
        let text = |value: &HeaderValue| {
            let text = value.to_str().map_err(|_| Status::bad_request("an Impersonate header is not ASCII text"))?;
            Ok(text.to_owned())
        };
        let groups = headers.get_all(GROUP).iter().map(text).collect::<Result<Vec<_>, Status>>()?;
        let uid = headers.get(UID).map(text).transpose()?.unwrap_or_default();
        let mut extra = BTreeMap::<String, Vec<String>>::new();
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(EXTRA) {
                // What is no encoded text stands for itself.
                let key = percent_decode_str(key).decode_utf8().map_or_else(|_| key.to_owned(), |key| key.into_owned());
                extra.entry(key).or_default().push(text(value)?);
            }
        }
        let user = headers.get(USER).map(text).transpose()?.unwrap_or_default();
        let asked = Self { user, groups, uid, extra };
        if !asked.user.is_empty() {
            return Ok(Some(asked));
        }
        if asked.groups.is_empty() && asked.uid.is_empty() && asked.extra.is_empty() {
            return Ok(None);
        }
        Err(Status::bad_request(format!("requested {} without impersonating a user", asked.without_user())))
    }

    /// As Kubernetes shows it: a list of its object references.
    fn without_user(&self) -> String {
        const VERSION: &str = "authentication.k8s.io/v1";
        let groups = self.groups.iter().map(|group| format!("{{Group  {group}    }}"));
        let extra = self.extra.iter().flat_map(|(key, values)| values.iter().map(move |value| (key, value)));
        let extra = extra.map(|(key, value)| format!("{{UserExtra  {value}  {VERSION}  {key}}}"));
        let uid = Some(&self.uid).filter(|uid| !uid.is_empty()).map(|uid| format!("{{UID  {uid}  {VERSION}  }}"));
        format!("[{}]", groups.chain(extra).chain(uid).collect::<Vec<_>>().join(" "))
    }

    /// Every user, group, uid and extra value that is asked for.
    fn requested(&self) -> Vec<Resource<'_>> {
        const GROUP: &str = "authentication.k8s.io";
        let user = match service_account(&self.user) {
            Some((namespace, name)) => Resource { resource: "serviceaccounts", namespace, name, ..Resource::default() },
            None => Resource { resource: "users", name: &self.user, ..Resource::default() },
        };
        let mut all = vec![user];
        all.extend(self.groups.iter().map(|name| Resource { resource: "groups", name, ..Resource::default() }));
        for (key, values) in &self.extra {
            let of = Resource { group: GROUP, resource: "userextras", subresource: key, ..Resource::default() };
            all.extend(values.iter().map(|name| Resource { name, ..of }));
        }
        if !self.uid.is_empty() {
            all.push(Resource { group: GROUP, resource: "uids", name: &self.uid, ..Resource::default() });
        }
        all
    }

    /// The impersonated user, if `identity` may act as them and as each of the groups.
    pub async fn assume(&self, identity: &Identity, authorizer: &Authorizer) -> Result<Identity, ImpersonationError> {
        for whom in self.requested() {
            let attributes = Attributes::Resource(Resource { verb: "impersonate", version: "v1", ..whom });
            match authorizer.decide(identity, &attributes).await.map_err(ImpersonationError::Undecided)? {
                Verdict::Allowed { .. } => {}
                Verdict::Refused { error: Some(error), .. } => {
                    return Err(ImpersonationError::Refused(Status::internal(error)));
                }
                Verdict::Refused { reason, .. } => {
                    return Err(ImpersonationError::Refused(authorize::forbidden(identity, &attributes, &reason)));
                }
            }
        }
        let mut groups = self.groups.clone();
        if let (Some((namespace, _)), true) = (service_account(&self.user), groups.is_empty()) {
            groups.extend(["system:serviceaccounts".to_owned(), format!("system:serviceaccounts:{namespace}")]);
        }
        let everyone = if self.user == ANONYMOUS { UNAUTHENTICATED } else { AUTHENTICATED };
        if !groups.iter().any(|group| group == AUTHENTICATED || group == UNAUTHENTICATED) {
            groups.push(everyone.to_owned());
        }
        Ok(Identity { name: self.user.clone(), groups, uid: self.uid.clone(), extra: self.extra.clone() })
    }
}

/// Namespace and name of `system:serviceaccount:NAMESPACE:NAME`; what no account can be called is a user like others.
fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    (names::label(namespace).is_empty() && names::subdomain(name).is_empty()).then_some((namespace, name))
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
        let mut expected = Impersonation {
            user: "jane".into(),
            groups: vec!["a".into(), "b".into()],
            uid: String::new(),
            extra: BTreeMap::new(),
        };
        assert_eq!(Impersonation::of(&asked).unwrap(), Some(expected.clone()));
        asked.insert(UID, HeaderValue::from_static("7"));
        for (name, value) in [("acme.com%2Fscopes", "view"), ("acme.com%2fscopes", "edit"), ("%zz", "odd")] {
            let name: http::HeaderName = format!("Impersonate-Extra-{name}").parse().unwrap();
            asked.append(name, HeaderValue::from_static(value));
        }
        expected.uid = "7".into();
        expected.extra = [("acme.com/scopes", vec!["view", "edit"]), ("%zz", vec!["odd"])]
            .map(|(key, values): (_, Vec<&str>)| (key.to_owned(), values.into_iter().map(str::to_owned).collect()))
            .into();
        assert_eq!(Impersonation::of(&asked).unwrap(), Some(expected));
        assert_eq!(Impersonation::of(&headers(&[("impersonate-user", "")])).unwrap(), None);
        for (wrong, shown) in [
            ([("impersonate-group", "a")].as_slice(), "[{Group  a    }]"),
            (&[("impersonate-uid", "1")], "[{UID  1  authentication.k8s.io/v1  }]"),
            (&[("impersonate-extra-scopes", "x")], "[{UserExtra  x  authentication.k8s.io/v1  scopes}]"),
            (
                &[("impersonate-uid", "1"), ("impersonate-group", "a")],
                "[{Group  a    } {UID  1  authentication.k8s.io/v1  }]",
            ),
        ] {
            let refused = Impersonation::of(&headers(wrong)).unwrap_err();
            assert_eq!(refused.message, format!("requested {shown} without impersonating a user"));
            assert_eq!(refused.code, 400);
        }
    }

    #[test]
    fn what_no_account_can_be_called_is_a_user() {
        assert_eq!(service_account("system:serviceaccount:a:b.c"), Some(("a", "b.c")));
        for user in ["system:serviceaccount:A:b", "system:serviceaccount:a:B", "system:serviceaccount:a:b:c", "a:b"] {
            assert_eq!(service_account(user), None, "{user}");
        }
    }

    #[tokio::test]
    async fn only_who_may_acts_as_another_and_then_has_their_rights_only() {
        let dir = tempfile::tempdir().unwrap();
        let authorizer = Authorizer::new(Arc::new(open_store(&dir.path().join("s"), &Registry::default()).unwrap()));
        let admin = Identity::control("test");
        let of = |user: &str, groups: &[&str]| Impersonation {
            user: user.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            uid: String::new(),
            extra: BTreeMap::new(),
        };
        let whole = Impersonation {
            uid: "7".into(),
            extra: [("scopes".to_owned(), vec!["view".to_owned()])].into(),
            ..of("jane", &[])
        };
        let requested: Vec<_> =
            whole.requested().iter().map(|r| (r.group, r.resource, r.subresource, r.name)).collect();
        let asked: [(&str, &str, &str, &str); 3] = [
            ("", "users", "", "jane"),
            ("authentication.k8s.io", "userextras", "scopes", "view"),
            ("authentication.k8s.io", "uids", "", "7"),
        ];
        assert_eq!(requested, asked);
        let acting = whole.assume(&admin, &authorizer).await.unwrap();
        assert_eq!((&*acting.uid, &acting.extra), ("7", &whole.extra));
        let jane = of("jane", &["dev"]).assume(&admin, &authorizer).await.unwrap();
        assert_eq!(jane, Identity::authenticated("jane".into(), vec!["dev".into()]));
        let account = of("system:serviceaccount:default:web", &[]).assume(&admin, &authorizer).await.unwrap();
        assert_eq!(
            account.groups,
            ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"]
        );
        assert_eq!(of(ANONYMOUS, &[]).assume(&admin, &authorizer).await.unwrap(), Identity::anonymous());
        let Err(ImpersonationError::Refused(status)) =
            of("kubernetes-admin", &["system:masters"]).assume(&jane, &authorizer).await
        else {
            panic!("jane may impersonate nobody")
        };
        assert_eq!(status.code, 403);
        assert!(status.message.contains("cannot impersonate resource \"users\""), "{}", status.message);
    }
}
