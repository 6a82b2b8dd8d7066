//! Whether an image may come and run.

use oci::{Digest, Reference};

use crate::payload::Payload;
use crate::policy::{Policy, Requirement, Rule, Transport};
use crate::{PublicKey, SignedIdentity};

/// Signatures of one image that are looked at.
const SIGNATURES_MAX: usize = 64;

/// An image as it came.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// How.
    pub transport: Transport,
    /// Under which name; nothing where names prove nothing.
    pub reference: Option<&'a Reference>,
    /// The digests that lead to it, of which one must be signed: its manifest, and the index that named that.
    pub digests: &'a [Digest],
}

/// A signature as it was found.
#[derive(Debug, Clone, Copy)]
pub struct Signed<'a> {
    /// What was signed.
    pub payload: &'a [u8],
    /// The signature in base64.
    pub signature: &'a str,
}

/// Why an image is admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// The rule's name.
    pub rule: String,
    /// The fingerprint of the key that signed it, where that was asked for.
    pub signed_by: Option<Digest>,
}

/// Why an image is not admitted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("policy rule {rule}: {reason}")]
pub struct Refused {
    /// The rule's name.
    pub rule: String,
    /// What is missing.
    pub reason: String,
}

impl Rule {
    /// Whether signatures matter to the rule: only then it is worth looking for them.
    pub fn wants_signatures(&self) -> bool {
        let is_signed = |requirement: &Requirement| matches!(requirement, Requirement::Signed { .. });
        self.requirements.iter().any(is_signed) && !self.requirements.contains(&Requirement::Reject)
    }
}

impl Policy {
    /// Judges an image by how it came and what is signed about it.
    pub fn judge(&self, origin: &Origin<'_>, signatures: &[Signed<'_>]) -> Result<Admitted, Refused> {
        let rule = self.rule(origin.transport, origin.reference);
        let refused = |reason: String| Refused { rule: rule.name.clone(), reason };
        let mut admitted = Admitted { rule: rule.name.clone(), signed_by: None };
        for requirement in &rule.requirements {
            match requirement {
                Requirement::AcceptAnything => {}
                Requirement::Reject => return Err(refused("images of this scope are rejected".to_owned())),
                Requirement::Signed { keys, identity } => {
                    let key = signer(origin, signatures, keys, identity).map_err(refused)?;
                    admitted.signed_by = Some(key.fingerprint());
                }
            }
        }
        Ok(admitted)
    }
}

/// The key that has signed the image; why none has.
fn signer<'a>(
    origin: &Origin<'_>,
    signatures: &[Signed<'_>],
    keys: &'a [PublicKey],
    identity: &SignedIdentity,
) -> Result<&'a PublicKey, String> {
    let Some(reference) = origin.reference else {
        return Err("a signature is asked for, and only images from registries have one".to_owned());
    };
    let mut reasons: Vec<String> = Vec::new();
    for signed in signatures.iter().take(SIGNATURES_MAX) {
        match check(origin, reference, signed, keys, identity) {
            Ok(key) => return Ok(key),
            Err(reason) if reasons.contains(&reason) => {}
            Err(reason) => reasons.push(reason),
        }
    }
    reasons.truncate(3);
    match reasons.as_slice() {
        [] => Err("a signature is asked for, and none was found".to_owned()),
        reasons => Err(format!("no signature is accepted: {}", reasons.join("; "))),
    }
}

/// The signature first, so that nothing is read of what nobody trusted has written.
fn check<'a>(
    origin: &Origin<'_>,
    reference: &Reference,
    signed: &Signed<'_>,
    keys: &'a [PublicKey],
    identity: &SignedIdentity,
) -> Result<&'a PublicKey, String> {
    let key = keys.iter().find(|key| key.verifies(signed.payload, signed.signature));
    let key = key.ok_or_else(|| "one is by none of the rule's keys".to_owned())?;
    let payload = Payload::parse(signed.payload).map_err(|error| error.to_string())?;
    if !origin.digests.contains(&payload.digest) {
        return Err(format!("one is for {}, which is another image", payload.digest));
    }
    match identity.accepts(reference, &payload.identity) {
        true => Ok(key),
        false => Err(format!("one is for the name {:?}", shortened(&payload.identity))),
    }
}

/// A stranger's text, as much of it as a message takes.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}

#[cfg(test)]
pub(crate) mod testing {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    /// What stands before the point of a P-256 key.
    pub(crate) const P256_PREFIX: &[u8] = &[
        0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
        0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
    ];

