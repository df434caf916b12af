//! ServiceAccount: every pod runs as an account of its namespace that exists, and gets the pull secrets and the token
//! of that account.
//!
//! Source: `plugin/pkg/admission/serviceaccount`, whose words these are.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::FutureExt;
use rand::RngExt;
use serde_json::{Value, json};

use super::{
    plugins::{AdmissionContext, Mutate, Plugin, Validate},
    readings::Readings,
};
use crate::{
    kinds::{
        Registry,
        pod::defaults::same_under_both_names,
        reading::{as_text, is_empty, items, text},
    },
    reflector::Reflector,
    request::Verb,
    status::Status,
    store::{NAMESPACE_INDEX, Snapshot, Store},
};

/// Where ServiceAccounts are stored.
pub const RESOURCE: &str = "serviceaccounts";

/// The account of pods that name none. Its controller makes it a moment after the namespace.
const DEFAULT: &str = "default";
/// How long a pod waits for the account `default`: as long as Kubernetes tries.
const PATIENCE: Duration = Duration::from_millis(1500);
/// Where containers find their token.
const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How the names of token volumes begin.
const TOKEN_VOLUME: &str = "kube-api-access-";
/// An hour and seven seconds, by which Kubernetes tells the tokens of this plugin from others.
const TOKEN_SECONDS: i64 = 3607;
const MIRROR: &str = "kubernetes.io/config.mirror";

/// New pods get what their account has for them, and name no Secrets that it does not.
pub static PLUGIN: Plugin = Plugin {
    name: "ServiceAccount",
    mutate: Some(Mutate::Waiting(|context, pod| mutate(context, pod).boxed())),
    validate: Some(Validate::Waiting(|context, pod| validate(context, pod).boxed())),
    ..Plugin::NONE
};

const POD: (&str, &str) = ("", "Pod");

async fn mutate(context: &AdmissionContext<'_>, pod: &mut Value) -> Result<(), Status> {
    if !context.is(Verb::Create, POD, None) || is_mirror(pod) {
        return Ok(());
    }
    let name = set_name(&mut pod["spec"]);
    let account = find(context, &name).await.map_err(|why| context.forbidden(&why))?;
    let token_volume = serves_tokens(context.kinds).then(token_volume);
    complete(pod, &account, token_volume);
    Ok(())
}

async fn validate(context: &AdmissionContext<'_>, pod: &Value) -> Result<(), Status> {
    let why = if context.is(Verb::Create, POD, None) {
        match is_mirror(pod) {
            true => mirror_violation(pod).map(str::to_owned),
            false => violation_by_account(context, pod, secret_violation).await,
        }
    } else if context.is(Verb::Update, POD, Some("ephemeralcontainers")) {
        violation_by_account(context, pod, ephemeral_secret_violation).await
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
        Err(why) => Some(why),
    }
}

/// Whether nodes can ask for tokens of ServiceAccounts: a pod with a token that nobody gives would never start.
fn serves_tokens(kinds: Option<&Registry>) -> bool {
    let accounts = kinds.and_then(|kinds| kinds.snapshot().by_path("", "v1", RESOURCE));
    accounts.is_some_and(|accounts| accounts.has("token"))
}

/// A name for a volume with a token.
fn token_volume() -> String {
    let mut random = rand::rng();
    let letter = |_| LETTERS[random.random_range(0..LETTERS.len())] as char;
    TOKEN_VOLUME.chars().chain((0..SUFFIX).map(letter)).collect()
}

/// Without vowels, so that they make no words.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX: usize = 5;

/// What a ServiceAccount says about its pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Account {
    automount: Option<bool>,
    pull_secrets: Vec<String>,
    secrets: BTreeSet<String>,
    enforces_secrets: bool,
}

