//! What the resources share: parameters and their checks, pages, the request's clock.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use serde::{Deserialize, Serialize};
use shared_model::{FieldError, ProblemCode, Timestamp};
use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::auth::join_token::{MAX_NAME_BYTES, is_name};
use crate::error::{ApiError, ApiResult};
use crate::store::ids::InstanceKey;
use crate::store::samples::Window;

/// Longest window of a question about one host or process: what roll-ups are kept for.
pub const MAX_WINDOW: Duration = Duration::days(400);
/// Longest window of a question about many hosts.
pub const MAX_FLEET_WINDOW: Duration = Duration::days(31);
/// Window of a question that names none, ending now.
pub const DEFAULT_WINDOW: Duration = Duration::minutes(15);
/// Deepest place that pages of a ranked list lead to.
pub const MAX_PLACE: u32 = 10_000;
/// Most points of one series in an answer.
pub const MAX_POINTS: u32 = 1000;

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

/// A name an operator gives, by the same rule as on the command line.
pub fn check_name(field: &str, name: &str) -> ApiResult<()> {
    if !is_name(name) {
        let detail = format!("must have 1 to {MAX_NAME_BYTES} bytes and no control character");
        return Err(invalid_field(field, detail));
    }
    Ok(())
}

/// Where to begin in a list of secrets, and how much to return.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct SecretsQuery {
    /// Most rows returned, 1 to 1,000.
    #[param(default = 100, minimum = 1, maximum = 1000)]
    limit: Option<u32>,
    /// `next` of the page before.
    pub after: Option<Uuid>,
}

