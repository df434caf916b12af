//! A sample of the matrix as real requests: whether one is refused, and in which words. What comes of those that are
//! let through is the differential test's to compare; nothing is changed by them, for they are dry runs.

use futures::{StreamExt, stream};
use serde_json::json;

use crate::{
    asked::Asked,
    exchange::{Request, compared},
    kit::Result,
    questions::{Question, Resource, Served},
    report::Report,
    reviews::Pair,
    servers::{Actor, Servers},
};

const AT_A_TIME: usize = 32;

/// Sends at most `most` of the questions, evenly taken out of those that a request can ask.
pub async fn send(servers: &Servers, pairs: &[Pair], served: &[Served], most: usize, report: &mut Report) -> Result {
    let possible = pairs.iter().filter_map(|(subject, question)| {
        if subject.user.is_empty() || subject.user == "root" {
            return None;
        }
        let request = request(question, served)?;
        Some((subject, request.acting_as(&subject.user, &subject.groups)))
    });
    let possible: Vec<_> = possible.collect();
    let every = possible.len().div_ceil(most.max(1)).max(1);
    let sent = possible.into_iter().step_by(every).map(|(subject, request)| async move {
        let answers = servers.both(&Actor::Admin, &request).await?;
        Ok::<_, Box<dyn std::error::Error + Send + Sync>>((subject, request, answers))
    });
    let mut sent = stream::iter(sent).buffer_unordered(AT_A_TIME);
    while let Some(answered) = sent.next().await {
        let (subject, request, (ours, theirs)) = answered?;
        let (mut ours, mut theirs) = (compared(&ours), compared(&theirs));
        // What was let through may still be wrong in other ways.
        for answer in [&mut ours, &mut theirs] {
            if !matches!(answer.code, 401 | 403 | 0) {
                (answer.code, answer.body) = (200, json!(null));
                answer.content_type.clear();
                answer.warnings.clear();
            }
        }
        let who = format!("{} {:?}", subject.user, subject.groups);
        let what = format!("{} {}", request.method, request.path);
        report.add(&Asked { part: "requests", who: &who, what: &what }, &ours, &theirs);
    }
    Ok(())
}

/// The request that asks it; none for verbs that no request has.
fn request(question: &Question, served: &[Served]) -> Option<Request> {
    match question {
        Question::Path { verb, path } => {
            let method = method(verb)?;
            Some(Request::new(method, *path))
        }
        Question::Resource(r) => {
            let of = served.iter().find(|of| (&of.group, &of.resource) == (&r.group, &r.resource))?;
            let is_read = matches!(r.verb, "get" | "list" | "watch");
            let about_one = !matches!(r.verb, "list" | "watch" | "create" | "deletecollection");
            let is_below = !r.subresource.is_empty();
            let needs_name = about_one || is_below;
            let name = if r.name.is_empty() { "nothing-there" } else { &r.name };
            if is_below && matches!(r.verb, "list" | "watch" | "deletecollection") {
                return None;
            }
            // One in a namespace is asked for there; what is created has none in its path.
            if of.namespaced && r.namespace.is_empty() && needs_name || !of.namespaced && !r.namespace.is_empty() {
                return None;
            }
            let mut path = prefix(r);
            if of.namespaced && !r.namespace.is_empty() {
                path.push_str(&format!("/namespaces/{}", r.namespace));
            }
            path.push_str(&format!("/{}", r.resource));
            if needs_name {
                path.push_str(&format!("/{name}"));
            }
            if is_below {
                path.push_str(&format!("/{}", r.subresource));
            }
            let mut query: Vec<String> = Vec::new();
            let is_asked_below = r.verb == "create" && is_below;
            if !is_read && !is_asked_below {
                query.push("dryRun=All".into());
            }
            if r.verb == "watch" {
                query.push("watch=1&timeoutSeconds=1".into());
            }
            if let Some((field, value)) = r.selects.as_ref().filter(|_| !needs_name) {
                query.push(format!("fieldSelector={field}%3D{value}"));
            }
            if !query.is_empty() {
                path = format!("{path}?{}", query.join("&"));
            }
            let mut request = Request::new(method(r.verb)?, path);
            // No object: it is refused before it could do anything.
            if matches!(r.verb, "create" | "update" | "patch") {
                request.body = json!("no object");
            }
            Some(request)
        }
    }
}

fn prefix(r: &Resource) -> String {
    match r.group.as_str() {
        "" => format!("/api/{}", r.version),
        group => format!("/apis/{group}/{}", r.version),
    }
}

fn method(verb: &str) -> Option<&'static str> {
    Some(match verb {
        "get" | "list" | "watch" => "GET",
        "head" => "HEAD",
        "create" | "post" => "POST",
        "update" | "put" => "PUT",
        "patch" => "PATCH",
        "delete" | "deletecollection" => "DELETE",
        _ => return None,
    })
}
