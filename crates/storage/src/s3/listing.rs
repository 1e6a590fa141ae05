//! Listing all pages of a prefix.
//!
//! Invariant: a listing is whole, or an error. A page that fails fails all, and a store whose pages
//! do not advance is not asked for ever.

use walrust_engine::ErrorClass;

use super::{Shared, system_time};
use crate::{ListEntry, StorageError};

impl Shared {
    pub(super) async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<ListEntry>, StorageError> {
        let about = self.about("list", prefix);
        let full = self.object(prefix);
        let mut entries = Vec::new();
        let mut token: Option<String> = None;
        loop {
            let page = self
                .client
                .list_objects_v2()
                .bucket(&self.bucket)
                .prefix(&full)
                .set_start_after(after.map(|after| self.object(after)))
                .set_continuation_token(token.clone())
                .send()
                .await
                .map_err(|error| about.request(&error))?;
            for object in page.contents.unwrap_or_default() {
                let key = object.key.as_deref().and_then(|key| key.strip_prefix(&self.prefix));
                let Some(key) = key.filter(|key| is_wanted(key, prefix, after)) else { continue };
                let size = object.size.and_then(|size| u64::try_from(size).ok());
                let Some(size) = size else {
                    let reason = format!("the store does not say how long {key} is");
                    return Err(about.error(ErrorClass::Permanent, reason));
                };
                entries.push(ListEntry {
                    key: key.to_owned(),
                    size,
                    etag: object.e_tag.unwrap_or_default(),
                    modified: system_time(object.last_modified.as_ref()),
                });
            }
            if !page.is_truncated.unwrap_or(false) {
                break;
            }
            let next = page.next_continuation_token.filter(|next| !next.is_empty());
            if next.is_none() || next == token {
                let reason = "the store says that there are more objects and does not show them";
                return Err(about.error(ErrorClass::Permanent, reason));
            }
            token = next;
        }
        entries.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        // An object that was written while pages were fetched may be in two of them.
        entries.dedup_by(|one, other| one.key == other.key);
        Ok(entries)
    }
}

/// Whether a key is one of ours: stores may ignore `start-after`, and consoles make "folders".
fn is_wanted(key: &str, prefix: &str, after: Option<&str>) -> bool {
    key.starts_with(prefix)
        && !key.is_empty()
        && !key.ends_with('/')
        && after.is_none_or(|after| key > after)
}
