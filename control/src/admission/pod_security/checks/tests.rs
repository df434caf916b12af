//! Each check with what it allows and the words of what it refuses.

use serde_json::{Value, json};

use super::*;

/// The detail of a violation of a pod with this spec; empty if there is none.
fn detail(check: PodCheck, spec: Value) -> String {
    let pod = json!({"metadata": {}, "spec": spec});
    check(PodView::of(&pod)).map(|violation| violation.detail).unwrap_or_default()
}

fn container(name: &str, context: Value) -> Value {
    json!({"name": name, "securityContext": context})
}

#[test]
fn host_access_is_named() {
    assert_eq!(
        detail(host_access::namespaces, json!({"hostNetwork": true, "hostPID": false, "hostIPC": true})),
        "hostNetwork=true, hostIPC=true"
    );
    let volumes = json!([{"name": "a", "hostPath": {}}, {"name": "b", "hostPath": {}}, {"name": "c", "emptyDir": {}}]);
    assert_eq!(detail(host_access::paths, json!({"volumes": volumes})), "volumes \"a\", \"b\"");
    let with_ports = |name: &str, ports: &[i64]| json!({"name": name, "ports": ports.iter().map(|port| json!({"hostPort": port})).collect::<Vec<_>>()});
    let spec = json!({"containers": [with_ports("a", &[0, 80, 9]), with_ports("b", &[80]), with_ports("c", &[0])]});
    assert_eq!(detail(host_access::ports, spec), "containers \"a\", \"b\" use hostPorts 80, 9");
    let one = json!({"initContainers": [with_ports("a", &[80])]});
    assert_eq!(detail(host_access::ports, one), "container \"a\" uses hostPort 80");
}

#[test]
fn handlers_stay_in_the_pod() {
    let spec = json!({"containers": [
        {"name": "b", "livenessProbe": {"httpGet": {"host": "8.8.8.8"}}, "lifecycle": {"preStop": {"tcpSocket": {"host": "x"}}}},
        {"name": "a", "startupProbe": {"tcpSocket": {"host": "x"}}}, {"name": "c", "readinessProbe": {"httpGet": {"host": ""}}}]});
    assert_eq!(
        detail(probe_hosts::check, spec),
        "containers \"a\", \"b\" use probe or lifecycle hosts \"8.8.8.8\", \"x\""
    );
}

#[test]
fn privileges_are_refused_and_their_gain_must_be() {
    let spec = |context: Value| json!({"containers": [container("a", context)]});
    assert_eq!(
        detail(privileges::privileged, spec(json!({"privileged": true}))),
        "container \"a\" must not set securityContext.privileged=true"
    );
    assert_eq!(detail(privileges::privileged, spec(json!({"privileged": false}))), "");
    let gain = "container \"a\" must set securityContext.allowPrivilegeEscalation=false";
    assert_eq!(detail(privileges::escalation_8, spec(json!({}))), gain);
    assert_eq!(detail(privileges::escalation_8, spec(json!({"allowPrivilegeEscalation": true}))), gain);
    assert_eq!(detail(privileges::escalation_8, spec(json!({"allowPrivilegeEscalation": false}))), "");
    let mut windows = spec(json!({}));
    windows["os"] = json!({"name": "windows"});
    assert_eq!(detail(privileges::escalation_25, windows.clone()), "");
    assert_eq!(detail(privileges::escalation_8, windows), gain);
    let mut host_process = spec(json!({"windowsOptions": {"hostProcess": true}}));
    host_process["securityContext"] = json!({"windowsOptions": {"hostProcess": true}});
    assert_eq!(
        detail(privileges::host_process, host_process),
        "pod and container \"a\" must not set securityContext.windowsOptions.hostProcess=true"
    );
}

#[test]
fn capabilities_are_the_usual_or_none() {
    let with = |add: &[&str], drop: &[&str]| json!({"containers": [container("a", json!({"capabilities": {"add": add, "drop": drop}}))]});
    assert_eq!(detail(capabilities::baseline, with(&["CHOWN"], &[])), "");
    assert_eq!(
        detail(capabilities::baseline, with(&["NET_RAW", "CAP_CHOWN", "KILL"], &[])),
        "container \"a\" must not include \"CAP_CHOWN\", \"NET_RAW\" in securityContext.capabilities.add"
    );
    assert_eq!(detail(capabilities::restricted_22, with(&["NET_BIND_SERVICE"], &["ALL"])), "");
    assert_eq!(
        detail(capabilities::restricted_22, with(&["CHOWN"], &["KILL"])),
        "container \"a\" must set securityContext.capabilities.drop=[\"ALL\"]; container \"a\" must not include \
        \"CHOWN\" in securityContext.capabilities.add"
    );
}

#[test]
fn proc_is_masked_outside_of_user_namespaces() {
    let mut spec = json!({"hostUsers": false, "containers": [container("a", json!({"procMount": "Unmasked"})),
        container("b", json!({"procMount": "Default"}))]});
    let words = "container \"a\" must not set securityContext.procMount to \"Unmasked\"";
    assert_eq!(detail(proc_mount::always, spec.clone()), words);
    assert_eq!(detail(proc_mount::without_user_namespace, spec.clone()), "");
    spec["hostUsers"] = json!(true);
    assert_eq!(detail(proc_mount::without_user_namespace, spec), words);
}

