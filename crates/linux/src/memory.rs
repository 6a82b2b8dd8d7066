//! NUMA memory policy.

use crate::Result;
use crate::raw::check;

/// Sets the memory policy of this thread: a mode (`MPOL_*` with its flags) and the nodes as a bit mask.
pub fn set_mempolicy(mode: i32, nodes: &[u64]) -> Result<()> {
    // The kernel reads one bit less than the number given.
    let bits = if nodes.is_empty() { 0 } else { nodes.len() * 64 + 1 };
    let pointer = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: the mask has at least as many bits as the kernel will read.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
