//! Problem documents (RFC 9457): every answer that is not a success, on both doors.

use serde::{Deserialize, Serialize};

use crate::RejectedReport;

/// Media type of a [`Problem`].
pub const PROBLEM_MEDIA_TYPE: &str = "application/problem+json";

/// Body of every error response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// `urn:procfleet:problem:<code>`.
    #[serde(rename = "type")]
    pub problem_type: String,
    /// The same sentence for every occurrence of the code.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// What happened to which object, and what to do.
    pub detail: String,
    /// What programs act on.
    pub code: ProblemCode,
    /// Fields at fault.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    /// The stream's committed cursor, in answers to `POST /v1/reports` that know it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acknowledged_sequence: Option<u64>,
    /// Records passed over, when every record of a request was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rejected: Vec<RejectedReport>,
    /// Id of the request, to be found in the server's log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

/// One field at fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldError {
    /// Path from the root of the document, such as `processes[3].cpu_user_us`.
    pub field: String,
    /// What is wrong with it and what would be right.
    pub detail: String,
}

macro_rules! problem_codes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $status:literal, $title:literal;)+) => {
        /// Stable codes. Agents and scripts act on these, never on the bare status.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ProblemCode {
            $($(#[doc = $doc])+ $variant,)+
            /// A code of a newer server.
            #[serde(other)]
            Unknown,
        }

        impl ProblemCode {
            /// Every code a server sends.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The HTTP status it is sent with.
            pub fn status(self) -> u16 {
                match self {
                    $(Self::$variant => $status,)+
                    Self::Unknown => 500,
                }
            }

            /// One sentence, the same for every occurrence.
            pub fn title(self) -> &'static str {
                match self {
                    $(Self::$variant => $title,)+
                    Self::Unknown => "Unknown problem",
                }
            }
        }
    };
}

