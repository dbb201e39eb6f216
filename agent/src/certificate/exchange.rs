//! One request and what its answer means.

use reqwest::RequestBuilder;
use serde::de::DeserializeOwned;
use shared_model::{Problem, ProblemCode};

use super::CertificateError;
use crate::tls;

/// Largest answer read.
const MAX_ANSWER_BYTES: usize = 256 << 10;
/// How rustls words an alert of the other side. In TLS 1.3 a client hears of the refusal of its
/// certificate only after its own handshake is done, as an error of the connection.
const ALERT: &str = "received fatal alert";

pub(super) async fn send<T: DeserializeOwned>(
    request: RequestBuilder,
    endpoint: &str,
) -> Result<T, CertificateError> {
    let endpoint = endpoint.to_owned();
    let failed = |error: reqwest::Error| {
        let cause = tls::chain(&error);
        let endpoint = endpoint.clone();
        if cause.contains(ALERT) {
            CertificateError::NotTaken { endpoint, cause }
        } else {
            CertificateError::Unreachable { endpoint, cause }
        }
    };
    let mut response = request.send().await.map_err(failed)?;
    let status = response.status();
    let retry_after = tls::retry_after(&response);
    let body = tls::read_capped(&mut response, MAX_ANSWER_BYTES).await.map_err(failed)?;
    if status.is_success() {
        return serde_json::from_slice(&body)
            .map_err(|error| CertificateError::BadAnswer { endpoint, cause: error.to_string() });
    }
    let problem: Option<Problem> = serde_json::from_slice(&body).ok();
    let (code, detail) = match problem {
        Some(problem) => (problem.code, problem.detail),
        None => (ProblemCode::Unknown, format!("HTTP {}", status.as_u16())),
    };
    Err(CertificateError::Refused { endpoint, code, detail, retry_after })
}
