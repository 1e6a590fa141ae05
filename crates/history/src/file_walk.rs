//! Walks over the files of a history, as they lead from state to state.

use std::collections::BTreeMap;
use std::fs::File;

use walrust_engine::manifest::{FileEntry, Manifest};
use walrust_engine::{ChainCheck, Layout, StoredFile, Tree};
use walrust_ltx::FileName;

use crate::inspection::Inspected;
use crate::verification::Whole;
use crate::{Finding, Problem, WRITER};

/// The files one after another, as they lead from state to state.
pub(crate) struct FileWalk<'a> {
    entries: BTreeMap<FileName, &'a FileEntry>,
    /// Files of Litestream have no checksums to walk by.
    chain: Option<ChainCheck>,
    /// What is wrong so far.
    pub(crate) findings: Vec<Finding>,
    /// The files that are whole.
    pub(crate) whole: BTreeMap<FileName, Whole>,
    /// The bytes of files that were kept, by key.
    pub(crate) copies: BTreeMap<String, File>,
}

impl<'a> FileWalk<'a> {
    /// Begins a walk.
    pub(crate) fn new(tree: &Tree, manifest: Option<&'a Manifest>) -> Self {
        let entries = manifest.iter().flat_map(|manifest| &manifest.files);
        let entries = entries.filter_map(|entry| Some((entry.file_name()?, entry))).collect();
        let chain = ChainCheck::new(tree.files.iter().map(|file| file.name));
        Self {
            entries,
            chain: (tree.layout == Layout::Walrust).then_some(chain),
            findings: Vec::new(),
            whole: BTreeMap::new(),
            copies: BTreeMap::new(),
        }
    }

    /// Passes the next file, in [`ChainCheck::order`].
    pub(crate) fn pass(&mut self, file: &StoredFile, inspected: Result<Inspected, Problem>) {
        let problems = match inspected {
            Ok(inspected) => self.check(file, inspected),
            Err(problem) => {
                if let Some(chain) = &mut self.chain {
                    chain.skip(file.name);
                }
                vec![problem]
            }
        };
        let finding = |problem| Finding { key: file.key.clone(), problem };
        self.findings.extend(problems.into_iter().map(finding));
    }

    fn check(&mut self, file: &StoredFile, mut inspected: Inspected) -> Vec<Problem> {
        let mut problems = Vec::new();
        let found = inspected.sha256.clone();
        let recorded = inspected.recorded_sha256().map(str::to_owned);
        let is_recorded = recorded.as_ref() == Some(&found);
        problems.extend(wrong_sha256(recorded, &found));
        self.copies.extend(inspected.copy.take().map(|copy| (file.key.clone(), copy)));
        let Some(chain) = &mut self.chain else { return problems };
        let (Some(entry), Some(changes)) = (inspected.entry(file), inspected.take_changes(file))
        else {
            chain.skip(file.name);
            problems.push(Problem::NoChecksums);
            return problems;
        };
        problems.extend(chain.add(&changes).err().map(Problem::Chain));
        if let Some(known) = self.entries.get(&file.name) {
            problems.extend(wrong_entry(known, &entry));
        }
        let page_size = inspected.header.page_size.get();
        let writer = inspected.meta.metadata.get(WRITER).cloned();
        self.whole.insert(file.name, Whole { entry, is_recorded, writer, page_size });
        problems
    }
}

/// That bytes are not those that were stored, if so: by their SHA-256, hex.
pub(crate) fn wrong_sha256(recorded: Option<String>, found: &str) -> Option<Problem> {
    let expected = recorded.filter(|expected| expected != found)?;
    Some(Problem::WrongSha256 { expected, found: found.to_owned() })
}

/// The first thing that the manifest says of a file and that is not so.
fn wrong_entry(recorded: &FileEntry, found: &FileEntry) -> Option<Problem> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "none".to_owned());
    // Who stored a file without metadata did not record these.
    let or_found = |value: &String, found: &String| match value.is_empty() {
        true => found.clone(),
        false => value.clone(),
    };
    let merged_since = match &found.merged_since {
        Some(since) => Some(since.clone()),
        None => recorded.merged_since.clone(),
    };
    let fields = [
        (Problem::SHA256, or_found(&recorded.sha256, &found.sha256), found.sha256.clone()),
        ("size", recorded.size.to_string(), found.size.to_string()),
        ("time", recorded.created.clone(), found.created.clone()),
        ("merged time", text(&recorded.merged_since), text(&merged_since)),
        ("kind", format!("{:?}", recorded.kind), format!("{:?}", found.kind)),
        ("checksum before it", text(&recorded.pre), text(&found.pre)),
        ("checksum after it", recorded.post.clone(), found.post.clone()),
        ("number of pages", recorded.commit.to_string(), found.commit.to_string()),
    ];
    let wrong = fields.into_iter().find(|(_, recorded, found)| recorded != found);
    wrong.map(|(field, recorded, found)| Problem::WrongEntry { field, recorded, found })
}
