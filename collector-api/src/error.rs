//! Every error answer, on both doors: one type, one mapping to a problem document (RFC 9457).
//!
//! What a client did wrong (4xx) is said in full. What failed here (5xx) is logged once, with its
//! chain of causes and the request id, and answered without details.

use std::time::Duration;

use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use shared_model::problem::PROBLEM_MEDIA_TYPE;
use shared_model::{Problem, ProblemCode};

use crate::store::StoreError;

/// An error on its way to a client.
#[derive(Debug)]
pub struct ApiError {
    /// What the client gets.
    pub problem: Box<Problem>,
    /// Sent as `Retry-After`.
    pub retry_after: Option<Duration>,
    /// Whether the connection ends with the answer.
    pub close: bool,
    /// What the log gets.
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Result of a handler.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error the client can act on.
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            problem: Box::new(Problem::new(code, detail)),
            retry_after: None,
            close: false,
            source: None,
        }
    }

    /// Tells the client when to come back.
    #[must_use]
    pub fn retry_after(mut self, after: Duration) -> Self {
        self.retry_after = Some(after);
        self
    }

    /// Ends the connection with the answer: what follows on it is not wanted or cannot be read.
    #[must_use]
    pub fn closing(mut self) -> Self {
        self.close = true;
        self
    }

    /// Keeps the cause for the log.
    #[must_use]
    pub fn caused_by(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        self.source = Some(source.into());
        self
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_timeout() {
            Self::new(
                ProblemCode::QueryTimeout,
                "The query was stopped because it took too long: ask for a shorter window or fewer rows.",
            )
            .retry_after(Duration::from_secs(30))
            .caused_by(error)
        } else if error.is_unavailable() {
            Self::new(
                ProblemCode::DatabaseUnavailable,
                "The database does not answer; nothing was changed. Retry.",
            )
            .retry_after(Duration::from_secs(5))
            .caused_by(error)
        } else {
            Self::new(ProblemCode::Internal, "The server failed; nothing was changed. The log has the details under the request id.")
                .caused_by(error)
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(source) = &self.source
            && self.problem.status >= 500
        {
            tracing::error!(code = %self.problem.code.as_str(), error = %Chain(source.as_ref()), "request failed");
        }
        let status = axum::http::StatusCode::from_u16(self.problem.status)
            .unwrap_or(axum::http::StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.problem)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(PROBLEM_MEDIA_TYPE));
        if self.problem.code == ProblemCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if self.close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(after.as_secs().max(1)));
        }
        response
    }
}

/// An error and its causes on one line.
pub struct Chain<'a>(pub &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.0)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}
