//! Many datagrams in one system call: `recvmmsg` and `sendmmsg` over buffers that are made once.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
    os::fd::AsRawFd,
};

/// Datagrams in one call.
const BATCH: usize = 32;

/// Longest query taken, in bytes; what is longer is cut and answered as malformed.
const MAX_QUERY: usize = 1500;

/// Buffers for one thread's socket.
pub struct UdpBatch {
    queries: Box<[[u8; MAX_QUERY]; BATCH]>,
    lengths: [usize; BATCH],
    clients: [libc::sockaddr_in; BATCH],
    /// An empty one is not sent.
    answers: Vec<Vec<u8>>,
}

impl UdpBatch {
    /// Room for a whole batch of packets.
    pub fn new() -> Self {
        let nobody =
            libc::sockaddr_in { sin_family: 0, sin_port: 0, sin_addr: libc::in_addr { s_addr: 0 }, sin_zero: [0; 8] };
        let queries = vec![[0; MAX_QUERY]; BATCH].into_boxed_slice().try_into().expect("the length is BATCH");
        Self { queries, lengths: [0; BATCH], clients: [nobody; BATCH], answers: vec![Vec::new(); BATCH] }
    }

    /// Waits for at least one datagram and takes what is there; how many.
    pub fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut parts: [libc::iovec; BATCH] =
            std::array::from_fn(|i| libc::iovec { iov_base: self.queries[i].as_mut_ptr().cast(), iov_len: MAX_QUERY });
        let mut messages = [empty_message(); BATCH];
        for (index, message) in messages.iter_mut().enumerate() {
            message.msg_hdr.msg_name = (&raw mut self.clients[index]).cast();
            message.msg_hdr.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_hdr.msg_iov = &raw mut parts[index];
            message.msg_hdr.msg_iovlen = 1;
        }
        // SAFETY: every message points at a buffer and an address of this value, alive and unshared for the call's
        // duration, with their true lengths; no timeout is passed.
        let received = unsafe {
            libc::recvmmsg(
                socket.as_raw_fd(),
                messages.as_mut_ptr(),
                BATCH as libc::c_uint,
                libc::MSG_WAITFORONE as _,
                std::ptr::null_mut(),
            )
        };
        let received = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        for (length, message) in self.lengths.iter_mut().zip(&messages[..received]) {
            *length = message.msg_len as usize;
        }
        Ok(received)
    }

    /// Lets `answer` write the answer to the `index`th datagram received; none where it leaves the buffer empty.
    pub fn answer(&mut self, index: usize, answer: impl FnOnce(&[u8], SocketAddr, &mut Vec<u8>)) {
        let client = self.clients[index];
        let address = Ipv4Addr::from(u32::from_be(client.sin_addr.s_addr));
        let client = SocketAddrV4::new(address, u16::from_be(client.sin_port));
        let out = &mut self.answers[index];
        out.clear();
        answer(&self.queries[index][..self.lengths[index]], client.into(), out);
    }

    /// Sends the answers to the first `received` datagrams. One that cannot be sent is skipped; the last error is
    /// returned.
    pub fn send(&mut self, socket: &UdpSocket, received: usize) -> io::Result<()> {
        let mut parts = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; BATCH];
        let mut messages = [empty_message(); BATCH];
        let mut count = 0;
        for (index, answer) in self.answers.iter_mut().enumerate().take(received) {
            if answer.is_empty() {
                continue;
            }
            parts[count] = libc::iovec { iov_base: answer.as_mut_ptr().cast(), iov_len: answer.len() };
            let message = &mut messages[count].msg_hdr;
            message.msg_name = (&raw mut self.clients[index]).cast();
            message.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            message.msg_iov = &raw mut parts[count];
            message.msg_iovlen = 1;
            count += 1;
        }
        let (mut sent, mut result) = (0, Ok(()));
        while sent < count {
            let rest = &mut messages[sent..count];
            // SAFETY: as in `receive`; the kernel only reads the buffers.
            let done = unsafe { libc::sendmmsg(socket.as_raw_fd(), rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
            match usize::try_from(done) {
                Ok(done) => sent += done.max(1),
                Err(_) => {
                    result = Err(io::Error::last_os_error());
                    sent += 1;
                }
            }
        }
        result
    }
}

fn empty_message() -> libc::mmsghdr {
    // SAFETY: a `mmsghdr` of zeros is valid: null pointers with lengths of zero.
    unsafe { MaybeUninit::zeroed().assume_init() }
}
