//! A run: both servers are started and filled, everything is asked, and the report is written.

use std::time::Instant;

use crate::{
    Arguments, cases,
    kit::Result,
    objects,
    questions::{self, Served},
    report::Report,
    requests, reviews, rules,
    servers::Servers,
    subjects::{self, Subject},
};

/// What can be asked alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Every question as a SubjectAccessReview, and a sample as requests
    Matrix,
    /// SelfSubjectRulesReview and `kubectl auth can-i --list`
    Rules,
    /// Escalation, nodes and credentials
    Cases,
}

/// Whether every difference is justified.
pub async fn run(arguments: &Arguments) -> Result<bool> {
    let dir = tempfile::tempdir()?;
    let mut servers = Servers::start(&arguments.peers, dir.path()).await?;
    let mut report = Report::default();
    let outcome = ask(arguments, &servers, &mut report).await;
    report.write(&arguments.out)?;
    outcome.map_err(|error| format!("{error}\n{}", servers.ended().unwrap_or_default()))?;
    print!("{}", report.summary());
    println!("report: {}", arguments.out.display());
    Ok(report.agrees())
}

async fn ask(arguments: &Arguments, servers: &Servers, report: &mut Report) -> Result {
    let asks = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let start = Instant::now();
    let passed = |what: &str| eprintln!("{:>5.1} s: {what}", start.elapsed().as_secs_f64());
    objects::make(servers).await?;
    passed("roles, bindings and workloads are there");
    let subjects: Vec<Subject> = subjects::subjects(servers).await?;
    let served: Vec<Served> = questions::served(servers).await?;
    // Those first that ask without changing anything.
    if asks(Part::Rules) {
        rules::ask(servers, &subjects, report).await?;
        rules::list(servers, &arguments.peers, &subjects, report).await?;
        passed("rules are listed");
    }
    if asks(Part::Matrix) {
        let pairs = reviews::pairs(&subjects, &served, arguments.questions);
        eprintln!("         {} subjects, {} resources, {} questions", subjects.len(), served.len(), pairs.len());
        reviews::ask(servers, &pairs, report).await?;
        passed("reviews are answered");
        requests::send(servers, &pairs, &served, arguments.requests, report).await?;
        passed("requests are answered");
    }
    if asks(Part::Cases) {
        cases::ask_all(servers, report).await?;
        passed("cases are answered");
    }
    Ok(())
}
