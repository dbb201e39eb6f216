//! What hosts say of themselves, made harmless for messages to people: host names, command lines, endpoints.

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
