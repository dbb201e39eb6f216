//! Bytes per process and per connection.

use std::process::Command;

use agent::config::CollectTier;
use shared_model::{
    ConnectionSample, ConnectionScope, Direction, InstanceId, ProcessExit, Report,
    TransportProtocol,
};

use super::host::{Host, TIERS, connections_of, report_with, traffic_of};
use super::peer::{Peer, transfer};

/// Tier A is exact. Tier B does not know whether a FIN came: a byte.
fn assert_near(tier: CollectTier, found: Option<u64>, truth: u64, what: &str) {
    let found = found.unwrap_or_else(|| panic!("{what} is unknown"));
    let slack = if tier == CollectTier::Auto { 0 } else { truth / 50 + 1 };
    assert!(found.abs_diff(truth) <= slack, "{what}: {found}, truth {truth}, {tier:?}");
}

/// One row of `instance`, with these bytes.
fn check_row(
    (report, tier): (&Report, CollectTier),
    instance: InstanceId,
    (direction, scope): (Direction, ConnectionScope),
    ports: (u16, u16),
    (received, sent): (u64, u64),
) {
    let rows = connections_of(report, instance);
    let [row] = rows[..] else { panic!("not one row: {rows:?}") };
    assert_eq!((row.protocol, row.direction), (TransportProtocol::Tcp, Some(direction)), "{row:?}");
    assert_eq!((row.scope, row.shared, row.connection_count), (Some(scope), false, 1), "{row:?}");
    assert_eq!((row.local_port, row.remote_port), ports, "{row:?}");
    assert_near(tier, row.receive_bytes, received, "received by a connection");
    assert_near(tier, row.transmit_bytes, sent, "sent by a connection");
    let (of_process, to_process) = traffic_of(report, instance);
    assert_near(tier, of_process, received, "received by a process");
    assert_near(tier, to_process, sent, "sent by a process");
}

fn port_of(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

#[test]
fn tcp_within_the_host() {
    // The last: IPv4 through a socket of IPv6.
    for (bind, connect) in
        [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "[::1]"), ("[::]:0", "127.0.0.1")]
    {
        for tier in TIERS {
            within_the_host(tier, bind, connect);
        }
    }
}

fn within_the_host(tier: CollectTier, bind: &str, connect: &str) {
    let (mut server, mut client) = (Peer::start(), Peer::start());
    let mut host = Host::start(tier);
    let service = port_of(&server.ask(&format!("listen {bind}")));
    let local = port_of(&client.ask(&format!("connect {connect}:{service}")));
    server.ask("accept");
    transfer(&mut client, &mut server, 100);
    let inbound = (Direction::Inbound, ConnectionScope::Loopback);
    let outbound = (Direction::Outbound, ConnectionScope::Loopback);
    let (to_service, from_service) = ((local, service), (service, local));

    let report = host.tick();
    check_row((&report, tier), server.instance_id, inbound, from_service, (100, 0));
    check_row((&report, tier), client.instance_id, outbound, to_service, (0, 100));

    transfer(&mut client, &mut server, 1_000_003);
    transfer(&mut server, &mut client, 200_001);
    let report = host.tick();
    check_row((&report, tier), server.instance_id, inbound, from_service, (1_000_003, 200_001));
    check_row((&report, tier), client.instance_id, outbound, to_service, (200_001, 1_000_003));

    // The last bytes of a connection that ends, and of a process that does.
    transfer(&mut client, &mut server, 50_000);
    client.ask("close");
    server.ask("close");
    let mut reports = Vec::new();
    let has = |instance| move |report: &Report| !connections_of(report, instance).is_empty();
    let (server, client) = (server.instance_id, client.instance_id);
    let report = report_with(&mut host, &mut reports, has(server));
    check_row((&report, tier), server, inbound, from_service, (50_000, 0));
    let report = report_with(&mut host, &mut reports, has(client));
    check_row((&report, tier), client, outbound, to_service, (0, 50_000));
    let report = host.tick();
    assert!(!has(server)(&report) && !has(client)(&report), "told once");
}

