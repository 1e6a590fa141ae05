//! What the encoder refuses to write.

use std::io::{self, Write};

use walrust_ltx::{Checksum, Decoder, Encoder, Error, Header, Mode, PageSize};

use crate::support::{Pages, decode, encode, header, page_size, pages, rolling, txid};

fn tracking(mut header: Header, pre_apply: Option<Checksum>) -> Header {
    header.tracking = true;
    header.pre_apply = pre_apply;
    header
}

#[test]
fn pages_out_of_place_are_refused_and_leave_the_file_as_it_was() {
    let mut encoder = Encoder::new(Vec::new(), header(9, 5, 5)).unwrap();
    encoder.page(3, &[1; 512]).unwrap();
    for pgno in [0, 2, 3, 10] {
        let error = encoder.page(pgno, &[1; 512]).unwrap_err();
        assert!(matches!(error, Error::PageOutOfPlace { previous: 3, .. }), "{pgno}: {error}");
    }
    for length in [0, 511, 513] {
        let error = encoder.page(4, &vec![1; length]).unwrap_err();
        assert!(matches!(error, Error::WrongPageLength { expected: 512, .. }), "{error}");
    }
    encoder.page(4, &[2; 512]).unwrap();
    let (file, _) = encoder.finish(None).unwrap();
    let expected = Pages::from([(3, vec![1; 512]), (4, vec![2; 512])]);
    assert_eq!(decode(&file, Mode::Strict).unwrap().pages, expected);
}

#[test]
fn the_lock_page_of_every_page_size_is_refused() {
    let known = [2_097_153, 1_048_577, 524_289, 262_145, 131_073, 65537, 32769, 16385];
    for (page_size, lock_page) in PageSize::ALL.into_iter().zip(known) {
        assert_eq!(page_size.lock_page(), lock_page);
        let header = Header::new(page_size, lock_page + 1, txid(2), txid(2));
        let page = vec![1; page_size.bytes()];
        let mut encoder = Encoder::new(Vec::new(), header).unwrap();
        encoder.page(lock_page - 1, &page).unwrap();
        let error = encoder.page(lock_page, &page).unwrap_err();
        assert!(matches!(error, Error::PageOutOfPlace { pgno, .. } if pgno == lock_page));
        encoder.page(lock_page + 1, &page).unwrap();
        let (file, _) = encoder.finish(None).unwrap();
        assert_eq!(decode(&file, Mode::Strict).unwrap().pages.len(), 2);
    }
}

#[test]
fn a_snapshot_goes_over_the_lock_page_and_misses_nothing_else() {
    let size = page_size(65536);
    let lock_page = size.lock_page();
    let header = tracking(Header::new(size, lock_page + 1, txid(1), txid(1)), None);
    let page = |pgno: u32| {
        let mut page = vec![0; size.bytes()];
        page[..4].copy_from_slice(&pgno.to_be_bytes());
        page
    };
    let mut encoder = Encoder::new(Vec::new(), header).unwrap();
    let mut sum = Checksum::EMPTY;
    for pgno in 1..lock_page {
        sum = sum.toggle(encoder.page(pgno, &page(pgno)).unwrap());
    }
    assert!(encoder.page(lock_page, &page(lock_page)).is_err());
    sum = sum.toggle(encoder.page(lock_page + 1, &page(lock_page + 1)).unwrap());
    let (file, summary) = encoder.finish(Some(sum)).unwrap();
    assert_eq!(summary.pages, lock_page);

    // The decoder follows: over a gigabyte of pages, none of them kept.
    let mut found = vec![0; size.bytes()];
    let mut expected = (1..=lock_page + 1).filter(|&pgno| pgno != lock_page);
    let mut trailer = None;
    let info = allocation_counter::measure(|| {
        let mut decoder = Decoder::new(file.as_slice(), Mode::Strict).unwrap();
        while let Some(pgno) = decoder.next_page(&mut found).unwrap() {
            assert_eq!(Some(pgno), expected.next());
            assert_eq!(found[..4], pgno.to_be_bytes());
        }
        trailer = Some(decoder.finish().unwrap());
    });
    assert_eq!((expected.next(), trailer), (None, Some(summary.trailer)));
    let declared = 17 * 1024 + 66 * 1024;
    assert!(info.bytes_max <= declared, "{} bytes allocated", info.bytes_max);
}

