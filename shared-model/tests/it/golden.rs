//! Encodings that servers in the field must go on reading, byte for byte. A change here is a change
//! of the protocol: add a new golden file for the new form and keep the old one decoding.

use shared_model::{
    Problem, ProblemCode, Record, RecordHead, RejectedReport, ReportsAnswer, problem::FieldError,
};
use time::macros::datetime;
use uuid::uuid;

use crate::arbitrary::full_report;

/// `encoded` is the golden bytes, and they decode to `value` again.
fn check<T>(golden: &str, value: &T)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(serde_json::to_string_pretty(value).unwrap(), golden.trim_end());
    assert_eq!(&serde_json::from_str::<T>(golden).unwrap(), value);
}

#[test]
fn a_report_with_everything_in_it() {
    check(include_str!("../golden/report_full.json"), &Record::Report(Box::new(full_report())));
}

#[test]
fn a_gap() {
    let golden = include_str!("../golden/gap.json");
    let gap: Record = serde_json::from_str(golden).unwrap();
    check(golden, &gap);
    assert_eq!(
        gap.head(),
        RecordHead {
            host_id: uuid!("0199b1a0-0000-7000-8000-000000000001"),
            stream_id: uuid!("7d444840-9dc0-4e2f-a9d1-cf1f5f4f6f11"),
            first_sequence: 7,
            sequence: 19,
        }
    );
}

/// What the first release without any optional part sends: it must decode for ever.
#[test]
fn the_smallest_report() {
    let line = include_bytes!("../golden/report_minimal.json");
    let Record::Report(report) = Record::decode(line).unwrap() else { panic!("a report") };
    assert_eq!(report.sequence, 1);
    assert_eq!(report.host.cpu_user_us, None, "absent is unknown");
    assert!(report.processes.is_empty());
    Record::Report(report).validate().unwrap();
}

#[test]
fn an_unknown_field_is_ignored() {
    let line = include_str!("../golden/report_minimal.json").replacen(
        "\"version\":1",
        "\"version\":1,\"from_the_future\":{\"a\":[1]}",
        1,
    );
    Record::decode(line.as_bytes()).unwrap();
}

#[test]
fn an_answer() {
    check(
        include_str!("../golden/answer.json"),
        &ReportsAnswer {
            stream_id: uuid!("7d444840-9dc0-4e2f-a9d1-cf1f5f4f6f11"),
            acknowledged_sequence: 42,
            accepted: 3,
            duplicates: 1,
            rejected: vec![RejectedReport {
                sequence: 41,
                code: ProblemCode::InvalidReport,
                detail: "processes[3].process_count: must be 1 or more".into(),
                errors: vec![FieldError {
                    field: "processes[3].process_count".into(),
                    detail: "must be 1 or more".into(),
                }],
            }],
            next_send_after_ms: Some(1500),
            server_time: datetime!(2026-11-22 03:12:00.5 UTC),
        },
    );
}

#[test]
fn a_problem() {
    let mut problem = Problem::new(ProblemCode::SequenceGap, "Report 9 does not follow 7.");
    problem.acknowledged_sequence = Some(7);
    check(include_str!("../golden/problem.json"), &problem);
}

#[test]
fn every_code_is_stable_snake_case_and_has_a_4xx_or_5xx() {
    for code in ProblemCode::ALL {
        let text = code.as_str();
        assert!(
            text.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c.is_ascii_digit()),
            "{text}"
        );
        assert_eq!(serde_json::from_str::<ProblemCode>(&format!("\"{text}\"")).unwrap(), *code);
        assert!((400..600).contains(&code.status()), "{text}");
    }
    assert_eq!(
        serde_json::from_str::<ProblemCode>("\"of_a_newer_server\"").unwrap(),
        ProblemCode::Unknown
    );
}
