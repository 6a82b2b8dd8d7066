//! How this engine introduces itself.

/// The version of Docker whose API is answered. Tools compare it ("at least 20.10"), so it leads.
pub(crate) const DOCKER_VERSION: &str = "28.5.2";

/// `28.5.2+conex.0.1.0`: Docker's version for those who compare, ours behind the plus sign, where semantic versions ignore it.
pub(crate) fn server_version(conex_version: &str) -> String {
    format!("{DOCKER_VERSION}+conex.{conex_version}")
}

/// The `Server` header; clients look for `Docker/` at its begin and the system at its end.
pub(crate) const SERVER_HEADER: &str = concat!("Docker/28.5.2 Conex/", env!("CARGO_PKG_VERSION"), " (linux)");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_constant_agree() {
        assert!(SERVER_HEADER.starts_with(&format!("Docker/{DOCKER_VERSION} ")));
        assert_eq!(server_version("0.1.0"), "28.5.2+conex.0.1.0");
    }
}
