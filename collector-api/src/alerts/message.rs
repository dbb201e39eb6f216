//! What a message tells, and how it is made to fit: the lines of a text, and the characters that data
//! must not bring into it.

use time::OffsetDateTime;

use super::wording::{self, Language, Names};
use crate::store::notifications::Notification;

/// Longest a name from a host may be in a message, characters.
const MAX_NAME: usize = 100;

/// One message: one notification, or a digest of many.
#[derive(Clone, Debug)]
pub struct Message {
    /// Of its words.
    pub language: Language,
    /// What to tell; empty: a test.
    pub items: Vec<Notification>,
    /// When it is sent.
    pub now: OffsetDateTime,
}

impl Message {
    /// Its lines: a heading, then one per notification. What data brings went through `escape`.
    pub fn lines(&self, escape: fn(&str) -> String) -> Vec<String> {
        let mut lines = vec![wording::heading(self)];
        lines.extend(self.items.iter().map(|item| {
            let escaped = |text: &str| escape(&shortened(text));
            let names = Names {
                host: item.host_name.as_deref().map(escaped),
                rule: escaped(&item.rule),
                object: item.detail["object"].as_str().map(escaped),
            };
            wording::line(self.language, item, &names)
        }));
        lines
    }

    /// Its lines as one text of at most `limit` bytes. What does not fit is counted in the last line.
    pub fn text(&self, escape: fn(&str) -> String, limit: usize) -> String {
        let lines = self.lines(escape);
        // Room for the last line that counts.
        let room = limit.saturating_sub(64);
        let mut text = String::new();
        for (at, line) in lines.iter().enumerate() {
            let is_last = at + 1 == lines.len();
            if text.len() + line.len() + 1 > if is_last { limit } else { room } {
                if at == 0 {
                    cut(line, limit).clone_into(&mut text);
                } else {
                    text.push('\n');
                    text.push_str(&wording::more(self.language, lines.len() - at));
                }
                break;
            }
            if at > 0 {
                text.push('\n');
            }
            text.push_str(line);
        }
        cut(&text, limit).to_owned()
    }
}

/// The beginning of `text`, at most `bytes` long, cut between characters.
pub fn cut(text: &str, bytes: usize) -> &str {
    &text[..text.floor_char_boundary(bytes)]
}

fn shortened(name: &str) -> String {
    match name.char_indices().nth(MAX_NAME) {
        Some((at, _)) => format!("{}…", &name[..at]),
        None => name.to_owned(),
    }
}

/// Makes data harmless in a text without markup: one line, no mention, no address that a client makes
/// a link of. The replacements look like what they replace.
pub fn plain(text: &str) -> String {
    let mut harmless = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            // Also what reorders or hides text: bidirectional controls, zero-width characters, tags.
            c if c.is_control() || is_invisible(c) => harmless.push(' '),
            '@' | '＠' => harmless.push('＠'),
            '<' => harmless.push('‹'),
            '>' => harmless.push('›'),
            '&' => harmless.push('＆'),
            c => harmless.push(c),
        }
    }
    harmless.replace("://", ":∕∕").replace("www.", "www․").replace("WWW.", "WWW․")
}

/// As [`plain`], and without the characters that mark up: what several dialects of Markdown have in
/// common.
pub fn unmarked(text: &str) -> String {
    let alike = |character| match character {
        '*' => '∗',
        '_' => '＿',
        '`' => 'ˋ',
        '~' => '∼',
        '#' => '＃',
        '[' => '［',
        ']' => '］',
        '(' => '（',
        ')' => '）',
        '!' => '！',
        '|' => '｜',
        '\\' => '＼',
        other => other,
    };
    plain(text).chars().map(alike).collect()
}

fn is_invisible(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}