/// Reads a stored ServiceAccount.
pub fn read(account: &Value) -> Account {
    let names = |list: &Value| items(list).map(|one| text(one, "name").to_owned()).collect::<Vec<_>>();
    let enforced = text(&account["metadata"]["annotations"], "kubernetes.io/enforce-mountable-secrets");
    Account {
        automount: account["automountServiceAccountToken"].as_bool(),
        pull_secrets: names(&account["imagePullSecrets"]),
        secrets: names(&account["secrets"]).into_iter().collect(),
        // As Go reads a bool.
        enforces_secrets: matches!(enforced, "1" | "t" | "T" | "true" | "TRUE" | "True"),
    }
}

/// Whether a node's agent only shows the pod, which it runs from a file.
fn is_mirror(pod: &Value) -> bool {
    pod["metadata"]["annotations"].get(MIRROR).is_some_and(|mirror| !mirror.is_null())
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

/// The account of this name, or why there is none. Waits a moment for the account `default`.
async fn find(context: &AdmissionContext<'_>, name: &str) -> Result<Arc<Account>, String> {
    let (snapshot, readings) = (context.request.snapshot, &context.readings.accounts);
    let namespace = context.request.namespace.unwrap_or_default();
    account_in(readings, snapshot, context.store, (namespace, name)).await
}

async fn account_in(
    readings: &Readings<Account>,
    snapshot: &Snapshot,
    store: Option<&Arc<dyn Store>>,
    (namespace, name): (&str, &str),
) -> Result<Arc<Account>, String> {
    let key = format!("{namespace}/{name}");
    if let Some(account) = readings.get(snapshot, &key) {
        return Ok(account);
    }
    let made = async {
        let store = store.filter(|_| name == DEFAULT)?;
        let mut reflector = Reflector::of_term(store.clone(), RESOURCE, (NAMESPACE_INDEX, namespace));
        loop {
            reflector.next().await;
            if let Some(account) = readings.get(&store.snapshot(), &key) {
                return Some(account);
            }
        }
    };
    let made = tokio::time::timeout(PATIENCE, made).await.ok().flatten();
    made.ok_or_else(|| {
        format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found")
    })
}

/// Gives a new pod what its account has for it. `token_volume` is the name of a volume to be added for its token, if
/// tokens are served.
fn complete(pod: &mut Value, account: &Account, token_volume: Option<String>) {
    let spec = &mut pod["spec"];
    let automount = spec["automountServiceAccountToken"].as_bool().or(account.automount).unwrap_or(true);
    if let Some(volume) = token_volume.filter(|_| automount) {
        mount_token(spec, volume);
    }
    if is_empty(&spec["imagePullSecrets"]) && !account.pull_secrets.is_empty() {
        spec["imagePullSecrets"] = account.pull_secrets.iter().map(|name| json!({"name": name})).collect();
    }
}

/// Mounts the token into every container that has nothing at its place.
fn mount_token(spec: &mut Value, volume: String) {
    let existing =
        items(&spec["volumes"]).map(|volume| text(volume, "name")).find(|name| name.starts_with(TOKEN_VOLUME));
    let (name, is_new) = existing.map_or((volume, true), |existing| (existing.to_owned(), false));
    let mut needed = false;
    for list in ["initContainers", "containers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            if items(&container["volumeMounts"]).any(|mount| text(mount, "mountPath") == TOKEN_PATH) {
                continue;
            }
            push(container, "volumeMounts", json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
            needed = true;
        }
    }
    if is_new && needed {
        // One literal: whatever is put into one as a variable is copied whole.
        push(
            spec,
            "volumes",
            json!({"name": name, "projected": {"sources": [
                {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ], "defaultMode": 0o644}}),
        );
    }
}

fn push(object: &mut Value, list: &str, item: Value) {
    match object[list].as_array_mut() {
        Some(items) => items.push(item),
        None => object[list] = Value::Array(vec![item]),
    }
}

/// Why a mirror pod is refused: it has no account, so it gets nothing that needs one.
fn mirror_violation(pod: &Value) -> Option<&'static str> {
    let spec = &pod["spec"];
    if !text(spec, "serviceAccountName").is_empty() {
        return Some("a mirror pod may not reference service accounts");
    }
    if names_secrets(spec) {
        return Some("a mirror pod may not reference secrets");
    }
    let mut sources = items(&spec["volumes"]).flat_map(|volume| items(&volume["projected"]["sources"]));
    let token = sources.any(|source| !source["serviceAccountToken"].is_null());
    token.then_some("a mirror pod may not use ServiceAccountToken volume projections")
}

