//! UDP: each client of a frontend has a session with one backend, a socket of its own towards it, until it is idle or
//! the backend goes.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, SocketAddrV4},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{net::UdpSocket, sync::watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{listeners::ScopedBalancers, streams::client_address};
use crate::client_limit::{ClientLimit, ClientSlot};

/// A session without datagrams for so long is forgotten (as conntrack does with answered ones).
const IDLE: Duration = Duration::from_secs(120);
/// Sessions of one frontend; a client that finds no room is not served until others are idle.
const SESSIONS: usize = 1 << 14;
const MAX_DATAGRAM: usize = 1 << 16;

type Sessions = Arc<Mutex<HashMap<SocketAddr, Arc<Session>>>>;

struct Session {
    backend: UdpSocket,
    gone: CancellationToken,
    _slot: ClientSlot,
}

/// A bound socket; the caller is in the namespace it belongs to.
pub fn bind(at: SocketAddrV4) -> io::Result<std::net::UdpSocket> {
    let socket = std::net::UdpSocket::bind(at)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Serves until `stop`, with which the sessions end too; they are among `tasks`, since they hold the socket.
pub async fn serve(
    socket: std::net::UdpSocket,
    balancers: watch::Receiver<ScopedBalancers>,
    limit: ClientLimit,
    tasks: TaskTracker,
    stop: CancellationToken,
) {
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return warn!(%error, "a listener is lost"),
    };
    let sessions = Sessions::default();
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => return refuse(&socket).await,
            received = socket.recv_from(&mut buffer) => received,
        };
        // An error is an earlier reply's, that its client did not want.
        let Ok((length, client)) = received else { continue };
        let session = match live_session(&sessions, client) {
            Some(session) => session,
            None => {
                let balancers = balancers.borrow().clone();
                match open(client, &balancers, &limit, &sessions).await {
                    Ok(Some(session)) => {
                        tasks.spawn(replies(socket.clone(), client, session.clone(), sessions.clone(), stop.clone()));
                        session
                    }
                    Ok(None) => continue,
                    Err(error) => {
                        debug!(%error, %client, "no session for a client");
                        continue;
                    }
                }
            }
        };
        if let Err(error) = session.backend.send(&buffer[..length]).await {
            debug!(%error, %client, "a datagram is lost");
        }
    }
}

/// Has the kernel refuse from now on, whoever else holds the socket: a program that was just forked has a copy of every
/// descriptor until it is executed. A socket that is connected to itself takes nobody else's datagrams.
async fn refuse(socket: &UdpSocket) {
    let connected = match socket.local_addr() {
        Ok(itself) => socket.connect(itself).await,
        Err(error) => Err(error),
    };
    if let Err(error) = connected {
        debug!(%error, "a socket is closed and may take datagrams for a moment");
    }
}

fn live_session(sessions: &Sessions, client: SocketAddr) -> Option<Arc<Session>> {
    sessions.lock().get(&client).filter(|session| !session.gone.is_cancelled()).cloned()
}

async fn open(
    client: SocketAddr,
    balancers: &ScopedBalancers,
    limit: &ClientLimit,
    sessions: &Sessions,
) -> io::Result<Option<Arc<Session>>> {
    let address = client_address(client);
    let picked = balancers.balancer(address).and_then(|balancer| balancer.pick(address, &[], Instant::now()));
    let Some(picked) = picked else { return Ok(None) };
    let slot = limit.take(address.into()).ok_or_else(|| io::Error::other("the client has too many sessions"))?;
    let backend = UdpSocket::bind("0.0.0.0:0").await?;
    backend.connect(picked.at).await?;
    let session = Arc::new(Session { backend, gone: picked.gone, _slot: slot });
    {
        let mut sessions = sessions.lock();
        if sessions.len() >= SESSIONS && !sessions.contains_key(&client) {
            return Err(io::Error::other("too many sessions"));
        }
        sessions.insert(client, session.clone());
    }
    Ok(Some(session))
}

/// Carries replies back until the session ends, then forgets it.
async fn replies(
    socket: Arc<UdpSocket>,
    client: SocketAddr,
    session: Arc<Session>,
    sessions: Sessions,
    stop: CancellationToken,
) {
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let received = tokio::select! {
            () = stop.cancelled() => break,
            () = session.gone.cancelled() => break,
            received = tokio::time::timeout(IDLE, session.backend.recv(&mut buffer)) => received,
        };
        match received {
            Ok(Ok(length)) => {
                if let Err(error) = socket.send_to(&buffer[..length], client).await {
                    debug!(%error, %client, "a reply is lost");
                }
            }
            // The backend refused a datagram; the next may be taken.
            Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Ok(Err(_)) | Err(_) => break,
        }
    }
    let mut sessions = sessions.lock();
    if sessions.get(&client).is_some_and(|held| Arc::ptr_eq(held, &session)) {
        sessions.remove(&client);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        proxy::{
            table::{Candidate, Selection, SelectionName, SelectionPolicy},
            userspace::balancer::Balancer,
        },
        world::Protocol,
    };

    #[tokio::test]
    async fn a_socket_that_stopped_refuses_though_a_forked_program_still_has_its_descriptor() {
        let socket = bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = socket.local_addr().unwrap();
        let _inherited = socket.try_clone().unwrap();
        let (_balancers, watched) = watch::channel(ScopedBalancers::new(Arc::new(Vec::new())));
        let stop = CancellationToken::new();
        stop.cancel();
        serve(socket, watched, ClientLimit::new(1), TaskTracker::new(), stop).await;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        client.connect(at).await.unwrap();
        client.send(b"?").await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(10), client.recv(&mut [0; 8])).await.expect("an answer");
        assert_eq!(answer.map_err(|error| error.kind()), Err(io::ErrorKind::ConnectionRefused));
    }

    #[tokio::test]
    async fn one_client_takes_no_more_sessions_than_its_own() {
        let balancer = Balancer::new(Protocol::Udp);
        let backend = Candidate {
            address: Ipv4Addr::LOCALHOST,
            port: 9,
            node: None,
            zone: None,
            pod: None,
            local: true,
            terminating: false,
        };
        let name = SelectionName { port_name: "".into(), protocol: Protocol::Udp, policy: SelectionPolicy::EveryNode };
        let selection = Selection { name, backends: vec![backend], excluded: Vec::new(), elsewhere: false };
        balancer.update(&selection, None);
        let mut balancers = ScopedBalancers::new(Arc::new(Vec::new()));
        balancers.internal = Some(balancer);
        let (limit, sessions) = (ClientLimit::new(2), Sessions::default());
        let open = async |last: u8, port: u16| {
            let client = SocketAddr::from(([10, 244, 0, last], port));
            open(client, &balancers, &limit, &sessions).await.is_ok_and(|session| session.is_some())
        };
        assert_eq!([open(1, 1).await, open(1, 2).await, open(1, 3).await, open(2, 1).await], [true, true, false, true]);
        sessions.lock().clear();
        assert!(open(1, 3).await, "sessions that ended count no more");
    }
}