impl SecretsQuery {
    /// Rows of a page, checked.
    pub fn limit(&self) -> ApiResult<i64> {
        limit(self.limit, 100, 1000)
    }
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

/// Reads `from` and `to`: RFC 3339, `now`, or back from now such as `-15m` (units s, m, h, d).
/// The window is at most `longest`.
pub fn window(
    from: Option<&str>,
    to: Option<&str>,
    now: Timestamp,
    longest: Duration,
) -> ApiResult<Window> {
    let to = to.map_or(Ok(now), |text| instant("to", text, now))?;
    let from = match from {
        Some(text) => instant("from", text, now)?,
        None => to.checked_sub(DEFAULT_WINDOW).unwrap_or(to),
    };
    if from >= to {
        return Err(bad_parameter("from", "must lie before `to`"));
    }
    if to - from > longest {
        let days = longest.whole_days();
        return Err(bad_parameter(
            "from",
            format!("must not lie more than {days} days before `to`"),
        ));
    }
    Ok(Window { from, to })
}

/// A page of places in a window over hosts, checked.
#[derive(Clone, Copy, Debug)]
pub struct Places {
    /// The window.
    pub window: Window,
    /// Rows of the page.
    pub limit: i64,
    /// Rows before it.
    pub skip: i64,
}

/// Reads `from`, `to`, `limit` and `after` of a list that is ranked: who asks for places further down than
/// [`MAX_PLACE`] has to narrow the question.
pub fn places(
    (from, to): (Option<&str>, Option<&str>),
    now: Timestamp,
    (limit, default): (Option<u32>, u32),
    after: Option<u32>,
) -> ApiResult<Places> {
    let window = window(from, to, now, MAX_FLEET_WINDOW)?;
    let limit = self::limit(limit, default, 1000)?;
    let skip = after.unwrap_or(0);
    if skip > MAX_PLACE {
        return Err(bad_parameter("after", format!("must be at most {MAX_PLACE}")));
    }
    Ok(Places { window, limit, skip: i64::from(skip) })
}

/// Refuses an instance without its host: its key is one within the host.
pub fn check_instance(instance_id: Option<InstanceKey>, host: Option<&str>) -> ApiResult<()> {
    if instance_id.is_some() && host.is_none() {
        return Err(bad_parameter("instance_id", "needs `host`"));
    }
    Ok(())
}

/// Reads `to` of a question without a begin.
pub fn until(to: Option<&str>, now: Timestamp) -> ApiResult<Timestamp> {
    to.map_or(Ok(now), |text| instant("to", text, now))
}

/// Width of the buckets of a series, seconds: `step` as it was asked for, such as `30s` or `5m`.
pub fn step(step: Option<&str>, window: Window) -> ApiResult<Option<u32>> {
    let Some(text) = step else { return Ok(None) };
    let step =
        span(text).filter(|step| *step >= Duration::SECOND && *step <= MAX_WINDOW).ok_or_else(
            || bad_parameter("step", "must be like `30s`, `5m`, `1h` or `1d`, at least 1 s"),
        )?;
    if (window.to - window.from) / step > f64::from(MAX_POINTS) {
        let detail =
            format!("must be wide enough to cut the window into at most {MAX_POINTS} points");
        return Err(bad_parameter("step", detail));
    }
    Ok(u32::try_from(step.whole_seconds()).ok())
}

/// The step to ask with, where only roll-ups of `finest_s` are kept of a part of the window.
pub fn kept_step(step_s: Option<u32>, finest_s: u32, window: Window) -> ApiResult<Option<u32>> {
    match step_s {
        Some(step) if finest_s > 0 && step % finest_s != 0 => Err(bad_parameter(
            "step",
            format!(
                "must be a multiple of {finest_s}s: a part of the window is only kept rolled up"
            ),
        )),
        None if finest_s > 0 => Ok(Some(fitting_step(window, finest_s))),
        step => Ok(step),
    }
}

/// Milliseconds since the Unix epoch, rounded up: a window that ends there holds the sample.
pub fn end_ms(at: OffsetDateTime) -> i64 {
    at.unix_timestamp() * 1000 + i64::from(at.nanosecond().div_ceil(1_000_000))
}

/// The narrowest step of a familiar width, at least `finest_s`, that cuts `window` into at most half
/// of [`MAX_POINTS`]: what is used when there are more samples than that and nobody asked for a step.
pub fn fitting_step(window: Window, finest_s: u32) -> u32 {
    step_of(window, finest_s, f64::from(MAX_POINTS / 2))
}

/// The same for at most `buckets` buckets.
pub fn step_of(window: Window, finest_s: u32, buckets: f64) -> u32 {
    const WIDTHS: [u32; 17] =
        [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200, 86_400];
    let width = |seconds: &u32| f64::from(*seconds) * buckets;
    let length = (window.to - window.from).as_seconds_f64();
    WIDTHS
        .into_iter()
        .find(|seconds| width(seconds) >= length && *seconds >= finest_s)
        .unwrap_or(86_400)
}

/// Reads a length of time such as `1h`, at least 1 s.
pub fn back(name: &str, text: &str) -> ApiResult<Duration> {
    span(text)
        .filter(|length| *length >= Duration::SECOND && *length <= MAX_WINDOW)
        .ok_or_else(|| bad_parameter(name, "must be like `30s`, `5m`, `1h` or `1d`, 1 s to 400 d"))
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
    at.checked_to_offset(time::UtcOffset::UTC)
        .filter(|utc| (1970..=9999).contains(&utc.year()))
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
        window(from, to, NOW, MAX_FLEET_WINDOW)
            .map_err(|error| error.problem.errors[0].field.clone())
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
    fn a_step_fits_its_window_and_any_window_has_a_step() {
        let of = |length| Window { from: NOW - length, to: NOW };
        assert_eq!(step(None, of(Duration::DAY)).unwrap(), None);
        assert_eq!(step(Some("5m"), of(Duration::DAY)).unwrap(), Some(300));
        for wrong in ["", "0s", "5", "-5m", "5m ", "1w", "401d", "1s"] {
            let error = step(Some(wrong), of(Duration::DAY)).unwrap_err();
            assert_eq!(error.problem.errors[0].field, "step", "{wrong}");
        }
        for (length, expect) in [
            (Duration::SECOND, 1),
            (DEFAULT_WINDOW, 2),
            (Duration::DAY, 300),
            (MAX_FLEET_WINDOW, 7200),
            (MAX_WINDOW, 86_400),
        ] {
            let seconds = fitting_step(of(length), 0);
            assert_eq!(seconds, expect, "{length}");
            assert!(step(Some(&format!("{seconds}s")), of(length)).is_ok());
        }
        assert_eq!(fitting_step(of(Duration::HOUR), 300), 300);
    }

    #[test]
    fn a_page_says_whether_there_is_another() {
        let page = Page::cut(vec![1, 2, 3], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], Some("2".into())));
        let page = Page::cut(vec![1, 2], 2, ToString::to_string);
        assert_eq!((page.items, page.next), (vec![1, 2], None));
    }
}
