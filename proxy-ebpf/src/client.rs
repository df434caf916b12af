//! Who a connecting socket belongs to.
//!
//! A socket that connects has no source address yet, so a hook knows its client by the network namespace alone. The
//! agent keeps the namespaces' pod addresses in `CLIENTS`; a namespace it does not know yet is asked for through a
//! queue, by a process in it.

/// Message in `UNKNOWN_CLIENTS`, 16 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownClient {
    /// As `bpf_get_netns_cookie` gives it; unique until the next boot.
    pub netns_cookie: u64,
    /// A process that lives in the namespace, at least while the message was made.
    pub process: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<UnknownClient>() == 16);

impl UnknownClient {
    /// Reads a message; `None` for bytes that are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let cookie = bytes.get(..8)?.try_into().ok()?;
        let process = bytes.get(8..12)?.try_into().ok()?;
        Some(Self { netns_cookie: u64::from_ne_bytes(cookie), process: u32::from_ne_bytes(process), _pad: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let mut bytes = 7u64.to_ne_bytes().to_vec();
        bytes.extend(9u32.to_ne_bytes());
        bytes.extend([0; 4]);
        assert_eq!(UnknownClient::parse(&bytes), Some(UnknownClient { netns_cookie: 7, process: 9, _pad: 0 }));
        assert_eq!(UnknownClient::parse(&bytes[..11]), None);
    }
}
