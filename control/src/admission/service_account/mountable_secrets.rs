//! Accounts that say that their pods have only the Secrets that they name
//! (`kubernetes.io/enforce-mountable-secrets`).

use std::collections::BTreeSet;

use serde_json::Value;

use super::account::Account;
use crate::kinds::reading::{as_text, items, text};

/// Why a new pod is refused whose account says that its pods have only the secrets that it names.
pub fn violation(pod: &Value, account: &Account, name: &str) -> Option<String> {
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
pub fn ephemeral_violation(pod: &Value, account: &Account, name: &str) -> Option<String> {
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
    use serde_json::json;

    use super::{super::account, *};

    #[test]
    fn an_account_may_say_that_its_pods_have_its_secrets_alone() {
        let annotations = json!({"kubernetes.io/enforce-mountable-secrets": "true"});
        let account = account::read(&json!({"metadata": {"annotations": annotations}, "secrets": [{"name": "s"}]}));
        let said = |spec: Value| violation(&json!({"spec": spec}), &account, "a").unwrap_or_default();
        assert_eq!(said(json!({"volumes": [{"secret": {"secretName": "s"}}]})), "");
        assert_eq!(
            said(json!({"volumes": [{"secret": {"secretName": "t"}}]})),
            "volume with secret.secretName=\"t\" is not allowed because service account a does not reference that secret"
        );
        let env = json!([{"name": "E", "valueFrom": {"secretKeyRef": {"name": "t"}}}]);
        assert_eq!(
            said(json!({"initContainers": [{"name": "i", "env": env}]})),
            "init container i with envVar E referencing secret.secretName=\"t\" is not allowed because service account a \
            does not reference that secret"
        );
        assert_eq!(
            said(json!({"imagePullSecrets": [{"name": "p"}]})),
            "imagePullSecrets[0].name=\"p\" is not allowed because service account a does not reference that \
            imagePullSecret"
        );
        let pod = json!({"spec": {"ephemeralContainers": [{"name": "e", "envFrom": [{"secretRef": {"name": "t"}}]}]}});
        assert!(ephemeral_violation(&pod, &account, "a").is_some());
        assert_eq!(ephemeral_violation(&pod, &Account::default(), "a"), None);
    }
}
