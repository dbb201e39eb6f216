//! From a request's body to its text: every cap is enforced while bytes arrive, not afterwards.

use std::io::Read as _;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderMap, header};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use shared_model::ProblemCode;
use shared_model::limits::{MAX_BODY_BYTES, MAX_INFLATED_BYTES, MAX_JSON_DEPTH};

use super::admission::Admitted;
use crate::error::{ApiError, ApiResult};

/// Longest a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_mins(1);
/// Largest zstd window accepted, as a power of two (8 MiB): the memory a frame may ask for.
const MAX_WINDOW_LOG: u32 = 23;
/// Inflated bytes taken from the budget at a time.
const INFLATE_STEP: usize = 256 << 10;
/// How far reports usually inflate; the first guess of what a body needs.
const USUAL_RATIO: usize = 6;

/// How a body is encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Encoding {
    Zstd,
    Identity,
}

/// What the headers say, or why the body is not even read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Announced {
    pub(super) encoding: Encoding,
    /// Bytes of the budget to begin with.
    pub(super) reserve: usize,
}

/// Checks content type, encoding and announced length.
pub(super) fn check_headers(headers: &HeaderMap) -> ApiResult<Announced> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?").trim());
    let media_type = text(header::CONTENT_TYPE).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/x-ndjson") {
        return Err(ApiError::new(
            ProblemCode::UnsupportedMediaType,
            "The content type must be application/x-ndjson.",
        ));
    }
    let encoding = match text(header::CONTENT_ENCODING) {
        Some(encoding) if encoding.eq_ignore_ascii_case("zstd") => Encoding::Zstd,
        None => Encoding::Identity,
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Encoding::Identity,
        Some(_) => {
            return Err(ApiError::new(
                ProblemCode::UnsupportedMediaType,
                "The content encoding must be zstd or identity.",
            ));
        }
    };
    let length: Option<usize> = text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
    if length.is_some_and(|length| length > MAX_BODY_BYTES) {
        return Err(too_large());
    }
    let length = length.unwrap_or(INFLATE_STEP);
    let reserve = match encoding {
        Encoding::Zstd => length.saturating_mul(USUAL_RATIO).clamp(4096, MAX_INFLATED_BYTES),
        Encoding::Identity => length,
    };
    Ok(Announced { encoding, reserve })
}

fn too_large() -> ApiError {
    ApiError::new(
        ProblemCode::BodyTooLarge,
        format!("The body may have at most {MAX_BODY_BYTES} bytes; send fewer records at once."),
    )
}

/// Reads the whole body, never more than [`MAX_BODY_BYTES`].
pub(super) async fn read(body: Body) -> ApiResult<Bytes> {
    let all = async {
        let (mut body, mut read) = (body, BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                ApiError::new(ProblemCode::Truncated, "The body broke off.").caused_by(error)
            })?;
            let Ok(data) = frame.into_data() else { continue };
            if read.len() + data.len() > MAX_BODY_BYTES {
                return Err(too_large());
            }
            read.extend_from_slice(&data);
        }
        Ok(read.freeze())
    };
    tokio::time::timeout(BODY_TIMEOUT, all).await.unwrap_or_else(|_| {
        Err(ApiError::new(
            ProblemCode::Truncated,
            format!("The body did not arrive within {} s.", BODY_TIMEOUT.as_secs()),
        ))
    })
}

/// Inflates `body` within the caps and the budget, and checks that it is text of bounded depth that
/// ends with a line's end. Blocking: not for async threads.
pub(super) fn inflate(body: Bytes, encoding: Encoding, room: &mut Admitted) -> ApiResult<Bytes> {
    if body.is_empty() {
        return Err(ApiError::new(ProblemCode::Malformed, "The body is empty."));
    }
    let text = match encoding {
        Encoding::Zstd => Bytes::from(inflate_zstd(&body, room)?),
        Encoding::Identity => body,
    };
    room.reserve(text.len())?;
    if std::str::from_utf8(&text).is_err() {
        return Err(ApiError::new(ProblemCode::InvalidUtf8, "The body is not UTF-8."));
    }
    if depth_exceeds(&text, MAX_JSON_DEPTH) {
        return Err(ApiError::new(
            ProblemCode::TooDeep,
            format!("The body nests deeper than {MAX_JSON_DEPTH} levels."),
        ));
    }
    if text.last().is_some_and(|last| *last != b'\n') {
        return Err(ApiError::new(ProblemCode::Truncated, "The last line has no end."));
    }
    Ok(text)
}

fn inflate_zstd(body: &[u8], room: &mut Admitted) -> ApiResult<Vec<u8>> {
    let malformed = |error: std::io::Error| {
        let (code, detail) = if error.kind() == std::io::ErrorKind::UnexpectedEof {
            (ProblemCode::Truncated, "The body ends in the middle of a zstd frame.".to_owned())
        } else {
            (
                ProblemCode::Malformed,
                format!("The body is not zstd with a window of at most 8 MiB: {error}."),
            )
        };
        ApiError::new(code, detail)
    };
    let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(malformed)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(malformed)?;
    let mut text =
        Vec::with_capacity(body.len().saturating_mul(USUAL_RATIO).min(MAX_INFLATED_BYTES));
    loop {
        let before = text.len();
        room.reserve((before + INFLATE_STEP).min(MAX_INFLATED_BYTES))?;
        let read =
            decoder.by_ref().take(INFLATE_STEP as u64).read_to_end(&mut text).map_err(malformed)?;
        if text.len() > MAX_INFLATED_BYTES {
            return Err(ApiError::new(
                ProblemCode::InflatedTooLarge,
                format!(
                    "The body inflates beyond {MAX_INFLATED_BYTES} bytes; send fewer records at once."
                ),
            ));
        }
        if read == 0 {
            return Ok(text);
        }
    }
}

/// Whether objects and arrays nest deeper than `limit` anywhere; strings are skipped. Runs before the
/// JSON parser, whose own limit is deeper and costs stack.
fn depth_exceeds(text: &[u8], limit: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth += 1;
                if depth > limit {
                    return true;
                }
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b'\n' => depth = 0,
            _ => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_ignores_strings_and_restarts_with_each_line() {
        let check = |text: &str, limit, expected| {
            assert_eq!(depth_exceeds(text.as_bytes(), limit), expected, "{text}");
        };
        check(r#"{"a":[{}]}"#, 3, false);
        check(r#"{"a":[{}]}"#, 2, true);
        check(r#"{"a":"[[[[[[\"[[["}"#, 1, false);
        check("[[\n[[\n[[\n", 2, false);
        check(r#"{"a":"\\"}[["#, 1, true);
    }
}