#[test]
fn an_incomplete_snapshot_is_refused() {
    let missing_first = encode(&header(3, 1, 1), &pages(2..=3, 1), None).unwrap_err();
    assert!(matches!(missing_first, Error::PageOutOfPlace { pgno: 2, previous: 0, .. }));
    let missing_last = encode(&header(3, 1, 1), &pages(1..=2, 1), None).unwrap_err();
    assert!(matches!(missing_last, Error::PageOutOfPlace { pgno: 3, previous: 2, .. }));
    encode(&header(3, 2, 2), &pages(2..=2, 1), None).unwrap();
}

#[test]
fn the_post_apply_checksum_must_fit() {
    let database = pages(1..=3, 1);
    let sum = rolling(&database);
    let snapshot = tracking(header(3, 1, 1), None);
    encode(&snapshot, &database, Some(sum)).unwrap();
    let wrong = encode(&snapshot, &database, Some(Checksum::EMPTY)).unwrap_err();
    assert!(matches!(wrong, Error::PostApply { computed, .. } if computed == sum));
    encode(&snapshot, &database, None).unwrap_err();
    encode(&header(3, 1, 1), &database, Some(sum)).unwrap_err();
    encode(&header(3, 1, 1), &database, None).unwrap();

    let deletion = tracking(header(0, 2, 2), Some(sum));
    encode(&deletion, &Pages::new(), Some(sum)).unwrap_err();
    let file = encode(&deletion, &Pages::new(), Some(Checksum::EMPTY)).unwrap();
    assert_eq!(file.len(), 131);
    encode(&header(0, 2, 2), &Pages::new(), None).unwrap_err();
}

#[test]
fn an_invalid_header_is_refused_before_anything_is_written() {
    let mut bad = header(3, 5, 5);
    bad.wal_size = 1;
    assert!(matches!(Encoder::new(Vec::new(), bad), Err(Error::BadWalFields { .. })));
}

/// Fails once, after some bytes, and works again.
struct FailsOnce {
    written: Vec<u8>,
    at: usize,
}

impl Write for FailsOnce {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written.len() + bytes.len() > self.at {
            let room = self.at - self.written.len();
            self.at = usize::MAX;
            if room == 0 {
                return Err(io::Error::from(io::ErrorKind::StorageFull));
            }
            self.written.extend_from_slice(&bytes[..room]);
            self.at = self.written.len();
            return Ok(room);
        }
        self.written.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_with_a_torn_frame_cannot_be_finished() {
    let out = FailsOnce { written: Vec::new(), at: 105 };
    let mut encoder = Encoder::new(out, header(3, 5, 5)).unwrap();
    assert!(encoder.page(1, &[1; 512]).unwrap_err().is_io());
    assert!(matches!(encoder.page(2, &[1; 512]), Err(Error::Unfinished)));
    assert!(matches!(encoder.finish(None), Err(Error::Unfinished)));
}

#[test]
fn a_file_is_only_finished_after_its_last_page() {
    let file = encode(&header(3, 5, 5), &pages([2, 3], 1), None).unwrap();
    let mut decoder = Decoder::new(file.as_slice(), Mode::Strict).unwrap();
    let mut page = [0; 512];
    assert!(matches!(decoder.next_page(&mut page[1..]), Err(Error::WrongPageLength { .. })));
    assert_eq!(decoder.next_page(&mut page).unwrap(), Some(2));
    assert!(matches!(decoder.finish(), Err(Error::Unfinished)));

    let mut decoder = Decoder::new(&file[..150], Mode::Strict).unwrap();
    while decoder.next_page(&mut page).is_ok() {}
    assert!(matches!(decoder.next_page(&mut page), Err(Error::Unfinished)));
    assert!(matches!(decoder.finish(), Err(Error::Unfinished)));
}

#[test]
fn a_failure_to_read_is_no_corruption() {
    struct Fails;
    impl io::Read for Fails {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the connection broke"))
        }
    }
    let file = encode(&header(3, 5, 5), &pages([2, 3], 1), None).unwrap();
    for length in [0, 50, 103, 120, file.len() - 10, file.len()] {
        let input = io::BufReader::new(io::Read::chain(&file[..length], Fails));
        let error = match Decoder::new(input, Mode::Strict) {
            Err(error) => error,
            Ok(mut decoder) => loop {
                match decoder.next_page(&mut [0; 512]) {
                    Ok(Some(_)) => {}
                    Ok(None) => break decoder.finish().unwrap_err(),
                    Err(error) => break error,
                }
            },
        };
        assert!(error.is_io() && !error.is_corruption(), "{length} bytes: {error}");
    }
}