    pub(crate) fn pem(prefix: &[u8], key: &[u8]) -> String {
        let body = STANDARD.encode([prefix, key].concat());
        format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

    use super::testing::{P256_PREFIX, pem};
    use super::*;

    struct Signer(EcdsaKeyPair);

    impl Signer {
        fn new() -> Signer {
            let random = SystemRandom::new();
            let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
            Signer(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap())
        }

        fn key_data(&self) -> String {
            STANDARD.encode(pem(P256_PREFIX, self.0.public_key().as_ref()))
        }

        /// Payload and signature.
        fn sign(&self, digest: &Digest, name: &str) -> (String, String) {
            let payload = format!(
                r#"{{"critical":{{"identity":{{"docker-reference":"{name}"}},"image":{{"docker-manifest-digest":"{digest}"}},"type":"cosign container image signature"}},"optional":null}}"#
            );
            let signature = self.0.sign(&SystemRandom::new(), payload.as_bytes()).unwrap();
            (payload, STANDARD.encode(signature))
        }
    }

    fn policy(signer: &Signer) -> Policy {
        let text = format!(
            r#"{{"default":[{{"type":"insecureAcceptAnything"}}],"transports":{{"docker":{{"r.example":[{{"type":"sigstoreSigned","keyData":"{}","signedIdentity":{{"type":"matchRepository"}}}}],"evil.example":[{{"type":"reject"}}]}},"docker-archive":{{"":[{{"type":"sigstoreSigned","keyData":"{}"}}]}}}}}}"#,
            signer.key_data(),
            signer.key_data()
        );
        Policy::parse(&text, &|_| unreachable!()).unwrap()
    }

    fn judged(
        policy: &Policy,
        name: &str,
        digests: &[Digest],
        signed: &[(String, String)],
    ) -> Result<Admitted, String> {
        let reference = Reference::parse(name).unwrap();
        let origin = Origin { transport: Transport::Registry, reference: Some(&reference), digests };
        let signed: Vec<Signed<'_>> =
            signed.iter().map(|(payload, signature)| Signed { payload: payload.as_bytes(), signature }).collect();
        policy.judge(&origin, &signed).map_err(|error| error.to_string())
    }

    #[test]
    fn a_signature_over_the_digest_under_the_name_admits() {
        let (signer, stranger) = (Signer::new(), Signer::new());
        let policy = policy(&signer);
        let (index, manifest, other) = (Digest::of(b"index"), Digest::of(b"manifest"), Digest::of(b"other"));
        let judge = |signed: &[(String, String)]| judged(&policy, "r.example/app:1", &[index, manifest], signed);
        let rule = "docker \"r.example\"";
        let fingerprint = PublicKey::from_pem(&pem(P256_PREFIX, signer.0.public_key().as_ref())).unwrap().fingerprint();
        for digest in [index, manifest] {
            let admitted = judge(&[stranger.sign(&digest, "r.example/app"), signer.sign(&digest, "r.example/app")]);
            assert_eq!(admitted, Ok(Admitted { rule: rule.to_owned(), signed_by: Some(fingerprint) }));
        }
        let refusal = |signed: &[(String, String)]| judge(signed).unwrap_err();
        assert_eq!(refusal(&[]), format!("policy rule {rule}: a signature is asked for, and none was found"));
        assert!(refusal(&[stranger.sign(&index, "r.example/app")]).contains("by none of the rule's keys"));
        assert!(refusal(&[signer.sign(&other, "r.example/app")]).contains("which is another image"));
        assert!(refusal(&[signer.sign(&index, "r.example/other")]).contains("one is for the name \"r.example/other\""));
        let (payload, signature) = signer.sign(&other, "r.example/app");
        let forged = payload.replace(&other.to_string(), &index.to_string());
        assert!(refusal(&[(forged, signature)]).contains("by none of the rule's keys"));
        assert_eq!(refusal(&vec![(String::new(), String::new()); 10_000]).matches("by none").count(), 1);
    }

    #[test]
    fn other_rules_reject_accept_and_say_what_they_cannot_know() {
        let policy = policy(&Signer::new());
        let rejected = judged(&policy, "evil.example/x:1", &[], &[]).unwrap_err();
        assert_eq!(rejected, "policy rule docker \"evil.example\": images of this scope are rejected");
        assert_eq!(judged(&policy, "busybox:1", &[], &[]).unwrap().rule, "default");
        let loaded = Origin { transport: Transport::Archive, reference: None, digests: &[] };
        assert!(policy.judge(&loaded, &[]).unwrap_err().reason.contains("only images from registries have one"));
        let reference = Reference::parse("r.example/x").unwrap();
        assert!(policy.rule(Transport::Registry, Some(&reference)).wants_signatures());
        assert!(!policy.rule(Transport::Import, None).wants_signatures());
    }
}
