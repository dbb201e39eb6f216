//! CPU of processes that ended since the walk before, for the residual row.
//!
//! Who is born and dies between two walks is never seen, and of who was seen, what it used after the
//! last walk. But the kernel adds the whole CPU of a process that is waited for (and of all it had waited
//! for itself) to its parent's `cutime` and `cstime`. So of each survivor these counters' growth, minus
//! what the vanished had used when they were seen last, is what nobody has reported yet.
//!
//! - **Whose growth**: a vanished process was reaped by its nearest surviving ancestor, or by a higher
//!   one that adopted it; what the nearest cannot account for is therefore taken from those above.
//! - **Races of a walk**: a parent is read before the child that is then reaped, so the growth comes one
//!   tick after the disappearance. What no ancestor could account for is taken from the nearest again in the next tick,
//!   then forgotten.
//! - **Bounds**: never negative, and with the rows never more than all CPUs of the host have.
//!
//! Limits: nothing is known of children nobody waits for (a parent that ignores SIGCHLD, or that ended
//! itself unwaited for); they stay missing, and at most as much of their ancestors' other children with them.
//! Only CPU: the kernel sums up no other counter of the dead that a report holds, but faults.

use std::collections::HashMap;

use super::dictionary::Table;
use super::live::Live;

/// Ancestors looked at; process trees are not deeper, and a torn one must not be endless.
const MAX_DEPTH: usize = 128;

/// CPU, in clock ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) user_ticks: u64,
    pub(super) system_ticks: u64,
}

impl Cpu {
    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            user_ticks: self.user_ticks.saturating_add(other.user_ticks),
            system_ticks: self.system_ticks.saturating_add(other.system_ticks),
        }
    }

    /// What is more than in `other`.
    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            user_ticks: self.user_ticks.saturating_sub(other.user_ticks),
            system_ticks: self.system_ticks.saturating_sub(other.system_ticks),
        }
    }

    /// The higher of each.
    pub(super) fn at_least(self, other: Self) -> Self {
        Self {
            user_ticks: self.user_ticks.max(other.user_ticks),
            system_ticks: self.system_ticks.max(other.system_ticks),
        }
    }

    /// `runtime` in the proportion of these two, where neither part falls below `before`
    /// (`cputime_adjust` of `kernel/sched/cputime.c`). What was never sampled counts as user time.
    pub(super) fn scaled(self, runtime: u64, before: Self) -> Self {
        if runtime <= before.total() {
            return before;
        }
        let system = match self.total() {
            0 => 0,
            total => u128::from(runtime) * u128::from(self.system_ticks) / u128::from(total),
        };
        let most = runtime - before.user_ticks;
        let system = u64::try_from(system).unwrap_or(u64::MAX).min(most).max(before.system_ticks);
        Self { user_ticks: runtime - system, system_ticks: system }
    }

    pub(super) fn total(self) -> u64 {
        self.user_ticks.saturating_add(self.system_ticks)
    }

    /// Takes away what both have; what is left of each.
    fn settle(&mut self, other: &mut Self) {
        let take = |one: &mut u64, other: &mut u64| {
            let both = (*one).min(*other);
            *one -= both;
            *other -= both;
        };
        take(&mut self.user_ticks, &mut other.user_ticks);
        take(&mut self.system_ticks, &mut other.system_ticks);
    }

    /// At most `ticks`, both parts in proportion.
    fn at_most(self, ticks: u64) -> Self {
        if self.total() <= ticks {
            return self;
        }
        let user = u128::from(self.user_ticks) * u128::from(ticks) / u128::from(self.total());
        let user_ticks = u64::try_from(user).unwrap_or(ticks);
        Self { user_ticks, system_ticks: ticks - user_ticks }
    }
}

