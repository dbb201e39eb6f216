//! What the resources share: parameters and their checks, pages, the request's clock.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::Serialize;
use shared_model::{FieldError, ProblemCode, Timestamp};
use time::Duration;
use time::format_description::well_known::Rfc3339;
use utoipa::ToSchema;

use crate::error::{ApiError, ApiResult};

/// Longest window of a question.
pub const MAX_WINDOW: Duration = Duration::days(31);
/// Window of a question that names none, ending now.
pub const DEFAULT_WINDOW: Duration = Duration::minutes(15);
/// Longest name of a key or token, characters.
const MAX_NAME_CHARS: usize = 200;

/// A 400 `bad_parameter` that names the parameter.
pub fn bad_parameter(name: &str, detail: impl Into<String>) -> ApiError {
    at_field(ProblemCode::BadParameter, "Parameter", name, detail.into())
}

/// A 422 `invalid_field` that names the field of the body.
pub fn invalid_field(name: &str, detail: impl Into<String>) -> ApiError {
    at_field(ProblemCode::InvalidField, "Field", name, detail.into())
}

fn at_field(code: ProblemCode, what: &str, name: &str, detail: String) -> ApiError {
    let mut error = ApiError::new(code, format!("{what} `{name}` {detail}."));
    error.problem.errors.push(FieldError { field: name.into(), detail });
    error
}

/// A name an operator gives: 1 to 200 characters, none of them a control character.
pub fn check_name(field: &str, name: &str) -> ApiResult<()> {
    let length = name.chars().count();
    if name.trim().is_empty() || length > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        let detail = format!("must have 1 to {MAX_NAME_CHARS} characters and no control character");
        return Err(invalid_field(field, detail));
    }
    Ok(())
}

/// `limit`, checked.
pub fn limit(limit: Option<u32>, default: u32, max: u32) -> ApiResult<i64> {
    match limit.unwrap_or(default) {
        limit if (1..=max).contains(&limit) => Ok(i64::from(limit)),
        _ => Err(bad_parameter("limit", format!("must be 1 to {max}"))),
    }
}

/// Text to search for: PostgreSQL's `text` holds everything but NUL.
pub fn search<'a>(name: &str, text: Option<&'a str>, max_bytes: usize) -> ApiResult<&'a str> {
    let text = text.unwrap_or_default();
    if text.contains('\0') {
        return Err(bad_parameter(name, "must not contain NUL"));
    }
    if text.len() > max_bytes {
        return Err(bad_parameter(name, format!("must not be longer than {max_bytes} bytes")));
    }
    Ok(text)
}

/// The time a question is about: `from` excluded, `to` included, because a sample stands for the
/// interval that ended at its `sampled_at`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Excluded.
    pub from: Timestamp,
    /// Included.
    pub to: Timestamp,
}

impl Window {
    /// Reads `from` and `to`: RFC 3339, `now`, or back from now such as `-15m` (units s, m, h, d).
    pub fn parse(from: Option<&str>, to: Option<&str>, now: Timestamp) -> ApiResult<Self> {
        let to = to.map_or(Ok(now), |text| instant("to", text, now))?;
        let from = match from {
            Some(text) => instant("from", text, now)?,
            None => to.checked_sub(DEFAULT_WINDOW).unwrap_or(to),
        };
        if from >= to {
            return Err(bad_parameter("from", "must lie before `to`"));
        }
        if to - from > MAX_WINDOW {
            let days = MAX_WINDOW.whole_days();
            return Err(bad_parameter(
                "from",
                format!("must not lie more than {days} days before `to`"),
            ));
        }
        Ok(Self { from, to })
    }
}

