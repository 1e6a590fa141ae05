//! Fixed-width integers at a fixed offset of a header.
//!
//! The headers are arrays whose length is part of their type, and every caller's offset is a
//! constant inside it, so reading a field cannot fail on any input.

fn word<const N: usize>(header: &[u8; N], offset: usize) -> [u8; 4] {
    let mut word = [0; 4];
    word.copy_from_slice(&header[offset..offset + 4]);
    word
}

/// The big-endian integer at `offset`.
pub(crate) fn be_u32<const N: usize>(header: &[u8; N], offset: usize) -> u32 {
    u32::from_be_bytes(word(header, offset))
}

/// The integer at `offset` in the byte order of this machine.
pub(crate) fn native_u32<const N: usize>(header: &[u8; N], offset: usize) -> u32 {
    u32::from_ne_bytes(word(header, offset))
}
