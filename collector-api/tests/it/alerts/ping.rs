//! The dead man's switch hears from a server whose alerts work, and from no other.

use collector_api::alerts::ping::{Pinged, ping};
use collector_api::alerts::provider::Kind;
use collector_api::config::secret_url::SecretUrl;

use super::kit::{Alerting, Answer, StandIn};
use super::silence::ONE_STOPS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_switch_is_pinged_only_while_hosts_are_watched_and_messages_leave() {
    let alerting = Alerting::create("ping").await;
    let switch = StandIn::start(&[Answer::Closed]).await;
    let url = SecretUrl::from(format!("http://{}/ping/canary-key", switch.address));
    assert!(!format!("{url:?}").contains("canary"));
    let once = async || ping(&alerting.store, &alerting.sender, &url).await;
    assert!(matches!(once().await, Pinged::KeptBack(_)), "nobody ever swept");
    alerting.hosts(5).await;
    alerting.store.sweep_silence().await.unwrap();
    let Pinged::Failed(why) = once().await else { panic!("the switch hung up") };
    assert!(!why.contains("canary"), "{why}");
    assert_eq!(once().await, Pinged::Heard);
    assert_eq!(switch.messages().len(), 2);

    // A message that waits for its provider's pause is not late, one that nobody takes is.
    let provider = StandIn::start(&[]).await;
    alerting.channel(Kind::Wecom, &provider).await;
    alerting.execute(ONE_STOPS).await;
    alerting.store.sweep_silence().await.unwrap();
    assert_eq!(once().await, Pinged::Heard);
    alerting.execute("update notifications set next_at = now() - interval '301 s'").await;
    assert!(matches!(once().await, Pinged::KeptBack(_)));
    alerting.execute("update channels set held_until = now() + interval '1 minute'").await;
    assert_eq!(once().await, Pinged::Heard);
    alerting.execute("update alert_sweep set last_ok_at = now() - interval '31 s'").await;
    assert!(matches!(once().await, Pinged::KeptBack(_)));
    assert_eq!(switch.messages().len(), 4);
}
