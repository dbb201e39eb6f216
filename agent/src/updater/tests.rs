use shared_model::ProblemCode;

use super::*;
use crate::uplink::news::Reject;

fn delivered(stream_id: Uuid, sequence: u64, rejected: &[u64]) -> Delivered {
    let reject = |sequence: &u64| Reject {
        stream_id,
        sequence: *sequence,
        code: ProblemCode::InvalidReport,
        detail: String::new(),
    };
    Delivered { stream_id, sequence, rejected: rejected.iter().map(reject).collect() }
}

#[test]
fn only_reports_of_its_own_that_were_accepted_in_a_row_count() {
    let (stream, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let mut baseline = Baseline { stream_id: stream, sequence: 40 };
    assert_eq!(baseline.count(&Delivered::default()), 0, "nobody answered yet");
    assert_eq!(baseline.count(&delivered(stream, 38, &[])), 0, "what the release before left");
    assert_eq!(baseline.count(&delivered(stream, 41, &[])), 1);
    assert_eq!(baseline.count(&delivered(stream, 42, &[])), 2);
    assert_eq!(baseline.count(&delivered(stream, 44, &[43])), 1, "one was refused");
    assert_eq!(baseline.count(&delivered(other, 9, &[])), 0, "another stream");
    assert_eq!(baseline.count(&delivered(other, 11, &[])), 2);
}

#[test]
fn waits_double_up_to_a_bound_and_a_server_may_ask_for_more() {
    let wait = |before, asked| {
        let failure = Failure::after(1, before, asked);
        failure.again.saturating_duration_since(Instant::now())
    };
    // Half to one and a half of it.
    assert!(wait(0, None) <= Duration::from_secs(90));
    assert!(wait(3, None) >= Duration::from_secs(4 * 60 - 1));
    assert!(wait(60, None) <= WAITS.1.mul_f64(1.5));
    assert!(wait(0, Some(Duration::from_hours(1))) >= Duration::from_mins(29));
}
