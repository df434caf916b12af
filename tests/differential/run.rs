//! A run: both servers are started, scenarios are sent until there were enough requests, and the report is written.

use kube::Client;
use serde_json::Value;

use crate::{
    Arguments,
    comparison::differences,
    exchange::{Answer, exchange},
    fairlead_server::FairleadServer,
    justified::{Answers, justified},
    kit::Result,
    kube_apiserver::{self, KubeApiServer},
    normalise::{SERVICE_RANGE, normalise},
    report::{Compared, Report},
    request::{Memory, Request},
    resources::{self, Resource},
    scenario::{Scenario, scenario},
};

/// The servers' clients.
struct Servers {
    ours: Client,
    theirs: Client,
}

/// Whether every difference is justified.
pub async fn run(arguments: &Arguments) -> Result<bool> {
    if let Some(missing) = kube_apiserver::missing(&arguments.peers, &kube_apiserver::PARTS) {
        return Err(missing.into());
    }
    let dir = tempfile::tempdir()?;
    let range = format!("--service-cluster-ip-range={SERVICE_RANGE}");
    let mut reference = KubeApiServer::start(&arguments.peers, dir.path(), &[&range]).await?;
    let mut fairlead = FairleadServer::start(dir.path(), &["--api-only", "--service-cidr", SERVICE_RANGE]).await?;
    let servers = Servers {
        ours: Client::try_from(fairlead.config.clone())?,
        theirs: Client::try_from(reference.config.clone())?,
    };
    let mut report = Report::new(arguments.scenario.is_some());
    let outcome = compare(arguments, &servers, &mut report).await;
    report.write(&arguments.out)?;
    outcome.map_err(|error| {
        let ended = fairlead.ended().or_else(|| reference.ended()).unwrap_or_default();
        format!("{error}\n{ended}")
    })?;
    print!("{}", report.summary());
    println!("report: {}", arguments.out.display());
    let (agree, all) = report.agreement();
    Ok(agree == all)
}

