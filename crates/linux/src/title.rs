//! What `ps` shows of this process.

use crate::{Errno, Result};

/// Replaces the command line that other processes see, as far as there is room: the space of the arguments and of the
/// environment that the process was started with.
///
/// For the start of a single-threaded program that does not use its environment variables afterwards: they are gone.
/// (Rust's `args` are read from the same memory, so they change too.)
pub fn set_command_line(text: &[u8]) -> Result<()> {
    let stat = std::fs::read_to_string("/proc/self/stat").map_err(|_| Errno::NOENT)?;
    let (start, end) = argument_area(&stat).ok_or(Errno::INVAL)?;
    let length = text.len().min(end - start - 1);
    // The kernel shows the text up to the first NUL once the byte behind the old arguments is not NUL any more, and up to
    // there otherwise; so everything behind the text is made NUL.
    // SAFETY: the kernel laid this area out on the stack of this process, writable, and says where it is. Only the C strings
    // of the arguments and the environment are in it; by the contract above nobody reads them at the same time.
    let area =
        unsafe { std::slice::from_raw_parts_mut(std::ptr::with_exposed_provenance_mut::<u8>(start), end - start) };
    let (title, rest) = area.split_at_mut(length);
    title.copy_from_slice(&text[..length]);
    rest.fill(0);
    Ok(())
}

/// Where the arguments begin and the environment ends: fields 48 and 51 of `stat`, which are 0 for those who may not know.
fn argument_area(stat: &str) -> Option<(usize, usize)> {
    let behind_name = stat.rsplit_once(')')?.1;
    let fields: Vec<usize> =
        behind_name.split_whitespace().skip(45).take(4).filter_map(|field| field.parse().ok()).collect();
    match fields[..] {
        [start, _, _, end] if start != 0 && end > start => Some((start, end)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_area_is_found_behind_odd_names() {
        let zeros = "0 ".repeat(44);
        let stat = format!("42 (a) b) S {zeros}1000 1010 1011 1100 0\n");
        assert_eq!(argument_area(&stat), Some((1000, 1100)));
        assert_eq!(argument_area(&format!("42 (a) S {zeros}0 0 0 0 0\n")), None);
        assert_eq!(
            argument_area(&std::fs::read_to_string("/proc/self/stat").unwrap()).map(|(start, end)| start < end),
            Some(true)
        );
    }
}
