//! DNS over TCP (RFC 7766): any number of queries on a connection, each with its length in front.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    response::Transport,
    server::{FastPathOutcome, Server},
};
use fairlead_serving::connection_limit::ConnectionLimit;

/// Serves connections until `stop`. At the limit of connections, a further one cuts the oldest.
pub async fn serve(server: Arc<Server>, listener: Arc<TcpListener>, stop: CancellationToken) {
    let limit = ConnectionLimit::new(MAX_CONNECTIONS_OF_ONE, MAX_CONNECTIONS);
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((connection, client)) => {
                let (server, stop, counted) = (server.clone(), stop.clone(), limit.admit(client.ip()));
                tokio::spawn(async move {
                    let ended = tokio::select! {
                        () = stop.cancelled() => Ok(()),
                        () = counted.is_cut() => Ok(()),
                        ended = serve_connection(&server, connection, client.ip()) => ended,
                    };
                    if let Err(error) = ended {
                        tracing::trace!(%error, "a DNS connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a DNS connection");
                tokio::time::sleep(ACCEPT_AGAIN_AFTER).await;
            }
        }
    }
}

async fn serve_connection(server: &Server, mut connection: TcpStream, client: IpAddr) -> io::Result<()> {
    let (mut packet, mut response, mut framed) = (Vec::new(), Vec::new(), Vec::new());
    for turn in 0.. {
        let read = async {
            let length = connection.read_u16().await?;
            packet.resize(length.into(), 0);
            connection.read_exact(&mut packet).await
        };
        match timeout(IDLE, read).await {
            Ok(Ok(_)) => (),
            // Closed, cut or idle: the conversation is over.
            Ok(Err(_)) | Err(_) => return Ok(()),
        }
        response.clear();
        match server.answer_fast(&packet, Transport::Tcp, turn, &mut response) {
            FastPathOutcome::Done => (),
            FastPathOutcome::Wait => server.resolve(&packet, client, Transport::Tcp, &mut response).await,
            FastPathOutcome::Drop => return Ok(()),
        }
        framed.clear();
        framed.extend_from_slice(&(response.len() as u16).to_be_bytes());
        framed.extend_from_slice(&response);
        timeout(IDLE, connection.write_all(&framed)).await??;
    }
    Ok(())
}

const MAX_CONNECTIONS: usize = 256;
/// Of one client: a pod that holds many does so at its own cost.
const MAX_CONNECTIONS_OF_ONE: usize = 64;
const IDLE: Duration = Duration::from_secs(10);
const ACCEPT_AGAIN_AFTER: Duration = Duration::from_millis(100);
