//! The options of a mount.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| {
    let words: Vec<String> = text.split(',').map(str::to_owned).collect();
    runtime::fuzzing::mount_options("tmpfs", &words);
    runtime::fuzzing::mount_options("bind", &words);
});
