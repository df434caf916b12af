//! Authorization checks: `authorizer.group('').resource('pods').namespace('a').check('create').allowed()`.
//!
//! Only expressions to which a variable `authorizer` is given have them.

use std::rc::Rc;

use crate::{
    cel::{
        eval::{Answer, Run, failure, traversal},
        value::{Opaque, Value},
    },
    kinds::names,
};

/// Decides what expressions ask.
pub trait Authorize {
    /// Whether the user of the request, or a service account instead (namespace and name), may do what is checked.
    fn decide(&self, service_account: Option<&(String, String)>, check: &Check) -> Decision;
}

/// What is checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// An HTTP method, in lower case, on a path that is no resource.
    Path {
        /// `get`
        verb: String,
        /// `/healthz`
        path: String,
    },
    /// A verb on a resource.
    Resource {
        /// `create`
        verb: String,
        /// The rest.
        of: ResourceCheck,
    },
}

/// A resource, as far as the expression has named it. Empty text stands for what is not said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourceCheck {
    /// API group; empty for the core group.
    pub group: String,
    /// The plural.
    pub resource: String,
    /// Path segment.
    pub subresource: String,
    /// Of the object.
    pub namespace: String,
    /// Of the object.
    pub name: String,
    /// As it was written; one that cannot be read counts for nothing.
    pub field_selector: String,
}

/// What was decided.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why; may be empty.
    pub reason: String,
    /// Why it could not be decided; empty if it could.
    pub error: String,
}

/// Who is asked, and about whom.
#[derive(Clone)]
pub struct Asker {
    by: Rc<dyn Authorize>,
    service_account: Option<Rc<(String, String)>>,
    request: Rc<ResourceCheck>,
}

/// A value of this library.
#[derive(Clone)]
pub enum Authz {
    /// `authorizer`
    Authorizer(Asker),
    /// `authorizer.path()`
    Path(Asker, Rc<str>),
    /// `authorizer.group()`
    Group(Asker, Rc<str>),
    /// `authorizer.group().resource()`
    Resource(Asker, Rc<ResourceCheck>),
    /// What `check()` answers.
    Decision(Rc<Decision>),
}

/// What a check costs: an expression may make two. Source: `k8s.io/apiserver/pkg/cel/library/cost.go`.
const CHECK: u64 = 350_000;

impl Authz {
    /// The variable `authorizer`; `request` is its `requestResource`.
    pub fn new(by: Rc<dyn Authorize>, request: ResourceCheck) -> Self {
        Self::Authorizer(Asker { by, service_account: None, request: Rc::new(request) })
    }

    /// As `type()` answers it.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::Authorizer(_) => "kubernetes.authorization.Authorizer",
            Self::Path(..) => "kubernetes.authorization.PathCheck",
            Self::Group(..) => "kubernetes.authorization.GroupCheck",
            Self::Resource(..) => "kubernetes.authorization.ResourceCheck",
            Self::Decision(_) => "kubernetes.authorization.Decision",
        }
    }

    /// `authorizer.requestResource`
    pub fn request_resource(&self) -> Option<Self> {
        match self {
            Self::Authorizer(asker) => Some(Self::Resource(asker.clone(), asker.request.clone())),
            _ => None,
        }
    }
}

fn value<'v>(authz: Authz) -> Answer<'v> {
    Ok(Value::Opaque(Opaque::Authz(authz)))
}

/// See [`super::call`].
pub fn call<'v>(run: &mut Run<'_, 'v>, name: &str, values: &[Value<'v>]) -> Option<Answer<'v>> {
    let (Value::Opaque(Opaque::Authz(of)), arguments) = values.split_first()? else { return None };
    let answer = match (of, name, arguments) {
        (Authz::Authorizer(asker), "serviceAccount", [Value::String(namespace), Value::String(account)]) => {
            service_account(asker, namespace, account)
        }
        (Authz::Authorizer(asker), "path", [Value::String(path)]) => match path.trim() {
            "" => Err(failure("path must not be empty")),
            _ => value(Authz::Path(asker.clone(), path.clone())),
        },
        (Authz::Authorizer(asker), "group", [Value::String(group)]) => {
            value(Authz::Group(asker.clone(), group.clone()))
        }
        (Authz::Group(asker, group), "resource", [Value::String(resource)]) => match resource.trim() {
            "" => Err(failure("resource must not be empty")),
            _ => {
                let (group, resource) = (group.to_string(), resource.to_string());
                let check = ResourceCheck { group, resource, ..ResourceCheck::default() };
                value(Authz::Resource(asker.clone(), Rc::new(check)))
            }
        },
        (Authz::Resource(asker, check), "check", [Value::String(verb)]) => {
            let check = Check::Resource { verb: verb.to_string(), of: (**check).clone() };
            return Some(run.charge(CHECK).and_then(|()| decided(asker, &check)));
        }
        (Authz::Path(asker, path), "check", [Value::String(verb)]) => {
            let check = Check::Path { verb: verb.to_ascii_lowercase(), path: path.to_string() };
            return Some(run.charge(CHECK).and_then(|()| decided(asker, &check)));
        }
        (Authz::Resource(asker, check), part, [Value::String(text)]) => narrowed(run, asker, check, part, text)?,
        (Authz::Decision(decision), "allowed", []) => Ok(Value::Bool(decision.allowed)),
        (Authz::Decision(decision), "reason", []) => Ok(Value::text(decision.reason.as_str())),
        (Authz::Decision(decision), "errored", []) => Ok(Value::Bool(!decision.error.is_empty())),
        (Authz::Decision(decision), "error", []) => Ok(Value::text(decision.error.as_str())),
        _ => return None,
    };
    Some(run.charge(1).and(answer))
}

