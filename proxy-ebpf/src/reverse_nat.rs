//! Reverse NAT of a socket: the address it connected to and the backend it really uses, in socket storage.
//!
//! A TCP or connected UDP socket has one translation. An unconnected UDP socket may talk to several Services at once (a
//! resolver with three name servers), hence a few, the oldest replaced first. Socket storage and not an LRU map: it
//! lives exactly as long as the socket.

use crate::{BackendId, SetId};

/// Services that one unconnected UDP socket can talk to at once.
pub const TRANSLATIONS: usize = 4;

/// In the place of a set: nobody serves the Service address, and the backend is the address that refuses.
/// In `CONNECTED_DATAGRAMS` the Service address, in network order, stands in the place of the backend's id.
pub const REFUSING_SET: SetId = SetId::MAX;

/// One Service address and the backend it stands for, 24 bytes. All zero is no translation.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translation {
    /// What the program asked for; IPv4, network order.
    pub service_address_be: u32,
    /// What the packets carry; IPv4, network order.
    pub backend_address_be: u32,
    /// Network order.
    pub service_port_be: u16,
    /// Network order.
    pub backend_port_be: u16,
    /// The set that the backend was picked from; 0 marks an unused entry.
    pub set: SetId,
    /// Generation of the set when the backend was picked.
    pub generation: u32,
    /// The backend's id, for its membership and counters.
    pub backend: BackendId,
}

const _: () = assert!(size_of::<Translation>() == 24);

/// Value of `SOCKETS` (socket storage), 104 bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Translations {
    /// In no order; unused ones have set 0.
    pub entries: [Translation; TRANSLATIONS],
    /// Where the next translation goes.
    pub next: u32,
    /// Zero.
    pub _pad: u32,
}

const _: () = assert!(size_of::<Translations>() == 104);

impl Translations {
    /// The translation whose backend is this address (both network order).
    #[inline(always)]
    pub fn of_backend(&self, address_be: u32, port_be: u16) -> Option<&Translation> {
        self.entries
            .iter()
            .find(|entry| entry.set != 0 && entry.backend_address_be == address_be && entry.backend_port_be == port_be)
    }

    /// The translation of this Service address (both network order).
    #[inline(always)]
    pub fn of_service(&self, address_be: u32, port_be: u16) -> Option<&Translation> {
        self.entries
            .iter()
            .find(|entry| entry.set != 0 && entry.service_address_be == address_be && entry.service_port_be == port_be)
    }

    /// Keeps `translation`, in the place of an older one for the same Service or the same backend, or of the oldest.
    #[inline(always)]
    pub fn record(&mut self, translation: Translation) {
        for entry in self.entries.iter_mut() {
            let same_service = entry.service_address_be == translation.service_address_be
                && entry.service_port_be == translation.service_port_be;
            let same_backend = entry.backend_address_be == translation.backend_address_be
                && entry.backend_port_be == translation.backend_port_be;
            if same_service || same_backend {
                *entry = translation;
                return;
            }
        }
        let place = self.next as usize & (TRANSLATIONS - 1);
        if let Some(entry) = self.entries.get_mut(place) {
            *entry = translation;
        }
        self.next = (place as u32 + 1) & (TRANSLATIONS as u32 - 1);
    }

    /// Makes `translation` the only one: a connected socket has one peer.
    #[inline(always)]
    pub fn replace(&mut self, translation: Translation) {
        self.clear();
        if let Some(first) = self.entries.first_mut() {
            *first = translation;
        }
        self.next = 1;
    }

    /// Forgets all: the socket now talks to something that is no Service.
    #[inline(always)]
    pub fn clear(&mut self) {
        for entry in self.entries.iter_mut() {
            entry.set = 0;
            entry.service_address_be = 0;
            entry.service_port_be = 0;
            entry.backend_address_be = 0;
            entry.backend_port_be = 0;
        }
        self.next = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translation(service: u32, backend: u32) -> Translation {
        Translation {
            service_address_be: service,
            service_port_be: 53,
            backend_address_be: backend,
            backend_port_be: 5353,
            set: 1,
            generation: 1,
            backend,
        }
    }

    #[test]
    fn a_reply_from_a_backend_is_shown_as_its_service() {
        let mut socket = Translations::default();
        for service in 1..=3 {
            socket.record(translation(service, 100 + service));
        }
        assert_eq!(socket.of_backend(102, 5353).map(|entry| entry.service_address_be), Some(2));
        assert_eq!(socket.of_backend(102, 53), None);
        assert_eq!(socket.of_backend(0, 0), None);
    }

    #[test]
    fn a_service_moved_to_another_backend_takes_no_second_place() {
        let mut socket = Translations::default();
        socket.record(translation(1, 101));
        socket.record(translation(1, 102));
        assert_eq!(socket.of_backend(101, 5353), None);
        assert_eq!(socket.of_service(1, 53).map(|entry| entry.backend), Some(102));
    }

    #[test]
    fn the_oldest_translation_makes_room() {
        let mut socket = Translations::default();
        for service in 1..=5 {
            socket.record(translation(service, 100 + service));
        }
        assert_eq!(socket.of_service(1, 53), None);
        assert!((2..=5).all(|service| socket.of_service(service, 53).is_some()));
    }

    #[test]
    fn connecting_to_something_else_forgets_all() {
        let mut socket = Translations::default();
        socket.record(translation(1, 101));
        socket.clear();
        assert_eq!(socket, Translations { ..socket });
        assert_eq!(socket.of_backend(101, 5353), None);
    }
}
