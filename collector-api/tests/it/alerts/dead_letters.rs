//! A channel that does not deliver is told through the others.

use collector_api::alerts::provider::Kind;
use collector_api::store::audit::Actor;

use super::kit::{Alerting, Answer, StandIn};

const REFUSED: Answer = Answer::Http(200, "", r#"{"errcode":93000}"#);
const OPEN: &str =
    "select count(*) from alerts where rule = 'notification_dead' and resolved_at is null";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_channel_gives_up_the_others_tell_until_it_delivers_again() {
    let alerting = Alerting::create("dead_letters").await;
    let (broken, other) = (StandIn::start(&[REFUSED]).await, StandIn::start(&[]).await);
    let broken_id = alerting.channel(Kind::Wecom, &broken).await;
    alerting.channel(Kind::Slack, &other).await;
    alerting.open(&["one".into()]).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 1);
    assert_eq!(broken.messages().len(), 1, "the broken one is not told of itself");
    let told: Vec<String> = other.messages().iter().map(|m| m["text"].to_string()).collect();
    let about = |word: &str| told.iter().filter(|text| text.contains(word)).count();
    assert_eq!((told.len(), about("one"), about("does not take messages")), (2, 1, 1), "{told:?}");

    // It is one alert, however much is given up.
    broken.will_say(REFUSED);
    alerting.open(&["two".into()]).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 1);
    alerting.open(&["three".into()]).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 0, "it delivered");
    let last = other.messages().last().unwrap()["text"].to_string();
    assert!(last.contains("resolved"), "{last}");

    // A channel that is removed fails no more.
    broken.will_say(REFUSED);
    alerting.open(&["four".into()]).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 1);
    assert!(alerting.store.delete_channel(broken_id, &Actor::cli()).await.unwrap());
    assert_eq!(alerting.count(OPEN).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_channels_that_both_fail_tell_of_each_other_once_and_come_to_rest() {
    let alerting = Alerting::create("both_dead").await;
    let (one, two) = (StandIn::start(&[]).await, StandIn::start(&[]).await);
    for stand_in in [&one, &two] {
        alerting.channel(Kind::Wecom, stand_in).await;
        for _ in 0..20 {
            stand_in.will_say(REFUSED);
        }
    }
    alerting.open(&["one".into()]).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 2);
    assert_eq!(one.messages().len() + two.messages().len(), 4, "the alert, and each of the other");
    assert_eq!(alerting.count("select count(*) from notifications where state <> 'dead'").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attempts_that_are_used_up_are_told_as_well() {
    let alerting = Alerting::create("used_up").await;
    let (broken, other) = (StandIn::start(&[Answer::Closed]).await, StandIn::start(&[]).await);
    let broken_id = alerting.channel(Kind::Wecom, &broken).await;
    alerting.channel(Kind::Slack, &other).await;
    alerting.open(&["one".into()]).await;
    let last = format!("update notifications set attempts = 9 where channel_id = '{broken_id}'");
    alerting.execute(last.leak()).await;
    alerting.deliver().await;
    assert_eq!(alerting.count(OPEN).await, 1);
}
