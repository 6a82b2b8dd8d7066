//! Image names as users type them: what is taken is clean, and reads the same again.
#![no_main]

use oci::Reference;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(reference) = Reference::parse(text) else { return };
    assert!(reference.path().split('/').all(|part| !matches!(part, "" | "." | "..")));
    assert_eq!(Reference::parse(&reference.canonical()).as_ref(), Ok(&reference));
    assert_eq!(Reference::parse(&reference.familiar()).as_ref(), Ok(&reference));
});
