//! Under which name an image must be signed.

use oci::Reference;

/// How the name in a signature and the name of an image must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SignedIdentity {
    /// They must be the same to the tag.
    MatchExact,
    /// The same to the tag, or for an image that is asked for by digest the same repository.
    MatchRepoDigestOrExact,
    /// The same repository.
    MatchRepository,
    /// The signature must name exactly this.
    ExactReference(Reference),
    /// The signature must name this repository.
    ExactRepository(Reference),
    /// As [`SignedIdentity::MatchRepoDigestOrExact`], after one beginning of the image's name is taken for another.
    Remap {
        /// What the image's name begins with.
        prefix: String,
        /// What is put there instead.
        signed_prefix: String,
    },
}

impl SignedIdentity {
    /// Whether a signature for `signed` is one for `image`.
    pub fn accepts(&self, image: &Reference, signed: &str) -> bool {
        let Ok(signed) = Reference::parse(signed) else { return false };
        match self {
            SignedIdentity::MatchExact => is_exact(image, &signed),
            SignedIdentity::MatchRepoDigestOrExact => is_repository_or_exact(image, &signed),
            SignedIdentity::MatchRepository => same_repository(image, &signed),
            SignedIdentity::ExactReference(expected) => is_exact(expected, &signed),
            SignedIdentity::ExactRepository(expected) => same_repository(expected, &signed),
            SignedIdentity::Remap { prefix, signed_prefix } => {
                let mapped = remapped(&image.canonical(), prefix, signed_prefix);
                Reference::parse(&mapped).is_ok_and(|image| is_repository_or_exact(&image, &signed))
            }
        }
    }
}

fn same_repository(one: &Reference, other: &Reference) -> bool {
    one.canonical_name() == other.canonical_name()
}

/// A name alone is no exact one.
fn is_exact(expected: &Reference, signed: &Reference) -> bool {
    !expected.is_name_only() && !signed.is_name_only() && expected.canonical() == signed.canonical()
}

fn is_repository_or_exact(image: &Reference, signed: &Reference) -> bool {
    match image.digest() {
        Some(_) => same_repository(image, signed),
        None => is_exact(image, signed),
    }
}

/// Replaces a prefix that ends where a part of the name ends.
fn remapped(name: &str, prefix: &str, signed_prefix: &str) -> String {
    match name.strip_prefix(prefix) {
        Some(rest) if rest.starts_with(['/', ':', '@']) => format!("{signed_prefix}{rest}"),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(identity: &SignedIdentity, image: &str, signed: &str) -> bool {
        identity.accepts(&Reference::parse(image).unwrap(), signed)
    }

    #[test]
    fn names_agree_as_each_rule_says() {
        use SignedIdentity::{ExactReference, ExactRepository, MatchExact, MatchRepoDigestOrExact, MatchRepository};
        let digest = format!("r.example/a/b@{}", oci::Digest::of(b""));
        let reference = |text: &str| Reference::parse(text).unwrap();
        let remap = SignedIdentity::Remap { prefix: "mirror.example/x".into(), signed_prefix: "r.example".into() };
        let cases: &[(&SignedIdentity, &str, &str, bool)] = &[
            (&MatchExact, "r.example/a/b:1", "r.example/a/b:1", true),
            (&MatchExact, "r.example/a/b:1", "r.example/a/b:2", false),
            (&MatchExact, "r.example/a/b:1", "r.example/a/b", false),
            (&MatchExact, &digest, "r.example/a/b:1", false),
            (&MatchRepoDigestOrExact, &digest, "r.example/a/b:1", true),
            (&MatchRepoDigestOrExact, &digest, "r.example/a/c:1", false),
            (&MatchRepoDigestOrExact, "r.example/a/b:1", "r.example/a/b", false),
            (&MatchRepository, "r.example/a/b:1", "r.example/a/b", true),
            (&MatchRepository, "r.example/a/b:1", "r.example/a/bb", false),
            (&MatchRepository, "r.example/a/b:1", "!", false),
            (&MatchRepository, "busybox:1", "docker.io/library/busybox", true),
            (&ExactReference(reference("o.example/s:1")), "r.example/a/b:1", "o.example/s:1", true),
            (&ExactReference(reference("o.example/s:1")), "r.example/a/b:1", "o.example/s:2", false),
            (&ExactRepository(reference("o.example/s")), "r.example/a/b:1", "o.example/s:2", true),
            (&remap, "mirror.example/x/a:1", "r.example/a:1", true),
            (&remap, "mirror.example/xy/a:1", "r.example/a:1", false),
            (&remap, "other.example/a:1", "other.example/a:1", true),
        ];
        for (identity, image, signed, expected) in cases {
            assert_eq!(accepts(identity, image, signed), *expected, "{identity:?} {image} {signed}");
        }
    }
}
