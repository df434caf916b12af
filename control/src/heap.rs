//! Gives memory back to the system that the allocator keeps although nothing is in it.
//!
//! glibc returns by itself only what is free at the very end of a heap. One small object that was made late then holds all the
//! pages that a large piece of work has left below it.

/// Returns the pages that hold nothing. Walks all heaps and locks each meanwhile: for after large and rare work only.
pub fn return_free_pages() {
    #[cfg(target_env = "gnu")]
    // SAFETY: has no preconditions, and touches only memory that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}