/// Collected during a walk, balanced after it.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// Growth of what survivors waited for, by process id.
    reaped: HashMap<u32, Cpu>,
    /// Parent, and use as last seen, of who vanished, by process id.
    gone: HashMap<u32, (u32, Cpu)>,
    /// By the survivor it is owed to: what the tick before could not account for.
    owed: HashMap<u32, Cpu>,
    /// What the limit cut off in the tick before: the kernel counts in clock ticks, so on a busy host
    /// the rows of one interval reach the limit and those of the next fall short of it.
    over: Cpu,
}

impl Ended {
    /// A walk begins.
    pub(super) fn begin(&mut self) {
        self.reaped.clear();
        self.gone.clear();
    }

    /// What was not accounted for of what a survivor waited for, after [`Ended::balance`].
    #[cfg(test)]
    pub(super) fn reaped(&self, pid: u32) -> Cpu {
        self.reaped.get(&pid).copied().unwrap_or_default()
    }

    /// A survivor waited for children that had used this.
    pub(super) fn grew(&mut self, pid: u32, growth: Cpu) {
        if growth != Cpu::default() {
            self.reaped.insert(pid, growth);
        }
    }

    /// An instance was not seen again. `pid` may be another instance's by now.
    pub(super) fn gone(&mut self, pid: u32, live: &Live) {
        self.gone.insert(pid, (live.parent_pid, live.used()));
    }

    /// What the ended used since they were seen last; at most `limit` clock ticks, and what is above
    /// that in the next tick.
    pub(super) fn balance(&mut self, survivors: &Table, limit: u64) -> Cpu {
        for (pid, mut debt) in std::mem::take(&mut self.owed) {
            if let Some(growth) = self.reaped.get_mut(&pid) {
                growth.settle(&mut debt);
            }
        }
        let mut debts: HashMap<u32, Cpu> = HashMap::new();
        for (parent, used) in self.gone.values() {
            let debt = debts.entry(self.survivor(*parent)).or_default();
            *debt = debt.plus(*used);
        }
        for (nearest, mut debt) in debts {
            let mut pid = nearest;
            for _ in 0..MAX_DEPTH {
                if let Some(growth) = self.reaped.get_mut(&pid) {
                    growth.settle(&mut debt);
                }
                match survivors.get(&pid) {
                    Some(live) if debt != Cpu::default() => pid = live.parent_pid,
                    _ => break,
                }
            }
            if debt != Cpu::default() {
                self.owed.insert(nearest, debt);
            }
        }
        let sum = self.reaped.values().fold(Cpu::default(), |sum, growth| sum.plus(*growth));
        let mut rest = sum.plus(std::mem::take(&mut self.over));
        let counted = rest.at_most(limit);
        rest.settle(&mut { counted });
        self.over = rest.at_most(sum.total());
        counted
    }

    /// The nearest ancestor, from `pid` on, that did not vanish.
    fn survivor(&self, mut pid: u32) -> u32 {
        for _ in 0..MAX_DEPTH {
            match self.gone.get(&pid) {
                Some((parent, _)) => pid = *parent,
                None => break,
            }
        }
        pid
    }
}

/// Number of CPUs in a list like `0-3,8` (`/sys/devices/system/cpu/online`).
pub(super) fn count_cpus(list: &[u8]) -> Option<u64> {
    let list = str::from_utf8(list).ok()?;
    list.trim().split(',').try_fold(0_u64, |count, range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
        count.checked_add(last.checked_sub(first)?)?.checked_add(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus() {
        for (list, count) in [("0", Some(1)), ("0-3\n", Some(4)), ("0-1,4,6-7", Some(5))] {
            assert_eq!(count_cpus(list.as_bytes()), count, "{list}");
        }
        for bad in ["", "x", "3-1", "0-18446744073709551615", "1,"] {
            assert_eq!(count_cpus(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_limit_keeps_the_proportion() {
        let cpu = Cpu { user_ticks: 30, system_ticks: 10 };
        assert_eq!(cpu.at_most(40), cpu);
        assert_eq!(cpu.at_most(20), Cpu { user_ticks: 15, system_ticks: 5 });
        assert_eq!(cpu.at_most(0), Cpu::default());
    }
}
