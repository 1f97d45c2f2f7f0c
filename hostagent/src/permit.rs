//! Whether a permit is good: signed by the CA's key over its exact bytes, the one that was ordered, and still valid.
//!
//! Owns: that judgement. Never does: trusting anything in a permit before its signature was checked.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proto::HostId;
use proto::agent::{Permit, SignedPermit};
use ring::signature::{ECDSA_P256_SHA256_ASN1, UnparsedPublicKey};

/// Why a permit is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PermitError {
    /// The signature is not the CA's over these bytes.
    #[error("its signature is not the CA's")]
    Signature,
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Form(String),
    /// Another one was ordered.
    #[error("it is not the permit that was ordered here")]
    Other,
    /// Who shows it is not its source.
    #[error("{shown_by} shows it, it is for {source_host}")]
    Source {
        /// By its certificate.
        shown_by: HostId,
        /// By the permit.
        source_host: HostId,
    },
    /// Too late.
    #[error("it ended {late_ms} ms ago")]
    Expired {
        /// Milliseconds.
        late_ms: u64,
    },
}

/// Checks a permit that `shown_by` shows, against the one that was ordered. `ca_key` is the CA's public key as in its
/// certificate (an uncompressed point); `unix_ms` the time.
///
/// # Errors
/// The first fault found; the signature is looked at first.
pub fn check(
    signed: &SignedPermit,
    ordered: &Permit,
    shown_by: &HostId,
    ca_key: &[u8],
    unix_ms: u64,
) -> Result<(), PermitError> {
    let signature = BASE64_STANDARD.decode(&signed.signature).map_err(|_| PermitError::Signature)?;
    let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, ca_key);
    key.verify(signed.permit_json.as_bytes(), &signature).map_err(|_| PermitError::Signature)?;
    let permit: Permit = serde_json::from_str(&signed.permit_json).map_err(|e| PermitError::Form(e.to_string()))?;
    if permit != *ordered {
        return Err(PermitError::Other);
    }
    if *shown_by != permit.source {
        return Err(PermitError::Source { shown_by: shown_by.clone(), source_host: permit.source });
    }
    if unix_ms > permit.expires_ms {
        return Err(PermitError::Expired { late_ms: unix_ms - permit.expires_ms });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{Epoch, MoveId};
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};

    fn permit() -> Permit {
        Permit {
            r#move: MoveId(1),
            vm: "web".parse().expect("good"),
            epoch: Epoch(1),
            source: "a".parse().expect("good"),
            target: "b".parse().expect("good"),
            target_address: [10, 0, 0, 2].into(),
            target_port: 7444,
            expires_ms: 1_000,
        }
    }

    fn key() -> EcdsaKeyPair {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random).expect("random is there");
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random).expect("just made")
    }

    fn sign(key: &EcdsaKeyPair, permit_json: String) -> SignedPermit {
        let signature = key.sign(&SystemRandom::new(), permit_json.as_bytes()).expect("random is there");
        SignedPermit { permit_json, signature: BASE64_STANDARD.encode(signature) }
    }

    #[test]
    fn only_the_ordered_permit_from_its_source_in_time() {
        let ca = key();
        let json = |p: &Permit| serde_json::to_string(p).expect("plain data");
        let good = sign(&ca, json(&permit()));
        let check = |signed: &SignedPermit, by: &str, at_ms| {
            check(signed, &permit(), &by.parse().expect("good"), ca.public_key().as_ref(), at_ms)
        };
        assert_eq!(check(&good, "a", 1_000), Ok(()));
        assert_eq!(check(&good, "a", 1_500), Err(PermitError::Expired { late_ms: 500 }));
        assert!(matches!(check(&good, "c", 0), Err(PermitError::Source { .. })));
        assert_eq!(check(&sign(&key(), json(&permit())), "a", 0), Err(PermitError::Signature));
        let other = Permit { epoch: Epoch(2), ..permit() };
        assert_eq!(check(&sign(&ca, json(&other)), "a", 0), Err(PermitError::Other));
        let spliced = SignedPermit { permit_json: json(&other), ..good.clone() };
        assert_eq!(check(&spliced, "a", 0), Err(PermitError::Signature));
        assert!(matches!(check(&sign(&ca, "{".into()), "a", 0), Err(PermitError::Form(_))));
        let garbled = SignedPermit { signature: "§".into(), ..good };
        assert_eq!(check(&garbled, "a", 0), Err(PermitError::Signature));
    }
}
