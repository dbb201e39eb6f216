//! The secret half of enrolment tokens and API keys: 256 random bits, shown once, stored as SHA-256.
//!
//! A plain hash is enough: nothing of 256 bits of entropy can be guessed, however fast the hash.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// The system's random number generator failed.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no random bytes")]
pub struct NoRandomness(#[source] pub getrandom::Error);

/// A new secret, base64url.
pub fn generate() -> Result<String, NoRandomness> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// What the database keeps: SHA-256 of the secret's text.
pub fn digest(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// Compares in constant time. `stored` is `None` for an unknown id: compared with a dummy, so that
/// an unknown id takes as long as a wrong secret.
pub fn matches(secret: &str, stored: Option<&[u8]>) -> bool {
    let dummy = [0; 32];
    let equal = digest(secret).as_slice().ct_eq(stored.unwrap_or(&dummy));
    bool::from(equal) && stored.is_some()
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |four_bits: u8| char::from(DIGITS[usize::from(four_bits & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_secret_matches() {
        let secret = generate().unwrap();
        assert!(matches(&secret, Some(&digest(&secret))));
        assert!(!matches("x", Some(&digest(&secret))));
        assert!(!matches(&secret, None));
        assert!(!matches(&secret, Some(b"short")));
        assert_ne!(secret, generate().unwrap());
    }
}
