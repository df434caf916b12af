//! Containers and volumes, of a pod or of a template.

use serde_json::Value;

use super::page::{Page, list, map, word};

/// The containers of one list (`containers`, `initContainers`), with their states where `statuses` has them.
pub fn containers(page: &mut Page, title: &str, containers: &Value, statuses: &Value) {
    if list(containers).is_empty() {
        return;
    }
    page.section(title, |page| {
        for container in list(containers) {
            let status = list(statuses).iter().find(|status| status["name"] == container["name"]);
            page.section(&word(&container["name"]), |page| self::container(page, container, status));
        }
    });
}

fn container(page: &mut Page, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        page.optional("Container ID", &status["containerID"]);
    }
    page.field("Image", word(&container["image"]));
    if let Some(status) = status {
        page.optional("Image ID", &status["imageID"]);
    }
    let ports: Vec<String> = list(&container["ports"]).iter().map(port).collect();
    page.field(
        if ports.len() > 1 { "Ports" } else { "Port" },
        if ports.is_empty() { "<none>".into() } else { ports.join(", ") },
    );
    for (title, field) in [("Command", "command"), ("Args", "args")] {
        let words = list(&container[field]);
        if !words.is_empty() {
            page.field(title, words.iter().map(word).collect::<Vec<_>>().join("\n"));
        }
    }
    if let Some(status) = status {
        state(page, "State", &status["state"]);
        if status["lastState"].as_object().is_some_and(|last| !last.is_empty()) {
            state(page, "Last State", &status["lastState"]);
        }
        page.field("Ready", if status["ready"] == true { "True" } else { "False" });
        page.field("Restart Count", word(&status["restartCount"]));
    }
    for (title, field) in [("Limits", "limits"), ("Requests", "requests")] {
        if container["resources"][field].is_object() {
            page.field(title, map(&container["resources"][field], ": "));
        }
    }
    for (title, field) in [("Liveness", "livenessProbe"), ("Readiness", "readinessProbe"), ("Startup", "startupProbe")]
    {
        if container[field].is_object() {
            page.field(title, probe(&container[field]));
        }
    }
    page.field("Environment", lines(list(&container["env"]).iter().map(variable)));
    let mount = |mount: &Value| {
        let mode = if mount["readOnly"] == true { "ro" } else { "rw" };
        format!("{} from {} ({mode})", word(&mount["mountPath"]), word(&mount["name"]))
    };
    page.field("Mounts", lines(list(&container["volumeMounts"]).iter().map(mount)));
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    let lines: Vec<String> = lines.collect();
    if lines.is_empty() { "<none>".into() } else { lines.join("\n") }
}

fn port(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let name = port["name"].as_str().map(|name| format!(" ({name})")).unwrap_or_default();
    let host = port["hostPort"].as_u64().map(|host| format!(" at port {host} of the host")).unwrap_or_default();
    format!("{}/{protocol}{name}{host}", word(&port["containerPort"]))
}

fn state(page: &mut Page, title: &str, state: &Value) {
    let Some((kind, detail)) = state.as_object().and_then(|state| state.iter().next()) else {
        page.field(title, "Waiting");
        return;
    };
    let mut text = format!("{}{}", kind[..1].to_uppercase(), &kind[1..]);
    for (name, field) in [
        ("Reason", "reason"),
        ("Message", "message"),
        ("Exit Code", "exitCode"),
        ("Signal", "signal"),
        ("Started", "startedAt"),
        ("Finished", "finishedAt"),
    ] {
        if !detail[field].is_null() {
            text.push_str(&format!("\n{name}: {}", word(&detail[field])));
        }
    }
    page.field(title, text);
}

fn probe(probe: &Value) -> String {
    let number = |field: &str, default: u64| probe[field].as_u64().unwrap_or(default);
    let action = if let Some(http) = probe["httpGet"].as_object() {
        let text = |field: &str| http.get(field).map(word).unwrap_or_default();
        let scheme = http.get("scheme").and_then(Value::as_str).unwrap_or("HTTP").to_lowercase();
        format!("http-get {scheme}://{}:{}{}", text("host"), text("port"), text("path"))
    } else if probe["tcpSocket"].is_object() {
        format!("tcp-socket :{}", word(&probe["tcpSocket"]["port"]))
    } else if probe["grpc"].is_object() {
        format!("grpc :{}", word(&probe["grpc"]["port"]))
    } else {
        let words: Vec<String> = list(&probe["exec"]["command"]).iter().map(word).collect();
        format!("exec [{}]", words.join(" "))
    };
    format!(
        "{action} delay={}s timeout={}s period={}s #success={} #failure={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    )
}

fn variable(variable: &Value) -> String {
    let name = word(&variable["name"]);
    let from = &variable["valueFrom"];
    for (field, kind) in [("configMapKeyRef", "config map"), ("secretKeyRef", "secret")] {
        if from[field].is_object() {
            return format!(
                "{name}: <set to the key '{}' in {kind} '{}'>",
                word(&from[field]["key"]),
                word(&from[field]["name"])
            );
        }
    }
    for field in ["fieldRef", "resourceFieldRef"] {
        if from[field].is_object() {
            let path =
                if from[field]["fieldPath"].is_null() { &from[field]["resource"] } else { &from[field]["fieldPath"] };
            return format!("{name}:  ({})", word(path));
        }
    }
    format!("{name}: {}", variable["value"].as_str().unwrap_or_default())
}

/// The volumes of a pod or of a pod template.
pub fn volumes(page: &mut Page, volumes: &Value) {
    if list(volumes).is_empty() {
        return;
    }
    page.section("Volumes", |page| {
        for volume in list(volumes) {
            page.section(&word(&volume["name"]), |page| {
                let source = volume.as_object().into_iter().flatten().find(|(key, _)| *key != "name");
                let Some((kind, source)) = source else { return };
                page.field("Type", kind.as_str());
                for (field, value) in source.as_object().into_iter().flatten() {
                    if !value.is_array() && !value.is_object() {
                        page.field(field, word(value));
                    }
                }
            });
        }
    });
}
