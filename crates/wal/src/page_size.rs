//! Which page sizes SQLite knows.

/// Whether `bytes` is a page size: a power of two from 512 to 65536.
pub(crate) fn is_page_size(bytes: u32) -> bool {
    bytes.is_power_of_two() && (512..=65_536).contains(&bytes)
}
