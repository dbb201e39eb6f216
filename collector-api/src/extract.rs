//! Extractors whose refusals are problem documents: use these instead of axum's own.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, header};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use shared_model::{FieldError, ProblemCode};

use crate::error::ApiError;

/// Parameters of the path.
#[derive(Clone, Copy, Debug)]
pub struct Path<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(rejection) => {
                let name = match &rejection {
                    PathRejection::FailedToDeserializePathParams(error) => key(error.kind()),
                    _ => None,
                };
                Err(bad_parameter(name.unwrap_or("path"), &rejection.body_text()))
            }
        }
    }
}

/// Which parameter of the path is meant, where the router knows.
fn key(kind: &ErrorKind) -> Option<&str> {
    match kind {
        ErrorKind::ParseErrorAtKey { key, .. }
        | ErrorKind::DeserializeError { key, .. }
        | ErrorKind::InvalidUtf8InPathParam { key } => Some(key),
        _ => None,
    }
}

/// Which parameter of the query is meant: serde says `name: why`, or quotes what it does not know.
fn named(why: &str) -> Option<&str> {
    match why.split_once(": ") {
        Some((name, _)) if !name.contains(' ') => Some(name),
        _ => why.split('`').nth(1),
    }
}

fn bad_parameter(name: &str, detail: &str) -> ApiError {
    let mut error = ApiError::new(ProblemCode::BadParameter, detail);
    error.problem.errors.push(FieldError { field: name.into(), detail: detail.into() });
    error
}

/// Parameters of the query. Unknown ones are an error if `T` denies unknown fields.
#[derive(Clone, Copy, Debug)]
pub struct Query<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        match axum::extract::Query::try_from_uri(&parts.uri) {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(rejection) => {
                let text = rejection.body_text();
                let why = text.split_once(": ").map_or(text.as_str(), |(_, why)| why);
                Err(bad_parameter(named(why).unwrap_or("query"), &text))
            }
        }
    }
}

/// A JSON body of at most the route's body limit.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_json = content_type
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split(';').next())
            .is_some_and(|value| value.trim().eq_ignore_ascii_case("application/json"));
        if !is_json {
            return Err(ApiError::new(
                ProblemCode::UnsupportedMediaType,
                "Send the body as application/json.",
            ));
        }
        let bytes =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection {
                BytesRejection::FailedToBufferBody(FailedToBufferBody::LengthLimitError(_)) => {
                    ApiError::new(
                        ProblemCode::BodyTooLarge,
                        "The body is larger than this route accepts.",
                    )
                    .closing()
                }
                other => ApiError::new(ProblemCode::Truncated, "The body did not arrive whole.")
                    .caused_by(other),
            })?;
        std::str::from_utf8(&bytes).map_err(|error| {
            ApiError::new(ProblemCode::InvalidUtf8, format!("The body is not UTF-8: {error}."))
        })?;
        serde_json::from_slice(&bytes).map(Self).map_err(|error| {
            let code = match error.classify() {
                serde_json::error::Category::Data => ProblemCode::InvalidField,
                serde_json::error::Category::Eof => ProblemCode::Truncated,
                _ => ProblemCode::Malformed,
            };
            ApiError::new(code, format!("The JSON body is not acceptable: {error}."))
        })
    }
}

/// `If-Match`: the version of the object that the caller saw. A `PUT` or `PATCH` compares it with the
/// version in the transaction of its change, and sends the new one as [`etag`].
#[derive(Clone, Debug, Default)]
pub struct IfMatch(pub Option<String>);

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let mut all = parts.headers.get_all(header::IF_MATCH).iter();
        match (all.next(), all.next()) {
            (None, _) => Ok(Self(None)),
            (Some(only), None) => match only.to_str() {
                Ok(text) => Ok(Self(Some(text.to_owned()))),
                Err(_) => Err(bad_parameter("If-Match", "is not an entity tag")),
            },
            _ => Err(bad_parameter("If-Match", "is there more than once")),
        }
    }
}

impl IfMatch {
    /// Refuses a change of another version than the caller saw: 412. Without the header all is well.
    pub fn check(&self, version: &str) -> Result<(), ApiError> {
        let Some(text) = &self.0 else { return Ok(()) };
        let tags = text.split(',').map(str::trim);
        let fits = |tag: &str| {
            tag == "*"
                || tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"')) == Some(version)
        };
        if tags.into_iter().any(fits) {
            return Ok(());
        }
        let detail = format!("The object is at version \"{version}\" now: read it again.");
        Err(ApiError::new(ProblemCode::PreconditionFailed, detail))
    }

    /// The same where a change without the header is refused: 428.
    pub fn require(&self, version: &str) -> Result<(), ApiError> {
        if self.0.is_none() {
            let detail =
                "Send If-Match with the ETag of what you read, or * to overwrite anything.";
            return Err(ApiError::new(ProblemCode::PreconditionRequired, detail));
        }
        self.check(version)
    }
}

/// The header that says an object's version, a plain ASCII word.
pub fn etag(version: &str) -> [(HeaderName, HeaderValue); 1] {
    let value = HeaderValue::from_str(&format!("\"{version}\""));
    [(header::ETAG, value.unwrap_or(HeaderValue::from_static("\"?\"")))]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn if_match_names_versions() {
        let of = |text: &str| IfMatch(Some(text.into()));
        for fits in ["*", "\"7\"", "\"6\", \"7\""] {
            assert!(of(fits).require("7").is_ok(), "{fits}");
        }
        // A weak tag never matches strongly (RFC 9110, 13.1.1).
        for other in ["", "7", "\"77\"", "W/\"7\"", "\"7"] {
            assert_eq!(of(other).check("7").unwrap_err().problem.status, 412, "{other}");
        }
        assert!(IfMatch(None).check("7").is_ok());
        assert_eq!(IfMatch(None).require("7").unwrap_err().problem.status, 428);
    }
}