fn names_secrets(spec: &Value) -> bool {
    if items(&spec["imagePullSecrets"]).any(|one| !text(one, "name").is_empty()) {
        return true;
    }
    let in_container = |container: &Value| {
        items(&container["envFrom"]).any(|from| !from["secretRef"].is_null())
            || items(&container["env"]).any(|env| !env["valueFrom"]["secretKeyRef"].is_null())
    };
    let lists = ["initContainers", "containers", "ephemeralContainers"];
    lists.iter().flat_map(|list| items(&spec[*list])).any(in_container)
        || items(&spec["volumes"]).any(|volume| {
            let Some(volume) = volume.as_object() else { return false };
            let projected = volume
                .get("projected")
                .is_some_and(|projected| items(&projected["sources"]).any(|source| !source["secret"].is_null()));
            let referenced = volume.values().any(|source| {
                ["secretRef", "nodePublishSecretRef"].iter().any(|field| source[*field].is_object())
                    || source["secretName"].is_string()
            });
            projected || referenced
        })
}

/// Why a new pod is refused whose account says that its pods have only the secrets that it names.
fn secret_violation(pod: &Value, account: &Account, name: &str) -> Option<String> {
    if !account.enforces_secrets {
        return None;
    }
    let spec = &pod["spec"];
    let why =
        |what: String| format!("{what} is not allowed because service account {name} does not reference that secret");
    for volume in items(&spec["volumes"]).filter(|volume| !volume["secret"].is_null()) {
        let secret = text(&volume["secret"], "secretName");
        if !account.secrets.contains(secret) {
            return Some(why(format!("volume with secret.secretName=\"{secret}\"")));
        }
    }
    let of_containers = container_violation(spec, "initContainers", "init container", account, &why)
        .or_else(|| container_violation(spec, "containers", "container", account, &why));
    of_containers.or_else(|| {
        let known: BTreeSet<&str> = account.pull_secrets.iter().map(|secret| &**secret).collect();
        let mut named = items(&spec["imagePullSecrets"]).map(|one| text(one, "name")).enumerate();
        let (i, secret) = named.find(|(_, secret)| !known.contains(secret))?;
        Some(format!(
            "imagePullSecrets[{i}].name=\"{secret}\" is not allowed because service account {name} does not reference \
            that imagePullSecret"
        ))
    })
}

/// The same of the ephemeral containers that are added to a pod.
fn ephemeral_secret_violation(pod: &Value, account: &Account, name: &str) -> Option<String> {
    let why =
        |what: String| format!("{what} is not allowed because service account {name} does not reference that secret");
    let violation = || container_violation(&pod["spec"], "ephemeralContainers", "ephemeral container", account, &why);
    account.enforces_secrets.then(violation).flatten()
}

