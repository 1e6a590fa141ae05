//! The condition under which an object is stored.

/// What must hold for a put to take effect.
///
/// A condition that does not hold fails the put with [`ErrorClass::Precondition`] and leaves the
/// store as it was.
///
/// [`ErrorClass::Precondition`]: walrust_engine::ErrorClass::Precondition
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// No object exists under the key.
    IfAbsent,
    /// The object under the key has this `ETag`; an absent object has none.
    IfMatch(String),
    /// Nothing: whatever is there is replaced.
    None,
}

/// What a store answers to a put.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PutReceipt {
    /// The `ETag` of the stored object, for [`Condition::IfMatch`]. It is opaque: not a checksum.
    pub etag: String,
}
