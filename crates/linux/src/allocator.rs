//! The C library's allocator.

/// Gives free memory back to the kernel, which an allocator keeps otherwise for a next time that may be days away.
pub fn give_back() {
    // musl gives large pieces back by itself and has no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: the call takes no pointer, locks the allocator as every allocation does, and touches free memory only.
    unsafe {
        libc::malloc_trim(0);
    }
}
