use time::macros::datetime;

use super::*;

const NOW: OffsetDateTime = datetime!(2026-11-24 04:00 UTC);
const TARGET: i64 = 7;

fn rollout(state: RolloutState, percent: i16) -> Rollout {
    Rollout {
        rollout_id: Uuid::from_u128(1),
        target_seq: TARGET,
        state,
        percent,
        canary_count: 5,
        max_in_flight: 100,
        soak: Duration::minutes(30),
        advance: false,
        step_entered_at: NOW - Duration::minutes(31),
        reason: None,
    }
}

/// There, runs release 6, was not started.
fn host(number: u128) -> RolloutHost {
    RolloutHost {
        host_id: Uuid::from_u128(1000 + number),
        deadline_at: Some(NOW + Duration::MINUTE),
        is_gone: false,
        is_pinned: false,
        is_selected: true,
        installed_seq: Some(6),
        state: Some(UpdateState::Confirmed),
        tried_seq: Some(6),
        reason: None,
        changed_at: Some(NOW - Duration::DAY),
        started: None,
    }
}

fn under_way(mut host: RolloutHost) -> RolloutHost {
    host.started =
        Some(Started { at: NOW - Duration::minutes(20), is_canary: true, outcome: None });
    (host.state, host.tried_seq) = (Some(UpdateState::Downloading), Some(TARGET));
    host
}

fn says(host: RolloutHost, state: UpdateState) -> RolloutHost {
    let mut host = under_way(host);
    host.state = Some(state);
    if matches!(state, UpdateState::Confirmed | UpdateState::Probation) {
        host.installed_seq = Some(TARGET);
    }
    host
}

fn settled(host: RolloutHost, outcome: Outcome) -> RolloutHost {
    let mut host = match outcome {
        Outcome::Confirmed => says(host, UpdateState::Confirmed),
        Outcome::RolledBack => says(host, UpdateState::RolledBack),
        Outcome::Failed => says(host, UpdateState::Failed),
        Outcome::Lost => RolloutHost { deadline_at: Some(NOW - Duration::HOUR), ..under_way(host) },
    };
    host.started = host.started.map(|started| Started { outcome: Some(outcome), ..started });
    host
}

fn look(rollout: &Rollout, hosts: &[RolloutHost]) -> Decision {
    decide(rollout, hosts, true, NOW)
}

/// The hosts in the order of their buckets.
fn ordered(count: u128) -> Vec<RolloutHost> {
    let mut hosts: Vec<RolloutHost> = (0..count).map(host).collect();
    hosts.sort_by_key(|host| bucket(host.host_id, Uuid::from_u128(1)));
    hosts
}

fn ids(hosts: &[RolloutHost]) -> Vec<Uuid> {
    hosts.iter().map(|host| host.host_id).collect()
}

#[test]
fn a_bucket_is_what_it_was_and_another_in_each_rollout() {
    // printf '%032x%032x' 1000 1 | xxd -r -p | sha256sum
    assert_eq!(bucket(Uuid::from_u128(1000), Uuid::from_u128(1)), 0x9b8a_baed % 10_000);
    let of = |rollout: u128| {
        let buckets = (0..10_000).map(|n| bucket(Uuid::from_u128(n), Uuid::from_u128(rollout)));
        buckets.filter(|bucket| *bucket < 1000).count()
    };
    assert!((900..1100).contains(&of(1)) && of(1) != of(2), "{} {}", of(1), of(2));
}

#[test]
fn the_first_are_those_of_lowest_bucket_that_may() {
    let mut hosts = ordered(40);
    let changes: [fn(&mut RolloutHost); 9] = [
        |host| host.is_gone = true,
        |host| host.is_pinned = true,
        |host| host.is_selected = false,
        |host| host.state = None,
        |host| host.state = Some(UpdateState::Off),
        |host| host.deadline_at = Some(NOW),
        |host| host.deadline_at = None,
        |host| host.installed_seq = Some(TARGET),
        |host| (host.state, host.tried_seq) = (Some(UpdateState::RolledBack), Some(TARGET)),
    ];
    for (host, change) in hosts.iter_mut().zip(changes) {
        change(host);
    }
    let decision = look(&rollout(RolloutState::Canary, 0), &hosts);
    assert_eq!(decision.start, ids(&hosts[9..14]));
    assert_eq!((decision.state, decision.percent), (RolloutState::Canary, 0));
    // One of them leaves: the next takes its place. What was not installed with a release is no reason.
    for host in &mut hosts[9..14] {
        *host = under_way(host.clone());
    }
    hosts[9].is_gone = true;
    hosts[14].installed_seq = None;
    let decision = look(&rollout(RolloutState::Canary, 0), &hosts);
    assert_eq!(decision.withdraw, ids(&hosts[9..10]));
    assert_eq!(decision.start, ids(&hosts[14..15]));
}

