//! `Range: bytes=…` (RFC 9110 §14): one range. Several, or what is none, are the whole file.

use axum::http::{HeaderMap, header};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The file.
    All,
    /// From this byte to that one, both included.
    Between(u64, u64),
    /// So many bytes of its end.
    Last(u64),
}

impl Wanted {
    /// `If-Range` with another tag than `etag` asks for the whole file.
    pub(super) fn of(headers: &HeaderMap, etag: &str, size: u64) -> Self {
        let other =
            headers.get(header::IF_RANGE).is_some_and(|tag| tag.as_bytes() != etag.as_bytes());
        let range = headers.get(header::RANGE).and_then(|range| range.to_str().ok());
        match range {
            Some(range) if !other => parse(range, size).unwrap_or(Self::All),
            _ => Self::All,
        }
    }

    /// First byte and length; none: the file has nothing of it.
    pub(super) fn bytes(self, size: u64) -> Option<(u64, u64)> {
        match self {
            Self::All => Some((0, size)),
            Self::Between(first, last) => {
                (first < size).then(|| (first, last.min(size - 1) - first + 1))
            }
            Self::Last(length) => {
                let length = length.min(size);
                (length > 0).then(|| (size - length, length))
            }
        }
    }
}

fn parse(range: &str, size: u64) -> Option<Wanted> {
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().ok()).flatten()
    };
    // One that begins beyond the end has nothing of the file: `bytes` says so.
    match (first, last) {
        ("", last) => Some(Wanted::Last(number(last)?)),
        (first, "") => Some(Wanted::Between(number(first)?, size.max(1) - 1)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Wanted::Between(first, last))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn asked(range: &'static str, if_range: Option<&'static str>) -> Option<(u64, u64)> {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static(range));
        if let Some(tag) = if_range {
            headers.insert(header::IF_RANGE, HeaderValue::from_static(tag));
        }
        Wanted::of(&headers, "\"tag\"", 10).bytes(10)
    }

    #[test]
    fn one_range_is_understood() {
        assert_eq!(asked("bytes=0-0", None), Some((0, 1)));
        assert_eq!(asked("bytes=2-5", None), Some((2, 4)));
        assert_eq!(asked("bytes=4-", None), Some((4, 6)));
        assert_eq!(asked("bytes=4-99", None), Some((4, 6)));
        assert_eq!(asked("bytes=-3", None), Some((7, 3)));
        assert_eq!(asked("bytes=-99", None), Some((0, 10)));
        assert_eq!(asked("bytes=4-", Some("\"tag\"")), Some((4, 6)));
    }

    #[test]
    fn what_is_not_there_is_not_given() {
        for range in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(asked(range, None), None, "{range}");
        }
        let nothing = Wanted::Between(0, 0).bytes(0);
        assert_eq!(nothing, None, "an empty file has no first byte");
        assert_eq!(Wanted::All.bytes(0), Some((0, 0)));
    }

    #[test]
    fn what_is_no_range_is_the_whole_file() {
        for range in ["bytes=", "bytes=-", "bytes=5-2", "bytes=0-1,4-5", "lines=1-2", "bytes=+1-2"]
        {
            assert_eq!(asked(range, None), Some((0, 10)), "{range}");
        }
        assert_eq!(asked("bytes=4-", Some("\"other\"")), Some((0, 10)));
    }
}
