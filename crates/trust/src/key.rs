//! Public keys and what they prove.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use oci::Digest;
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P384_SHA384_ASN1, ED25519, RSA_PKCS1_2048_8192_SHA256, RSA_PSS_2048_8192_SHA256,
    UnparsedPublicKey, VerificationAlgorithm,
};

use crate::der;

const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
const END: &str = "-----END PUBLIC KEY-----";
/// The largest file of keys that is read.
pub(crate) const PEM_BYTES_MAX: usize = 64 << 10;
/// The largest signature that is looked at.
const SIGNATURE_BYTES_MAX: usize = 2048;

const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const P384: &[u8] = &[0x2b, 0x81, 0x04, 0x00, 0x22];
const ED25519_ID: &[u8] = &[0x2b, 0x65, 0x70];
const RSA_ENCRYPTION: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];

/// A key that signatures are checked with.
#[derive(Clone, PartialEq, Eq)]
pub struct PublicKey {
    kind: Kind,
    bits: Vec<u8>,
    fingerprint: Digest,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    P256,
    P384,
    Ed25519,
    Rsa,
}

/// Why a key cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// No PEM block of a public key.
    #[error("no \"{BEGIN}\" block")]
    NoPem,
    /// More than keys have.
    #[error("larger than {PEM_BYTES_MAX} bytes")]
    TooLarge,
    /// The block's contents are not base64 of a public key.
    #[error("malformed public key")]
    Malformed,
    /// A key of another kind.
    #[error("the key's algorithm is not supported: ECDSA on P-256 or P-384, Ed25519 and RSA of at least 2048 bits are")]
    Algorithm,
}

impl PublicKey {
    /// Reads the one public key of a PEM text.
    pub fn from_pem(text: &str) -> Result<PublicKey, KeyError> {
        if text.len() > PEM_BYTES_MAX {
            return Err(KeyError::TooLarge);
        }
        let (_, after) = text.split_once(BEGIN).ok_or(KeyError::NoPem)?;
        let (inside, rest) = after.split_once(END).ok_or(KeyError::NoPem)?;
        if rest.contains(BEGIN) {
            // Which one would count nobody could say.
            return Err(KeyError::Malformed);
        }
        let digits: String = inside.chars().filter(|c| !c.is_ascii_whitespace()).collect();
        PublicKey::from_der(&STANDARD.decode(digits).map_err(|_| KeyError::Malformed)?)
    }

    fn from_der(bytes: &[u8]) -> Result<PublicKey, KeyError> {
        let der::KeyInfo { algorithm, parameters, bits } = der::public_key(bytes).map_err(|_| KeyError::Malformed)?;
        let curve = || der::take(parameters, der::OBJECT_ID).map(|(curve, _)| curve).map_err(|_| KeyError::Malformed);
        let kind = match algorithm {
            EC_PUBLIC_KEY => match curve()? {
                P256 => Kind::P256,
                P384 => Kind::P384,
                _ => return Err(KeyError::Algorithm),
            },
            ED25519_ID => Kind::Ed25519,
            RSA_ENCRYPTION => Kind::Rsa,
            _ => return Err(KeyError::Algorithm),
        };
        let fits = match kind {
            Kind::P256 => bits.len() == 65 && bits[0] == 4,
            Kind::P384 => bits.len() == 97 && bits[0] == 4,
            Kind::Ed25519 => bits.len() == 32,
            Kind::Rsa => (256..=1100).contains(&bits.len()),
        };
        match fits {
            true => Ok(PublicKey { kind, bits: bits.to_vec(), fingerprint: Digest::of(bytes) }),
            false => Err(KeyError::Algorithm),
        }
    }

    /// The digest of the key's SubjectPublicKeyInfo, which people compare.
    pub fn fingerprint(&self) -> Digest {
        self.fingerprint
    }

    /// Whether this key made the signature, which is in base64, over exactly these bytes.
    pub fn verifies(&self, message: &[u8], signature: &str) -> bool {
        if signature.len() > SIGNATURE_BYTES_MAX {
            return false;
        }
        let Ok(signature) = STANDARD.decode(signature.trim()) else { return false };
        let algorithms: &[&'static dyn VerificationAlgorithm] = match self.kind {
            Kind::P256 => &[&ECDSA_P256_SHA256_ASN1],
            Kind::P384 => &[&ECDSA_P384_SHA384_ASN1],
            Kind::Ed25519 => &[&ED25519],
            Kind::Rsa => &[&RSA_PKCS1_2048_8192_SHA256, &RSA_PSS_2048_8192_SHA256],
        };
        algorithms
            .iter()
            .any(|algorithm| UnparsedPublicKey::new(*algorithm, &self.bits).verify(message, &signature).is_ok())
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{:?} {}", self.kind, self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};

    use super::*;
    use crate::verdict::testing::{P256_PREFIX, pem};

    #[test]
    fn each_kind_of_key_proves_its_own_signatures_and_no_others() {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).unwrap();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).unwrap();
        let key = PublicKey::from_pem(&pem(P256_PREFIX, pair.public_key().as_ref())).unwrap();
        let signature = STANDARD.encode(pair.sign(&random, b"message").unwrap());
        assert!(key.verifies(b"message", &signature));
        assert!(!key.verifies(b"messagE", &signature) && !key.verifies(b"message", "AAAA"));
        assert!(!key.verifies(b"message", "no base64!") && !key.verifies(b"message", &"A".repeat(5000)));

        let pair = Ed25519KeyPair::from_pkcs8(Ed25519KeyPair::generate_pkcs8(&random).unwrap().as_ref()).unwrap();
        let prefix = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
        let other = PublicKey::from_pem(&pem(&prefix, pair.public_key().as_ref())).unwrap();
        assert!(other.verifies(b"message", &STANDARD.encode(pair.sign(b"message"))));
        assert!(!other.verifies(b"message", &signature));
        assert_ne!(other.fingerprint(), key.fingerprint());
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(PublicKey::from_pem("hello"), Err(KeyError::NoPem));
        assert_eq!(PublicKey::from_pem(&pem(&[], b"x")), Err(KeyError::Malformed));
        assert_eq!(PublicKey::from_pem(&format!("{BEGIN}\n!\n{END}")), Err(KeyError::Malformed));
        let mut wrong = P256_PREFIX.to_vec();
        wrong[22] ^= 1;
        assert_eq!(PublicKey::from_pem(&pem(&wrong, &[4; 65])), Err(KeyError::Algorithm));
        let one = pem(P256_PREFIX, &[4; 65]);
        assert_eq!(PublicKey::from_pem(&format!("{one}{one}")), Err(KeyError::Malformed), "two keys");
        assert_eq!(PublicKey::from_pem(&" ".repeat(PEM_BYTES_MAX + 1)), Err(KeyError::TooLarge));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = PublicKey::from_der(&bytes);
        }
    }
}
