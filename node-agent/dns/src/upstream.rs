//! One question to one other resolver: UDP, and TCP where the response does not fit. It does not choose the resolver.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::query::{FLAG_RESPONSE, FLAG_TRUNCATED, HEADER_LEN};

/// Sends `packet` (with a question of `question_len` bytes, and an ID nobody can guess) and returns the response that
/// fits it.
///
/// A socket of its own gives each question a source port of its own (RFC 5452). Responses that do not fit are ignored.
pub async fn ask(server: SocketAddr, packet: &[u8], question_len: usize, patience: Duration) -> io::Result<Vec<u8>> {
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    let response = timeout(patience, over_udp(server, packet, question_len)).await.map_err(late)??;
    if u16::from_be_bytes([response[2], response[3]]) & FLAG_TRUNCATED == 0 {
        return Ok(response);
    }
    timeout(patience, over_tcp(server, packet, question_len)).await.map_err(late)?
}

async fn over_udp(server: SocketAddr, packet: &[u8], question_len: usize) -> io::Result<Vec<u8>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(packet).await?;
    let mut response = vec![0; MAX_RESPONSE];
    loop {
        let length = socket.recv(&mut response).await?;
        if fits(&response[..length], packet, question_len) {
            response.truncate(length);
            return Ok(response);
        }
    }
}

async fn over_tcp(server: SocketAddr, packet: &[u8], question_len: usize) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    let mut framed = Vec::with_capacity(packet.len() + 2);
    framed.extend_from_slice(&(packet.len() as u16).to_be_bytes());
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await?;
    let length = stream.read_u16().await?;
    let mut response = vec![0; length.into()];
    stream.read_exact(&mut response).await?;
    if fits(&response, packet, question_len) { Ok(response) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Same ID, a response, and the same question in whatever spelling.
fn fits(response: &[u8], packet: &[u8], question_len: usize) -> bool {
    let question = HEADER_LEN..HEADER_LEN + question_len;
    let (Some(returned), Some(asked)) = (response.get(question.clone()), packet.get(question)) else { return false };
    response[..2] == packet[..2]
        && u16::from_be_bytes([response[2], response[3]]) & FLAG_RESPONSE != 0
        && response[4..6] == packet[4..6]
        && returned.eq_ignore_ascii_case(asked)
}

/// More than we say we take (1232): some resolvers do not listen.
const MAX_RESPONSE: usize = 4096;
