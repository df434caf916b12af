//! Thousands of TLS connections that are opened at once: how many are served, how long that takes, and what memory they
//! hold while they are open.

use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use crate::{
    access_load::{Connection, Dialer, Question, config_of},
    contestant::Contestant,
    kit::Result,
};

/// Users, each at an address of their own.
const USERS: u8 = 100;
/// Files that are open beside the connections.
const SPARE_DESCRIPTORS: u64 = 2_000;

pub struct ConnectionsSeen {
    pub served: usize,
    pub refused: usize,
    /// Until the last was answered or refused.
    pub seconds: f64,
    /// What the server held with all connections open, and what they added.
    pub resident_mib: f64,
    pub added_mib: f64,
    pub why_refused: Option<String>,
}

/// Where they come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A hundred addresses and users.
    Many,
    /// One user at one address.
    One,
}

/// Opens `count` connections at once, each of which asks one question, and keeps them open until all have.
pub async fn measure(contestant: &Contestant, count: usize, origin: Origin) -> Result<ConnectionsSeen> {
    let server = &contestant.server;
    let before = server.api_resident_mib()?;
    let users = if origin == Origin::Many { USERS } else { 1 };
    let mut dialers = Vec::new();
    for user in 0..users {
        let name = format!("crowd-{user}");
        let config = config_of(server.config(), &contestant.authority, &name, Some("system:masters"))?;
        dialers.push((Dialer::new(&config)?, Ipv4Addr::new(127, 0, 1, user.saturating_add(1))));
    }
    let start = Instant::now();
    let mut opening = tokio::task::JoinSet::new();
    for index in 0..count {
        let (dialer, from) = dialers[index % dialers.len()].clone();
        opening.spawn(async move {
            let mut connection = dialer.connect(from).await?;
            connection.ask(&Question::get("/version")).await?;
            Ok::<Connection, Box<dyn std::error::Error + Send + Sync>>(connection)
        });
    }
    let (mut open, mut why_refused) = (Vec::with_capacity(count), None);
    while let Some(opened) = opening.join_next().await {
        match opened? {
            Ok(connection) => open.push(connection),
            Err(error) => why_refused = Some(error.to_string()),
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    // All are served still, the first ones too.
    let mut served = 0;
    for connection in &mut open {
        match connection.ask(&Question::get("/version")).await {
            Ok(_) => served += 1,
            Err(error) => why_refused = Some(error.to_string()),
        }
    }
    let resident_mib = server.api_resident_mib()?;
    let seen = ConnectionsSeen {
        served,
        refused: count - served,
        seconds,
        resident_mib,
        added_mib: resident_mib - before,
        why_refused,
    };
    drop(open);
    // The server has seen them end before another measurement begins.
    let mut admin = Dialer::new(&config_of(server.config(), &contestant.authority, "root", Some("system:masters"))?)?
        .connect(Ipv4Addr::LOCALHOST)
        .await?;
    while server.api_descriptors()? > 1_000 {
        admin.ask(&Question::get("/version")).await?;
        // How often is looked, not a guess of how long it takes.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(seen)
}

/// Lets this process, and those that it starts, open as many files as its hard limit says, and more if that is too few.
pub fn raise_descriptors(connections: usize) -> Result {
    let wanted = (connections as u64).saturating_add(SPARE_DESCRIPTORS);
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` alone.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(std::io::Error::last_os_error().into());
    }
    limit.rlim_max = limit.rlim_max.max(wanted);
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads `limit` alone.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(format!("cannot open {wanted} files: {}", std::io::Error::last_os_error()).into()),
    }
}
