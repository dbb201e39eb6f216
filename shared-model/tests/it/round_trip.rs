//! decode(encode(x)) = x, and what cannot be decoded says where it belongs.

use proptest::prelude::*;
use shared_model::{DecodeError, Record};

use crate::arbitrary::{full_report, record};

proptest! {
    #[test]
    fn decoding_gives_back_what_was_encoded(record in record()) {
        let line = record.encode();
        prop_assert_eq!(line.last(), Some(&b'\n'));
        prop_assert!(!line[..line.len() - 1].contains(&b'\n'), "one line");
        prop_assert_eq!(Record::decode(&line).unwrap(), record);
    }

    #[test]
    fn what_an_agent_may_send_is_valid(record in record()) {
        record.validate().unwrap();
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        drop(Record::decode(&bytes));
    }

    /// Cutting or flipping a byte of a good line never panics, and validation neither.
    #[test]
    fn damage_never_panics(at in 0_usize..3000, byte in any::<u8>()) {
        let mut line = Record::Report(Box::new(full_report())).encode();
        let at = at % line.len();
        line[at] = byte;
        if let Ok(record) = Record::decode(&line) {
            drop(record.validate());
        }
        drop(Record::decode(&line[..at]));
    }
}

#[test]
fn poison_says_where_it_belongs_and_which_field() {
    let mut report = full_report();
    report.interval_ms = 31_337;
    let good = String::from_utf8(Record::Report(Box::new(report)).encode()).unwrap();
    for (bad, field) in [
        (good.replace("\"interval_ms\":31337", "\"interval_ms\":-5"), "interval_ms"),
        (
            good.replace("\"interval_ms\":31337", "\"interval_ms\":99999999999999999999"),
            "interval_ms",
        ),
        (good.replace("\"cpu_user_us\":1500000", "\"cpu_user_us\":-1"), "processes[0].cpu_user_us"),
        (
            good.replace("\"mount_point\":\"/data 1\"", "\"mount_point\":7"),
            "filesystems[0].mount_point",
        ),
    ] {
        assert_ne!(bad, good);
        match Record::decode(bad.as_bytes()) {
            Err(DecodeError::Poison { head, field: at, .. }) => {
                assert_eq!(head.sequence, 42);
                assert_eq!(at, field);
            }
            other => panic!("{field}: {other:?}"),
        }
    }
}

#[test]
fn what_has_no_head_is_malformed() {
    for line in [
        "",
        "{}",
        "[]",
        "{\"report\":{}}",
        "{\"report\":{\"sequence\":1}}",
        "nonsense",
        "{\"report\"",
    ] {
        assert!(
            matches!(Record::decode(line.as_bytes()), Err(DecodeError::Malformed(_))),
            "{line}"
        );
    }
}
