//! An error and its causes in one line, for logs and reports.

/// The error, then what caused it, and what caused that.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot look")]
    struct Outer(#[source] io::Error);

    #[test]
    fn causes_follow_in_their_order() {
        assert_eq!(chain(&Outer(io::Error::other("dark"))), "cannot look: dark");
        assert_eq!(chain(&io::Error::other("dark")), "dark");
    }
}
