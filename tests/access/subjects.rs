//! Who asks: users with groups, each with the namespace in which it may most.

use serde_json::{Value, json};

use crate::{
    exchange::Request,
    kit::Result,
    objects::{RBAC, made_roles},
    servers::{Actor, Servers},
};

/// A user of the matrix.
#[derive(Clone, Debug)]
pub struct Subject {
    pub user: String,
    pub groups: Vec<String>,
    pub namespace: String,
}

impl Subject {
    fn new(user: impl Into<String>, groups: &[&str], namespace: &str) -> Self {
        Self {
            user: user.into(),
            groups: groups.iter().map(|group| (*group).to_owned()).collect(),
            namespace: namespace.to_owned(),
        }
    }

    /// As a review names it.
    pub fn spec(&self) -> Value {
        json!({"user": self.user, "groups": self.groups})
    }
}

const AUTHENTICATED: &str = "system:authenticated";

/// Everybody. The default roles and bindings are those of the reference.
pub async fn subjects(servers: &Servers) -> Result<Vec<Subject>> {
    let mut all: Vec<Subject> = Vec::new();
    for (path, is_cluster) in [("clusterroles", true), ("rolebindings", false), ("clusterrolebindings", false)] {
        let get = Request::get(format!("{RBAC}/{path}?labelSelector=kubernetes.io/bootstrapping%3Drbac-defaults"));
        let read = servers.theirs.send(&servers.credentials, &Actor::Admin, &get).await?;
        for item in read.body["items"].as_array().into_iter().flatten() {
            let name = item["metadata"]["name"].as_str().unwrap_or_default();
            if is_cluster {
                all.push(Subject::new(format!("everywhere:{name}"), &[AUTHENTICATED], "team-a"));
                all.push(Subject::new(format!("within:{name}"), &[AUTHENTICATED], "team-a"));
                continue;
            }
            let namespace = item["metadata"]["namespace"].as_str().unwrap_or("kube-system");
            for subject in item["subjects"].as_array().into_iter().flatten() {
                all.extend(of_binding(subject, namespace));
            }
        }
    }
    all.extend(made_roles().iter().map(|role| Subject::new(role.name, &[AUTHENTICATED], "team-a")));
    let account = ["system:serviceaccounts", "system:serviceaccounts:team-a", AUTHENTICATED];
    all.extend([
        Subject::new("gathered", &[AUTHENTICATED], "team-a"),
        Subject::new("dangling", &[AUTHENTICATED], "team-a"),
        Subject::new("jane", &["devs", AUTHENTICATED], "team-a"),
        Subject::new("joe", &[AUTHENTICATED], "team-a"),
        Subject::new("nobody-at-all", &[], "team-a"),
        Subject::new("", &[AUTHENTICATED], "team-a"),
        Subject::new("system:anonymous", &["system:unauthenticated"], "team-a"),
        Subject::new("root", &["system:masters"], "team-a"),
        Subject::new("system:serviceaccount:team-a:robot", &account, "team-a"),
        Subject::new("system:serviceaccount:team-a:default", &account, "team-a"),
        Subject::new("system:bootstrap:abcdef", &["system:bootstrappers", AUTHENTICATED], "team-a"),
        Subject::new("system:node:n1", &["system:nodes", AUTHENTICATED], "team-a"),
        Subject::new("system:node:n2", &["system:nodes", AUTHENTICATED], "kube-node-lease"),
        Subject::new("system:node:ghost", &["system:nodes", AUTHENTICATED], "team-a"),
        Subject::new("system:node:n1", &[AUTHENTICATED], "team-a"),
        Subject::new("n1", &["system:nodes", AUTHENTICATED], "team-a"),
        Subject::new("system:node:", &["system:nodes", AUTHENTICATED], "team-a"),
    ]);
    all.sort_by(|a, b| (&a.user, &a.groups).cmp(&(&b.user, &b.groups)));
    all.dedup_by(|a, b| (&a.user, &a.groups) == (&b.user, &b.groups));
    Ok(all)
}

fn of_binding(subject: &Value, namespace: &str) -> Option<Subject> {
    let name = subject["name"].as_str()?;
    match subject["kind"].as_str()? {
        "User" => Some(Subject::new(name, &[AUTHENTICATED], namespace)),
        "ServiceAccount" => {
            let of = subject["namespace"].as_str().unwrap_or(namespace);
            let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{of}"), AUTHENTICATED];
            Some(Subject::new(format!("system:serviceaccount:{of}:{name}"), &groups, namespace))
        }
        "Group" => Some(Subject::new(format!("member-of-{name}"), &[name], namespace)),
        _ => None,
    }
}