#[test]
fn app_armor_stays_on() {
    let profile = |kind: &str| json!({"appArmorProfile": {"type": kind}});
    let spec = json!({"securityContext": profile("Unconfined"),
        "containers": [container("a", profile("RuntimeDefault")), container("b", profile("Other"))]});
    let key = "container.apparmor.security.beta.kubernetes.io/a";
    let pod = json!({"metadata": {"annotations": {key: "unconfined", "x": "unconfined"}}, "spec": spec});
    let violation = profiles::app_armor(PodView::of(&pod)).unwrap();
    assert_eq!(violation.reason, "forbidden AppArmor profiles");
    assert_eq!(
        violation.detail,
        "pod and container \"b\" and annotation must not set AppArmor profile type to \"Other\", \"Unconfined\", \
        \"container.apparmor.security.beta.kubernetes.io/a=\"unconfined\"\""
    );
    let pod =
        json!({"metadata": {"annotations": {key: "localhost/x"}}, "spec": {"securityContext": profile("Localhost")}});
    assert_eq!(profiles::app_armor(PodView::of(&pod)), None);
}

#[test]
fn se_linux_has_the_types_of_containers() {
    let options = |options: Value| json!({"containers": [container("a", json!({"seLinuxOptions": options}))]});
    assert_eq!(detail(profiles::se_linux_0, options(json!({"type": "container_t", "level": "s0"}))), "");
    assert_eq!(
        detail(profiles::se_linux_0, options(json!({"type": "spc_t", "user": "u", "role": "r"}))),
        "container \"a\" set forbidden securityContext.seLinuxOptions: type \"spc_t\"; user may not be set; role may \
        not be set"
    );
    let engine = options(json!({"type": "container_engine_t"}));
    assert_eq!(detail(profiles::se_linux_31, engine.clone()), "");
    assert!(detail(profiles::se_linux_0, engine).contains("type \"container_engine_t\""));
}

#[test]
fn seccomp_is_on_and_in_the_restricted_level_said() {
    let profile = |kind: &str| json!({"seccompProfile": {"type": kind}});
    let unconfined =
        json!({"securityContext": profile("Unconfined"), "containers": [container("a", profile("Unconfined"))]});
    let words = "pod and container \"a\" must not set securityContext.seccompProfile.type to \"Unconfined\"";
    assert_eq!(detail(seccomp::baseline, unconfined.clone()), words);
    assert_eq!(detail(seccomp::restricted_19, unconfined), words);
    let silent = json!({"containers": [container("a", profile("Localhost")), container("b", json!({}))]});
    assert_eq!(detail(seccomp::baseline, silent.clone()), "");
    assert_eq!(
        detail(seccomp::restricted_19, silent.clone()),
        "pod or container \"b\" must set securityContext.seccompProfile.type to \"RuntimeDefault\" or \"Localhost\""
    );
    let mut said = silent;
    said["securityContext"] = profile("RuntimeDefault");
    assert_eq!(detail(seccomp::restricted_19, said), "");
    let pod = json!({"metadata": {"annotations": {"seccomp.security.alpha.kubernetes.io/pod": "unconfined",
        "container.seccomp.security.alpha.kubernetes.io/a": "localhost/x"}}, "spec": {"containers": [{"name": "a"}]}});
    assert_eq!(
        seccomp::annotations(PodView::of(&pod)).unwrap().detail,
        "forbidden annotation seccomp.security.alpha.kubernetes.io/pod=\"unconfined\""
    );
}

#[test]
fn sysctls_are_those_of_the_version() {
    let spec = |names: &[&str]| {
        let sysctls: Vec<Value> = names.iter().map(|name| json!({"name": name, "value": "1"})).collect();
        json!({"securityContext": {"sysctls": sysctls}})
    };
    assert_eq!(detail(sysctls::v0, spec(&["net.ipv4.tcp_syncookies", "a", "b"])), "a, b");
    let rmem = || spec(&["net.ipv4.tcp_rmem"]);
    assert_eq!(detail(sysctls::v29, rmem()), "net.ipv4.tcp_rmem");
    assert_eq!(detail(sysctls::v32, rmem()), "");
    assert_eq!(detail(sysctls::v27, spec(&["net.ipv4.ip_local_reserved_ports"])), "");
}

#[test]
fn root_is_refused_outside_of_user_namespaces() {
    let mut spec = json!({"securityContext": {"runAsNonRoot": false, "runAsUser": 0},
        "containers": [container("a", json!({"runAsNonRoot": false, "runAsUser": 0})), container("b", json!({"runAsUser": 1}))]});
    let words = "pod and container \"a\" must not set securityContext.runAsNonRoot=false";
    assert_eq!(detail(user::non_root_0, spec.clone()), words);
    assert_eq!(detail(user::user_23, spec.clone()), "pod and container \"a\" must not set runAsUser=0");
    spec["hostUsers"] = json!(false);
    assert_eq!(detail(user::non_root_35, spec.clone()) + &detail(user::user_35, spec), "");
    let silent = json!({"containers": [container("a", json!({"runAsNonRoot": true})), container("b", json!({}))]});
    assert_eq!(
        detail(user::non_root_0, silent.clone()),
        "pod or container \"b\" must set securityContext.runAsNonRoot=true"
    );
    let mut said = silent;
    said["securityContext"] = json!({"runAsNonRoot": true});
    assert_eq!(detail(user::non_root_0, said), "");
}

#[test]
fn volumes_are_those_of_kubernetes_itself() {
    let volumes =
        json!([{"name": "a", "nfs": {}}, {"name": "b", "gitRepo": {}}, {"name": "c", "secret": {}}, {"name": "d"}]);
    assert_eq!(
        detail(volumes::check, json!({"volumes": volumes})),
        "volumes \"a\", \"b\", \"d\" use restricted volume types \"gitRepo\", \"nfs\", \"unknown\""
    );
}
