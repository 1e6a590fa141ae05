//! The header of database files that SQLite wrote.

use walrust_wal::{DatabaseHeader, DatabaseHeaderError};

use crate::live_database::{LiveDatabase, PAGE_SIZES};

fn checkpointed(database: &LiveDatabase) -> Vec<u8> {
    database.checkpoint("TRUNCATE");
    database.snapshot().database
}

#[test]
fn the_fields_of_every_page_size() {
    for page_size in PAGE_SIZES {
        let database = LiveDatabase::with_tables(page_size);
        let bytes = checkpointed(&database);
        let header = DatabaseHeader::parse(&bytes).unwrap();
        let pragma = |name: &str| -> u32 {
            database.connection.pragma_query_value(None, name, |row| row.get(0)).unwrap()
        };
        assert_eq!(header.page_size, page_size);
        assert_eq!(header.page_count, pragma("page_count"));
        assert_eq!(header.reserved, 0);
        assert!(header.is_wal_mode());
    }
}

#[test]
fn a_database_out_of_wal_mode_says_so() {
    let database = LiveDatabase::with_tables(4096);
    database.run("PRAGMA journal_mode = DELETE");
    let bytes = std::fs::read(database.path()).unwrap();
    assert!(!DatabaseHeader::parse(&bytes).unwrap().is_wal_mode());
    for mixed in [18, 19] {
        let mut bytes = bytes.clone();
        bytes[mixed] = 2;
        assert!(!DatabaseHeader::parse(&bytes).unwrap().is_wal_mode());
    }
}

#[test]
fn what_is_no_database_is_told_apart() {
    let bytes = checkpointed(&LiveDatabase::with_tables(4096));
    assert_eq!(DatabaseHeader::parse(&[]), Err(DatabaseHeaderError::Empty));
    let short = DatabaseHeader::parse(&bytes[..99]);
    assert_eq!(short, Err(DatabaseHeaderError::TooShort { length: 99 }));
    assert!(DatabaseHeader::parse(&bytes[..100]).is_ok());

    let mut encrypted = bytes.clone();
    encrypted[..16].copy_from_slice(b"0123456789abcdef");
    assert_eq!(DatabaseHeader::parse(&encrypted), Err(DatabaseHeaderError::BadMagic));
}

#[test]
fn page_sizes_that_do_not_exist() {
    let mut bytes = checkpointed(&LiveDatabase::with_tables(4096));
    for page_size in [0_u16, 2, 256, 511, 513, 4095, 0xffff] {
        bytes[16..18].copy_from_slice(&page_size.to_be_bytes());
        let expected = DatabaseHeaderError::BadPageSize { page_size: page_size.into() };
        assert_eq!(DatabaseHeader::parse(&bytes), Err(expected));
    }
}