#[test]
fn what_becomes_of_a_host() {
    let minutes = |m| NOW - Duration::minutes(m);
    let since =
        |state, changed_at| RolloutHost { changed_at: Some(changed_at), ..says(host(0), state) };
    let silent = |deadline_at| RolloutHost { deadline_at: Some(deadline_at), ..under_way(host(0)) };
    let told = |at| RolloutHost {
        started: Some(Started { at, is_canary: true, outcome: None }),
        ..under_way(host(0))
    };
    let of_another = RolloutHost { tried_seq: Some(6), ..says(host(0), UpdateState::RolledBack) };
    let idle = RolloutHost { installed_seq: Some(TARGET), ..says(host(0), UpdateState::Idle) };
    let table = [
        (says(host(0), UpdateState::Requested), None),
        (says(host(0), UpdateState::Probation), None),
        (says(host(0), UpdateState::Confirmed), Some(Outcome::Confirmed)),
        (idle, Some(Outcome::Confirmed)),
        (says(host(0), UpdateState::RolledBack), Some(Outcome::RolledBack)),
        (of_another, None),
        (since(UpdateState::Failed, minutes(14)), None),
        (since(UpdateState::Failed, minutes(15)), Some(Outcome::Failed)),
        (silent(minutes(14)), None),
        (silent(minutes(15)), Some(Outcome::Lost)),
        (told(minutes(119)), None),
        (told(minutes(120)), Some(Outcome::Failed)),
        // As it seemed, and as it was.
        (settled(host(0), Outcome::Lost), None),
        (
            RolloutHost {
                started: settled(host(0), Outcome::Lost).started,
                ..says(host(0), UpdateState::Confirmed)
            },
            Some(Outcome::Confirmed),
        ),
    ];
    for (host, expected) in table {
        let decision = look(&rollout(RolloutState::Halted, 0), std::slice::from_ref(&host));
        let found: Vec<_> = decision.settle.iter().map(|settled| settled.outcome).collect();
        assert_eq!(found, Vec::from_iter(expected), "{host:?}");
        assert!(decision.withdraw.is_empty() && decision.start.is_empty());
        // While nobody watches, silence says nothing.
        if expected == Some(Outcome::Lost) {
            let blind = decide(&rollout(RolloutState::Rolling, 1), &[host], false, NOW);
            assert_eq!(blind.settle, []);
        }
    }
}

#[test]
fn harm_halts() {
    use Outcome::{Confirmed, Failed, Lost, RolledBack};
    let table: [(usize, &[Outcome], bool); 9] = [
        (5, &[], false),
        (5, &[RolledBack], true),
        (5, &[Lost], true),
        (6, &[RolledBack], false),
        (19, &[RolledBack, Failed], false),
        (19, &[RolledBack, Failed, Lost], true),
        (20, &[Lost], false),
        (39, &[Lost, Failed], true),
        (40, &[Lost, Failed], false),
    ];
    for (started, bad, halts) in table {
        let mut hosts = ordered(started as u128);
        for (at, host) in hosts.iter_mut().enumerate() {
            *host = settled(host.clone(), bad.get(at).copied().unwrap_or(Confirmed));
        }
        for (state, percent) in [(RolloutState::Rolling, 10), (RolloutState::Paused, 10)] {
            let decision = look(&rollout(state, percent), &hosts);
            assert_eq!(decision.state == RolloutState::Halted, halts, "{started} {bad:?}");
            assert_eq!(decision.reason.is_some_and(|why| why.contains("rolled back")), halts);
        }
    }
}

