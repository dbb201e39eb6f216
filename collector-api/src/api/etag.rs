//! `If-Match` and `ETag` (RFC 9110, 13.1.1): an operator who overwrites something says which state of it was
//! read, and is refused with 412 `precondition_failed` if somebody else was faster.
//!
//! A state's tag is its version, or a digest of it. One tag or `*` can be named; without the header the last
//! writer wins. The store compares under the lock that the change takes, so nothing slips in between:
//! handlers pass the tag down and turn what it says into [`stale`].

use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, IF_MATCH};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue};
use shared_model::ProblemCode;

use super::params::bad_parameter;
use crate::error::{ApiError, ApiResult};

/// What `If-Match` names; `None`: any state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IfMatch(pub Option<String>);

impl IfMatch {
    /// The version it names, of what has one. A tag that is no version is nobody's.
    pub fn version(&self) -> ApiResult<Option<i32>> {
        self.0.as_deref().map(|tag| tag.parse().map_err(|_| stale())).transpose()
    }
}

impl<S: Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut values = parts.headers.get_all(IF_MATCH).iter();
        let read = match (values.next(), values.next()) {
            (None, _) => Some(Self(None)),
            (Some(only), None) => tag(only),
            (Some(_), Some(_)) => None,
        };
        read.ok_or_else(|| bad_parameter("If-Match", "must be one entity tag or `*`"))
    }
}

fn tag(value: &HeaderValue) -> Option<IfMatch> {
    let text = value.to_str().ok()?.trim();
    if text == "*" {
        return Some(IfMatch(None));
    }
    let (weak, quoted) = text.strip_prefix("W/").map_or((false, text), |quoted| (true, quoted));
    let inner = quoted.strip_prefix('"')?.strip_suffix('"')?;
    let whole = !inner.is_empty() && !inner.contains(['"', ' ', '\t']);
    // A weak tag is like no other: what is kept of it equals no state's.
    whole.then(|| IfMatch(Some(if weak { text.to_owned() } else { inner.to_owned() })))
}

/// The header that names a state.
pub fn etag(tag: impl std::fmt::Display) -> [(HeaderName, String); 1] {
    [(ETAG, format!("\"{tag}\""))]
}

/// 412: it has another state than the request names.
pub fn stale() -> ApiError {
    ApiError::new(
        ProblemCode::PreconditionFailed,
        "It was changed since it was read: read it again, and decide again.",
    )
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    async fn read(values: &[&str]) -> Result<Option<String>, ProblemCode> {
        let mut request = Request::builder();
        for value in values {
            request = request.header(IF_MATCH, *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        let read = IfMatch::from_request_parts(&mut parts, &()).await;
        read.map(|read| read.0).map_err(|error| error.problem.code)
    }

    #[tokio::test]
    async fn one_tag_or_a_star_or_nothing() {
        assert_eq!(read(&[]).await, Ok(None));
        assert_eq!(read(&["*"]).await, Ok(None));
        assert_eq!(read(&[" \"7\" "]).await, Ok(Some("7".into())));
        assert_eq!(read(&["W/\"7\""]).await, Ok(Some("W/\"7\"".into())));
        for wrong in [
            &["7"][..],
            &["\"7"],
            &["\"\""],
            &["\"7\", \"8\""],
            &["\"7\"", "\"8\""],
            &["w/\"7\""],
            &[""],
        ] {
            assert_eq!(read(wrong).await, Err(ProblemCode::BadParameter), "{wrong:?}");
        }
    }

    #[test]
    fn versions_are_numbers() {
        let version = |tag: &str| IfMatch(Some(tag.into())).version().map_err(|e| e.problem.code);
        assert_eq!(version("7"), Ok(Some(7)));
        assert_eq!(IfMatch(None).version().ok(), Some(None));
        for wrong in ["a1b2", "W/\"7\"", "7.0", "99999999999"] {
            assert_eq!(version(wrong), Err(ProblemCode::PreconditionFailed), "{wrong}");
        }
        assert_eq!(etag(7), [(ETAG, "\"7\"".to_owned())]);
    }
}