#[test]
fn datagrams() {
    for address in ["127.0.0.1", "[::1]"] {
        for tier in TIERS {
            let (mut server, mut client) = (Peer::start(), Peer::start());
            let service = port_of(&server.ask(&format!("udp-bind {address}:0")));
            let local = port_of(&client.ask(&format!("udp-bind {address}:0")));
            let mut host = Host::start(tier);
            client.ask(&format!("udp-connect {address}:{service}"));
            client.ask("udp-send 1000 40");
            server.ask("udp-receive 1000 40");
            let report = host.tick();
            let (sent, received) = (
                connections_of(&report, client.instance_id),
                connections_of(&report, server.instance_id),
            );
            if tier == CollectTier::Proc {
                // The kernel counts no bytes of them: no rows, and nothing is known of these processes.
                for instance in [client.instance_id, server.instance_id] {
                    assert_eq!(traffic_of(&report, instance), (None, None), "{address}");
                }
                assert!(sent.is_empty() && received.is_empty(), "{sent:?} {received:?}");
                let udp = report.agent.sources.iter().find(|one| one.fields == "udp_connections");
                assert_eq!(udp.unwrap().tier, None);
                continue;
            }
            let ([sent], [received]) = (&sent[..], &received[..]) else {
                panic!("not one row each: {sent:?} {received:?}")
            };
            assert_eq!((sent.protocol, sent.local_port), (TransportProtocol::Udp, local));
            assert_eq!((sent.remote_port, received.local_port), (service, service));
            assert_eq!((sent.transmit_bytes, sent.receive_bytes), (Some(40_000), Some(0)));
            assert_eq!((received.transmit_bytes, received.receive_bytes), (Some(0), Some(40_000)));
            assert_eq!(traffic_of(&report, client.instance_id), (Some(0), Some(40_000)));
            assert_eq!(traffic_of(&report, server.instance_id), (Some(40_000), Some(0)));
        }
    }
}

/// Where UDP is not counted, a process that holds such a socket has what its TCP moved, and null where that
/// is nothing.
#[test]
fn who_holds_both() {
    let (mut server, mut client) = (Peer::start(), Peer::start());
    let mut host = Host::start(CollectTier::Proc);
    server.ask("udp-bind 127.8.8.8:2054");
    let service = server.ask("listen 127.0.0.1:0");
    client.ask(&format!("connect {service}"));
    server.ask("accept");
    transfer(&mut client, &mut server, 5000);
    let report = host.tick();
    assert_eq!(traffic_of(&report, server.instance_id), (Some(5000), None));
    assert_eq!(traffic_of(&report, client.instance_id), (Some(0), Some(5000)));
}

/// 1 MiB over a connection that lives for moments, by a process that is dead at the next tick.
#[test]
fn a_connection_of_moments_by_a_process_that_is_gone() {
    for tier in TIERS {
        let mut server = Peer::start();
        let service = server.ask("listen 127.0.0.1:0");
        let mut host = Host::start(tier);
        let mut client = Peer::start();
        client.tell(&format!("burst {service} 1048576"));
        server.ask("accept");
        assert_eq!(server.ask("receive-all"), "1048576");
        server.ask("close");
        client.wait();
        let mut reports = Vec::new();
        let (server, client) = (server.instance_id, client.instance_id);
        let report = report_with(&mut host, &mut reports, |report| {
            !connections_of(report, server).is_empty()
        });
        let of_server = connections_of(&report, server);
        assert_eq!(of_server.len(), 1, "{of_server:?}");
        assert_near(tier, of_server[0].receive_bytes, 1_048_576, "received");
        let owner = (tier == CollectTier::Auto).then_some(client);
        let is_its = |row: &&ConnectionSample| {
            row.instance_id == owner && row.remote_port == port_of(&service)
        };
        let report = report_with(&mut host, &mut reports, |report| {
            report.connections.iter().any(|row| is_its(&row))
        });
        let row = report.connections.iter().find(is_its).unwrap();
        assert_near(tier, row.transmit_bytes, 1_048_576, "sent");
        assert_eq!((row.direction, row.connection_count), (Some(Direction::Outbound), 1));
        if tier == CollectTier::Proc {
            // It was never seen with its holder: it is a row of nobody.
            continue;
        }
        let is_its = |exit: &&ProcessExit| exit.instance_id == client;
        let report = report_with(&mut host, &mut reports, |report| {
            report.exits.iter().any(|exit| is_its(&exit))
        });
        let totals = &report.exits.iter().find(is_its).unwrap().totals;
        let moved = (totals.network_receive_bytes, totals.network_transmit_bytes);
        assert_eq!(moved, (Some(0), Some(1_048_576)), "in the totals of its life");
    }
}

/// Two network namespaces and a veth pair between them, removed at the end.
struct Namespaces {
    names: [String; 2],
}

