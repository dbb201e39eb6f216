//! `/etc/passwd` (passwd(5)).

use std::collections::HashMap;

use super::{lines, parse_u64};

/// Names by user id; the first line of an id wins, as in getpwuid(3). Lines that are not
/// `name:password:uid:…` are passed over: comments, NIS `+` entries, damage.
pub fn parse_passwd(bytes: &[u8]) -> HashMap<u32, String> {
    let mut names = HashMap::new();
    for line in lines(bytes) {
        let mut fields = line.split(|&byte| byte == b':');
        let (Some(name), Some(_), Some(user)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let Some(user) = parse_u64(user).and_then(|user| u32::try_from(user).ok()) else {
            continue;
        };
        if !name.is_empty() && !name.starts_with(b"#") && !name.starts_with(b"+") {
            names.entry(user).or_insert_with(|| String::from_utf8_lossy(name).into_owned());
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_by_id() {
        let file = b"root:x:0:0:root:/root:/bin/bash\ntoor:x:0:0::/root:/bin/sh\n#c:x:5:5\n\n\
            +nis:x:6:6::\nbroken\nalice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh\nneg:x:-2:0::\n";
        let names = parse_passwd(file);
        assert_eq!(names.len(), 2);
        assert_eq!(names[&0], "root");
        assert_eq!(names[&1000], "alice");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse_passwd(&bytes);
        }
    }
}
