//! Whether a release on probation stays. A pure decision: everything it rests on is passed in.
//!
//! | seen | verdict |
//! |---|---|
//! | the agent says that it works (two reports accepted, stable) | confirmed |
//! | the third start within [`STARTS_WITHIN`] without that | taken back |
//! | past the deadline, and the release before reaches a server for as long as the grace | taken back |
//! | past the deadline, and the release before reaches none either (429, 503, name, time-out, refused) | goes on |
//!
//! A server that is away says nothing about a release: a probation lasts until a server can be reached by one of the two. That the
//! release before *can* be served while this one does not report covers everything that is wrong with it: TLS, identity,
//! reports nobody takes, a loop that hangs.

use std::time::Duration;

use super::ledger::{Ledger, Moment};

/// The start that is one too many.
pub const MAX_STARTS: usize = 3;
/// Starts longer ago do not count; those of another boot do.
pub const STARTS_WITHIN: Duration = Duration::from_mins(5);
/// Reports that must be possible before the deadline.
const INTERVALS: u32 = 3;

/// What is decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It stays.
    Confirm,
    /// The release before runs again: why.
    RollBack(String),
    /// Nothing yet.
    Wait,
}

/// The times of `[update]`.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// `deadline_s`.
    pub deadline: Duration,
    /// `grace_s`.
    pub grace: Duration,
}

/// Notes a start, and whether it is one too many.
pub fn start(ledger: &mut Ledger, now: &Moment) -> Verdict {
    ledger.starts.retain(|start| now.since(start).is_none_or(|ago| ago < STARTS_WITHIN));
    ledger.starts.push(now.clone());
    if ledger.starts.len() < MAX_STARTS {
        return Verdict::Wait;
    }
    Verdict::RollBack(format!(
        "it was started {} times within {} min and never said that it works",
        ledger.starts.len(),
        STARTS_WITHIN.as_secs() / 60
    ))
}

/// Looks at a probation. `reaches` asks, by the release before, whether a server serves this host.
pub fn look(
    ledger: &mut Ledger,
    now: &Moment,
    times: Times,
    is_working: bool,
    reaches: impl FnOnce() -> bool,
) -> Verdict {
    if is_working {
        return Verdict::Confirm;
    }
    // A boot begins the probation anew: how long the host was off says nothing.
    let Some(lasted) = ledger.since.as_ref().and_then(|since| now.since(since)) else {
        ledger.since = Some(now.clone());
        ledger.reachable_since = None;
        return Verdict::Wait;
    };
    let intervals = Duration::from_secs(ledger.interval_s) * INTERVALS;
    if lasted < times.deadline.max(intervals) {
        return Verdict::Wait;
    }
    if !reaches() {
        ledger.reachable_since = None;
        return Verdict::Wait;
    }
    let since = ledger.reachable_since.get_or_insert_with(|| now.clone());
    match now.since(since) {
        Some(reached) if reached >= times.grace.max(intervals) => Verdict::RollBack(format!(
            "servers can be reached and took no two reports of it within {} s",
            lasted.as_secs()
        )),
        Some(_) => Verdict::Wait,
        None => {
            ledger.reachable_since = Some(now.clone());
            Verdict::Wait
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { deadline: Duration::from_mins(10), grace: Duration::from_mins(3) };

    fn at(boot: &str, up_s: u64) -> Moment {
        Moment { boot_id: boot.into(), up_s }
    }

    fn on_probation() -> Ledger {
        Ledger { since: Some(at("a", 0)), ..Ledger::default() }
    }

    /// Looks every minute from `from` to `to`; when it is taken back.
    fn taken_back(
        ledger: &mut Ledger,
        from: u64,
        to: u64,
        reaches: impl Fn(u64) -> bool,
    ) -> Option<u64> {
        (from..=to).find(|minute| {
            let verdict = look(ledger, &at("a", minute * 60), TIMES, false, || reaches(*minute));
            matches!(verdict, Verdict::RollBack(_))
        })
    }

    #[test]
    fn a_release_that_works_is_confirmed_at_any_time() {
        for minute in [0, 5, 700] {
            let now = at("a", minute * 60);
            let verdict = look(&mut on_probation(), &now, TIMES, true, || unreachable!());
            assert_eq!(verdict, Verdict::Confirm);
        }
    }

    #[test]
    fn one_that_never_works_is_taken_back_after_deadline_and_grace() {
        assert_eq!(taken_back(&mut on_probation(), 0, 60, |_| true), Some(13));
    }

    #[test]
    fn a_server_that_is_away_takes_nothing_back() {
        let mut ledger = on_probation();
        assert_eq!(taken_back(&mut ledger, 0, 24 * 60, |_| false), None);
        // And when it is back there is the whole grace to report in.
        assert_eq!(taken_back(&mut ledger, 1441, 1500, |_| true), Some(1444));
    }

    #[test]
    fn a_server_that_comes_and_goes_begins_the_grace_anew() {
        let comes_and_goes = |minute: u64| !minute.is_multiple_of(3);
        assert_eq!(taken_back(&mut on_probation(), 0, 600, comes_and_goes), None);
    }

    #[test]
    fn a_long_interval_has_time_for_its_reports() {
        let mut ledger = Ledger { interval_s: 3600, ..on_probation() };
        assert_eq!(taken_back(&mut ledger, 0, 600, |_| true), Some(360));
    }

    #[test]
    fn the_third_start_is_one_too_many() {
        let mut ledger = on_probation();
        assert_eq!(start(&mut ledger, &at("a", 1)), Verdict::Wait);
        assert_eq!(start(&mut ledger, &at("a", 7)), Verdict::Wait);
        assert!(matches!(start(&mut ledger, &at("a", 13)), Verdict::RollBack(_)));
    }

    #[test]
    fn starts_far_apart_do_not_count_and_those_of_other_boots_do() {
        let mut ledger = on_probation();
        for start_s in [0, 301, 602, 903] {
            assert_eq!(start(&mut ledger, &at("a", start_s)), Verdict::Wait, "{start_s}");
        }
        // A release that takes the kernel down with it.
        let mut ledger = on_probation();
        assert_eq!(start(&mut ledger, &at("a", 20)), Verdict::Wait);
        assert_eq!(start(&mut ledger, &at("b", 20)), Verdict::Wait);
        assert!(matches!(start(&mut ledger, &at("c", 20)), Verdict::RollBack(_)));
    }

    #[test]
    fn a_boot_begins_the_probation_anew() {
        let mut ledger = on_probation();
        let verdict = look(&mut ledger, &at("b", 7000), TIMES, false, || true);
        assert_eq!((verdict, ledger.since), (Verdict::Wait, Some(at("b", 7000))));
    }
}