async fn compare(arguments: &Arguments, servers: &Servers, report: &mut Report) -> Result {
    let resources = resources::resources(&servers.theirs, &arguments.kinds).await?;
    let mut number = 0;
    while report.agreement().1 < arguments.requests {
        for resource in &resources {
            number += 1;
            if arguments.scenario.is_some_and(|only| only != number) {
                continue;
            }
            let scenario = scenario(arguments.seed, number, resource)?;
            play(servers, resource, &scenario, report).await.map_err(|error| format!("scenario {number}: {error}"))?;
            if report.agreement().1 >= arguments.requests || arguments.scenario.is_some() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Sends a scenario's requests until one of them leaves the servers with different objects.
async fn play(servers: &Servers, resource: &Resource, scenario: &Scenario, report: &mut Report) -> Result {
    let (mut ours, mut theirs) = (Memory::default(), Memory::default());
    for request in &scenario.setup {
        let (ours, theirs) = send(servers, request, &mut ours, &mut theirs).await?;
        if let Some(answer) = [ours, theirs].iter().find(|answer| !answer.accepted()) {
            return Err(format!("{} {}: {}", request.method, request.path, answer.body).into());
        }
    }
    (ours, theirs) = Default::default();
    for request in &scenario.requests {
        let memory = ours.clone();
        let (our_answer, their_answer) = send(servers, request, &mut ours, &mut theirs).await?;
        let diverged = our_answer.accepted() != their_answer.accepted() && request.persists();
        let (our_answer, their_answer) = (normalise(our_answer), normalise(their_answer));
        let mut found = differences(&our_answer, &their_answer);
        let mut reasons = Vec::new();
        let answers = Answers { request, ours: &our_answer, theirs: &their_answer };
        found.retain(|difference| match justified(&answers, difference) {
            Some(reason) => {
                reasons.push((reason, difference.cause()));
                false
            }
            None => true,
        });
        report.add(&Compared {
            kind: &resource.kind,
            request,
            memory: &memory,
            ours: &our_answer,
            theirs: &their_answer,
            differences: &found,
            justified: &reasons,
        });
        if diverged {
            break;
        }
        if request.persists() {
            settle(servers, resource, request, &mut ours, &mut theirs).await?;
        }
    }
    for request in &scenario.cleanup {
        send(servers, request, &mut ours, &mut theirs).await?;
    }
    Ok(())
}

/// Whether an object is in the state that is waited for.
type Holds = fn(&Value) -> bool;

/// Which servers write a status themselves.
#[derive(Clone, Copy, PartialEq)]
enum Writers {
    Both,
    Ours,
    Theirs,
}

/// Kinds whose status servers themselves write a moment after the object, which servers do, and whether it is there.
const WRITTEN_LATER: [(&str, Writers, Holds); 3] = [
    ("CustomResourceDefinition", Writers::Both, is_definition_settled),
    ("FlowSchema", Writers::Theirs, |object| {
        object["status"]["conditions"].as_array().is_some_and(|conditions| !conditions.is_empty())
    }),
    ("ResourceQuota", Writers::Ours, |object| {
        let hard = |part: &str| object[part]["hard"].as_object().filter(|hard| !hard.is_empty());
        hard("status") == hard("spec")
    }),
];

/// Whether the controllers of definitions have nothing to write any more: names are refused, or accepted and served,
/// and what is deleted has no objects left. Each step is a write of its own; `Established` is false before it is true.
fn is_definition_settled(object: &Value) -> bool {
    let status = &object["status"];
    let says = |kind: &str, value: &str| {
        let mut conditions = status["conditions"].as_array().into_iter().flatten();
        conditions.any(|condition| condition["type"] == kind && condition["status"] == value)
    };
    let is_served = says("NamesAccepted", "True")
        && says("Established", "True")
        && status["acceptedNames"] == object["spec"]["names"];
    let mut finalizers = object["metadata"]["finalizers"].as_array().into_iter().flatten();
    let is_cleared = !finalizers.any(|finalizer| finalizer == "customresourcecleanup.apiextensions.k8s.io");
    match object["metadata"]["deletionTimestamp"].is_string() {
        true => is_cleared,
        false => is_served || says("NamesAccepted", "False"),
    }
}

/// Waits until a server has written what it writes itself, so that later requests meet an object that stays.
async fn settle(
    servers: &Servers,
    resource: &Resource,
    request: &Request,
    ours: &mut Memory,
    theirs: &mut Memory,
) -> Result {
    let written_later = WRITTEN_LATER.iter().find(|(kind, ..)| *kind == resource.kind);
    let Some((_, writers, is_written)) = written_later else { return Ok(()) };
    let Some(name) = ours.last.as_ref().and_then(|last| last["metadata"]["name"].as_str()) else { return Ok(()) };
    let name = name.to_owned();
    let segment = format!("/{}", resource.plural);
    let collection = request.path.split(&*segment).next().unwrap_or_default().to_owned() + &segment;
    let get = Request::new("get", "GET", format!("{collection}/{name}"));
    for _ in 0..400 {
        let (our_answer, their_answer) = send(servers, &get, ours, theirs).await?;
        let gone = our_answer.code == 404 || their_answer.code == 404;
        let ours_is_written = *writers == Writers::Theirs || is_written(&our_answer.body);
        let theirs_is_written = *writers == Writers::Ours || is_written(&their_answer.body);
        if gone || ours_is_written && theirs_is_written {
            return Ok(());
        }
        tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    }
    // What is never written is compared as it is.
    Ok(())
}

async fn send(
    servers: &Servers,
    request: &Request,
    ours: &mut Memory,
    theirs: &mut Memory,
) -> Result<(Answer, Answer)> {
    tokio::try_join!(exchange(&servers.ours, request, ours), exchange(&servers.theirs, request, theirs))
}
