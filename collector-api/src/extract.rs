//! Extractors whose refusals are problem documents: use these instead of axum's own.

use axum::extract::path::ErrorKind;
use axum::extract::rejection::{BytesRejection, FailedToBufferBody, PathRejection};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::header;
use axum::http::request::Parts;
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
