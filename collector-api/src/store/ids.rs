//! Ids as operators see them.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;
use uuid::Uuid;

/// Key of a process: md5 of its command line, 32 lower-case hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, sqlx::Type, ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, pattern = "^[0-9a-f]{32}$", example = "9e107d9d372bb6826bd81d3542a419d6")]
pub struct ProcessKey(pub Uuid);

impl Serialize for ProcessKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0.simple())
    }
}

impl<'de> Deserialize<'de> for ProcessKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let hex = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        hex.then(|| Uuid::try_parse(&text).ok())
            .flatten()
            .map(Self)
            .ok_or_else(|| D::Error::custom("a process id is 32 hex digits"))
    }
}

/// Key of an instance within its host, a decimal number in a string: JavaScript reads integers above
/// 2⁵³ wrongly. `0` is the residual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, sqlx::Type, ToSchema)]
#[sqlx(transparent)]
#[schema(value_type = String, pattern = "^[0-9]{1,19}$", example = "4611686018427387904")]
pub struct InstanceKey(pub i64);

impl Serialize for InstanceKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for InstanceKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse()
            .ok()
            .filter(|id| *id >= 0)
            .map(Self)
            .ok_or_else(|| D::Error::custom("an instance id is a decimal number below 2⁶³"))
    }
}

/// `text` as a pattern of SQL's LIKE that matches where the text occurs, character for character.
pub(super) fn like_pattern(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 2);
    pattern.push('%');
    for character in text.chars() {
        if matches!(character, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(character);
    }
    pattern.push('%');
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_their_text_literally() {
        assert_eq!(like_pattern(""), "%%");
        assert_eq!(like_pattern(r"50%_\'"), r"%50\%\_\\'%");
    }

    #[test]
    fn ids_are_read_as_they_are_written() {
        let json = r#""9223372036854775807""#;
        assert_eq!(serde_json::from_str::<InstanceKey>(json).unwrap().0, i64::MAX);
        assert_eq!(serde_json::to_string(&InstanceKey(i64::MAX)).unwrap(), json);
        for wrong in [r#""-1""#, r#""9223372036854775808""#, r#""""#, r#""1 ""#, "1"] {
            serde_json::from_str::<InstanceKey>(wrong).unwrap_err();
        }
        let json = r#""9e107d9d372bb6826bd81d3542a419d6""#;
        let id: ProcessKey = serde_json::from_str(json).unwrap();
        assert_eq!(serde_json::to_string(&id).unwrap(), json);
        for wrong in [r#""9e107d9d-372b-b682-6bd8-1d3542a419d6""#, r#""9e""#, r#""""#] {
            serde_json::from_str::<ProcessKey>(wrong).unwrap_err();
        }
    }
}