problem_codes! {
    /// The body is not what its content type says; nothing of the request was stored.
    Malformed = 400, "The request body cannot be read";
    /// The body ends in the middle of a compressed frame or a line.
    Truncated = 400, "The request body ends too early";
    /// The body is not UTF-8.
    InvalidUtf8 = 400, "The request body is not UTF-8";
    /// The body nests deeper than [`crate::limits::MAX_JSON_DEPTH`].
    TooDeep = 400, "The request body is nested too deeply";
    /// Records of one request are not consecutive records of one stream.
    NotConsecutive = 400, "The records are not consecutive records of one stream";
    /// A query or path parameter is not what the route documents.
    BadParameter = 400, "A parameter is not valid";
    /// The proxy in front of the server does not forward client certificates as it must. Keep everything, retry slowly.
    BadForwarding = 400, "The proxy in front of the server is not set up right";
    /// The route needs a client certificate.
    NoClientCertificate = 401, "A client certificate is needed";
    /// No host has this certificate. Keep the identity and retry.
    HostUnknown = 401, "No host has this certificate";
    /// Unknown enrolment token or wrong secret.
    TokenInvalid = 401, "The enrolment token is not valid";
    /// The proof of an old key does not fit the certificate, the request and the nonce.
    ProofInvalid = 401, "The proof of the old key is not valid";
    /// Missing, unknown, expired or revoked API key.
    Unauthorized = 401, "A valid API key is needed";
    /// The certificate was revoked. Keep the key, stop sending, retry slowly.
    CertificateRevoked = 403, "The certificate is revoked";
    /// The host enrolled and waits for an operator's approval. Keep everything, retry slowly.
    HostPending = 403, "The host waits for approval";
    /// An operator, or the server's doubt about who it is, set the host aside. Keep everything, retry slowly.
    HostQuarantined = 403, "The host is quarantined";
    /// The certificate expired too long ago to be recovered: enrol again with a new token.
    RecoveryWindowPassed = 403, "The certificate expired too long ago";
    /// A record names another host than the certificate.
    IdentityMismatch = 403, "The record belongs to another host";
    /// The enrolment token's time is over.
    TokenExpired = 403, "The enrolment token has expired";
    /// The enrolment token's uses are used up.
    TokenExhausted = 403, "The enrolment token is used up";
    /// An operator revoked the enrolment token.
    TokenRevoked = 403, "The enrolment token is revoked";
    /// The API key's role does not allow it.
    Forbidden = 403, "The API key's role does not allow this";
    /// No such route or object.
    NotFound = 404, "Not found";
    /// The route exists, but not with this method.
    MethodNotAllowed = 405, "The method is not allowed here";
    /// Several hosts have this name.
    AmbiguousHost = 409, "Several hosts have this name";
    /// The first record does not follow the cursor: rewind to `acknowledged_sequence` + 1, or declare a gap.
    SequenceGap = 409, "Records are missing before this one";
    /// Another record is stored under this sequence (cloned machine or spool): begin a new stream.
    StreamConflict = 409, "The stream was written by another agent";
    /// Another machine spoke with this identity a moment ago: wait whether it is still there. Keep everything.
    TakeoverPending = 409, "Another machine spoke with this identity a moment ago";
    /// Two machines show one identity, and the other one holds it. Keep everything, retry slowly.
    CloneDetected = 409, "Another machine holds this identity";
    /// The CSR's key is already registered, through another token.
    KeyAlreadyRegistered = 409, "The key is already registered";
    /// The nonce is not the server's, too old, or was used: ask for another.
    NonceInvalid = 409, "The nonce is not valid any more";
    /// The host's life cycle does not allow the change.
    LifecycleConflict = 409, "The host's life cycle does not allow this";
    /// The rotation of an authority is not at this step, or the step would shut hosts out.
    RotationConflict = 409, "The rotation does not allow this";
    /// Another rollout is open, or this one is over or held.
    RolloutConflict = 409, "The rollout does not allow this";
    /// A request with this `Idempotency-Key` is being answered, or its server ended before it said how it went.
    IdempotencyInProgress = 409, "The first request with this key has no answer yet";
    /// An operator decommissioned the host.
    HostDecommissioned = 410, "The host is decommissioned";
    /// `If-Match` names another state than there is: read it again.
    PreconditionFailed = 412, "It was changed since it was read";
    /// The compressed body is too large: split it.
    BodyTooLarge = 413, "The request body is too large";
    /// The inflated body is too large: split it.
    InflatedTooLarge = 413, "The request body is too large after decompression";
    /// Too many records: split.
    TooManyRecords = 413, "The request holds too many records";
    /// Content type or encoding is not the documented one.
    UnsupportedMediaType = 415, "The content type or encoding is not supported";
    /// The file has nothing of the range of bytes asked for.
    RangeNotSatisfiable = 416, "The range is not in the file";
    /// The CSR cannot be read, is not self-signed, or its key is not P-256.
    BadCsr = 422, "The certificate signing request is not acceptable";
    /// A field's value is outside its documented range, or the record does not match the protocol.
    InvalidReport = 422, "The report is not valid";
    /// `sampled_at` is ahead of the server's clock.
    TimestampInFuture = 422, "The report's time lies in the future";
    /// `sampled_at` is older than what the server keeps.
    TimestampTooOld = 422, "The report is older than the retention";
    /// A field of the request body is not acceptable.
    InvalidField = 422, "A field is not valid";
    /// The `Idempotency-Key` was used for another request.
    IdempotencyKeyReused = 422, "The idempotency key belongs to another request";
    /// The agent speaks a protocol the server does not.
    UnsupportedVersion = 426, "The protocol version is not supported";
    /// Too many requests: see `Retry-After`.
    TooManyRequests = 429, "Too many requests";
    /// The server failed; the log has the details under `request_id`.
    Internal = 500, "Internal error";
    /// The server sheds load: see `Retry-After`.
    Overloaded = 503, "The server is overloaded";
    /// The database does not answer: see `Retry-After`.
    DatabaseUnavailable = 503, "The database is unavailable";
    /// The question took too long to answer: ask about less.
    QueryTimeout = 503, "The query took too long";
    /// The server is stopping: see `Retry-After`, or try another endpoint.
    ShuttingDown = 503, "The server is shutting down";
}

impl ProblemCode {
    /// The code as it is written on the wire.
    pub fn as_str(self) -> String {
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(code)) => code,
            _ => "unknown".into(),
        }
    }
}

impl Problem {
    /// A problem with nothing but its code and detail.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            problem_type: format!("urn:procfleet:problem:{}", code.as_str()),
            title: code.title().into(),
            status: code.status(),
            detail: detail.into(),
            code,
            errors: Vec::new(),
            acknowledged_sequence: None,
            rejected: Vec::new(),
            request_id: None,
        }
    }
}
