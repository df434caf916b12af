//! Connections of one session, and how it ends.

use std::{net::SocketAddr, time::Duration};

use futures::future::join_all;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::mpsc,
};

use super::{
    super::session::run,
    agent::{COUNT, FLOOD, HALF, READER, REFUSED, Seen, local_port, session},
};

/// What tests wait for at most.
const PATIENCE: Duration = Duration::from_secs(30);

/// What the pod answers to so many bytes, behind which the client says that it has said all.
async fn answer(to: SocketAddr, bytes: usize) -> String {
    let mut client = TcpStream::connect(to).await.unwrap();
    client.write_all(&vec![0; bytes]).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn many_clients_that_have_said_all_are_answered_at_once() {
    let (socket, _seen, _agent) = session().await;
    let (port, address) = local_port(COUNT).await;
    let answers = join_all((0..40).map(|number| answer(address, number * 10_000)));
    tokio::select! {
        ended = run(socket, vec![port], async || false) => panic!("{ended:?}"),
        answers = tokio::time::timeout(PATIENCE, answers) => {
            let wanted: Vec<String> = (0..40).map(|number| (number * 10_000).to_string()).collect();
            assert_eq!(answers.expect("all are answered"), wanted);
        }
    }
}

#[tokio::test]
async fn a_client_may_go_on_after_the_pod_has_answered_all() {
    let (socket, mut seen, _agent) = session().await;
    let (port, address) = local_port(READER).await;
    let using = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
        client.write_all(&[0; 50_000]).await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(seen.recv().await, Some(Seen::Read(50_000)));
    };
    tokio::select! {
        ended = run(socket, vec![port], async || false) => panic!("{ended:?}"),
        () = using => {}
    }
}

#[tokio::test]
async fn a_refused_port_is_told_and_the_session_goes_on_unless_the_pod_is_gone() {
    let (socket, _seen, _agent) = session().await;
    let ((refused, to_refused), (good, to_good)) = (local_port(REFUSED).await, local_port(COUNT).await);
    let (tell_checked, mut checked) = mpsc::channel(1);
    let gone = std::cell::Cell::new(false);
    let is_gone = async || {
        tell_checked.send(()).await.unwrap();
        gone.get()
    };
    let using = async {
        assert_eq!(answer(to_refused, 0).await, "");
        checked.recv().await.unwrap();
        assert_eq!(answer(to_good, 7).await, "7");
        gone.set(true);
        assert_eq!(answer(to_refused, 0).await, "");
        std::future::pending::<()>().await
    };
    tokio::select! {
        ended = run(socket, vec![refused, good], is_gone) => {
            assert_eq!(ended.unwrap_err().to_string(), "lost connection to pod");
            assert!(gone.get());
        }
        () = using => {}
    }
}

#[tokio::test]
async fn what_a_server_tells_is_the_connections_error() {
    use fairlead_node_agent::{spdy::ClientConnection, tunnel::Tunnel};
    let (socket, _seen, _agent) = session().await;
    let ClientConnection { opener, closer: _closer, driver } = ClientConnection::new(Tunnel::new(socket));
    tokio::spawn(driver);
    let (port, address) = local_port(REFUSED).await;
    let _client = TcpStream::connect(address).await.unwrap();
    let (accepted, _) = port.listener.accept().await.unwrap();
    let error = super::super::connection::forward(&opener, 0, REFUSED, accepted).await.unwrap_err();
    assert_eq!(error.to_string(), "connection refused\u{1b}[2J");
}

#[tokio::test]
async fn a_session_that_breaks_off_is_an_error_and_its_clients_get_what_had_come() {
    let (socket, _seen, agent) = session().await;
    let (port, address) = local_port(HALF).await;
    let using = async {
        let mut client = TcpStream::connect(address).await.unwrap();
        let mut half = [0; 11];
        client.read_exact(&mut half).await.unwrap();
        agent.abort();
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        (half, rest)
    };
    let both = async { tokio::join!(run(socket, vec![port], async || false), using) };
    let (ended, (half, rest)) = tokio::time::timeout(PATIENCE, both).await.expect("both end");
    assert_eq!(ended.unwrap_err().to_string(), "lost connection to pod");
    assert_eq!((&half, rest.as_slice()), (b"half an ans", &[][..]));
}

#[tokio::test]
async fn a_local_client_that_reads_nothing_holds_up_the_pod_and_its_end_resets_the_stream() {
    /// The kernel's buffer on the sending side may grow to some megabytes; the session's have less than one.
    const MOST: usize = 16 << 20;
    let (socket, mut seen, _agent) = session().await;
    let ((flood, to_flood), (good, to_good)) = (local_port(FLOOD).await, local_port(COUNT).await);
    let using = async {
        let client = TcpSocket::new_v4().unwrap();
        client.set_recv_buffer_size(64 * 1024).unwrap();
        let client = client.connect(to_flood).await.unwrap();
        match seen.recv().await {
            Some(Seen::HeldUp(sent)) => assert!(sent < MOST, "{sent}"),
            other => panic!("{other:?}"),
        }
        // With bytes that it has not read, so that the kernel resets the connection.
        drop(client);
        assert_eq!(seen.recv().await, Some(Seen::Reset));
        assert_eq!(answer(to_good, 9).await, "9");
    };
    tokio::select! {
        ended = run(socket, vec![flood, good], async || false) => panic!("{ended:?}"),
        used = tokio::time::timeout(PATIENCE, using) => used.expect("the session goes on"),
    }
}
