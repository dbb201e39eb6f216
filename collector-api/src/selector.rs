//! Which hosts, by their labels, as Kubernetes writes it: requirements separated by commas, all of which
//! must hold.
//!
//! | requirement | holds for a host |
//! |---|---|
//! | `env=prod`, `env==prod` | whose label `env` is `prod` |
//! | `env!=prod` | whose label `env` is something else, or missing |
//! | `env in (prod, test)` | whose label `env` is one of these |
//! | `env notin (prod, test)` | whose label `env` is none of these, or missing |
//! | `env` | that has a label `env` |
//! | `!env` | that has none |
//!
//! The database decides by `procfleet_selects`, which is handed the requirements as JSON; what is here
//! and what is there are held equal by a test. Values hold no comma and no parenthesis.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Most requirements.
pub const MAX_REQUIREMENTS: usize = 16;
/// Most values of one requirement.
const MAX_VALUES: usize = 64;

/// Requirements that must all hold; none: every host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// What one label must be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Requirement {
    name: String,
    operator: Operator,
    /// Empty for `exists` and `absent`.
    values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
}

/// What is wrong with a selector.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Too long.
    #[error("has more than {MAX_REQUIREMENTS} requirements")]
    TooMany,
    /// Not one of the forms.
    #[error(
        "has the part {0:?}: it must be `name=value`, `name!=value`, `name in (a, b)`, `name notin (a, b)`, `name` or `!name`"
    )]
    Requirement(String),
}

impl Selector {
    /// Reads one; without any requirement it is an error, for `a=1,` is a slip of somebody's fingers.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let parts = split(text);
        if parts.len() > MAX_REQUIREMENTS {
            return Err(SelectorError::TooMany);
        }
        let requirement = |part: &&str| {
            requirement(part.trim()).ok_or_else(|| SelectorError::Requirement(part.trim().into()))
        };
        Ok(Self { requirements: parts.iter().map(requirement).collect::<Result<_, _>>()? })
    }

    /// Whether a host with these labels is meant.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = labels.get(&requirement.name);
            let is_one = value.is_some_and(|value| requirement.values.contains(value));
            match requirement.operator {
                Operator::In => is_one,
                Operator::NotIn => !is_one,
                Operator::Exists => value.is_some(),
                Operator::Absent => value.is_none(),
            }
        })
    }
}

/// At the commas that are not within parentheses.
fn split(text: &str) -> Vec<&str> {
    let mut inside = false;
    text.split(|letter| {
        inside = match letter {
            '(' => true,
            ')' => false,
            _ => inside,
        };
        letter == ',' && !inside
    })
    .collect()
}

fn requirement(part: &str) -> Option<Requirement> {
    let of = |name: &str, operator, values: Vec<String>| {
        let name = name.trim();
        let usable =
            is_name(name) && values.len() <= MAX_VALUES && values.iter().all(|v| is_value(v));
        usable.then(|| Requirement { name: name.into(), operator, values })
    };
    if let Some((name, value)) = part.split_once("!=") {
        return of(name, Operator::NotIn, vec![value.trim().into()]);
    }
    if let Some((name, value)) = part.split_once('=') {
        let value = value.strip_prefix('=').unwrap_or(value);
        return of(name, Operator::In, vec![value.trim().into()]);
    }
    if let Some(list) = part.strip_suffix(')') {
        let (head, list) = list.split_once('(')?;
        let (name, word) = head.trim().rsplit_once(char::is_whitespace)?;
        let values = list.split(',').map(|value| value.trim().to_owned()).collect();
        return match word {
            "in" => of(name, Operator::In, values),
            "notin" => of(name, Operator::NotIn, values),
            _ => None,
        };
    }
    match part.strip_prefix('!') {
        Some(name) => of(name, Operator::Absent, Vec::new()),
        None => of(part, Operator::Exists, Vec::new()),
    }
}

/// Whether a label can have this name: 1 to 63 bytes of ASCII letters, digits, `.`, `_`, `-` and `/`.
pub fn is_name(name: &str) -> bool {
    (1..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte))
}

/// Whether a label can have this value: at most 255 bytes, no control character, comma or parenthesis.
pub fn is_value(value: &str) -> bool {
    value.len() <= 255
        && !value.contains(|c: char| c.is_control() || matches!(c, ',' | '(' | ')'))
        && value.trim() == value
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|&(name, value)| (name.into(), value.into())).collect()
    }

    #[test]
    fn requirements_hold_as_the_table_says() {
        let host = labels(&[("env", "prod"), ("role", "a=b"), ("empty", "")]);
        for (text, holds) in [
            ("env=prod", true),
            ("env==prod", true),
            ("env = prod , role=a=b", true),
            ("env=test", false),
            ("env!=test", true),
            ("env!=prod", false),
            ("other!=x", true),
            ("env in (test, prod)", true),
            ("env in (test)", false),
            ("env notin (test,x),empty=", true),
            ("env notin (prod)", false),
            ("other notin (prod)", true),
            ("env", true),
            ("other", false),
            ("!other", true),
            ("!env", false),
        ] {
            assert_eq!(Selector::parse(text).unwrap().matches(&host), holds, "{text}");
        }
        assert!(Selector::default().matches(&host));
    }

    #[test]
    fn anything_else_is_refused_with_the_part() {
        let many = vec!["a=1"; MAX_REQUIREMENTS + 1].join(",");
        assert_eq!(Selector::parse(&many), Err(SelectorError::TooMany));
        for (text, part) in [
            ("", ""),
            ("a=1,", ""),
            ("a=1,=x", "=x"),
            ("a in b", "a in b"),
            ("a of (b)", "a of (b)"),
            ("in (b)", "in (b)"),
            ("a in (b", "a in (b"),
            ("a b", "a b"),
            ("ä=1", "ä=1"),
            ("a=(", "a=("),
            ("a=\u{7}x", "a=\u{7}x"),
        ] {
            assert_eq!(
                Selector::parse(text),
                Err(SelectorError::Requirement(part.into())),
                "{text}"
            );
        }
    }
}
