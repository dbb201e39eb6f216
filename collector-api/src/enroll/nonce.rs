//! Nonces of recovery: what makes a proof of an old key fresh.
//!
//! The server keeps nothing of the nonces it gives out, because anybody may ask for one: its time and
//! 16 random bytes, authenticated with a key that every replica has. Only a nonce that came back with
//! a valid proof is written down, as used.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

/// How long a nonce is good.
const LIFE: Duration = Duration::minutes(5);
/// Replicas' clocks may differ by this much.
const SKEW: Duration = Duration::minutes(1);
/// Time (s, big-endian) and random part; the authentication follows.
const CONTENT_BYTES: usize = 8 + 16;

/// A nonce of `now`.
pub(super) fn issue(key: &hmac::Key, random: [u8; 16], now: OffsetDateTime) -> String {
    let mut bytes = now.unix_timestamp().to_be_bytes().to_vec();
    bytes.extend(random);
    let tag = hmac::sign(key, &bytes);
    bytes.extend(tag.as_ref());
    URL_SAFE_NO_PAD.encode(bytes)
}

/// The random part of a nonce that is ours and fresh.
pub(super) fn check(key: &hmac::Key, nonce: &str, now: OffsetDateTime) -> Option<Uuid> {
    let bytes = URL_SAFE_NO_PAD.decode(nonce).ok()?;
    let (content, tag) = bytes.split_at_checked(CONTENT_BYTES)?;
    hmac::verify(key, content, tag).ok()?;
    let issued_at = i64::from_be_bytes(content[..8].try_into().ok()?);
    let age = now - OffsetDateTime::from_unix_timestamp(issued_at).ok()?;
    (age >= -SKEW && age <= LIFE).then(|| Uuid::from_slice(&content[8..]).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_fresh_nonces_count() {
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key");
        let now = OffsetDateTime::UNIX_EPOCH + Duration::days(20_000);
        let nonce = issue(&key, [7; 16], now);
        assert_eq!(check(&key, &nonce, now), Some(Uuid::from_bytes([7; 16])));
        assert_eq!(check(&key, &nonce, now + Duration::minutes(6)), None);
        assert_eq!(check(&key, &nonce, now - Duration::minutes(2)), None);
        let other = hmac::Key::new(hmac::HMAC_SHA256, b"other");
        assert_eq!(check(&other, &nonce, now), None);
        let mut changed = URL_SAFE_NO_PAD.decode(&nonce).unwrap();
        changed[9] ^= 1;
        assert_eq!(check(&key, &URL_SAFE_NO_PAD.encode(changed), now), None);
        for wrong in ["", "x", "AAAA"] {
            assert_eq!(check(&key, wrong, now), None);
        }
    }
}
