//! What pods of Windows have, and what those of one operating system may not have. No node of this program runs
//! Windows; its pods are stored all the same.

use serde_json::{Value, json};

use super::each_container;
use crate::kinds::{
    FieldError,
    field::child,
    names,
    reading::{is_empty, text},
};

const MAX_SPEC: usize = 64 << 10;
const MAX_DOMAIN: usize = 256;
const MAX_USER: usize = 104;

/// Reasons against the options of a security context for Windows.
pub fn options(path: &str, options: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if !options["gmsaCredentialSpecName"].is_null() {
        let path = child(path, "gmsaCredentialSpecName");
        errors.extend(FieldError::each(path, &options["gmsaCredentialSpecName"], names::subdomain));
    }
    let spec = &options["gmsaCredentialSpec"];
    if let Some(text) = spec.as_str() {
        let path = child(path, "gmsaCredentialSpec");
        if text.is_empty() {
            errors.push(FieldError::invalid(path, spec, "gmsaCredentialSpec cannot be an empty string"));
        } else if text.len() > MAX_SPEC {
            errors.push(FieldError::invalid(path, spec, "gmsaCredentialSpec size must be under 64 KiB"));
        }
    }
    let user = &options["runAsUserName"];
    if let Some(name) = user.as_str() {
        let path = child(path, "runAsUserName");
        errors.extend(wrong_user(name).into_iter().map(|why| FieldError::invalid(&path, user, why)));
    }
    errors
}

/// Why a text is no `DOMAIN\USER`.
fn wrong_user(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec!["runAsUserName cannot be an empty string".to_owned()];
    }
    if name.contains(|c: char| c.is_ascii_control()) {
        return vec!["runAsUserName cannot contain control characters".to_owned()];
    }
    let (domain, user) = match name.split('\\').collect::<Vec<_>>().as_slice() {
        [user] => (None, *user),
        [domain, user] => (Some(*domain), *user),
        _ => return vec!["runAsUserName cannot contain more than one backslash".to_owned()],
    };
    let known = domain.is_none_or(|domain| is_net_bios(domain) || is_dns(domain));
    let rules = [
        (
            domain.is_some_and(|domain| domain.len() >= MAX_DOMAIN),
            format!("runAsUserName's Domain length must be under {MAX_DOMAIN} characters"),
        ),
        (!known, "runAsUserName's Domain doesn't match the NetBios nor the DNS format".to_owned()),
        (user.is_empty(), "runAsUserName's User cannot be empty".to_owned()),
        (user.len() > MAX_USER, format!("runAsUserName's User length must not be longer than {MAX_USER} characters")),
        (
            !user.is_empty() && user.bytes().all(|b| matches!(b, b'.' | b' ')),
            "runAsUserName's User cannot contain only periods or spaces".to_owned(),
        ),
        (
            user.contains(|c| r#""/\:;|=,+*?<>@[]"#.contains(c)),
            r#"runAsUserName's User cannot contain the following characters: "/\:;|=,+*?<>@[]"#.to_owned(),
        ),
    ];
    rules.into_iter().filter(|(is_so, _)| *is_so).map(|(_, why)| why).collect()
}

