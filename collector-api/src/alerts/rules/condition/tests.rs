use super::*;

const START: OffsetDateTime = time::macros::datetime!(2026-11-23 12:00:00 UTC);

fn condition(recover: f64, for_s: i64, calm_s: i64) -> Condition {
    Condition {
        below: false,
        threshold: 10.0,
        recover_threshold: recover,
        holds_for: Duration::seconds(for_s),
        calm_for: Duration::seconds(calm_s),
    }
}

/// Feeds (second, value) of an object that is sampled every 30 s; returns (second, change) of each change.
fn run(condition: &Condition, samples: &[(i64, f64)]) -> Vec<(i64, Change)> {
    let (mut phase, mut changes) = (None, Vec::new());
    for &(second, value) in samples {
        let at = START + Duration::seconds(second);
        let change;
        (phase, change) = condition.step(phase, (at, Some(30_000)), value);
        changes.extend(change.map(|change| (second, change)));
    }
    changes
}

#[test]
fn what_samples_make_of_a_condition() {
    use Change::{Ends, Fires};
    type Case<'a> = (&'a str, Condition, &'a [(i64, f64)], &'a [(i64, Change)]);
    let table: &[Case<'_>] = &[
        ("at the threshold is not beyond it", condition(10.0, 0, 0), &[(0, 10.0), (30, 10.0)], &[]),
        ("at once without for", condition(10.0, 0, 0), &[(0, 11.0)], &[(0, Fires)]),
        (
            "after for, not before",
            condition(10.0, 60, 0),
            &[(0, 11.0), (30, 11.0), (60, 11.0), (90, 11.0)],
            &[(60, Fires)],
        ),
        (
            "a good sample begins it anew",
            condition(10.0, 60, 0),
            &[(0, 11.0), (30, 9.0), (60, 11.0), (90, 11.0), (120, 11.0)],
            &[(120, Fires)],
        ),
        (
            "between the thresholds nothing changes",
            condition(8.0, 0, 0),
            &[(0, 11.0), (30, 9.0), (60, 10.5), (90, 8.5), (120, 8.0)],
            &[(0, Fires), (120, Ends)],
        ),
        (
            "calm must last",
            condition(8.0, 0, 60),
            &[(0, 11.0), (30, 1.0), (60, 9.0), (90, 1.0), (120, 1.0), (150, 1.0)],
            &[(0, Fires), (150, Ends)],
        ),
        (
            "a hole of up to three intervals and 15 s is bridged",
            condition(10.0, 90, 0),
            &[(0, 11.0), (105, 11.0)],
            &[(105, Fires)],
        ),
        (
            "a longer one is not known to be bad",
            condition(10.0, 90, 0),
            &[(0, 11.0), (106, 11.0), (136, 11.0), (196, 11.0)],
            &[(196, Fires)],
        ),
        (
            "nor known to be good",
            condition(10.0, 0, 60),
            &[(0, 11.0), (30, 1.0), (5000, 1.0), (5030, 1.0), (5060, 1.0)],
            &[(0, Fires), (5060, Ends)],
        ),
        (
            "what is not newer is not judged",
            condition(10.0, 30, 0),
            &[(0, 11.0), (-600, 1.0), (0, 1.0), (30, 11.0), (30, 1.0)],
            &[(30, Fires)],
        ),
    ];
    for (name, condition, samples, expected) in table {
        assert_eq!(run(condition, samples), *expected, "{name}");
        // The same below, mirrored.
        let mirrored = Condition {
            below: true,
            threshold: -condition.threshold,
            recover_threshold: -condition.recover_threshold,
            ..*condition
        };
        let samples: Vec<_> = samples.iter().map(|(at, value)| (*at, -value)).collect();
        assert_eq!(run(&mirrored, &samples), *expected, "{name}, below");
    }
}

/// Numbers that are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % end
    }
}

#[test]
fn constant_input_changes_at_most_once_whatever_the_condition_and_the_pace() {
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    for _ in 0..20_000 {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let (recover, value) = (numbers.below(11) as f64, numbers.below(22) as f64);
        let condition =
            condition(recover, numbers.below(600).cast_signed(), numbers.below(600).cast_signed());
        let mut second = 0;
        let samples: Vec<(i64, f64)> = (0..100)
            .map(|_| {
                second += numbers.below(200).cast_signed();
                (second, value)
            })
            .collect();
        let changes = run(&condition, &samples);
        assert!(changes.len() <= 1, "{condition:?} {value}: {changes:?}");
        assert!(changes.iter().all(|(_, change)| *change == Change::Fires));
        assert!(changes.is_empty() || condition.holds(value));
    }
}

#[test]
fn whatever_comes_begins_and_ends_take_turns_and_keep_their_times() {
    let mut numbers = Numbers(42);
    for _ in 0..5_000 {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let recover = numbers.below(11) as f64;
        let (for_s, calm_s) = (numbers.below(120).cast_signed(), numbers.below(120).cast_signed());
        let condition = condition(recover, for_s, calm_s);
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let samples: Vec<(i64, f64)> =
            (0..200).map(|at| (at * 30, numbers.below(22) as f64)).collect();
        let mut expected = Change::Fires;
        for (second, change) in run(&condition, &samples) {
            assert_eq!(change, expected);
            let (wide, is_right): (i64, fn(&Condition, f64) -> bool) = match change {
                Change::Fires => (for_s, Condition::holds),
                Change::Ends => (calm_s, Condition::is_calm),
            };
            let within = samples.iter().filter(|(at, _)| (second - wide..=second).contains(at));
            assert!(within.clone().all(|(_, value)| is_right(&condition, *value)));
            expected = if change == Change::Fires { Change::Ends } else { Change::Fires };
        }
    }
}

#[test]
fn an_object_that_is_missing_is_gone_after_an_hour_and_not_before() {
    let firing = Phase { began_at: START, last_at: START, firing: true, calm_since: None };
    let at = |minutes: i64| (START + Duration::minutes(minutes), Some(30_000));
    assert_eq!(missing(firing, at(60)), (Some(firing), None));
    assert_eq!(missing(firing, at(61)), (None, Some(Change::Ends)));
    let pending = Phase { firing: false, ..firing };
    assert_eq!(missing(pending, at(1)), (Some(pending), None));
    assert_eq!(missing(pending, at(2)), (None, None));
}
