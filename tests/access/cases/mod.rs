//! Cases: somebody reaches for what is not theirs, or shows a credential that is not good.

use std::{collections::BTreeMap, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

use crate::{
    asked::Asked,
    credentials::TokenFlaw,
    exchange::{Answer, Request, compared},
    kit::Result,
    report::Report,
    servers::{Actor, Servers, Side},
};

mod certificates;
mod impersonation;
mod nodes;
mod roles;
mod streams;
mod tokens;

/// One thing that is done to both servers, in order.
pub enum Act {
    /// The administrator does it, and both accept. What is answered is kept under the name, if there is one.
    Prepare { keep: &'static str, request: Request },
    /// Who asks, and what; both answers are compared.
    Ask { actor: Who, request: Request },
    /// The token that a controller writes into a Secret is waited for, and kept.
    ReadSecret { keep: &'static str, path: &'static str },
    /// A token like one that was kept, with a flaw or with other claims.
    Forge { of: &'static str, keep: &'static str, flaw: TokenFlaw, edit: fn(&mut Value) },
}

/// Who asks.
#[derive(Clone)]
pub enum Who {
    Known(Actor),
    /// Whoever holds the token that was kept under this name.
    Bearer(&'static str),
}

/// The acts of a kind of case.
pub type Acts = Vec<Act>;

/// The administrator does something.
pub fn prepare(request: Request) -> Act {
    Act::Prepare { keep: "", request }
}

/// The same, and its answer is kept.
pub fn keep(keep: &'static str, request: Request) -> Act {
    Act::Prepare { keep, request }
}

/// A user of the made roles asks.
pub fn ask(user: &str, request: Request) -> Act {
    Act::Ask { actor: Who::Known(Actor::user(user)), request }
}

/// What a server told before: `${NAME.uid}`, `${NAME.rv}` and `${NAME.token}` stand for it in paths and bodies.
type Memory = BTreeMap<String, String>;

/// Plays all cases.
pub async fn ask_all(servers: &Servers, report: &mut Report) -> Result {
    let all: [(&'static str, Acts); 6] = [
        ("roles", roles::acts()),
        ("impersonation", impersonation::acts()),
        ("certificates", certificates::acts()?),
        ("streams", streams::acts()),
        ("nodes", nodes::acts()?),
        ("tokens", tokens::acts()),
    ];
    for (part, acts) in all {
        play(servers, part, acts, report).await.map_err(|error| format!("{part}: {error}"))?;
    }
    Ok(())
}

/// How often the reference is asked again while its caches may lag behind its store.
const PATIENCE: usize = 8;
const LOOK_EVERY: Duration = Duration::from_millis(50);

async fn play(servers: &Servers, part: &'static str, acts: Acts, report: &mut Report) -> Result {
    let (mut ours, mut theirs) = (Memory::new(), Memory::new());
    for act in acts {
        match act {
            Act::Prepare { keep, request } => {
                for (side, memory) in [(&servers.ours, &mut ours), (&servers.theirs, &mut theirs)] {
                    let answer = send(servers, side, &Who::Known(Actor::Admin), &request, memory).await?;
                    if !answer.accepted() {
                        return Err(
                            format!("{} {}: {} {}", request.method, request.path, answer.code, answer.body).into()
                        );
                    }
                    remember(keep, &answer.body, memory);
                }
            }
            Act::ReadSecret { keep, path } => {
                for (side, memory) in [(&servers.ours, &mut ours), (&servers.theirs, &mut theirs)] {
                    memory.insert(format!("{keep}.token"), token_in(servers, side, path).await?);
                }
            }
            Act::Forge { of, keep, flaw, edit } => {
                for memory in [&mut ours, &mut theirs] {
                    let token = memory.get(&format!("{of}.token")).ok_or_else(|| format!("no token of {of}"))?;
                    let forged = servers.credentials.forged(token, flaw, edit)?;
                    memory.insert(format!("{keep}.token"), forged);
                }
            }
            Act::Ask { actor, request } => {
                let our_answer = compared(&send(servers, &servers.ours, &actor, &request, &ours).await?);
                let mut their_answer = compared(&send(servers, &servers.theirs, &actor, &request, &theirs).await?);
                for _ in 0..PATIENCE {
                    let may_lag = matches!(their_answer.code, 403 | 404) && our_answer.accepted();
                    if !may_lag {
                        break;
                    }
                    tokio::time::sleep(LOOK_EVERY).await;
                    their_answer = compared(&send(servers, &servers.theirs, &actor, &request, &theirs).await?);
                }
                let who = match &actor {
                    Who::Known(Actor::User { name, .. }) => name.clone(),
                    Who::Known(actor) => format!("{actor:?}"),
                    Who::Bearer(token) => format!("the bearer of {token}"),
                };
                let headers: Vec<_> = request.headers.iter().map(|(name, value)| format!("{name}: {value}")).collect();
                let what = format!("{} {} {} {}", request.method, request.path, headers.join(" "), request.body);
                report.add(&Asked { part, who: &who, what: &what }, &our_answer, &their_answer);
            }
        }
    }
    Ok(())
}

/// How often a Secret is looked at until it has its token.
const LOOKS: usize = 600;

async fn token_in(servers: &Servers, side: &Side, path: &str) -> Result<String> {
    for _ in 0..LOOKS {
        let read = side.send(&servers.credentials, &Actor::Admin, &Request::get(path)).await?;
        if let Some(token) = read.body["data"]["token"].as_str() {
            return Ok(String::from_utf8(BASE64_STANDARD.decode(token)?)?);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Err(format!("{path} has no token").into())
}

async fn send(servers: &Servers, side: &Side, who: &Who, request: &Request, memory: &Memory) -> Result<Answer> {
    let mut request = request.clone();
    request.path = filled(&request.path, memory);
    if !request.body.is_null() {
        request.body = serde_json::from_str(&filled(&request.body.to_string(), memory))?;
    }
    for (_, value) in &mut request.headers {
        *value = filled(value, memory);
    }
    let actor = match who {
        Who::Known(actor) => actor.clone(),
        Who::Bearer(token) => {
            let kept = memory.get(&format!("{token}.token")).ok_or_else(|| format!("no token {token}"))?;
            Actor::Token(kept.clone())
        }
    };
    side.send(&servers.credentials, &actor, &request).await
}

fn filled(text: &str, memory: &Memory) -> String {
    memory.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("${{{name}}}"), value))
}

fn remember(keep: &str, body: &Value, memory: &mut Memory) {
    if keep.is_empty() {
        return;
    }
    let told = [
        ("uid", &body["metadata"]["uid"]),
        ("rv", &body["metadata"]["resourceVersion"]),
        ("token", &body["status"]["token"]),
    ];
    for (what, value) in told {
        if let Some(value) = value.as_str() {
            memory.insert(format!("{keep}.{what}"), value.to_owned());
        }
    }
}