fn decided<'v>(asker: &Asker, check: &Check) -> Answer<'v> {
    value(Authz::Decision(Rc::new(asker.by.decide(asker.service_account.as_deref(), check))))
}

fn service_account<'v>(asker: &Asker, namespace: &str, account: &str) -> Answer<'v> {
    if !names::subdomain(account).is_empty() {
        return Err(failure("Invalid service account name"));
    }
    if !names::label(namespace).is_empty() {
        return Err(failure("Invalid service account namespace"));
    }
    let service_account = Some(Rc::new((namespace.to_owned(), account.to_owned())));
    value(Authz::Authorizer(Asker { service_account, ..asker.clone() }))
}

fn narrowed<'v>(
    run: &mut Run<'_, 'v>,
    asker: &Asker,
    check: &ResourceCheck,
    part: &str,
    text: &str,
) -> Option<Answer<'v>> {
    let mut check = check.clone();
    match part {
        "subresource" => check.subresource = text.to_owned(),
        "namespace" => check.namespace = text.to_owned(),
        "name" => check.name = text.to_owned(),
        "fieldSelector" | "labelSelector" => {
            if let Err(error) = run.charge(traversal(text.len() as u64)) {
                return Some(Err(error));
            }
            // No authoriser here looks at labels.
            if part == "fieldSelector" {
                check.field_selector = text.to_owned();
            }
        }
        _ => return None,
    }
    Some(value(Authz::Resource(asker.clone(), Rc::new(check))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cel::{Activation, CALL_LIMIT, EvalError, Scope, Type, compile};

    /// Allows what `jane` asks, or a service account's `get`; tells what was checked as the reason.
    struct Jane;

    impl Authorize for Jane {
        fn decide(&self, service_account: Option<&(String, String)>, check: &Check) -> Decision {
            let verb = match check {
                Check::Path { verb, .. } | Check::Resource { verb, .. } => verb,
            };
            let error = if verb == "fail" { "no idea".to_owned() } else { String::new() };
            let allowed = service_account.is_none() && error.is_empty() || verb == "get";
            Decision { allowed, reason: format!("{service_account:?} {check:?}"), error }
        }
    }

    fn value_of(text: &str) -> Result<String, EvalError> {
        let scope = Scope::default().with("authorizer", Type::Opaque("kubernetes.authorization.Authorizer"));
        let program = compile(text, &scope, &Type::Dyn).unwrap_or_else(|error| panic!("{text}: {error}"));
        let request = ResourceCheck { resource: "widgets".into(), name: "w".into(), ..ResourceCheck::default() };
        let authorizer = Value::Opaque(Opaque::Authz(Authz::new(Rc::new(Jane), request)));
        let evaluated = program.evaluate(&Activation::default().with("authorizer", authorizer));
        evaluated.value.map(|value| format!("{value:?}"))
    }

    #[test]
    fn an_expression_asks_what_its_user_or_an_account_may() {
        let is = |text: &str, expected: &str| assert_eq!(value_of(text).as_deref(), Ok(expected), "{text}");
        is("authorizer.group('apps').resource('deployments').namespace('a').check('create').allowed()", "true");
        is("authorizer.serviceAccount('a', 'b').path('/healthz').check('POST').allowed()", "false");
        is("authorizer.serviceAccount('a', 'b').path('/healthz').check('GET').allowed()", "true");
        is("authorizer.path('/x').check('fail').errored()", "true");
        is("authorizer.path('/x').check('fail').error()", "\"no idea\"");
        is("authorizer.path('/x').check('get').errored()", "false");
        let all = "authorizer.group('g').resource('r').subresource('s').namespace('n').name('o')\
            .fieldSelector('a=b').labelSelector('c').check('v').reason()";
        let check = ResourceCheck {
            group: "g".into(),
            resource: "r".into(),
            subresource: "s".into(),
            namespace: "n".into(),
            name: "o".into(),
            field_selector: "a=b".into(),
        };
        let check = Check::Resource { verb: "v".into(), of: check };
        is(all, &format!("{:?}", format!("None {check:?}")));
        let own = value_of("authorizer.requestResource.check('v').reason()").unwrap();
        assert!(own.contains("widgets"), "{own}");
    }

    #[test]
    fn checks_are_dear_and_nonsense_is_refused() {
        let one = "authorizer.path('/x').check('get').allowed()";
        assert_eq!(value_of(&[one; 2].join(" && ")).as_deref(), Ok("true"));
        const { assert!(3 * CHECK > CALL_LIMIT) };
        assert_eq!(value_of(&[one; 3].join(" && ")), Err(EvalError::CostLimit));
        for (text, why) in [
            ("authorizer.path(' ')", "path must not be empty"),
            ("authorizer.group('').resource('')", "resource must not be empty"),
            ("authorizer.serviceAccount('a', 'no@')", "Invalid service account name"),
            ("authorizer.serviceAccount('A.b', 'b')", "Invalid service account namespace"),
        ] {
            assert_eq!(value_of(text), Err(failure(why)), "{text}");
        }
        assert!(compile("authorizer.path('/')", &Scope::default(), &Type::Dyn).is_err(), "nobody gave it one");
    }
}
