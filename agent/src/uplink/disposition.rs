//! What an answer means for the records it answers. The one place that decides it.

use shared_model::{Problem, ProblemCode};

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disposition {
    /// The answer carries the stream's cursor: go on after it.
    Settled,
    /// Nothing was stored and something in the request is at fault: send less of it, and give up a
    /// record that is refused alone.
    Split,
    /// Two agents wrote the stream: begin another.
    NewStream,
    /// The server cannot now: back off.
    Retry,
    /// It will not, until a person changes something: keep everything, ask again slowly.
    RetrySlowly,
}

/// From the status and, where the server sent one, its problem document. The code decides; the bare
/// status only where something else than our server answered, or a newer one with a new code.
///
/// Nothing here destroys anything: a rejection of the host is a matter for people, and may be a
/// mistake or a replica that lags.
#[expect(clippy::too_many_lines, reason = "one table: every code of the protocol, once")]
pub(super) fn disposition(status: u16, problem: Option<&Problem>) -> Disposition {
    use Disposition::{NewStream, Retry, RetrySlowly, Settled, Split};
    use ProblemCode as Code;
    if status == 200 {
        return Settled;
    }
    let cursor = problem.is_some_and(|problem| problem.acknowledged_sequence.is_some());
    match (problem.map_or(Code::Unknown, |problem| problem.code), status) {
        (Code::SequenceGap, _) => {
            if cursor {
                Settled
            } else {
                Retry
            }
        }
        (
            Code::InvalidReport
            | Code::InvalidField
            | Code::TimestampInFuture
            | Code::TimestampTooOld,
            _,
        ) => {
            if cursor {
                Settled
            } else {
                Split
            }
        }
        (Code::StreamConflict, _) => NewStream,
        (
            Code::Malformed
            | Code::Truncated
            | Code::InvalidUtf8
            | Code::TooDeep
            | Code::NotConsecutive
            | Code::BodyTooLarge
            | Code::InflatedTooLarge
            | Code::TooManyRecords,
            _,
        )
        | (Code::Unknown, 413) => Split,
        (
            Code::TooManyRequests
            | Code::Internal
            | Code::Overloaded
            | Code::DatabaseUnavailable
            | Code::QueryTimeout
            | Code::ShuttingDown
            | Code::TakeoverPending,
            _,
        )
        | (Code::Unknown, 408 | 425 | 429 | 500..) => Retry,
        (
            Code::BadParameter
            | Code::BadForwarding
            | Code::NoClientCertificate
            | Code::HostUnknown
            | Code::TokenInvalid
            | Code::Unauthorized
            | Code::CertificateRevoked
            | Code::ProofInvalid
            | Code::HostPending
            | Code::HostQuarantined
            | Code::RecoveryWindowPassed
            | Code::NonceInvalid
            | Code::LifecycleConflict
            | Code::CloneDetected
            | Code::RotationConflict
            | Code::RolloutConflict
            | Code::IdempotencyInProgress
            | Code::IdempotencyKeyReused
            | Code::PreconditionFailed
            | Code::IdentityMismatch
            | Code::TokenExpired
            | Code::TokenExhausted
            | Code::TokenRevoked
            | Code::Forbidden
            | Code::RangeNotSatisfiable
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::AmbiguousHost
            | Code::KeyAlreadyRegistered
            | Code::HostDecommissioned
            | Code::UnsupportedMediaType
            | Code::BadCsr
            | Code::UnsupportedVersion
            | Code::Unknown,
            _,
        ) => RetrySlowly,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_meaning() {
        use Disposition::{NewStream, Retry, RetrySlowly, Settled, Split};
        for &code in ProblemCode::ALL {
            let problem = Problem::new(code, "");
            let expected = match code.status() {
                400 if code == ProblemCode::BadParameter => RetrySlowly,
                400 if code == ProblemCode::BadForwarding => RetrySlowly,
                422 if code == ProblemCode::IdempotencyKeyReused => RetrySlowly,
                400 | 413 | 422 if code != ProblemCode::BadCsr => Split,
                409 if code == ProblemCode::SequenceGap => Retry,
                409 if code == ProblemCode::StreamConflict => NewStream,
                409 if code == ProblemCode::TakeoverPending => Retry,
                429 | 500.. => Retry,
                _ => RetrySlowly,
            };
            assert_eq!(disposition(problem.status, Some(&problem)), expected, "{code:?}");
            let with_cursor = Problem { acknowledged_sequence: Some(3), ..problem };
            let settles =
                code == ProblemCode::SequenceGap || (expected == Split && code.status() == 422);
            let expected = if settles { Settled } else { expected };
            assert_eq!(disposition(with_cursor.status, Some(&with_cursor)), expected, "{code:?}");
        }
    }

    #[test]
    fn a_bare_status_decides_only_where_there_is_no_code() {
        let unknown =
            Problem { code: ProblemCode::Unknown, ..Problem::new(ProblemCode::NotFound, "") };
        for problem in [None, Some(&unknown)] {
            for (status, expected) in [
                (413, Disposition::Split),
                (429, Disposition::Retry),
                (502, Disposition::Retry),
                (599, Disposition::Retry),
                (301, Disposition::RetrySlowly),
                (400, Disposition::RetrySlowly),
                (403, Disposition::RetrySlowly),
                (204, Disposition::RetrySlowly),
            ] {
                assert_eq!(disposition(status, problem), expected, "{status}");
            }
        }
    }
}
