//! Files of `/proc/<pid>`: `stat`, `statm`, `io`, `status` (`proc_pid_stat(5)` and its neighbours).

use super::{ParseError, amount_of, fields, parse_u64, value_of};

/// `PF_KTHREAD` of the task flags, the same since Linux 2.6.27.
const KERNEL_THREAD: u64 = 0x0020_0000;

/// What is used of `stat`. Times are clock ticks, summed over all threads, dead ones included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Field 2 without its parentheses: any bytes but NUL, white space and parentheses included.
    pub comm: &'a [u8],
    /// Field 3.
    pub state: u8,
    /// Field 4.
    pub parent_pid: u32,
    /// Field 9, bit `PF_KTHREAD`.
    pub is_kernel_thread: bool,
    /// Field 10.
    pub faults_minor: u64,
    /// Field 12.
    pub faults_major: u64,
    /// Field 14.
    pub user_ticks: u64,
    /// Field 15.
    pub system_ticks: u64,
    /// Field 16: user time of all descendants that were waited for.
    pub children_user_ticks: u64,
    /// Field 17: system time, the same.
    pub children_system_ticks: u64,
    /// Field 20. 0: the process was reaped while being read, and its times read 0.
    pub thread_count: u32,
    /// Field 22.
    pub start_ticks: u64,
    /// Fields 26 and 28, `startcode` and `startstack`: address space randomisation changes them with
    /// every exec. 1 and 0 without the right to trace the process, then they tell nothing.
    pub image: (u64, u64),
}

impl Stat<'_> {
    /// A zombie, or a dead task that is being removed.
    pub fn is_dead(&self) -> bool {
        matches!(self.state, b'Z' | b'X' | b'x')
    }
}

/// Parses `stat`. `comm` may hold anything, so fields are counted from the *last* `)`.
pub fn parse_stat(bytes: &[u8]) -> Result<Stat<'_>, ParseError> {
    let open = bytes.iter().position(|&byte| byte == b'(').ok_or(ParseError("comm"))?;
    let close = bytes.iter().rposition(|&byte| byte == b')').ok_or(ParseError("comm"))?;
    let comm = bytes.get(open + 1..close).ok_or(ParseError("comm"))?;
    let mut rest = fields(&bytes[close + 1..]);
    let state = match rest.next() {
        Some([state]) => *state,
        _ => return Err(ParseError("state")),
    };
    // `rest` now begins with field 4.
    let mut next = 4;
    let mut field = |number: usize, name| {
        let value = rest.nth(number - next).and_then(parse_u64).ok_or(ParseError(name));
        next = number + 1;
        value
    };
    let small = |value: u64, name| u32::try_from(value).map_err(|_| ParseError(name));
    Ok(Stat {
        comm,
        state,
        parent_pid: small(field(4, "ppid")?, "ppid")?,
        is_kernel_thread: field(9, "flags")? & KERNEL_THREAD != 0,
        faults_minor: field(10, "minflt")?,
        faults_major: field(12, "majflt")?,
        user_ticks: field(14, "utime")?,
        system_ticks: field(15, "stime")?,
        children_user_ticks: field(16, "cutime")?,
        children_system_ticks: field(17, "cstime")?,
        thread_count: small(field(20, "num_threads")?, "num_threads")?,
        start_ticks: field(22, "starttime")?,
        image: (field(26, "startcode")?, field(28, "startstack")?),
    })
}

/// Resident pages: field 2 of `statm`.
pub fn parse_statm(bytes: &[u8]) -> Result<u64, ParseError> {
    fields(bytes).nth(1).and_then(parse_u64).ok_or(ParseError("resident"))
}

/// What is used of `io`. Bytes, all threads, dead ones included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Io {
    /// Fetched from storage.
    pub read_bytes: u64,
    /// Made dirty, to be sent to storage.
    pub write_bytes: u64,
    /// Of what this process would have caused to be sent, cut off before it was.
    pub cancelled_write_bytes: u64,
}

/// Parses `io`.
pub fn parse_io(bytes: &[u8]) -> Result<Io, ParseError> {
    let field = |name| amount_of(bytes, name).ok_or(ParseError(name));
    Ok(Io {
        read_bytes: field("read_bytes")?,
        write_bytes: field("write_bytes")?,
        cancelled_write_bytes: field("cancelled_write_bytes")?,
    })
}

/// Swapped out, bytes: `VmSwap` of `status` (Linux 2.6.34+). 0 for what has no memory at all
/// (kernel threads, zombies: no `Vm` line); `None` where the kernel does not say.
pub fn parse_status_swap(bytes: &[u8]) -> Option<u64> {
    amount_of(bytes, "VmSwap").or_else(|| value_of(bytes, "VmSize").is_none().then_some(0))
}

