//! Reading a backend set: its slots, its members, its counters.

use aya_ebpf::bindings::BPF_ANY;
use proxy_ebpf::*;

use crate::maps::{COUNTERS, MEMBERS, SLOTS};

/// The backend in the slot for `hash`; `None` without backends.
#[inline(always)]
pub fn slot(head: &ServiceHead, hash: u32) -> Option<BackendId> {
    let slot = slot_for(hash, head.count)?;
    // SAFETY: entries are replaced as a whole by userspace; a removed one stays readable until this program ends (RCU).
    unsafe { SLOTS.get(SlotKey { set: head.set, generation: head.generation, slot }) }.copied()
}

/// Whether clients of the set may keep the backend.
#[inline(always)]
pub fn is_member(set: SetId, backend: BackendId) -> bool {
    MEMBERS.get_ptr(MemberKey { set, backend }).is_some()
}

/// Counts a pick of the backend; `affine` if session affinity kept it.
#[inline(always)]
pub fn count(set: SetId, backend: BackendId, affine: bool) {
    let key = CounterKey { set, backend };
    match COUNTERS.get_ptr_mut(key) {
        // SAFETY: per CPU, and programs of one CPU do not preempt one another here.
        Some(counters) => unsafe {
            (*counters).picks += 1;
            (*counters).affine += affine as u64;
        },
        None => {
            // A full map loses counts, never connections.
            COUNTERS.insert(key, Counters { picks: 1, affine: affine as u64 }, BPF_ANY as u64).ok();
        }
    }
}
