//! How a receiver knows that a delivery is ours and recent.
//!
//! The signature covers the time of the attempt as well as the body, so that a receiver which
//! refuses old timestamps cannot be sent a recorded delivery again.

use std::fmt::Write;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::settings::Secret;

/// Value of `X-Walrust-Signature`: `sha256=` and the hex of the HMAC-SHA256, under the secret, of
/// `<timestamp>.<body>`. `timestamp` is the value of `X-Walrust-Timestamp`.
pub(super) fn sign(secret: &Secret, timestamp: &str, body: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.reveal().as_bytes())
        .expect("HMAC takes keys of any length");
    for part in [timestamp, ".", body] {
        mac.update(part.as_bytes());
    }
    let mut signature = "sha256=".to_owned();
    for byte in mac.finalize().into_bytes() {
        write!(signature, "{byte:02x}").expect("a String takes everything");
    }
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::new(text.to_owned())
    }

    /// `printf '1700000000.{"id":"1"}' | openssl dgst -sha256 -hmac key`
    #[test]
    fn it_is_the_one_that_openssl_computes() {
        assert_eq!(
            sign(&secret("key"), "1700000000", r#"{"id":"1"}"#),
            "sha256=9e040cb90cefc5a04ab9a9848a74e2ff0489b4d8837b38d54555cb67e4f8e76e"
        );
        let long = "k".repeat(100);
        assert_eq!(
            sign(&secret(&long), "0", ""),
            "sha256=243c2f8200e1d4ee892e7a7ded377a65e2beb1c64b997c54b8b0f516216d4b0f",
            "keys longer than a block"
        );
    }

    #[test]
    fn secret_time_and_body_all_matter() {
        let signature = sign(&secret("key"), "1700000000", "body");
        assert_ne!(sign(&secret("kez"), "1700000000", "body"), signature);
        assert_ne!(sign(&secret("key"), "1700000001", "body"), signature);
        assert_ne!(sign(&secret("key"), "1700000000", "bodz"), signature);
    }
}
