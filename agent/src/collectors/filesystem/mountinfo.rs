//! The layout of `/proc/self/mountinfo` (proc(5)).

use crate::procfs::ParseError;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the superblock: the same for every mount of it.
    pub device_number: String,
    /// What of the file system is mounted: `/`, or a directory for a bind mount or a subvolume.
    pub root: String,
    /// Where, octal escapes undone; bytes that are not UTF-8 replaced.
    pub mount_point: String,
    /// File system type, such as `xfs`.
    pub filesystem_type: String,
    /// What, such as `/dev/vda1` or `nas:/export`.
    pub source: String,
}

impl Mount {
    /// On a block device of this host, where statvfs(2) answers from memory.
    pub fn is_local(&self) -> bool {
        self.source.starts_with("/dev/") && !self.filesystem_type.starts_with("fuse")
    }
}

/// Reads the file. The error says what is wrong with it.
pub fn parse(bytes: &[u8]) -> Result<Vec<Mount>, ParseError> {
    bytes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()).map(parse_line).collect()
}

/// `id parent major:minor root mount-point options [tag…] - type source super-options`.
fn parse_line(line: &[u8]) -> Result<Mount, ParseError> {
    // Single spaces: an empty source leaves an empty word.
    let mut words = line.split(|&byte| byte == b' ');
    let device_number = words.nth(2).ok_or(ParseError("major:minor"))?;
    let root = words.next().ok_or(ParseError("root"))?;
    let mount_point = words.next().ok_or(ParseError("mount point"))?;
    words.by_ref().find(|word| *word == b"-").ok_or(ParseError("separator"))?;
    let filesystem_type = words.next().ok_or(ParseError("filesystem type"))?;
    let source = words.next().unwrap_or_default();
    Ok(Mount {
        device_number: unescape(device_number),
        root: unescape(root),
        mount_point: unescape(mount_point),
        filesystem_type: unescape(filesystem_type),
        source: unescape(source),
    })
}

/// Undoes `\ooo`, as the kernel writes space, tab, newline, backslash and `#`. What is not such an
/// escape stays. A NUL or other control character, which no row may hold, becomes U+FFFD.
fn unescape(word: &[u8]) -> String {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word;
    while let Some((&first, tail)) = rest.split_first() {
        rest = tail;
        let octal = |digit: u8| (b'0'..=b'7').contains(&digit).then(|| u16::from(digit - b'0'));
        let escaped = match *tail {
            [a, b, c, ..] if first == b'\\' => octal(a)
                .zip(octal(b))
                .zip(octal(c))
                .and_then(|((a, b), c)| u8::try_from(a * 64 + b * 8 + c).ok()),
            _ => None,
        };
        if escaped.is_some() {
            rest = &tail[3..];
        }
        bytes.push(escaped.unwrap_or(first));
    }
    let text = String::from_utf8_lossy(&bytes);
    text.chars().map(|c| if c == '\0' { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Mount {
        parse(line.as_bytes()).unwrap().remove(0)
    }

    #[test]
    fn tags_are_optional() {
        for line in [
            "36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n",
            "36 35 98:0 /mnt1 /mnt2 rw,noatime - ext3 /dev/root rw\n",
            "36 35 98:0 /mnt1 /mnt2 rw shared:2 master:1 propagate_from:3 - ext3 /dev/root rw",
        ] {
            let mount = one(line);
            assert_eq!(mount.device_number, "98:0");
            assert_eq!((mount.root.as_str(), mount.mount_point.as_str()), ("/mnt1", "/mnt2"));
            assert_eq!(
                (mount.filesystem_type.as_str(), mount.source.as_str()),
                ("ext3", "/dev/root")
            );
        }
    }

    #[test]
    fn escapes_and_odd_bytes() {
        let check = |escaped: &[u8], expected: &str| assert_eq!(unescape(escaped), expected);
        check(br"/a\040b\011c\012d\134e\043", "/a b\tc\nd\\e#");
        check(br"/plain\", r"/plain\");
        check(br"/\9zz\04", r"/\9zz\04");
        check(br"/\777", r"/\777");
        check(b"/caf\xc3\xa9/\xff", "/caf\u{e9}/\u{fffd}");
        check(br"/nul\000", "/nul\u{fffd}");
    }

    #[test]
    fn an_empty_source_is_empty() {
        assert_eq!(one("36 35 0:9 / /x rw - nfs  rw").source, "");
    }

    #[test]
    fn what_is_not_mountinfo_says_so() {
        for bytes in [&b"a b\n"[..], b"1 2 3:4 / /x rw ext4 dev rw\n", b"1 2 3:4 / /x rw -"] {
            assert!(parse(bytes).is_err(), "{bytes:?}");
        }
    }
}
