//! The matrix: every question by SubjectAccessReview, many at a time.

use futures::{StreamExt, stream};
use serde_json::json;

use crate::{
    asked::Asked,
    exchange::{Answer, Request, compared},
    kit::Result,
    questions::{Question, Served, questions},
    report::Report,
    servers::{Actor, Servers},
    subjects::Subject,
};

/// A subject and a question to it.
pub type Pair = (Subject, Question);

/// How many are asked at a time.
const AT_A_TIME: usize = 48;
/// How often the reference is asked for one more of several reasons.
const MORE_REASONS: usize = 60;

/// Every question to every subject; at most so many, evenly taken.
pub fn pairs(subjects: &[Subject], served: &[Served], most: usize) -> Vec<Pair> {
    let all = subjects.iter().enumerate().flat_map(|(turn, subject)| {
        questions(subject, served, turn).into_iter().map(move |question| (subject.clone(), question))
    });
    let all: Vec<Pair> = all.collect();
    let count = all.len();
    // A step without a common divisor with most lengths of rows, so that no column is left out.
    let is_taken = |at: usize| (at * 7919) % count < most;
    all.into_iter().enumerate().filter(|(at, _)| most >= count || is_taken(*at)).map(|(_, pair)| pair).collect()
}

/// Asks both servers everything.
pub async fn ask(servers: &Servers, pairs: &[Pair], report: &mut Report) -> Result {
    let asked = pairs.iter().map(|(subject, question)| async move {
        let spec = question.spec(subject);
        let (ours, theirs) = review(servers, &spec).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((subject, spec, ours, theirs))
    });
    let mut answers = stream::iter(asked).buffer_unordered(AT_A_TIME);
    while let Some(answer) = answers.next().await {
        let (subject, spec, ours, theirs) = answer?;
        let what = spec.get("resourceAttributes").or(spec.get("nonResourceAttributes")).map(ToString::to_string);
        let who = format!("{} {:?}", subject.user, subject.groups);
        report.add(&Asked { part: "reviews", who: &who, what: &what.unwrap_or_default() }, &ours, &theirs);
    }
    Ok(())
}

async fn review(servers: &Servers, spec: &serde_json::Value) -> Result<(Answer, Answer)> {
    let request = Request::post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json!({"spec": spec}));
    let (ours, theirs) = servers.both(&Actor::Admin, &request).await?;
    let (ours, mut theirs) = (compared(&ours), compared(&theirs));
    // Of several bindings that allow it, the reference names any, each time another.
    for _ in 0..MORE_REASONS {
        if !by_binding(&ours) || !by_binding(&theirs) || ours.body == theirs.body {
            break;
        }
        theirs = compared(&servers.theirs.send(&servers.credentials, &Actor::Admin, &request).await?);
    }
    Ok((ours, theirs))
}

fn by_binding(answer: &Answer) -> bool {
    answer.body["reason"].as_str().is_some_and(|reason| reason.starts_with("RBAC: allowed by "))
}