/// Effective user id: the second value of `Uid` of `status`. (The owner of `/proc/<pid>` is root for
/// processes that made themselves undumpable.)
pub fn parse_status_user(bytes: &[u8]) -> Option<u32> {
    let effective = fields(value_of(bytes, "Uid")?).nth(1)?;
    parse_u64(effective).and_then(|user| user.try_into().ok())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stat_of(comm: &str) -> String {
        format!(
            "42 ({comm}) S 7 42 42 0 -1 4194560 100 200 3 4 50 60 70 80 20 0 9 0 4711 1000 20 \
             18446744073709551615 4096 8192 140000 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        )
    }

    #[test]
    fn comm_may_hold_anything() {
        for comm in ["bash", "a b", "(sd-pam)", ") R 1 1", "a\nb", "((", "))", "", "\u{fffd}"] {
            let text = stat_of(comm);
            let stat = parse_stat(text.as_bytes()).unwrap();
            assert_eq!(
                stat,
                Stat {
                    comm: comm.as_bytes(),
                    state: b'S',
                    parent_pid: 7,
                    is_kernel_thread: false,
                    faults_minor: 100,
                    faults_major: 3,
                    user_ticks: 50,
                    system_ticks: 60,
                    children_user_ticks: 70,
                    children_system_ticks: 80,
                    thread_count: 9,
                    start_ticks: 4711,
                    image: (4096, 140_000),
                },
                "{comm:?}"
            );
        }
    }

    #[test]
    fn kernel_threads_are_told_by_their_flag() {
        let text = b"2 (kthreadd) S 0 0 0 0 -1 2129984 0 0 0 0 0 1 0 0 20 0 1 0 5 0 0 \
            18446744073709551615 0 0 0 0 0 0 0 2147483647 0 0 0 0 0 0 0 0 0 0 0\n";
        let stat = parse_stat(text).unwrap();
        assert!(stat.is_kernel_thread);
        assert_eq!((stat.parent_pid, stat.start_ticks), (0, 5));
    }

    #[test]
    fn what_is_cut_short_names_the_field() {
        let text = stat_of("x");
        let cut = |fields: usize| text.split(' ').take(fields).collect::<Vec<_>>().join(" ");
        for (fields, name) in
            [(1, "comm"), (2, "state"), (3, "ppid"), (14, "stime"), (21, "starttime")]
        {
            assert_eq!(parse_stat(cut(fields).as_bytes()), Err(ParseError(name)));
        }
        assert_eq!(parse_stat(b""), Err(ParseError("comm")));
        assert_eq!(parse_stat(b"1 )( S"), Err(ParseError("comm")));
    }

    #[test]
    fn statm_io_and_status() {
        assert_eq!(parse_statm(b"765 434 406 5 0 123 0\n"), Ok(434));
        assert_eq!(parse_statm(b"765\n"), Err(ParseError("resident")));
        let io = b"rchar: 7\nwchar: 8\nsyscr: 1\nsyscw: 2\nread_bytes: 4096\nwrite_bytes: 8192\ncancelled_write_bytes: 512\n";
        assert_eq!(
            parse_io(io),
            Ok(Io { read_bytes: 4096, write_bytes: 8192, cancelled_write_bytes: 512 })
        );
        assert_eq!(parse_io(b"rchar: 7\n"), Err(ParseError("read_bytes")));
        let user = b"Name:\tx\nUid:\t1000\t1001\t1002\t1003\nVmSize:\t10 kB\nVmSwap:\t12 kB\n";
        assert_eq!(
            (parse_status_user(user), parse_status_swap(user)),
            (Some(1001), Some(12 << 10))
        );
        assert_eq!(parse_status_swap(b"Name:\tkthreadd\n"), Some(0), "no memory, no swap");
        assert_eq!(parse_status_swap(b"VmSize:\t10 kB\n"), None, "a kernel that does not say");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(stat) = parse_stat(&bytes) {
                prop_assert!(stat.comm.len() < bytes.len());
            }
            prop_assert!(parse_statm(&bytes).is_err() || bytes.len() >= 3);
            prop_assert!(parse_io(&bytes).is_err(), "no random bytes hold its three names");
            prop_assert!(parse_status_user(&bytes).is_none());
            prop_assert!(parse_status_swap(&bytes).is_none_or(|swap| swap == 0));
        }

        #[test]
        fn damaged_files_never_panic(position in 0_usize..200, byte: u8, cut in 0_usize..250) {
            let mut text = stat_of("a (b) c").into_bytes();
            if let Some(place) = text.get_mut(position) {
                *place = byte;
            }
            text.truncate(cut);
            if let Ok(stat) = parse_stat(&text) {
                prop_assert!(stat.comm.len() < text.len());
            }
        }
    }
}
