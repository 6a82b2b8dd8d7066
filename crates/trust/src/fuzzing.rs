//! What the fuzz targets call.

/// Reads bytes as a payload, as a key, and as a policy whose keys are all the same.
pub fn read(bytes: &[u8]) {
    let _ = crate::Payload::parse(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = crate::PublicKey::from_pem(text);
        let _ = crate::Policy::parse(text, &|_| Ok(text.to_owned()));
    }
}
