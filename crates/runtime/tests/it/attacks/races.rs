//! Neighbours that change paths while a container is made.

use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::is_empty;
use crate::harness::{self, Bundle, Swapper};

/// CVE-2021-30465 and CVE-2024-45310: a mount's destination that is swapped for a link while the container is made.
///
/// Fails without `RESOLVE_IN_ROOT`.
#[test]
fn a_swapped_destination_leads_nowhere_outside() {
    let first = Bundle::new();
    let volume = first.folder.path().join("volume");
    let canary = harness::canary();
    std::fs::create_dir_all(volume.join("real")).unwrap();
    symlink(canary.path(), volume.join("link")).unwrap();
    let _swaps = Swapper::start(&volume.join("real"), &volume.join("link"));
    for _ in 0..30 {
        let bundle = Bundle::new().mount("/volume", "bind", &volume, &["rbind"]).mount(
            "/volume/real/below/deep",
            "tmpfs",
            Path::new("tmpfs"),
            &[],
        );
        if let Ok(outcome) = bundle.script("cat /proc/self/mountinfo").run() {
            for line in outcome.output.lines().filter(|line| line.contains("/below")) {
                let place = line.split(' ').nth(4).unwrap();
                let canary = canary.path().to_str().unwrap();
                assert!(place.starts_with("/volume/") || place.starts_with(canary), "{line}");
            }
        }
        assert!(is_empty(canary.path()));
    }
}

/// CVE-2025-31133: a null device that is swapped for a file of procfs while paths are masked with it.
///
/// Fails where `devices::open_null` looks at the name and not at what it holds open.
#[test]
fn a_swapped_null_device_masks_nothing_else() {
    let first = Bundle::new();
    let volume = first.folder.path().join("volume");
    std::fs::create_dir(&volume).unwrap();
    let null = rustix::fs::makedev(1, 3);
    let (kind, mode) = (rustix::fs::FileType::CharacterDevice, rustix::fs::Mode::from_raw_mode(0o666));
    rustix::fs::mknodat(rustix::fs::CWD, volume.join("null"), kind, mode, null).unwrap();
    symlink("/proc/sys/kernel/core_pattern", volume.join("link")).unwrap();
    let _swaps = Swapper::start(&volume.join("null"), &volume.join("link"));
    for _ in 0..30 {
        let bundle = Bundle::new().edit(super::keep_the_images_dev).mount("/dev", "bind", &volume, &["rbind"]);
        let bundle = bundle.edit(|spec| spec["linux"]["maskedPaths"] = json!(["/proc/kcore", "/etc/passwd"]));
        if let Ok(outcome) = bundle.script("cat /proc/self/mountinfo").run() {
            let masks: Vec<_> = outcome.output.lines().filter(|line| line.contains(" /etc/passwd ")).collect();
            assert_eq!(masks.len(), 1, "{}", outcome.output);
            // What is bound: the file's name may have changed since, but not the file.
            let (root, place) = (masks[0].split(' ').nth(3).unwrap(), masks[0].split(' ').nth(4).unwrap());
            assert!((root.ends_with("/null") || root.ends_with("/link")) && place == "/etc/passwd", "{}", masks[0]);
        }
    }
}
