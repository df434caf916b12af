//! How much memory the threads that ask for it have allocated and not freed, in this binary of tests: what a server
//! holds for its clients, without what the clients hold.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    sync::atomic::{AtomicI64, Ordering},
};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static BYTES: AtomicI64 = AtomicI64::new(0);

thread_local! {
    static IS_COUNTED: Cell<bool> = const { Cell::new(false) };
}

/// The system's allocator, which counts.
struct Counting;

/// Counts what this thread allocates and frees from now on.
pub fn count_this_thread() {
    IS_COUNTED.set(true);
}

/// Bytes that counted threads have allocated and not freed.
pub fn bytes() -> i64 {
    BYTES.load(Ordering::Relaxed)
}

fn add(bytes: usize, sign: i64) {
    // A thread that ends frees after its last variables are gone.
    if IS_COUNTED.try_with(Cell::get).unwrap_or_default() {
        BYTES.fetch_add(i64::try_from(bytes).unwrap_or_default() * sign, Ordering::Relaxed);
    }
}

// SAFETY: each method does what the system's allocator does, with the same arguments.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        add(layout.size(), 1);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        add(layout.size(), -1);
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        add(layout.size(), -1);
        add(new_size, 1);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(pointer, layout, new_size) }
    }
}