fn is_net_bios(domain: &str) -> bool {
    let count = domain.chars().count();
    (1..=15).contains(&count) && !domain.starts_with('.') && !domain.contains(|c| r#"\/:*?"<>|"#.contains(c))
}

fn is_dns(domain: &str) -> bool {
    domain.split('.').all(|label| names::label(&label.to_ascii_lowercase()).is_empty())
}

/// Reasons against a pod whose containers are processes of the host for a part, or without its network.
pub fn host_processes(path: &str, spec: &Value) -> Vec<FieldError> {
    let option = |context: &Value| context["windowsOptions"]["hostProcess"].as_bool();
    let pod = option(&spec["securityContext"]);
    let mut errors = Vec::new();
    let (mut all, mut of_host) = (0, 0);
    for (at, container) in each_container(spec) {
        let own = option(&container["securityContext"]);
        if let (Some(pod), Some(own)) = (pod, own)
            && pod != own
        {
            let why = format!("pod hostProcess value must be identical if both are specified, was {pod}");
            let path = format!("{path}.{at}.securityContext.windowsOptions.hostProcess");
            errors.push(FieldError::invalid(path, &json!(own), why));
        }
        all += 1;
        of_host += u32::from(own.or(pod).unwrap_or(false));
    }
    if of_host == 0 {
        return errors;
    }
    if of_host != all {
        let why = "If pod contains any hostProcess containers then all containers must be HostProcess containers";
        errors.push(FieldError::invalid(path, &json!(""), why));
    }
    if spec["hostNetwork"] != true {
        let why = "hostNetwork must be true if pod contains any hostProcess containers";
        errors.push(FieldError::invalid(child(path, "hostNetwork"), &json!(false), why));
    }
    errors
}

/// Reasons against the operating system that a pod names, and against what that does not have.
pub fn operating_system(path: &str, spec: &Value) -> Vec<FieldError> {
    let os = &spec["os"];
    match text(os, "name") {
        _ if os.is_null() => Vec::new(),
        "" => vec![FieldError::required(format!("{path}.os.name"), "")],
        "linux" => not_of_linux(path, spec),
        "windows" => not_of_windows(path, spec),
        _ => vec![FieldError::not_supported(child(path, "os"), &os["name"], &["linux", "windows"])],
    }
}

fn not_of_linux(path: &str, spec: &Value) -> Vec<FieldError> {
    let why = "windows options cannot be set for a linux pod";
    let forbidden = |path: String, context: &Value| {
        let set = !context["windowsOptions"].is_null();
        set.then(|| FieldError::forbidden(format!("{path}.securityContext.windowsOptions"), why))
    };
    let pod = forbidden(path.to_owned(), &spec["securityContext"]);
    let containers = each_container(spec).filter_map(|(at, c)| forbidden(child(path, &at), &c["securityContext"]));
    pod.into_iter().chain(containers).collect()
}

fn not_of_windows(path: &str, spec: &Value) -> Vec<FieldError> {
    const OF_POD: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "fsGroup",
        "fsGroupChangePolicy",
        "runAsUser",
        "runAsGroup",
        "supplementalGroups",
        "supplementalGroupsPolicy",
        "seLinuxChangePolicy",
    ];
    const OF_CONTAINER: [&str; 10] = [
        "appArmorProfile",
        "seLinuxOptions",
        "seccompProfile",
        "capabilities",
        "readOnlyRootFilesystem",
        "privileged",
        "allowPrivilegeEscalation",
        "procMount",
        "runAsUser",
        "runAsGroup",
    ];
    let forbidden = |path: String| FieldError::forbidden(path, "cannot be set for a windows pod");
    let mut errors = Vec::new();
    let context = &spec["securityContext"];
    for field in OF_POD.into_iter().filter(|field| !context[*field].is_null()) {
        errors.push(forbidden(format!("{path}.securityContext.{field}")));
    }
    if !is_empty(&context["sysctls"]) {
        errors.push(forbidden(format!("{path}.securityContext.sysctls")));
    }
    for field in ["hostUsers", "shareProcessNamespace"] {
        if !spec[field].is_null() {
            errors.push(forbidden(child(path, field)));
        }
    }
    for field in ["hostPID", "hostIPC"] {
        if spec[field] == true {
            errors.push(forbidden(child(path, field)));
        }
    }
    for (at, container) in each_container(spec) {
        let context = &container["securityContext"];
        for field in OF_CONTAINER.into_iter().filter(|field| !context[*field].is_null()) {
            errors.push(forbidden(format!("{path}.{at}.securityContext.{field}")));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_named_with_or_without_a_domain() {
        for good in ["ContainerUser", r"NT AUTHORITY\SYSTEM", r"example.com\user"] {
            assert_eq!(wrong_user(good), Vec::<String>::new(), "{good}");
        }
        for bad in ["", "a\tb", r"a\b\c", r"\u", "...", "a:b", r"a|b\u", r"dom\"] {
            assert!(!wrong_user(bad).is_empty(), "{bad}");
        }
    }

    #[test]
    fn a_pod_has_what_its_system_has() {
        let pod = |os: &str| {
            json!({"os": {"name": os}, "hostPID": true, "securityContext": {"runAsUser": 1},
                "containers": [{"securityContext": {"windowsOptions": {}, "privileged": true}}]})
        };
        let paths = |os: &str| operating_system("s", &pod(os)).into_iter().map(|e| e.path).collect::<Vec<_>>();
        assert_eq!(paths("linux"), ["s.containers[0].securityContext.windowsOptions"]);
        assert_eq!(
            paths("windows"),
            ["s.securityContext.runAsUser", "s.hostPID", "s.containers[0].securityContext.privileged"]
        );
        assert_eq!(paths("plan9"), ["s.os"]);
    }

    #[test]
    fn all_containers_are_processes_of_the_host_or_none() {
        let container = |is: Value| json!({"securityContext": {"windowsOptions": {"hostProcess": is}}});
        let spec = json!({"containers": [container(json!(true)), container(Value::Null)]});
        assert_eq!(host_processes("s", &spec).len(), 2);
        let spec = json!({"hostNetwork": true, "containers": [container(json!(true))]});
        assert_eq!(host_processes("s", &spec), []);
    }
}
