//! stub
mod options;
use crate::*;
use async_trait::async_trait;
use bytes::Bytes;
pub use options::{S3Credentials, S3Options};
use std::{ops::Range, path::Path};
/// stub
#[derive(Debug)]
pub struct S3Store {
    never: std::convert::Infallible,
}
impl S3Store {
    /// stub
    /// # Errors
    /// stub
    pub async fn open(bucket: &str, _p: &str, _o: &S3Options) -> Result<Self, StorageError> {
        Err(StorageError::permanent("open", format!("s3://{bucket}"), "", "S3 is not there yet"))
    }
}
#[async_trait]
impl ObjectStore for S3Store {
    fn url(&self) -> String {
        match self.never {}
    }
    async fn put(
        &self,
        _: &str,
        _: Bytes,
        _: &Metadata,
        _: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        match self.never {}
    }
    async fn put_file(
        &self,
        _: &str,
        _: &Path,
        _: &Metadata,
        _: &Condition,
    ) -> Result<PutReceipt, StorageError> {
        match self.never {}
    }
    async fn get(&self, _: &str) -> Result<Object, StorageError> {
        match self.never {}
    }
    async fn get_range(&self, _: &str, _: Range<u64>) -> Result<Bytes, StorageError> {
        match self.never {}
    }
    async fn head(&self, _: &str) -> Result<ObjectMeta, StorageError> {
        match self.never {}
    }
    async fn list(&self, _: &str, _: Option<&str>) -> Result<Vec<ListEntry>, StorageError> {
        match self.never {}
    }
    async fn delete(&self, _: &[String]) -> Result<Vec<DeleteFailure>, StorageError> {
        match self.never {}
    }
}
