//! Unsigned LEB128 numbers, as the page index has them: 7 bits per byte, low bits first.

/// The most bytes of a number of 64 bits.
pub(crate) const LONGEST: usize = 10;

/// Appends a number.
pub(crate) fn write(mut number: u64, out: &mut Vec<u8>) {
    while number >= 0x80 {
        out.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    out.push(number.to_le_bytes()[0]);
}

/// Takes a number from the front of `bytes`; `None` if they end too early or it has over 64 bits.
pub(crate) fn read(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0_u64;
    for (index, byte) in bytes.iter().take(LONGEST).enumerate() {
        let bits = u64::from(byte & 0x7f);
        let shift = 7 * u32::try_from(index).ok()?;
        if bits << shift >> shift != bits {
            return None;
        }
        number |= bits << shift;
        if byte & 0x80 == 0 {
            *bytes = &bytes[index + 1..];
            return Some(number);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_the_documented_bytes() {
        let cases: [(u64, &[u8]); 5] = [
            (0, &[0x00]),
            (127, &[0x7f]),
            (128, &[0x80, 0x01]),
            (300, &[0xac, 0x02]),
            (16384, &[0x80, 0x80, 0x01]),
        ];
        for (number, bytes) in cases {
            let mut out = Vec::new();
            write(number, &mut out);
            assert_eq!(out, bytes);
            let mut rest = bytes;
            assert_eq!(read(&mut rest), Some(number));
            assert!(rest.is_empty());
        }
    }

    #[test]
    fn the_largest_number_is_read_and_a_larger_one_is_not() {
        let mut out = Vec::new();
        write(u64::MAX, &mut out);
        assert_eq!(read(&mut out.as_slice()), Some(u64::MAX));
        out[9] = 0x02;
        assert_eq!(read(&mut out.as_slice()), None);
        assert_eq!(read(&mut [0x80; 9].as_slice()), None);
    }
}
