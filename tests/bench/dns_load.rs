//! A closed loop of DNS queries: so many are always under way, and each answer makes room for the next.

use std::{
    net::{Ipv4Addr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::kit::Result;

/// What one run saw.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct DnsThroughput {
    pub per_second: f64,
    pub lost: u64,
}

pub const NAMES: usize = 10_000;

/// Queries under way on one socket, sent and received in one system call each.
const BATCH: usize = 32;
const SOCKETS: usize = 4;

pub fn service_name(number: usize) -> String {
    format!("service-{number:05}")
}

/// A query for the A record of Service `number`; beyond [`NAMES`] there is none.
pub fn query(number: usize) -> Vec<u8> {
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in [service_name(number).as_str(), "default", "svc", "cluster", "local"] {
        packet.push(label.len() as u8);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.extend_from_slice(&[0, 0, 1, 0, 1]);
    packet
}

pub fn run(port: u16, duration: Duration) -> Result<DnsThroughput> {
    let mut queries: Vec<Vec<u8>> = (0..NAMES).map(|i| query(if i % 16 == 0 { NAMES + i } else { i })).collect();
    let sockets: Vec<UdpSocket> = (0..SOCKETS).map(|_| connected(port)).collect::<Result<_>>()?;
    let (mut next, mut received, mut lost) = (0, 0_u64, 0_u64);
    let start = Instant::now();
    for socket in &sockets {
        send(socket, &mut queries, &mut next)?;
    }
    while start.elapsed() < duration {
        for socket in &sockets {
            let got = receive(socket);
            received += got as u64;
            lost += (BATCH - got) as u64;
            send(socket, &mut queries, &mut next)?;
        }
    }
    Ok(DnsThroughput { per_second: received as f64 / start.elapsed().as_secs_f64(), lost })
}

fn connected(port: u16) -> Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.connect((Ipv4Addr::LOCALHOST, port))?;
    socket.set_read_timeout(Some(Duration::from_millis(500)))?;
    Ok(socket)
}

fn send(socket: &UdpSocket, queries: &mut [Vec<u8>], next: &mut usize) -> Result {
    // 7919 is a prime: every name comes by, in no order that a cache could like.
    let mut parts: [libc::iovec; BATCH] = std::array::from_fn(|_| {
        *next = (*next + 7919) % NAMES;
        let query = &mut queries[*next];
        libc::iovec { iov_base: query.as_mut_ptr().cast(), iov_len: query.len() }
    });
    let mut messages = messages(&mut parts);
    // SAFETY: the messages point at `parts`, those at `queries`; both outlive the call.
    let sent = unsafe { libc::sendmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0) };
    if sent == BATCH as i32 { Ok(()) } else { Err(std::io::Error::last_os_error().into()) }
}

/// How many of a batch came back before the socket's patience ended.
fn receive(socket: &UdpSocket) -> usize {
    let mut buffers = [[0_u8; 512]; BATCH];
    let mut parts: [libc::iovec; BATCH] =
        std::array::from_fn(|i| libc::iovec { iov_base: buffers[i].as_mut_ptr().cast(), iov_len: 512 });
    let mut messages = messages(&mut parts);
    // SAFETY: the messages point at `parts`, those at `buffers`; both outlive the call, which is given no timeout.
    let got =
        unsafe { libc::recvmmsg(socket.as_raw_fd(), messages.as_mut_ptr(), BATCH as u32, 0, std::ptr::null_mut()) };
    usize::try_from(got).unwrap_or(0)
}

fn messages(parts: &mut [libc::iovec; BATCH]) -> [libc::mmsghdr; BATCH] {
    std::array::from_fn(|i| {
        // SAFETY: a `mmsghdr` of zeros is valid: null pointers with lengths of zero.
        let mut message: libc::mmsghdr = unsafe { std::mem::zeroed() };
        message.msg_hdr.msg_iov = &raw mut parts[i];
        message.msg_hdr.msg_iovlen = 1;
        message
    })
}

/// The words of `main` that make this process a server or a generator; `None` for a bench run.
pub fn as_child(arguments: &[String]) -> Option<Result> {
    match arguments {
        [flag, port] if flag == "--dns-serve" => Some(port.parse().map_err(Into::into).and_then(super::dns::serve)),
        [flag, port, milliseconds] if flag == "--dns-load" => Some((|| {
            let seen = run(port.parse()?, Duration::from_millis(milliseconds.parse()?))?;
            println!("{}", serde_json::to_string(&seen)?);
            Ok(())
        })()),
        _ => None,
    }
}
