//! Which incrementals are merged into a larger one.
//!
//! Invariant: only files that continue one another are merged, and a file is rewritten only together
//! with others that have at least a quarter of its size. So a byte that was written once is written
//! about five times more at most for each time its file doubles, however often the planner is
//! asked, and a stretch of equal files becomes one.

use walrust_ltx::FileName;

use crate::retention_planner::HistoryFile;

/// Files up to this size together are merged in any case: rewriting them costs one request.
const SMALL: u64 = 1 << 20;
/// A file is rewritten if those that join it have at least this part of its size.
const PART: u64 = 4;

/// Files that become one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Merge {
    /// The file that takes their place: from the first TXID of the first to the last of the last.
    pub into: FileName,
    /// The files, oldest first; two at least. Each begins where the one before it ends.
    pub sources: Vec<FileName>,
}

impl Merge {
    /// The merge of some files that continue one another, oldest first; `None` of fewer than two.
    #[must_use]
    pub fn of(sources: &[FileName]) -> Option<Self> {
        let [first, .., last] = sources else { return None };
        let into = FileName { min: first.min, max: last.max };
        Some(Self { into, sources: sources.to_vec() })
    }
}

/// Plans the merges of a stretch of files that continue one another.
#[must_use]
pub fn plan_compaction(stretch: &[&HistoryFile]) -> Vec<Merge> {
    let mut merges = Vec::new();
    plan_stretch(stretch, &mut merges);
    merges
}

fn plan_stretch(stretch: &[&HistoryFile], merges: &mut Vec<Merge>) {
    let sizes = stretch.iter().map(|file| file.size).enumerate();
    let Some((index, largest)) = sizes.max_by_key(|(_, size)| *size) else { return };
    let total: u64 = stretch.iter().map(|file| file.size).sum();
    if total <= SMALL || (total - largest).saturating_mul(PART) >= largest {
        let sources: Vec<FileName> = stretch.iter().map(|file| file.name).collect();
        merges.extend(Merge::of(&sources));
        return;
    }
    plan_stretch(&stretch[..index], merges);
    plan_stretch(&stretch[index + 1..], merges);
}

#[cfg(test)]
mod tests {
    use walrust_ltx::Txid;

    use super::*;

    fn stretch(sizes: &[u64]) -> Vec<HistoryFile> {
        let files = sizes.iter().zip(2..).map(|(size, txid)| {
            let txid = Txid::new(txid).unwrap();
            let name = FileName { min: txid, max: txid };
            HistoryFile { name, size: *size, timestamp_ms: 0, indexed: true }
        });
        files.collect()
    }

    fn merged(sizes: &[u64]) -> Vec<(u64, u64)> {
        let files = stretch(sizes);
        let merges = plan_compaction(&files.iter().collect::<Vec<_>>());
        merges.iter().map(|merge| (merge.into.min.get(), merge.into.max.get())).collect()
    }

    const MIB: u64 = 1 << 20;

    #[test]
    fn equal_files_become_one_and_one_stays_as_it_is() {
        assert_eq!(merged(&[MIB; 10_000]), [(2, 10_001)]);
        assert_eq!(merged(&[MIB]), []);
        assert_eq!(merged(&[]), []);
    }

    #[test]
    fn c08_a_large_file_is_not_rewritten_for_a_few_bytes() {
        assert_eq!(merged(&[100 * MIB, MIB]), []);
        assert_eq!(merged(&[100 * MIB, MIB, MIB]), [(3, 4)]);
        assert_eq!(merged(&[MIB, MIB, 100 * MIB, 2 * MIB, MIB]), [(2, 3), (5, 6)]);
        assert_eq!(merged(&[100 * MIB, 25 * MIB]), [(2, 3)]);
    }

    #[test]
    fn c08_a_file_each_hour_for_a_month_is_not_written_over_and_over() {
        let (mut sizes, mut written) = (Vec::new(), 0);
        for _ in 0..720 {
            sizes.push(10 * MIB);
            let files = stretch(&sizes);
            for merge in plan_compaction(&files.iter().collect::<Vec<_>>()).iter().rev() {
                let first = files.iter().position(|file| file.name == merge.sources[0]).unwrap();
                let of: u64 = sizes.drain(first..first + merge.sources.len()).sum();
                sizes.insert(first, of);
                written += of;
            }
        }
        assert!(sizes.len() < 30, "{} files are left of 720", sizes.len());
        let times = written / (720 * 10 * MIB);
        assert!(times <= 20, "each byte was written {times} times");
    }
}
