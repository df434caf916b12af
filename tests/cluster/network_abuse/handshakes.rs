//! Thousands of TLS handshakes that are begun and left undone, from several addresses, while another address opens
//! connections.

use std::{io, net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    task::JoinSet,
    time::Instant,
};

use super::{
    tls::client_hello,
    victim::{Connector, LONGEST_ANSWER, Victim, Who},
};
use crate::kit::Result;

/// 127.0.0.2 and those that follow.
const ADDRESSES: u8 = 9;
/// More than one address may hold, though a third of them say nothing.
const OF_EACH: usize = 450;
/// How often each begins, when its connection was cut to make room.
const TIMES: usize = 2;
/// Open at a time at least, or it is no attack.
const AT_ONCE: usize = 1_500;
/// A handshake has 10 s, and waits a little for its turn before; a debug build is slow.
const ENDED_WITHIN: Duration = Duration::from_secs(40);
const MOST_MIB: u64 = 120;

/// A third of the clients connect and say nothing, a third send half of their hello, and a third leave the server's
/// answer unanswered. Who comes from another address has its handshake and its answer all the while, and the server
/// ends each of those.
pub async fn left_undone(victim: Victim) -> Result {
    raise_descriptors()?;
    let (port, before) = (victim.control.port()?, victim.descriptors()?);
    let connector = victim.connector(Who::Stranger, "http/1.1")?;
    let hello = client_hello([3, 3], &[0xc0, 0x2b, 0xc0, 0x2f]);
    let said: [Arc<[u8]>; 3] = [Arc::default(), hello[..hello.len() / 2].into(), hello.into()];
    let attack = async {
        let mut clients = JoinSet::new();
        for said in said.iter().cycle().take(OF_EACH) {
            for host in 2..2 + ADDRESSES {
                clients.spawn(stall(Ipv4Addr::new(127, 0, 0, host), port, said.clone()));
            }
        }
        let all_ended = async {
            while let Some(ended) = clients.join_next().await {
                ended??;
            }
            Result::Ok(())
        };
        let mut seen = Seen::default();
        let ended = tokio::select! {
            ended = all_ended => ended,
            Err(error) = serve(&victim, &connector, &mut seen) => Err(error),
        };
        let open = seen.open.saturating_sub(before);
        println!("{} others served, each within {:?}; {open} open at once", seen.served, seen.longest);
        match ended {
            Ok(()) if open < AT_ONCE => Err(format!("no more than {open} were open at once").into()),
            ended => ended,
        }
    };
    victim.endures("handshakes that are left undone", MOST_MIB, attack).await
}

/// What came of the others, and how many files the service had open.
#[derive(Default)]
struct Seen {
    served: usize,
    longest: Duration,
    open: usize,
}

/// Opens a connection after the other. Ends with one that is not served.
async fn serve(victim: &Victim, connector: &Connector, seen: &mut Seen) -> Result {
    loop {
        let begun = Instant::now();
        tokio::time::timeout(LONGEST_ANSWER, ask_anew(connector))
            .await
            .map_err(|_| "another address has no answer")??;
        seen.longest = seen.longest.max(begun.elapsed());
        seen.served += 1;
        seen.open = seen.open.max(victim.descriptors()?);
    }
}

/// A handshake, a request and its answer.
async fn ask_anew(connector: &Connector) -> Result {
    let mut stream = connector.connect().await?;
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: server\r\nconnection: close\r\n\r\n").await?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await?;
    match &answer {
        b"HTTP/1.1 200" => Ok(()),
        other => Err(format!("another address: {}", String::from_utf8_lossy(other)).into()),
    }
}

/// Begins, and waits until the server has had enough of it.
async fn stall(from: Ipv4Addr, port: u16, said: Arc<[u8]>) -> Result {
    for _ in 0..TIMES {
        let socket = TcpSocket::new_v4()?;
        socket.bind((from, 0).into())?;
        let mut stream = socket.connect((Ipv4Addr::LOCALHOST, port).into()).await?;
        let ended = async {
            // One that is cut meanwhile has ended as well as one that is closed.
            if stream.write_all(&said).await.is_err() {
                return;
            }
            let mut answer = [0; 4096];
            while matches!(stream.read(&mut answer).await, Ok(1..)) {}
        };
        let ended = tokio::time::timeout(ENDED_WITHIN, ended).await;
        ended.map_err(|_| format!("a handshake that {from} leaves undone has no end"))?;
    }
    Ok(())
}

/// Lets this process open as many files as it may.
fn raise_descriptors() -> Result {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call writes to `limit` alone.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return Err(io::Error::last_os_error().into());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the call reads `limit` alone.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error().into()),
    }
}
