//! Tokens of ServiceAccounts: how fast they are issued, looked at for others, and taken as credentials.

use std::time::Duration;

use bytes::Bytes;
use kube::Client;
use serde_json::{Value, json};

use crate::{
    access_load::{Dialer, Question, Rate, config_of, rate},
    access_rbac::{self, NAMESPACE},
    api_writes,
    contestant::Contestant,
    kit::Result,
};

const ACCOUNT: &str = "robot";
const REVIEWS: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
const CONNECTIONS: usize = 16;
const SLICE: Duration = Duration::from_secs(5);

pub struct TokenRates {
    pub requests: Rate,
    /// Each of a token that the server has not seen before.
    pub first_reviews: Rate,
    pub reviews_of_one: Rate,
    /// Reads with one token as the credential.
    pub reads: Rate,
}

pub async fn measure(contestant: &Contestant, tokens: usize) -> Result<TokenRates> {
    let (server, client) = (&contestant.server, Client::try_from(contestant.server.config().clone())?);
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": ACCOUNT}});
    let accounts = format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts");
    api_writes::write(&client, "POST", &accounts, "application/json", &account).await?;
    let subject = json!([{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}]);
    access_rbac::let_read(&client, "role-robot", "robot", subject).await?;

    let root = config_of(server.config(), &contestant.authority, "root", Some("system:masters"))?;
    let mut connections = Dialer::new(&root)?.connections(CONNECTIONS).await?;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}});
    let request = Question::send("POST", format!("{accounts}/{ACCOUNT}/token"), &request);
    let requests = rate(server, &mut connections, SLICE, |_| Some(request.clone())).await?;

    let mut issued = Vec::with_capacity(tokens);
    for index in 0..tokens {
        issued.push(token(&connections[index % CONNECTIONS].ask(&request).await?)?);
        connections.rotate_left(1);
    }
    let review = |token: &str| {
        let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}});
        Question::send("POST", REVIEWS, &review)
    };
    let first = issued.first().ok_or("no token")?.clone();
    let answer: Value = serde_json::from_slice(&connections[0].ask(&review(&first)).await?)?;
    if answer["status"]["authenticated"] != true {
        return Err(format!("{}: a good token is not good: {answer}", server.name()).into());
    }
    let questions: Vec<Question> = issued.iter().skip(1).map(|token| review(token)).collect();
    let first_reviews = rate(server, &mut connections, SLICE * 10, |number| questions.get(number).cloned()).await?;
    let again = review(&first);
    let reviews_of_one = rate(server, &mut connections, SLICE, |_| Some(again.clone())).await?;

    // A certificate would be looked at before the token.
    let mut nobody = server.config().clone();
    nobody.auth_info = kube::config::AuthInfo::default();
    let mut connections = Dialer::new(&nobody)?.connections(CONNECTIONS).await?;
    let question = access_rbac::read().by(&first);
    let reads = rate(server, &mut connections, SLICE, |_| Some(question.clone())).await?;
    Ok(TokenRates { requests, first_reviews, reviews_of_one, reads })
}

fn token(answer: &Bytes) -> Result<String> {
    let answer: Value = serde_json::from_slice(answer)?;
    Ok(answer["status"]["token"].as_str().ok_or_else(|| format!("no token: {answer}"))?.to_owned())
}