impl Namespaces {
    fn make() -> Self {
        let names = ["a", "b"].map(|end| format!("procfleet-{}-{end}", std::process::id()));
        let made = Self { names };
        let [a, b] = &made.names;
        ip(&format!("netns add {a}"));
        ip(&format!("netns add {b}"));
        ip(&format!("-n {a} link add veth0 type veth peer name veth0 netns {b}"));
        for (name, last) in [(a, 1), (b, 2)] {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} addr add 10.213.7.{last}/24 dev veth0"));
            ip(&format!("-n {name} addr add fd00:213::{last}/64 dev veth0 nodad"));
            ip(&format!("-n {name} link set veth0 up"));
        }
        made
    }
}

impl Drop for Namespaces {
    fn drop(&mut self) {
        self.names.iter().for_each(|name| ip(&format!("netns delete {name}")));
    }
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn two_namespaces_with_the_same_address_and_port() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let namespaces = Namespaces::make();
    for tier in TIERS {
        // Within each: the same addresses and the same service port.
        let pair = |name: &str| (Peer::start_in(name), Peer::start_in(name));
        let mut pairs = namespaces.names.each_ref().map(|name| pair(name));
        let mut host = Host::start(tier);
        let mut locals = [0; 2];
        for ((server, client), local) in pairs.iter_mut().zip(&mut locals) {
            server.ask("listen 127.0.0.1:7000");
            *local = port_of(&client.ask("connect 127.0.0.1:7000"));
            server.ask("accept");
        }
        for ip_family in ["10.213.7.1:7001", "[fd00:213::1]:7001"] {
            // Between them.
            let [a, b] = &namespaces.names;
            let (mut server, mut client) = (Peer::start_in(a), Peer::start_in(b));
            server.ask(&format!("listen {ip_family}"));
            let local = port_of(&client.ask(&format!("connect {ip_family}")));
            server.ask("accept");
            host.tick();
            transfer(&mut client, &mut server, 300_000);
            transfer(&mut server, &mut client, 7000);
            let report = host.tick();
            let scope = ConnectionScope::Local;
            let (inbound, outbound) = ((Direction::Inbound, scope), (Direction::Outbound, scope));
            let made = (&report, tier);
            check_row(made, server.instance_id, inbound, (7001, local), (300_000, 7000));
            check_row(made, client.instance_id, outbound, (local, 7001), (7000, 300_000));
        }
        datagrams_between(&namespaces, &mut host, tier);
        for (at, (server, client)) in pairs.iter_mut().enumerate() {
            transfer(client, server, 10_000 * (at + 1));
        }
        let report = host.tick();
        for (((server, client), local), bytes) in pairs.iter().zip(locals).zip([10_000, 20_000]) {
            let scope = ConnectionScope::Loopback;
            let (inbound, outbound) = ((Direction::Inbound, scope), (Direction::Outbound, scope));
            let made = (&report, tier);
            check_row(made, server.instance_id, inbound, (7000, local), (bytes, 0));
            check_row(made, client.instance_id, outbound, (local, 7000), (0, bytes));
        }
    }
}

/// UDP across the pair, between the same ports in both.
fn datagrams_between(namespaces: &Namespaces, host: &mut Host, tier: CollectTier) {
    let [a, b] = &namespaces.names;
    for (of_a, of_b) in
        [("10.213.7.1:7002", "10.213.7.2:7002"), ("[fd00:213::1]:7002", "[fd00:213::2]:7002")]
    {
        let (mut one, mut other) = (Peer::start_in(a), Peer::start_in(b));
        one.ask(&format!("udp-bind {of_a}"));
        other.ask(&format!("udp-bind {of_b}"));
        one.ask(&format!("udp-connect {of_b}"));
        other.ask(&format!("udp-connect {of_a}"));
        one.ask("udp-send 500 30");
        other.ask("udp-receive 500 30");
        other.ask("udp-send 100 7");
        one.ask("udp-receive 100 7");
        let report = host.tick();
        for (peer, moved) in [(&one, (700, 15_000)), (&other, (15_000, 700))] {
            let rows = connections_of(&report, peer.instance_id);
            let traffic = traffic_of(&report, peer.instance_id);
            if tier == CollectTier::Proc {
                assert_eq!((rows.len(), traffic), (0, (None, None)));
                continue;
            }
            assert_eq!(traffic, (Some(moved.0), Some(moved.1)));
            let [row] = rows[..] else { panic!("not one row: {rows:?}") };
            assert_eq!((row.local_port, row.remote_port), (7002, 7002), "{row:?}");
            assert_eq!(row.scope, Some(ConnectionScope::Local), "{row:?}");
            assert_eq!((row.receive_bytes, row.transmit_bytes), (traffic.0, traffic.1));
        }
    }
}
