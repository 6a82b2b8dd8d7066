//! `linux.cgroupsPath`: what is taken stays inside its hierarchy.
#![no_main]

use cgroups::CgroupPath;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(path) = CgroupPath::parse(text) else { return };
    let shown = path.to_string();
    assert!(shown.trim_start_matches('/').split('/').all(|part| !matches!(part, "" | "." | "..")));
    assert_eq!(CgroupPath::parse(&shown), Ok(path));
});
