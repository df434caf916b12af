//! `kubectl auth can-i --list`: what somebody may, listed.

use std::{path::Path, process::Command};

use futures::{StreamExt, stream};
use serde_json::{Value, json};

use crate::{
    asked::Asked,
    exchange::{Answer, Request, compared},
    kit::{Result, run},
    report::Report,
    servers::{Actor, Servers, Side},
    subjects::Subject,
};

/// Asks both for the rules of every subject in its namespace.
pub async fn ask(servers: &Servers, subjects: &[Subject], report: &mut Report) -> Result {
    for subject in subjects.iter().filter(|subject| !subject.user.is_empty()) {
        let spec = json!({"spec": {"namespace": subject.namespace}});
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", spec);
        let request = request.acting_as(&subject.user, &subject.groups);
        let (ours, theirs) = servers.both(&Actor::Admin, &request).await?;
        let (ours, theirs) = (compared(&ours), compared(&theirs));
        let who = format!("{} {:?}", subject.user, subject.groups);
        report.add(&Asked { part: "rules", who: &who, what: "which rules there are" }, &ours, &theirs);
    }
    Ok(())
}

const AT_A_TIME: usize = 4;

/// Has kubectl list what the subject of every default role may.
pub async fn list(servers: &Servers, peers: &Path, subjects: &[Subject], report: &mut Report) -> Result {
    let of_roles = subjects.iter().filter(|subject| subject.user.starts_with("everywhere:"));
    let listed = of_roles.map(|subject| async move {
        let (ours, theirs) =
            tokio::try_join!(kubectl(peers, &servers.ours, subject), kubectl(peers, &servers.theirs, subject))?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((subject, ours, theirs))
    });
    let mut listed = stream::iter(listed).buffer_unordered(AT_A_TIME);
    while let Some(one) = listed.next().await {
        let (subject, ours, theirs) = one?;
        let asked = Asked { part: "kubectl", who: &subject.user, what: "auth can-i --list" };
        report.add(&asked, &ours, &theirs);
    }
    Ok(())
}

async fn kubectl(peers: &Path, side: &Side, subject: &Subject) -> Result<Answer> {
    let mut command = Command::new(peers.join("kubectl"));
    command.arg(format!("--kubeconfig={}", side.kubeconfig.display()));
    command.args(["auth", "can-i", "--list", "--namespace", &subject.namespace, "--as", &subject.user]);
    command.args(subject.groups.iter().map(|group| format!("--as-group={group}")));
    let text = tokio::task::spawn_blocking(move || run(&mut command)).await??;
    let body = text.lines().map(Value::from).collect();
    Ok(Answer { code: 200, content_type: String::new(), warnings: Vec::new(), body })
}
