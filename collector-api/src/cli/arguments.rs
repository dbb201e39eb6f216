//! What arguments of several commands look like.

use std::time::Duration;

/// A length of time: a number and a unit.
pub fn parse_ttl(text: &str) -> Result<Duration, String> {
    let wrong = || "a number and a unit: 30m, 24h, 7d (s, m, h, d)".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let count: u64 = text[..text.len() - unit.len_utf8()].parse().map_err(|_| wrong())?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A label: `name=value`.
pub fn parse_label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_have_a_unit() {
        assert_eq!(parse_ttl("90d"), Ok(Duration::from_hours(90 * 24)));
        assert_eq!(parse_ttl("30m"), Ok(Duration::from_mins(30)));
        for wrong in ["", "h", "5", "-1h", "1.5h", "1w", "99999999999999999999d", "5µ"] {
            assert!(parse_ttl(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_label_is_cut_at_its_first_sign() {
        assert_eq!(parse_label("role=a=b"), Ok(("role".into(), "a=b".into())));
        assert_eq!(parse_label("odd="), Ok(("odd".into(), String::new())));
        assert!(parse_label("odd").is_err());
    }
}
