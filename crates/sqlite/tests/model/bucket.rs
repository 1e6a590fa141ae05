//! Storage: names and bytes, and what can be restored from them.
//!
//! Each file is applied when it arrives, by a few lines that know nothing of `Restore`. So after each
//! upload every restorable state is known to be one in which the database was.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use walrust_ltx::{Decoder, FileName, Header, Mode, Txid};
use walrust_sqlite::{Head, IntegrityCheck, Restore, StagedFile};

use crate::history::History;
use crate::image::Image;

/// The bucket.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    files: BTreeMap<FileName, Vec<u8>>,
    /// The state behind each TXID at which a file ends.
    states: BTreeMap<Txid, Restorable>,
}

#[derive(Debug)]
struct Restorable {
    image: Image,
    head: Head,
}

impl Bucket {
    /// Stores a file under its name, as it is.
    pub(crate) fn put(&mut self, file: &StagedFile, history: &History) {
        let (name, bytes) = (file.name, fs::read(&file.path).expect("a staged file"));
        assert_eq!(bytes.len() as u64, file.size, "{name} has the size it was offered with");
        if let Some(stored) = self.files.get(&name) {
            assert!(*stored == bytes, "{name} is there already with other bytes");
            return;
        }
        let (header, image) = self.apply(name, &bytes);
        let existed = history.find(image.checksum);
        let existed = existed.unwrap_or_else(|| panic!("{name} leads to no state there ever was"));
        assert!(image == *existed, "{name}: two states with one checksum");
        match self.states.get(&name.max) {
            Some(known) => assert!(known.image == image, "{name} contradicts its TXID"),
            None => self.check_order(file, &image, history),
        }
        let head = Head::of_file(&header, Some(image.checksum));
        self.states.insert(name.max, Restorable { image, head });
        self.files.insert(name, bytes);
    }

    /// A file behind all others continues them.
    fn check_order(&self, file: &StagedFile, image: &Image, history: &History) {
        let (name, header) = (file.name, &file.header);
        let Some((head, last)) = self.states.last_key_value() else {
            assert!(name.is_snapshot(), "{name}: the first file is a snapshot");
            return;
        };
        assert!(name.max > *head, "{name} is not behind {head}");
        let commits = history.commits_between(last.image.checksum, image.checksum);
        assert!(commits.is_none_or(|commits| commits >= 0), "{name} goes {commits:?} commits back");
        if name.is_snapshot() {
            return;
        }
        assert_eq!(name.min, head.next(), "{name} follows {head}");
        let txids = txids_of(name);
        if header.wal_size > 0 {
            let exact = commits.is_none_or(|commits| commits == txids);
            assert!(exact, "{name}: one TXID for each of {commits:?} commits");
        } else {
            assert_eq!(txids, 1, "{name} was healed");
            let changed = image.changed_pages(&last.image, header.page_size.get());
            assert_eq!(file.pages as usize, changed, "{name}: only changed pages");
        }
    }

    fn apply(&self, name: FileName, bytes: &[u8]) -> (Header, Image) {
        let mut decoder = Decoder::new(bytes, Mode::Strict).expect("a sound header");
        let header = decoder.header().clone();
        assert_eq!(header.file_name(), name);
        let before = (!name.is_snapshot()).then(|| {
            let before = name.min.get().checked_sub(1).and_then(Txid::new);
            let before = before.and_then(|txid| self.states.get(&txid));
            &before.unwrap_or_else(|| panic!("{name} continues nothing")).image
        });
        assert_eq!(header.pre_apply, before.map(|before| before.checksum), "{name}: its link");
        let mut image = before.map(|before| before.bytes.to_vec()).unwrap_or_default();
        let page_size = header.page_size.bytes();
        image.resize(header.commit as usize * page_size, 0);
        let mut page = vec![0; page_size];
        while let Some(pgno) = decoder.next_page(&mut page).expect("a sound page") {
            image[(pgno as usize - 1) * page_size..][..page_size].copy_from_slice(&page);
        }
        let trailer = decoder.finish().expect("a sound end");
        let image = Image::new(image, header.page_size.get());
        assert_eq!(trailer.post_apply, Some(image.checksum), "{name}: its checksum");
        (header, image)
    }

    /// The newest state.
    pub(crate) fn head(&self) -> Option<Head> {
        self.states.last_key_value().map(|(_, state)| state.head)
    }

    /// The files that lead from the newest snapshot to the head; of these those behind a state.
    pub(crate) fn chain(&self, after: Option<Txid>) -> Vec<(FileName, &[u8])> {
        let snapshots = self.files.keys().filter(|name| name.is_snapshot());
        let Some(base) = snapshots.max_by_key(|name| name.max) else { return Vec::new() };
        let behind = self.files.keys().filter(|name| !name.is_snapshot() && name.min > base.max);
        let chain = [base].into_iter().chain(behind);
        let wanted = chain.filter(|name| after.is_none_or(|after| name.min > after));
        wanted.map(|name| (*name, self.files[name].as_slice())).collect()
    }

    /// Restores the head as production does; the bytes of the database.
    pub(crate) fn restore(&self, output: &Path) -> Vec<u8> {
        let mut restore = Restore::begin(output, true, Mode::Strict).expect("a restore");
        for (name, bytes) in self.chain(None) {
            restore.apply(&name.to_string(), name, bytes).expect("a file of the chain");
        }
        restore.finish(IntegrityCheck::Full).expect("a sound database");
        fs::read(output).expect("the restored database")
    }
}

/// How many TXIDs a file covers.
pub(crate) fn txids_of(name: FileName) -> i64 {
    i64::try_from(name.max.get() - name.min.get() + 1).expect("a test has few of them")
}