fn container_violation(
    spec: &Value,
    list: &str,
    word: &str,
    account: &Account,
    why: &dyn Fn(String) -> String,
) -> Option<String> {
    for container in items(&spec[list]) {
        let name = text(container, "name");
        for env in items(&container["env"]).filter(|env| !env["valueFrom"]["secretKeyRef"].is_null()) {
            let secret = as_text(&env["valueFrom"]["secretKeyRef"]["name"]);
            if !account.secrets.contains(secret) {
                let variable = text(env, "name");
                return Some(why(format!(
                    "{word} {name} with envVar {variable} referencing secret.secretName=\"{secret}\""
                )));
            }
        }
        for from in items(&container["envFrom"]).filter(|from| !from["secretRef"].is_null()) {
            let secret = as_text(&from["secretRef"]["name"]);
            if !account.secrets.contains(secret) {
                return Some(why(format!("{word} {name} with envFrom referencing secret.secretName=\"{secret}\"")));
            }
        }
    }
    None
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
        let spec = &made["spec"];
        assert_eq!(spec["imagePullSecrets"], json!([{"name": "pull"}]));
        let mount = json!([{"name": "kube-api-access-abcde", "readOnly": true, "mountPath": TOKEN_PATH}]);
        assert_eq!(
            (&spec["containers"][0]["volumeMounts"], &spec["initContainers"][0]["volumeMounts"]),
            (&mount, &mount)
        );
        let sources = &spec["volumes"][0]["projected"]["sources"];
        assert_eq!(sources[0]["serviceAccountToken"], json!({"expirationSeconds": 3607, "path": "token"}));
        assert_eq!(sources[1]["configMap"]["name"], "kube-root-ca.crt");
        assert_eq!(sources[2]["downwardAPI"]["items"][0]["path"], "namespace");
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

    #[test]
    fn a_container_with_a_mount_of_its_own_needs_no_token() {
        let mut made = pod();
        for list in ["containers", "initContainers"] {
            made["spec"][list][0]["volumeMounts"] = json!([{"name": "own", "mountPath": TOKEN_PATH}]);
        }
        let before = made.clone();
        complete(&mut made, &Account::default(), Some("kube-api-access-abcde".into()));
        assert_eq!(made, before);
    }

    #[test]
    fn a_mirror_pod_has_nothing_that_needs_an_account() {
        let mut mirror = pod();
        assert!(!is_mirror(&mirror));
        mirror["metadata"]["annotations"][MIRROR] = json!("x");
        assert!(is_mirror(&mirror));
        assert_eq!(mirror_violation(&mirror), None);
        let with = |field: &str, value: Value| {
            let mut pod = mirror.clone();
            pod["spec"][field] = value;
            mirror_violation(&pod).unwrap_or_default()
        };
        assert_eq!(with("serviceAccountName", json!("a")), "a mirror pod may not reference service accounts");
        let secrets = "a mirror pod may not reference secrets";
        assert_eq!(with("volumes", json!([{"name": "v", "secret": {"secretName": "s"}}])), secrets);
        assert_eq!(with("imagePullSecrets", json!([{"name": "s"}])), secrets);
        let env = json!([{"name": "c", "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}]}]);
        assert_eq!(with("containers", env), secrets);
        let token = json!([{"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}]);
        assert_eq!(with("volumes", token), "a mirror pod may not use ServiceAccountToken volume projections");
    }

    #[test]
    fn an_account_may_say_that_its_pods_have_its_secrets_alone() {
        let account = read(&json!({"metadata": {"annotations": {"kubernetes.io/enforce-mountable-secrets": "true"}},
            "secrets": [{"name": "s"}]}));
        let violation = |spec: Value| secret_violation(&json!({"spec": spec}), &account, "a").unwrap_or_default();
        assert_eq!(violation(json!({"volumes": [{"secret": {"secretName": "s"}}]})), "");
        assert_eq!(
            violation(json!({"volumes": [{"secret": {"secretName": "t"}}]})),
            "volume with secret.secretName=\"t\" is not allowed because service account a does not reference that secret"
        );
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "t"}}}]);
        assert_eq!(
            violation(json!({"initContainers": [{"name": "i", "env": env}]})),
            "init container i with envVar E referencing secret.secretName=\"t\" is not allowed because service account a \
            does not reference that secret"
        );
        assert_eq!(
            violation(json!({"imagePullSecrets": [{"name": "p"}]})),
            "imagePullSecrets[0].name=\"p\" is not allowed because service account a does not reference that \
            imagePullSecret"
        );
        let pod = json!({"spec": {"ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "t"}}]}]}});
        assert!(ephemeral_secret_violation(&pod, &account, "a").is_some());
        assert_eq!(ephemeral_secret_violation(&pod, &Account::default(), "a"), None);
    }
}
