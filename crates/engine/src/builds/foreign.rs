//! Commands for other processors than this machine's: the kernel runs them by an emulator that somebody has registered (binfmt_misc).

use std::path::Path;

use builder::HostError;
use oci::image::Platform;

const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";
/// Where an ELF header says what it is for.
const MACHINE: std::ops::Range<usize> = 18..20;

/// ELF's numbers of processors, as their bytes stand in a header.
fn machine(architecture: &str) -> Option<[u8; 2]> {
    Some(match architecture {
        "386" => [0x03, 0],
        "amd64" => [0x3e, 0],
        "arm" => [0x28, 0],
        "arm64" => [0xb7, 0],
        "loong64" => [0x02, 0x01],
        "mips64le" => [0x08, 0],
        "ppc64le" => [0x15, 0],
        "riscv64" => [0xf3, 0],
        "s390x" => [0, 0x16],
        _ => return None,
    })
}

/// Whether the processor runs it by itself.
fn is_own(own: &str, architecture: &str) -> bool {
    architecture.is_empty() || own == architecture || matches!((own, architecture), ("amd64", "386") | ("arm64", "arm"))
}

/// Refuses what this machine cannot run.
pub(super) fn check(platform: &Platform) -> Result<(), HostError> {
    let host = Platform::host();
    if is_own(&host.architecture, &platform.architecture)
        || is_registered(Path::new(REGISTERED), &platform.architecture)
    {
        return Ok(());
    }
    Err(HostError(format!(
        "cannot run a command for {} on this machine ({}): no emulator for it is registered in {REGISTERED} with the flag F",
        images::platform_name(platform),
        images::platform_name(&host)
    )))
}

/// Whether an emulator is registered that the kernel has opened already, so that it need not be in the image.
fn is_registered(folder: &Path, architecture: &str) -> bool {
    let Some(machine) = machine(architecture) else { return false };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| std::fs::read_to_string(entry.path()).ok()).any(|text| emulates(&text, machine))
}

/// Whether an entry is about this processor.
fn emulates(entry: &str, machine: [u8; 2]) -> bool {
    let word = |name: &str| entry.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let is_enabled = entry.lines().next() == Some("enabled");
    let has_interpreter = word("flags:").is_some_and(|flags| flags.contains('F'));
    let magic = word("magic ").and_then(bytes_of).unwrap_or_default();
    is_enabled && has_interpreter && word("offset ") == Some("0") && magic.get(MACHINE) == Some(machine.as_slice())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QEMU: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
                        magic 7f454c460201010000000000000000000200b700\nmask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn emulators_are_found_by_what_they_emulate() {
        let arm64 = machine("arm64").unwrap();
        assert!(emulates(QEMU, arm64));
        assert!(!emulates(QEMU, machine("riscv64").unwrap()));
        for (from, to) in [("enabled", "disabled"), ("POCF", "POC"), ("offset 0", "offset 1"), ("magic 7f", "magic 7")]
        {
            assert!(!emulates(&QEMU.replace(from, to), arm64), "{to}");
        }
        let folder = tempfile::tempdir().unwrap();
        assert!(!is_registered(folder.path(), "arm64"));
        std::fs::write(folder.path().join("qemu-aarch64"), QEMU).unwrap();
        assert!(is_registered(folder.path(), "arm64") && !is_registered(folder.path(), "s390x"));
        assert!(is_own("amd64", "386") && is_own("amd64", "amd64") && !is_own("amd64", "arm64"));
    }
}