fn instant(name: &str, text: &str, now: Timestamp) -> ApiResult<Timestamp> {
    let wrong = || {
        bad_parameter(
            name,
            "must be a time in RFC 3339 (a `+` of the offset sent as `%2B`), `now`, or back from now such as `-15m` (s, m, h, d)",
        )
    };
    let at = if text == "now" {
        now
    } else if let Some(back) = text.strip_prefix('-') {
        now.checked_sub(span(back).ok_or_else(wrong)?).ok_or_else(wrong)?
    } else {
        Timestamp::parse(text, &Rfc3339).map_err(|_| wrong())?
    };
    // What both the database and RFC 3339 can write.
    (1970..=9999)
        .contains(&at.to_offset(time::UtcOffset::UTC).year())
        .then_some(at)
        .ok_or_else(wrong)
}

fn span(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => Duration::SECOND,
        'm' => Duration::MINUTE,
        'h' => Duration::HOUR,
        'd' => Duration::DAY,
        _ => return None,
    };
    let count = &text[..text.len() - 1];
    let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
    let count = digits.then(|| count.parse::<i32>().ok())??;
    unit.checked_mul(count)
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// In the order the route documents.
    pub items: Vec<T>,
    /// `after` of the next page; null: this was the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    /// From up to `limit` + 1 items: the one too many says that there is another page.
    pub fn cut(mut items: Vec<T>, limit: i64, cursor: impl Fn(&T) -> String) -> Self {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let more = items.len() > limit;
        items.truncate(limit);
        let next = items.last().filter(|_| more).map(cursor);
        Self { items, next }
    }
}

/// When the request came in: read once per request, here, and passed down.
#[derive(Clone, Copy, Debug)]
pub struct Now(pub Timestamp);

impl<S: Sync> FromRequestParts<S> for Now {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(_: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        #[expect(
            clippy::disallowed_methods,
            reason = "the edge of the operators' API, where its clock is read once per request"
        )]
        let now = Timestamp::now_utc();
        Ok(Self(now))
    }
}

/// Random bytes of the operating system.
pub fn random<const N: usize>() -> ApiResult<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| {
        ApiError::new(ProblemCode::Internal, "The server failed; nothing was changed.")
            .caused_by(error)
    })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    const NOW: Timestamp = datetime!(2026-11-22 03:12:00 UTC);

    fn parse(from: Option<&str>, to: Option<&str>) -> Result<Window, String> {
        Window::parse(from, to, NOW).map_err(|error| error.problem.errors[0].field.clone())
    }

    #[test]
    fn windows_are_absolute_relative_or_the_last_quarter_of_an_hour() {
        let ok = |from, to| Ok(Window { from, to });
        assert_eq!(parse(None, None), ok(NOW - Duration::minutes(15), NOW));
        assert_eq!(
            parse(Some("-1h"), Some("-30s")),
            ok(NOW - Duration::HOUR, NOW - Duration::seconds(30))
        );
        assert_eq!(
            parse(None, Some("-1d")),
            ok(NOW - Duration::minutes(1455), NOW - Duration::DAY)
        );
        assert_eq!(
            parse(Some("2026-11-22T04:00:00+01:00"), Some("now")),
            ok(datetime!(2026-11-22 03:00 UTC), NOW)
        );
    }

    #[test]
    fn a_bad_window_names_its_parameter() {
        for from in [
            "",
            "-",
            "-m",
            "-1",
            "-1w",
            "--1m",
            "-1.5h",
            "-99999999999d",
            "yesterday",
            "now",
            "-µ",
            "0001-01-01T00:00:00Z",
            "2026-11-22 03:00:00",
            "-32d",
            "-0s",
        ] {
            assert_eq!(parse(Some(from), None), Err("from".into()), "{from}");
        }
        assert_eq!(parse(None, Some("9999-12-31T23:59:59-23:59")), Err("to".into()));
        assert_eq!(parse(Some("-1m"), Some("-2m")), Err("from".into()));
    }

    #[test]
    fn a_page_says_whether_there_is_another() {
        let page = Page::cut(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], Some("2".into())));
        let page = Page::cut(vec![1, 2], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }
}
