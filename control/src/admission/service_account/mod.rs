//! ServiceAccount: every pod runs as an account of its namespace that exists, and gets the pull secrets and the token
//! of that account.
//!
//! | file | what it knows |
//! |---|---|
//! | `account` | what a ServiceAccount says about its pods |
//! | `token_volume` | the volume with its token |
//! | `mountable_secrets` | accounts that limit the Secrets of their pods |
//! | `mirror_pod` | pods without an account |
//!
//! Source: `plugin/pkg/admission/serviceaccount`, whose words these are.

mod account;
mod mirror_pod;
mod mountable_secrets;
mod token_volume;

use futures::FutureExt;
use serde_json::{Value, json};

pub use self::account::{Account, RESOURCE, read};
use self::{
    account::{DEFAULT, find},
    mirror_pod::is_mirror,
};
use super::plugins::{AdmissionContext, Mutate, Plugin, Validate};
use crate::{
    admission_plugins::PluginName,
    kinds::{
        pod::defaults::same_under_both_names,
        reading::{is_empty, text},
    },
    request::Verb,
    status::Status,
};

/// New pods get what their account has for them, and name no Secrets that it does not.
pub static PLUGIN: Plugin = Plugin {
    mutate: Some(Mutate::Waiting(|context, pod| mutate(context, pod).boxed())),
    validate: Some(Validate::Waiting(|context, pod| validate(context, pod).boxed())),
    ..Plugin::named(PluginName::ServiceAccount)
};

const POD: (&str, &str) = ("", "Pod");

async fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    if !context.is(Verb::Create, POD, None) {
        return Ok(());
    }
    // It is refused before NodeRestriction sees it, as in Kubernetes, and never changed.
    if is_mirror(pod) {
        return mirror_pod::violation(pod).map_or(Ok(()), |why| Err(context.forbidden(why)));
    }
    let name = set_name(&mut pod["spec"]);
    let account = find(context, &name).await.map_err(|error| context.forbidden(&error.to_string()))?;
    let token_volume = token_volume::serves_tokens(&context.kinds.here).then(token_volume::volume_name);
    complete(pod, &account, token_volume);
    Ok(())
}

async fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    let why = if context.is(Verb::Create, POD, None) {
        match is_mirror(pod) {
            true => mirror_pod::violation(pod).map(str::to_owned),
            false => violation_by_account(context, pod, mountable_secrets::violation).await,
        }
    } else if context.is(Verb::Update, POD, Some("ephemeralcontainers")) {
        violation_by_account(context, pod, mountable_secrets::ephemeral_violation).await
    } else {
        None
    };
    why.map_or(Ok(()), |why| Err(context.forbidden(&why)))
}

/// What `violation` says of a pod and its account, which must exist.
async fn violation_by_account(
    context: &AdmissionContext<'_>,
    pod: &Value,
    violation: fn(&Value, &Account, &str) -> Option<String>,
) -> Option<String> {
    let name = text(&pod["spec"], "serviceAccountName");
    if name.is_empty() {
        let (namespace, pod) = (context.request.namespace.unwrap_or_default(), context.request.name);
        return Some(format!("no service account specified for pod {namespace}/{pod}"));
    }
    match find(context, name).await {
        Ok(account) => violation(pod, &account, name),
        Err(error) => Some(error.to_string()),
    }
}

/// The name of the account that a new pod runs as, filled in if it names none.
fn set_name(spec: &mut Value) -> String {
    same_under_both_names(spec);
    if text(spec, "serviceAccountName").is_empty() {
        spec["serviceAccountName"] = DEFAULT.into();
        spec["serviceAccount"] = DEFAULT.into();
    }
    text(spec, "serviceAccountName").to_owned()
}

/// Gives a new pod what its account has for it. `token_volume` is the name of a volume to be added for its token, if
/// tokens are served.
fn complete(pod: &mut Value, account: &Account, token_volume: Option<String>) {
    let spec = &mut pod["spec"];
    let automount = spec["automountServiceAccountToken"].as_bool().or(account.automount).unwrap_or(true);
    if let Some(volume) = token_volume.filter(|_| automount) {
        token_volume::mount(spec, volume);
    }
    if is_empty(&spec["imagePullSecrets"]) && !account.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = account.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> Value {
        json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c"}], "initContainers": [{"name": "i"}]}})
    }

    #[test]
    fn a_pod_gets_the_token_and_the_pull_secrets_of_its_account() {
        let account = read(&json!({"imagePullSecrets": [{"name": "pull"}]}));
        let mut made = pod();
        complete(&mut made, &account, Some("kube-api-access-abcde".into()));
        assert_eq!(made["spec"]["imagePullSecrets"], json!([{"name": "pull"}]));
        assert_eq!(made["spec"]["volumes"][0]["name"], "kube-api-access-abcde");
        let again = made.clone();
        complete(&mut made, &account, Some("kube-api-access-other".into()));
        assert_eq!(made, again, "it has its token");
    }

    #[test]
    fn a_token_is_mounted_unless_the_pod_or_its_account_says_no() {
        let cases = [
            (None, None, true),
            (None, Some(false), false),
            (Some(true), Some(false), true),
            (Some(false), None, false),
        ];
        for (of_pod, of_account, mounted) in cases {
            let mut made = pod();
            made["spec"]["automountServiceAccountToken"] = json!(of_pod);
            let account = read(&json!({"automountServiceAccountToken": of_account}));
            complete(&mut made, &account, Some("kube-api-access-abcde".into()));
            assert_eq!(!is_empty(&made["spec"]["volumes"]), mounted, "{of_pod:?} {of_account:?}");
        }
        let mut made = pod();
        complete(&mut made, &Account::default(), None);
        assert_eq!(made, pod(), "no tokens are served");
    }
}