#[test]
fn the_next_step_waits_for_the_soak_and_for_nine_of_ten() {
    let ten = || -> Vec<RolloutHost> {
        ordered(10).into_iter().map(|host| settled(host, Outcome::Confirmed)).collect()
    };
    let step = |change: &dyn Fn(&mut Rollout, &mut [RolloutHost])| {
        let (mut rollout, mut hosts) = (rollout(RolloutState::Canary, 0), ten());
        rollout.canary_count = 10;
        change(&mut rollout, &mut hosts);
        let decision = look(&rollout, &hosts);
        (decision.percent, decision.reason.unwrap_or_default())
    };
    let silent = |hosts: &mut [RolloutHost]| {
        for host in hosts {
            host.deadline_at = Some(NOW);
        }
    };
    let behind = |hosts: &mut [RolloutHost]| {
        for host in hosts {
            *host = under_way(host.clone());
        }
    };
    let early = |rollout: &mut Rollout| rollout.step_entered_at = NOW - Duration::minutes(29);
    assert_eq!(step(&|_, _| ()), (1, String::new()));
    assert_eq!(step(&|_, hosts| silent(&mut hosts[..1])).0, 1);
    assert_eq!(step(&|_, hosts| behind(&mut hosts[..1])).0, 1);
    let (percent, why) = step(&|_, hosts| silent(&mut hosts[..2]));
    assert!(percent == 0 && why.starts_with("8 of 10 hosts are there"), "{why}");
    let (percent, why) = step(&|_, hosts| behind(&mut hosts[..2]));
    assert!(percent == 0 && why.starts_with("8 of 10 hosts run it"), "{why}");
    let (percent, why) = step(&|rollout, _| early(rollout));
    assert_eq!((percent, why.as_str()), (0, "it is looked at until 2026-11-24T04:01:00Z"));
    let advanced = |rollout: &mut Rollout| {
        early(rollout);
        rollout.advance = true;
    };
    assert_eq!(step(&|rollout, _| advanced(rollout)).0, 1);
    let hurried = |rollout: &mut Rollout, hosts: &mut [RolloutHost]| {
        advanced(rollout);
        behind(&mut hosts[..2]);
    };
    assert_eq!(step(&hurried).0, 0, "an operator's hurry is no proof");
    let blind = decide(&rollout(RolloutState::Canary, 0), &ten(), false, NOW);
    assert_eq!(blind.percent, 0);
    let nobody = look(&rollout(RolloutState::Canary, 0), &[]);
    assert!(nobody.percent == 0 && nobody.reason.unwrap().starts_with("no host is there"));
}

#[test]
fn each_step_tells_its_share_and_never_too_many_at_once() {
    let mut hosts = ordered(2000);
    let mut rollout = rollout(RolloutState::Canary, 0);
    rollout.max_in_flight = 300;
    let mut seen = Vec::new();
    for _ in 0..40 {
        let decision = look(&rollout, &hosts);
        let under_way = hosts
            .iter()
            .filter(|host| host.started.is_some_and(|started| started.outcome.is_none()))
            .count();
        assert!(under_way - decision.settle.len() + decision.start.len() <= 300);
        if decision.percent != rollout.percent || decision.state != rollout.state {
            let started = hosts.iter().filter(|host| host.started.is_some()).count();
            seen.push((decision.state, decision.percent, started));
        }
        (rollout.state, rollout.percent) = (decision.state, decision.percent);
        for host in &mut hosts {
            if decision.start.contains(&host.host_id) {
                *host = says(host.clone(), UpdateState::Confirmed);
            }
            if decision.settle.iter().any(|settled| settled.host_id == host.host_id) {
                *host = settled(host.clone(), Outcome::Confirmed);
            }
        }
        if rollout.state == RolloutState::Done {
            break;
        }
    }
    let share = |percent: u32| {
        let low = |host: &&RolloutHost| bucket(host.host_id, rollout.rollout_id) < percent * 100;
        hosts.iter().filter(low).count()
    };
    let rolling = RolloutState::Rolling;
    assert_eq!(
        seen,
        [
            (rolling, 1, 5),
            (rolling, 10, share(1)),
            (rolling, 50, share(10)),
            (rolling, 100, share(50)),
            (RolloutState::Done, 100, 2000)
        ]
    );
}

#[test]
fn what_is_over_or_held_starts_nobody_and_what_is_done_serves_who_comes_later() {
    for state in [RolloutState::Paused, RolloutState::Halted, RolloutState::Cancelled] {
        let decision = look(&rollout(state, 100), &ordered(3));
        assert_eq!((decision.start, decision.state), (Vec::new(), state));
    }
    let mut hosts = ordered(5);
    hosts[0].installed_seq = Some(TARGET + 1);
    hosts[1].installed_seq = None;
    for host in &mut hosts[3..] {
        *host = settled(host.clone(), Outcome::RolledBack);
    }
    let decision = look(&rollout(RolloutState::Done, 100), &hosts);
    assert_eq!((decision.start, decision.state), (ids(&hosts[1..3]), RolloutState::Done));
}
